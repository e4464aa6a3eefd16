package crawler

import (
	"context"
	"testing"
	"time"

	"georep/slave"
)

// cleaned notes how old what is deleted has to be.
type cleaned struct {
	slave.Tree
	ages []int64 // seconds
}

func (c *cleaned) Info() slave.Info { return slave.Info{Parked: 1} }

func (c *cleaned) Clean(_ context.Context, olderThan int64) error {
	c.ages = append(c.ages, olderThan)
	return nil
}

// TestParkedGoesThoughNothingIsStamped: crawls that come to everything, and stamp nothing because the names of some inodes cannot
// be settled, allow what was parked before them to be deleted. Where something failed it stays for longer, but not for ever.
func TestParkedGoesThoughNothingIsStamped(t *testing.T) {
	tree := &cleaned{}
	f := &follower{c: New(Options{Tree: tree}), news: make(chan struct{}, 1)}
	began := time.Now().Add(-2 * time.Hour)
	for i, step := range []struct {
		out    Outcome
		cleans bool
		longer time.Duration
	}{
		{Outcome{CoveredXtime: 10}, true, parkedLongest},               // something failed
		{Outcome{CoveredXtime: 10, Met: true}, true, 0},                // a comparison of all that is marked
		{Outcome{CoveredXtime: 9, Met: true, Hinted: true}, false, 0},  // hints that do not reach as far as the look
		{Outcome{CoveredXtime: 10, Hinted: true}, true, parkedLongest}, // or that do, and something failed
		{Outcome{CoveredXtime: 10, Met: true, Hinted: true}, true, 0},
	} {
		at := began.Add(time.Duration(i) * 12 * time.Minute)
		f.comes, f.cleaned, tree.ages = claim{10, at}, time.Time{}, nil
		f.passed(10, step.out)
		if err := f.cleanWhileBusy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if (len(tree.ages) == 1) != step.cleans {
			t.Errorf("step %d: cleaned %v, want %v", i, tree.ages, step.cleans)
		}
		if least := int64((time.Since(at) + step.longer) / time.Second); step.cleans && len(tree.ages) == 1 && tree.ages[0] < least {
			t.Errorf("step %d: what was parked %d s ago went, and %d s is how long ago the crawl's look was", i, tree.ages[0], least)
		}
		f.cleaned = time.Time{}
		if err := f.cleanWhileBusy(t.Context()); err != nil || len(tree.ages) > 1 {
			t.Errorf("step %d: cleaned again for nothing: %v, %v", i, tree.ages, err)
		}
	}
}
