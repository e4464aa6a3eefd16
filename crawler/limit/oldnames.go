package limit

import (
	"maps"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// oldNames counts old names that inodes left when they moved, by directory. The zero value has none. It is bounded: names beyond
// count as what they are, entries of their directories.
type oldNames struct {
	sum   int
	count map[string]int64        // in or below a directory
	names map[string][]xtime.GFID // in it, by inode
}

// add notes a name in dir.
func (b *oldNames) add(dir string, g xtime.GFID) {
	if b.count == nil {
		b.count, b.names = map[string]int64{}, map[string][]xtime.GFID{}
	}
	if len(b.count) >= maxCounted || b.sum >= maxCounted {
		return
	}
	b.sum++
	b.names[dir] = append(b.names[dir], g)
	for up := dir; up != ""; up, _ = beneath.Split(up) {
		b.count[up]++
	}
}

// parked forgets the names that have left the tree with a directory, and tells whose they were.
func (b *oldNames) parked(dir string) (gone []xtime.GFID) {
	n := b.count[dir]
	if n == 0 {
		return nil
	}
	for at, names := range b.names {
		if at == dir || strings.HasPrefix(at, dir+"/") {
			gone = append(gone, names...)
			delete(b.names, at)
		}
	}
	b.sum -= len(gone)
	for up := dir; up != ""; up, _ = beneath.Split(up) {
		b.count[up] -= n
	}
	maps.DeleteFunc(b.count, func(at string, n int64) bool { return n == 0 || strings.HasPrefix(at, dir+"/") })
	return gone
}
