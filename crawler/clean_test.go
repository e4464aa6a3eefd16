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
// be settled, allow what was parked before them to be deleted. Others do not.
func TestParkedGoesThoughNothingIsStamped(t *testing.T) {
	tree := &cleaned{}
	f := &follower{c: New(Options{Tree: tree}), news: make(chan struct{}, 1)}
	began := time.Now().Add(-time.Hour)
	for i, step := range []struct {
		out    Outcome
		cleans bool
	}{
		{Outcome{Reached: 10}, false},                           // something failed
		{Outcome{Reached: 10, Met: true}, true},                 // a comparison of all that is marked
		{Outcome{Reached: 9, Met: true, Hinted: true}, false},   // hints that do not reach as far as the look
		{Outcome{Reached: 10, Met: false, Hinted: true}, false}, // or that do, and something failed
		{Outcome{Reached: 10, Met: true, Hinted: true}, true},
	} {
		at := began.Add(time.Duration(i) * time.Minute)
		f.comes, f.cleaned, tree.ages = claim{10, at}, time.Time{}, nil
		f.passed(10, step.out)
		if err := f.cleanWhileBusy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if (len(tree.ages) == 1) != step.cleans {
			t.Errorf("step %d: cleaned %v, want %v", i, tree.ages, step.cleans)
		}
		if least := int64(time.Since(at) / time.Second); step.cleans && len(tree.ages) == 1 && tree.ages[0] < least {
			t.Errorf("step %d: what was parked %d s ago went, and %d s is how long ago the crawl's look was", i, tree.ages[0], least)
		}
		f.cleaned = time.Time{}
		if err := f.cleanWhileBusy(t.Context()); err != nil || len(tree.ages) > 1 {
			t.Errorf("step %d: cleaned again for nothing: %v, %v", i, tree.ages, err)
		}
	}
}
