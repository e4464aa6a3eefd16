package sftp

import (
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave/sftp/index"
)

// twice are the names that were parked since the root was stamped, of inodes that had others. Each
// counts as one of its inode's until Clean comes to it, so those whose inode is in the tree are
// taken out of the park before the root is stamped (see slave/disk). It may be used from anywhere;
// its zero value is ready. It is advice: all is looked at before anything is taken away.
type twice struct {
	mu    sync.Mutex
	of    map[xtime.GFID]*namesTwice
	count int
}

// namesTwice are names of an inode: those that were parked, as paths below parked/, and some that it has, or had, in the tree.
type namesTwice struct {
	parked []string
	others []string
	looks  uint8 // how often it was not known whether the inode is in the tree
}

const (
	maxTwice      = 100_000 // what is beyond it stays until Clean
	othersOfTwice = 4       // the last ones, of which one is enough
	// maxLooks is how many stamps of the root names outlast of which it is not known whether they are needed: the inode's other name
	// may lie in a directory that has yet to come back. After that they are left to Clean.
	maxLooks = 64
)

// add notes a name that was parked, and others of its inode.
func (w *twice) add(g xtime.GFID, path string, others []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.IsZero() || w.count >= maxTwice {
		return
	}
	if w.of == nil {
		w.of = map[xtime.GFID]*namesTwice{}
	}
	one := w.of[g]
	if one == nil {
		one = &namesTwice{}
		w.of[g] = one
	}
	one.parked, one.looks = append(one.parked, path), 0
	one.has(others)
	w.count++
}

// has notes names in the tree, of which the last few are kept.
func (n *namesTwice) has(names []string) {
	n.others = append(n.others, names...)
	n.others = n.others[max(0, len(n.others)-othersOfTwice):]
}

// learn notes names that an inode has in the tree, where others of it are parked.
func (w *twice) learn(g xtime.GFID, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.of[g]; one != nil {
		one.has(names)
	}
}

// none tells that nothing is noted.
func (w *twice) none() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.of) == 0
}

// take gives all that is noted, and forgets it. What is still needed comes back by keep.
func (w *twice) take() map[xtime.GFID]*namesTwice {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.of
	w.of, w.count = nil, 0
	return out
}

// keep takes back what is left of what take gave, a few times: after maxLooks it is left to Clean.
func (w *twice) keep(g xtime.GFID, left *namesTwice) {
	if left.looks++; left.looks >= maxLooks {
		return
	}
	for _, path := range left.parked {
		w.add(g, path, nil)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.of[g]; one != nil {
		one.looks = left.looks
		one.has(left.others)
	}
}

// renamed notes that a parked entry has another name.
func (w *twice) renamed(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.of {
		for i, path := range one.parked {
			if top, _ := cut(path); top == from {
				one.parked[i] = to + path[len(from):]
			}
		}
	}
}

// leftovers takes parked names away whose inode is in the tree (twice).
type leftovers struct {
	*changer
	busy  *busy
	links *links
	park  *park
}

// dropTwice takes those names away whose inode is in the tree. What cannot be is logged, and left
// to Clean. On a server that makes no links they are copies, and none counts for another.
func (lo *leftovers) dropTwice() {
	all := lo.park.twice.take()
	if !lo.first().CanLink() {
		return // they are copies
	}
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for gfid, one := range all {
		g.Go(func() error {
			left, err := lo.dropOf(gfid, one)
			if left {
				lo.park.twice.keep(gfid, one)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil && lo.first().Err() == nil {
		lo.log.Warn().Err(err).Msg("take away a further name that is parked")
	}
}

// dropOf takes the parked names of an inode away. left tells that it is not known whether the inode is in the tree: the index says
// so first, which costs no request.
func (lo *leftovers) dropOf(g xtime.GFID, one *namesTwice) (left bool, err error) {
	defer lo.busy.inodes.lock(g)()
	row, err := lo.links.row(g)
	if err != nil {
		return false, err
	}
	row.names = append(row.names, one.others...)
	live := map[index.ID]bool{}
	for _, name := range row.names {
		if e, ok := lo.recorded(g, name); ok && !live[e.ID] {
			_, _, live[e.ID] = lo.verify(g, name)
		}
	}
	if len(live) == 0 {
		return true, nil
	}
	one.parked = slices.DeleteFunc(one.parked, func(path string) bool {
		still := false
		if err == nil {
			still, err = lo.dropParked(g, path, live)
		}
		return !still
	})
	return len(one.parked) > 0, err
}

// dropParked takes one of them away, if the tree has the same inode. left tells that it has not.
func (lo *leftovers) dropParked(g xtime.GFID, path string, live map[index.ID]bool) (left bool, err error) {
	p := parkedPlace(path)
	if dir, _ := beneath.Split(path); dir != "" {
		if p, err = lo.park.placeBelow(path); err != nil {
			return false, ignoreAbsent(err)
		}
	}
	f, err := lo.look(p)
	if err != nil || !f.known || f.gfid() != g {
		return false, err
	}
	if !live[f.entry.ID] {
		return true, nil
	}
	if err := lo.park.unstampAbove(path); err != nil {
		return false, err
	}
	return false, lo.change(p, nil, func() error { return ignoreAbsent(lo.any().Remove(lo.abs(p.path))) })
}
