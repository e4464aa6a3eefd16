package crawler

import (
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

// TestNamesOfManyStates: an inode that gets names all the time is marked with each, so each may be listed in another state. The
// newest of those that wait is shipped, and all others become links: two turns, whatever their number.
func TestNamesOfManyStates(t *testing.T) {
	var l links
	turns, linked := 0, 0
	rec := func(x int) slave.Record { return slave.Record{GFID: xtime.GFID{1}, Xtime: xtime.Time(x)} }
	var holds []slave.Record
	for i := range 1000 {
		x := waiter{record: rec(1 + i*7919%1000)}
		x.turn = func(shipped inode) {
			if x.linksTo(shipped) {
				linked++
				return
			}
			turns++
			holds = append(holds, x.record)
		}
		l.acquire(x)
	}
	for len(holds) > 0 {
		op := slave.Op{Path: "f", Record: holds[0]}
		holds = holds[1:]
		l.release(&op, true)
	}
	if turns != 2 || linked != 998 {
		t.Errorf("%d turns, %d links", turns, linked)
	}
}
