package index

import (
	"cmp"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
)

// saving is a node on its way to the store.
type saving struct {
	n      *node
	count  int // changes that its text has
	staged Staged
	saved  bool
}

// Flush writes every change that was made before it, and returns when all of it is in its place. Parts go before the nodes
// that were split into them. sync, unless it is nil, makes durable what the entries are about: it is called beside the
// staging, and once more when all is staged and nothing is in its place yet, for what came since.
func (x *Index) Flush(sync func() error) error {
	x.flushMu.Lock()
	defer x.flushMu.Unlock()
	todo := x.collect()
	// From here on the nodes count as clean, and changes count anew.
	err := x.stage(todo, sync)
	if err == nil && sync != nil {
		err = sync()
	}
	// One depth after the other: a node that says that it is split must not be there before its parts are.
	for level := todo; len(level) > 0 && err == nil; {
		n := 1
		for n < len(level) && len(level[n].n.key.way) == len(level[0].n.key.way) {
			n++
		}
		err = commitAll(level[:n])
		level = level[n:]
	}
	x.saved(todo)
	return err
}

// collect lists the dirty nodes, the deepest first. None of them is split from now on: its parts would not be on the list.
func (x *Index) collect() (todo []*saving) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.divideAll()
	for _, n := range x.nodes {
		if n.dirty > 0 {
			n.saving = true
			todo = append(todo, &saving{n: n})
		}
	}
	slices.SortFunc(todo, func(a, b *saving) int { return cmp.Compare(len(b.n.key.way), len(a.n.key.way)) })
	return todo
}

// divideAll splits what grew too large while it was on its way to the store. The parts may be too large as well.
func (x *Index) divideAll() {
	var todo []*node
	for _, n := range x.nodes {
		if n.dirty > 0 && n.tooLarge() {
			todo = append(todo, n)
		}
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		x.divide(n)
		for _, c := range digits {
			if part := x.nodes[nodeKey{n.key.dir, n.key.way + string(c)}]; part.tooLarge() {
				todo = append(todo, part)
			}
		}
	}
}

// stage brings the nodes to the store as they are now; what is changed meanwhile makes them dirty again.
func (x *Index) stage(todo []*saving, sync func() error) error {
	// No context: a flush that was begun is carried through, for a node that is left out has to be written again
	// anyway.
	g := new(errgroup.Group)
	if sync != nil {
		g.Go(sync)
	}
	slots := make(chan struct{}, savesAtOnce)
	for _, s := range todo {
		slots <- struct{}{}
		g.Go(func() (err error) {
			defer func() { <-slots }()
			x.mu.Lock()
			s.count, s.n.dirty = s.n.dirty, 0
			x.dirty -= s.count
			text := encode(s.n.split, s.n.entries)
			x.mu.Unlock()
			s.staged, err = x.store.Stage(s.n.key.file(), text)
			return err
		})
	}
	return g.Wait()
}

// commitAll puts the nodes of one depth in their places.
func commitAll(level []*saving) error {
	errs := make(chan error, len(level))
	for _, s := range level {
		go func() {
			err := s.staged.Commit()
			s.saved = err == nil
			errs <- err
		}()
	}
	var err error
	for range level {
		err = errors.Join(err, <-errs)
	}
	return err
}

// saved takes the nodes back: those that did not get to their places are as dirty as they were.
func (x *Index) saved(todo []*saving) {
	for _, s := range todo {
		if s.staged != nil && !s.saved {
			s.staged.Drop()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range todo {
		s.n.saving = false
		if !s.saved {
			s.n.dirty += s.count
			x.dirty += s.count
		} else if s.n.dirty == 0 {
			x.rest(s.n)
		}
	}
}
