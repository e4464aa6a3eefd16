package disk

import (
	"georep/marker/xtime"
	"georep/slave"
)

// This file has the names that moves leave behind. An inode with one name on the master may get its new one here before
// anybody knows what its old name leads to by now: the directory of that has moved, too, or was removed. The old one stays
// until its directory is visited, because a stamp may claim a name there. If that directory was removed, it takes the name
// along to where it is parked, and the inode would have two until Clean comes to it. So when the root is finished, and
// all directories have been visited, such names are taken out of the park.

// leftoverNames are inodes that may have left a name behind, and how often their names were looked for. The committer owns it.
type leftoverNames map[xtime.GFID]uint8

const (
	// maxLeftover bounds the inodes whose names are looked for. Those of others stay parked until Clean.
	maxLeftover = 100_000
	// maxLooks is how many crawls a name may take to be parked.
	maxLooks = 8
)

// leftovers takes names out of the park that are there although their inode is in the tree: those that moves left behind, and those
// that were parked while the inode had others (twice.go). The committer owns it.
type leftovers struct {
	*records
	finder     *finder
	links      *links
	park       *park
	candidates leftoverNames
}

// leaves notes that an inode which has one name on the master got a further one here. Beyond
// maxLeftover inodes nothing is noted. Then the parked name stays until Clean, which is harmless
// but shows one name too many.
func (b leftoverNames) leaves(op *slave.Op) {
	if g := op.Record.GFID; op.Links <= 1 && len(b) < maxLeftover {
		b[g] = 0
	}
}

// dropParkedNames takes the parked names of such inodes away. What cannot be is logged, and left to
// Clean. The stamps above go first and durably: a parked directory that came back must not claim a
// name that was taken out.
func (lo *leftovers) dropParkedNames() {
	var parked []string // below parked/
	for g := range lo.candidates {
		path, done := lo.parkedName(g)
		if path != "" {
			parked = append(parked, path)
		}
		if lo.candidates[g]++; done || lo.candidates[g] >= maxLooks {
			delete(lo.candidates, g)
		}
	}
	if len(parked) == 0 {
		return
	}
	err := lo.park.index.unstampAbove(parked...)
	for _, path := range parked {
		if err == nil {
			err = lo.park.unlink(path)
		}
	}
	if err != nil {
		lo.log.Warn().Err(err).Msg("remove a leftover name from the park")
	}
}

// parkedName finds a parked name of an inode, as a path below parked/; "" if there is none. done tells that nothing is to be
// looked for again.
func (lo *leftovers) parkedName(g xtime.GFID) (path string, done bool) {
	n, ok := lo.finder.placed(g)
	if !ok || n.kind == slave.Dir || n.st.Nlink < 2 || lo.links.row(g).Want > 1 {
		return "", true
	}
	if name, same, err := lo.park.parkedAs(g, n.st); err == nil && same {
		return name, n.st.Nlink == 2
	}
	path, e, ok := lo.park.index.find(g)
	if !ok || !sameInode(e.st, n.st) {
		return "", false
	}
	return path, n.st.Nlink == 2
}
