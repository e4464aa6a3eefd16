package disk

import (
	"errors"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// This file has the names that are parked while their inode has others. Such a name brings nothing back that the others
// would not, but it counts: the inode would have more names than on the master, until Clean comes to it. So those whose
// inode is in the tree are taken out of the park before the root is stamped. The cost follows the names that were removed,
// and only those of inodes with several.

// parkedName is a name of an inode, as a path below parked/.
type parkedName struct {
	gfid xtime.GFID
	path string
}

// twice are the names that were parked since the root was stamped, of inodes that had others. The committer owns it.
type twice struct {
	names map[xtime.GFID][]string
	looks map[xtime.GFID]uint8 // how often the inode was not in the tree
	count int
	all   bool // an earlier session may have left some
}

// add notes a name. What is beyond the bound stays until Clean.
func (w *twice) add(n parkedName) {
	if n.gfid.IsZero() || w.count >= maxBehind {
		return
	}
	if w.names == nil {
		w.names = map[xtime.GFID][]string{}
	}
	w.names[n.gfid] = append(w.names[n.gfid], n.path)
	w.count++
}

// looked forgets the names of an inode that was in the tree. One that was not may come back through one of them, so it is
// looked for again.
func (w *twice) looked(g xtime.GFID, there bool) {
	if w.looks == nil {
		w.looks = map[xtime.GFID]uint8{}
	}
	if w.looks[g]++; !there && w.looks[g] < maxLooks {
		return
	}
	w.count -= len(w.names[g])
	delete(w.names, g)
	delete(w.looks, g)
}

// dropTwice takes those names away whose inode is in the tree. What cannot be is logged, and left to Clean.
func (t *Tree) dropTwice() {
	if t.work.twice.all {
		t.findTwice()
	}
	var parked []string
	for g, names := range t.work.twice.names {
		live, ok := t.inTree(g)
		for _, path := range names {
			if ok && t.leadsBelowParked(path, live) {
				parked = append(parked, path)
			}
		}
		t.work.twice.looked(g, ok)
	}
	if len(parked) == 0 {
		return
	}
	err := t.unstampWithin(parked...)
	for _, path := range parked {
		if err == nil {
			err = t.unlinkParked(path)
		}
	}
	if err != nil {
		t.log.Warn().Err(err).Msg("take away a further name that is parked")
	}
}

// inTree finds a name in the tree of an inode that is no directory.
func (t *Tree) inTree(g xtime.GFID) (named, bool) {
	if n, ok := t.placed(g); ok {
		return n, n.kind != slave.Dir
	}
	for _, name := range t.readIndex(g).names {
		if n, ok := t.verify(g, name); ok {
			return n, true
		}
	}
	return named{}, false
}

// leadsBelowParked tells whether a path below parked/ is a name of an inode.
func (t *Tree) leadsBelowParked(path string, of named) bool {
	p, done, err := t.parkedPlace(path)
	if err != nil {
		return false
	}
	defer done()
	st, err := p.dir.Stat(p.name)
	return err == nil && sameInode(st, of.st)
}

// findTwice notes the names that an earlier session parked and did not take away: it ended before it had stamped the root. It
// looks at so many entries at most.
func (t *Tree) findTwice() {
	t.work.twice.all = false
	looked, full := 0, errors.New("enough")
	todo := []string{""}
	for len(todo) > 0 && looked < maxBehind && t.unclosed() {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := t.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			if looked++; looked > maxBehind {
				return full
			}
			path := beneath.Join(dir, e.Name)
			switch st, err := d.Stat(e.Name); {
			case err != nil:
			case st.IsDir():
				todo = append(todo, path)
			case st.Nlink > 1:
				g, _ := d.RecordedGFID(e.Name, &t.names)
				t.work.twice.add(parkedName{g, path})
			}
			return nil
		})
		d.Close()
		if err != nil && err != full {
			t.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
}
