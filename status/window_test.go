package status

import (
	"math"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type point struct {
		at    float64
		value int64
	}
	for name, c := range map[string]struct {
		points []point
		now    float64
		want   float64
	}{
		"nothing":                   {nil, 1, 0},
		"one value":                 {[]point{{0, 100}}, 5, 0},
		"two values":                {[]point{{0, 100}, {2, 150}}, 2, 25},
		"two at once":               {[]point{{0, 100}, {0, 150}}, 0, 0},
		"young":                     {[]point{{0, 0}, {1, 10}, {2, 20}, {4, 80}}, 4, 20},
		"older values do not count": {[]point{{0, 0}, {1, 1_000_000}, {11, 1_000_100}, {21, 1_000_200}}, 21, 10},
		"begins between samples":    {[]point{{0, 0}, {8, 80}, {16, 160}}, 16, 10},
		"falls while silent":        {[]point{{0, 0}, {5, 100}}, 10, 10},
		"falls further":             {[]point{{0, 0}, {5, 100}}, 12.5, 5},
		"silent for long":           {[]point{{0, 0}, {5, 100}}, 15, 0},
		"after a long silence":      {[]point{{0, 0}, {100, 100}}, 100, 1},
		"the counter went back":     {[]point{{0, 1000}, {1, 2000}, {2, 0}, {4, 10}}, 4, 5},
		"the clock went back":       {[]point{{50, 0}, {60, 100}, {0, 100}, {1, 103}}, 1, 3},
		"close samples are one":     {[]point{{0, 0}, {0.1, 1}, {0.2, 2}, {0.3, 3}, {1, 10}}, 1, 10},
		"nothing new":               {[]point{{0, 7}, {1, 7}, {2, 7}}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var w Window
			for _, p := range c.points {
				w.Add(at(p.at), p.value)
			}
			if got := w.PerSecond(at(c.now)); math.Abs(got-c.want) > 1e-9 {
				t.Errorf("%v a second, want %v; %v", got, c.want, w.samples)
			}
		})
	}
}

// TestWindowIsSmall: however often a value is added, few are kept, and the rate is right.
func TestWindowIsSmall(t *testing.T) {
	var w Window
	now := time.Unix(1_000_000, 0)
	for i := range 100_000 {
		now = now.Add(time.Millisecond)
		w.Add(now, int64(i*5))
		if most := int(windowSpan/windowStep) + 2; len(w.samples) > most || cap(w.samples) > 2*most+8 {
			t.Fatalf("%d samples of at most %d, room for %d", len(w.samples), most, cap(w.samples))
		}
	}
	if got := w.PerSecond(now); math.Abs(got-5000) > 1 {
		t.Errorf("%v a second, want 5000", got)
	}
}
