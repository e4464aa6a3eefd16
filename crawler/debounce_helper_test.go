package crawler

import (
	"georep/marker/hint"
	"georep/marker/xtime"
)

// hintOf is the hint of a mark at which names changed in the root.
func hintOf(seq uint64, before, at xtime.Time, names ...string) *hint.Hint {
	d := hint.Dir{GFID: xtime.GFID{1}, Before: before}
	for _, n := range names {
		d.Names = append(d.Names, hint.Name{Name: n})
	}
	return &hint.Hint{Seq: seq, Xtime: at, Dirs: []hint.Dir{d}}
}
