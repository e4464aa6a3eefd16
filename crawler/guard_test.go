package crawler

import (
	"testing"
	"time"
)

func TestLosses(t *testing.T) {
	now := time.Unix(1000, 0)
	l := losses{now: func() time.Time { return now }}
	l.add(10)
	l.add(5)
	now = now.Add(30 * time.Second)
	l.add(7)
	l.add(-3)
	if n := l.lately(); n != 19 {
		t.Errorf("%d, want 19", n)
	}
	now = now.Add(31 * time.Second)
	if n := l.lately(); n != 4 {
		t.Errorf("a minute later %d, want 4", n)
	}
	l.add(-100)
	if n := l.lately(); n != 0 {
		t.Errorf("what came counts as %d removed", n)
	}
	l.add(50)
	if n := l.lately(); n != 50 {
		t.Errorf("after what came, and 50 that were removed: %d", n)
	}
	now = now.Add(time.Hour)
	if n := l.lately(); n != 0 || len(l.list) != 0 {
		t.Errorf("an hour later %d, in %d entries", n, len(l.list))
	}
}
