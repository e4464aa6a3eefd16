package disk

import (
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

func TestNewer(t *testing.T) {
	rec := func(x xtime.Time) slave.Record { return slave.Record{Xtime: x} }
	for _, c := range []struct {
		a, b, want xtime.Time
		newer      bool
	}{
		{1, 1, 1, false}, {2, 1, 2, true}, {1, 2, 2, false}, {3, 1, 2, true}, {1, 3, 2, false}, {1, 3, 1, true},
		{3, 1, 1, false}, {0, 1, 2, false}, {1, 0, 2, true},
	} {
		if got := newer(rec(c.a), rec(c.b), rec(c.want)); got != c.newer {
			t.Errorf("newer(%d, %d), wanted %d: %v", c.a, c.b, c.want, got)
		}
	}
}
