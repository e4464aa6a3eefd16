package disk

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"georep/slave"
)

// TestLongNames: names alone can be more than one answer may hold. Then none of the entries is looked at.
func TestLongNames(t *testing.T) {
	f, _ := newSeamed(t)
	var looked atomic.Int64
	f.Tree.(*Tree).dir.Hook(func(string, string) error { looked.Add(1); return nil })
	const n = slave.MaxSurvey/(slave.ItemCost+255) + 100
	for i := range n {
		if err := os.Symlink("x", f.Path(fmt.Sprintf("%0255d", i))); err != nil {
			t.Fatal(err)
		}
	}
	survey := func(q slave.Query) slave.DirState {
		states, err := f.Tree.Survey(t.Context(), []slave.Query{q})
		if err != nil || states[0].Err != nil || states[0].Total != n {
			t.Fatalf("%v, %v, total %d", err, states[0].Err, states[0].Total)
		}
		return states[0]
	}
	looked.Store(0)
	if got := survey(slave.Query{}); !got.Truncated || len(got.Entries) > 0 || looked.Load() > n/10 {
		t.Errorf("truncated %v, %d entries, %d calls", got.Truncated, len(got.Entries), looked.Load())
	}
	seen := 0
	for part := range uint32(2) {
		got := survey(slave.Query{Part: part, Parts: 2})
		if seen += len(got.Entries); got.Truncated {
			t.Errorf("part %d is truncated", part)
		}
	}
	if seen != n {
		t.Errorf("%d entries of %d", seen, n)
	}
}
