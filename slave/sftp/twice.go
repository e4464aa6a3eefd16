package sftp

import (
	"sync"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// twice are the names that were parked since the root was stamped, of inodes that had others. Each counts as one of its
// inode's until Clean comes to it, so those whose inode is in the tree are taken out of the park before the root is stamped
// (see slave/disk). Its zero value is ready.
type twice struct {
	mu    sync.Mutex
	names []parkedName
}

// parkedName is a name of an inode, as a path below parked/, and the names that the inode had in the tree.
type parkedName struct {
	gfid   xtime.GFID
	path   string
	others []string
}

const (
	maxTwice      = 100_000 // what is beyond it stays until Clean
	othersOfTwice = 4       // of which one is enough
)

func (w *twice) add(g xtime.GFID, path string, others []string) {
	if len(others) == 0 || g.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.names) < maxTwice {
		w.names = append(w.names, parkedName{g, path, append([]string(nil), others[:min(len(others), othersOfTwice)]...)})
	}
}

func (w *twice) take() []parkedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.names
	w.names = nil
	return out
}

// dropTwice takes those names away whose inode is in the tree. What cannot be is logged, and left to Clean.
func (t *Tree) dropTwice() {
	names := t.twice.take()
	if !t.first().CanLink() {
		return // they are copies
	}
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for _, one := range names {
		g.Go(func() error { return t.dropParked(one) })
	}
	if err := g.Wait(); err != nil && t.first().Err() == nil {
		t.log.Warn().Err(err).Msg("take away a further name that is parked")
	}
}

func (t *Tree) dropParked(one parkedName) error {
	defer t.busyInodes.lock(one.gfid)()
	for _, name := range one.others {
		live, _, ok := t.verify(one.gfid, name)
		if !ok {
			continue
		}
		p := parkedPlace(one.path)
		if dir, _ := beneath.Split(one.path); dir != "" {
			var err error
			if p, err = t.withinPlace(one.path); err != nil {
				return ignoreAbsent(err)
			}
		}
		f, err := t.look(p)
		if err != nil || !f.known || f.gfid() != one.gfid || f.entry.ID != live.entry.ID {
			return err
		}
		if err := t.unstampWithin(one.path); err != nil {
			return err
		}
		return t.change(p, nil, func() error { return ignoreAbsent(t.any().Remove(t.abs(p.path))) })
	}
	return nil
}
