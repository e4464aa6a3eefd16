package crawler

import (
	"testing"
	"time"
)

func TestShareOfDistance(t *testing.T) {
	var d distance
	for _, c := range []struct {
		took time.Duration
		want int64
	}{{100 * time.Millisecond, 1}, {time.Second, 1}, {60 * time.Millisecond, 1}, {40 * time.Millisecond, 2}, {time.Millisecond, 4}, {time.Hour, 4}} {
		if got := d.share(c.took); got != c.want {
			t.Errorf("after %v: %d, want %d", c.took, got, c.want)
		}
	}
}
