package disk

import (
	"errors"
	"slices"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
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

// twice are the names that were parked since the root was stamped, of inodes that had others. The
// committer owns it. It is advice, like all that is known of the park; looks are made before
// anything is taken away.
type twice struct {
	names map[xtime.GFID][]string
	looks map[xtime.GFID]uint8 // how often it was not known whether the inode is in the tree
	count int
	all   bool // an earlier session may have left some
}

// maxTwice is how many stamps of the root a name outlasts of which it is not known whether it is needed. After that it is left to
// Clean.
const maxTwice = 64

// add notes a name. What is beyond the bound stays until Clean. It is called when a name is parked
// whose inode has others, which the caller has seen.
func (w *twice) add(n parkedName) {
	if n.gfid.IsZero() || w.count >= maxLeftover {
		return
	}
	if w.names == nil {
		w.names = map[xtime.GFID][]string{}
	}
	w.names[n.gfid] = append(w.names[n.gfid], n.path)
	w.count++
	delete(w.looks, n.gfid)
}

// renamed notes that a parked entry has another name.
func (w *twice) renamed(from, to string) {
	for _, names := range w.names {
		for i, path := range names {
			if top, _, _ := strings.Cut(path, "/"); top == from {
				names[i] = to + path[len(from):]
			}
		}
	}
}

// keep goes on with those names of an inode of which it is not known yet whether the inode is in
// the tree, a few times. Each look is one crawl that stamped the root, so a name goes sooner or
// later.
func (w *twice) keep(g xtime.GFID, names []string) {
	if w.looks == nil {
		w.looks = map[xtime.GFID]uint8{}
	}
	if w.looks[g]++; w.looks[g] >= maxTwice {
		names = nil
	}
	w.count -= len(w.names[g]) - len(names)
	if w.names[g] = names; len(names) == 0 {
		delete(w.names, g)
		delete(w.looks, g)
	}
}

// dropTwice takes those names away whose inode is in the tree. What cannot be is logged, and left
// to Clean. It runs with park.mu held, just before the root's stamp. An error of one name leaves
// the rest where they are.
func (lo *leftovers) dropTwice() {
	if lo.park.twice.all {
		lo.findTwice()
	}
	var parked []string
	for g, names := range lo.park.twice.names {
		drop, left := lo.sortTwice(g, names)
		parked = append(parked, drop...)
		lo.park.twice.keep(g, left)
	}
	if len(parked) == 0 {
		return
	}
	err := lo.park.index.unstampAbove(parked...)
	for _, path := range parked {
		if err == nil {
			err = lo.park.scrap(path)
		}
	}
	if err != nil {
		lo.log.Warn().Err(err).Msg("remove a further name from the park")
	}
}

// sortTwice tells the parked names that are to go, since their inode is in the tree, from those of which it is not known yet. How
// many names it should have does not count: what is known of that may be older than the removal of the last one, and a name that
// comes back after all is linked again. There may be several copies of an inode.
func (lo *leftovers) sortTwice(g xtime.GFID, names []string) (drop, left []string) {
	copies, parked := map[uint64]beneath.Stat{}, map[uint64][]string{}
	slices.Sort(names)
	for _, path := range slices.Compact(names) { // what was parked, taken out and parked again is there twice
		if st, err := lo.park.stat(path); err == nil && st.Nlink > 1 {
			copies[st.Ino], parked[st.Ino] = st, append(parked[st.Ino], path)
		}
	}
	if len(parked) == 0 {
		return nil, nil
	}
	live := lo.finder.knownNames(g, lo.links.rowNow(g).names, "")
	for ino, paths := range parked {
		there := func(n named) bool { return sameInode(n.st, copies[ino]) }
		if slices.ContainsFunc(live, there) {
			drop = append(drop, paths...)
		} else {
			left = append(left, paths...)
		}
	}
	return drop, left
}

// findTwice notes the names that an earlier session parked and did not take away: it ended before
// it had stamped the root. It looks at so many entries at most. It is needed once a session, and
// only where the park is not empty.
func (lo *leftovers) findTwice() {
	lo.park.twice.all = false
	looked, full := 0, errors.New("enough")
	todo := []string{""}
	for len(todo) > 0 && looked < maxLeftover && lo.unclosed() {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := lo.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			if looked++; looked > maxLeftover {
				return full
			}
			path := beneath.Join(dir, e.Name)
			switch st, err := d.Stat(e.Name); {
			case err != nil:
			case st.IsDir():
				todo = append(todo, path)
			case st.Nlink > 1:
				g, _ := d.RecordedGFID(e.Name, &lo.names)
				lo.park.twice.add(parkedName{g, path})
			}
			return nil
		})
		d.Close()
		if err != nil && err != full {
			lo.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
}
