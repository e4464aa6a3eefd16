package crawler

import (
	"testing"
	"time"

	"georep/crawler/retry"
	"georep/marker/xtime"
)

// TestNamesThatNobodyComesToAreNoHurry: a crawl that came to none of the names that were left is followed by another after a pause,
// which grows, unless there is something new.
func TestNamesThatNobodyComesToAreNoHurry(t *testing.T) {
	c := &Crawler{failures: retry.New(time.Minute)}
	g := xtime.GFID{1}
	left := func(n int) {
		c.deferrals.set(g, &deferral{stamp: 1, coveredXtime: 5, left: leftNames{names: make([]string, n), since: time.Now()}})
	}
	f := &follower{c: c, tried: 5}
	out := Outcome{Stime: 1, Waiting: true}
	for i, step := range []struct {
		left  int
		tried xtime.Time
		rests bool
	}{{1000, 5, false}, {900, 5, false}, {900, 5, true}, {900, 5, true}, {900, 6, false}, {800, 5, false}, {0, 5, false}, {1000, 5, false}} {
		left(step.left)
		before := f.undone
		f.rest(step.tried, out)
		if rests := f.undone > 0; rests != step.rests || step.rests && f.undone <= before {
			t.Errorf("step %d: a pause of %v after %v", i, f.undone, before)
		}
	}
	for range 20 {
		left(1000)
		f.rest(5, out)
	}
	if f.undone != missedPause || time.Until(f.again) > missedPause {
		t.Errorf("the pause is %v, %v is left of it", f.undone, time.Until(f.again))
	}
}
