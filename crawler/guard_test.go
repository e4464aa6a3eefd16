package crawler

import (
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

func TestLosses(t *testing.T) {
	now := time.Unix(1000, 0)
	l := losses{now: func() time.Time { return now }}
	lose := func(id byte, n int64) { l.lose(&leaving{gfid: xtime.GFID{id}, old: n}) }
	n := &node{}
	arrive := func(id byte) { l.arrive(arrival{dir: n, name: "f", gfid: xtime.GFID{id}}, true) }
	lose(1, 10)
	lose(2, 5)
	now = now.Add(30 * time.Second)
	lose(3, 7)
	for id := range byte(3) {
		arrive(10 + id)
	}
	if n := l.lately(); n != 19 {
		t.Errorf("%d, want 19", n)
	}
	now = now.Add(31 * time.Second)
	l.start()
	if n := l.lately(); n < 4 || n > 7 {
		t.Errorf("a minute later %d, want what is left of 7", n)
	}
	for id := range byte(100) {
		arrive(100 + id)
	}
	if n := l.lately(); n != 0 {
		t.Errorf("what came counts as %d removed", n)
	}
	lose(4, 50)
	if n := l.lately(); n != 50 {
		t.Errorf("after what came, and 50 that were removed: %d", n)
	}
	now = now.Add(time.Hour)
	l.start()
	if n := l.lately(); n != 0 || len(l.lost) != 0 {
		t.Errorf("an hour later %d, of %d inodes", n, len(l.lost))
	}
}

// TestOldNamesGoWithTheirDirectory: inodes that moved, and left their old names in a directory, are two names each until that is
// parked. From then on the removal of one loses it, and counts.
func TestOldNamesGoWithTheirDirectory(t *testing.T) {
	now := time.Unix(1000, 0)
	l := losses{now: func() time.Time { return now }}
	g := guard{opts: &Options{MaxDelete: 50}, losses: &l}
	ids := []xtime.GFID{{1}, {2}, {3}}
	for i, from := range []string{"a/d/f", "a/d/sub/f", "a/dd/f"} {
		g.leaves(&slave.Op{Kind: slave.OpLink, Path: "e/" + from, From: from, Record: slave.Record{GFID: ids[i]}})
	}
	if got := [3]int64{g.oldNames.count["a"], g.oldNames.count["a/d"], g.oldNames.count["a/dd"]}; got != [3]int64{3, 2, 1} {
		t.Errorf("left behind: %v", got)
	}
	g.promise([]leaving{{path: "a/d", gfid: xtime.GFID{9}, dir: true, all: 4, old: 2}})
	g.ended(&slave.Op{Kind: slave.OpPark, Path: "a/d"}, slave.Result{Parked: true})
	if n := l.lately(); n != 2 {
		t.Errorf("%d lost, want the directories themselves", n)
	}
	for i, want := range []int32{0, 0, 1} {
		if n := l.isYoung(dirKey(ids[i])); n != want {
			t.Errorf("inode %d: %d names may go uncounted, want %d", i, n, want)
		}
	}
	if got := [3]int64{g.oldNames.count["a"], g.oldNames.count["a/d"], g.oldNames.count["a/dd"]}; got != [3]int64{1, 0, 1} {
		t.Errorf("left behind after that: %v", got)
	}
}
