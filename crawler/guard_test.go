package crawler

import (
	"testing"
	"time"

	"georep/marker/xtime"
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
