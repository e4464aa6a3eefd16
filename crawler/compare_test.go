package crawler_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"georep/slave"
)

// together is a slave that answers no request for hashes before so many have come.
type together struct {
	slave.Tree
	want    int64
	came    atomic.Int64
	release chan struct{}
}

func (g *together) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	if g.came.Add(1) == g.want {
		close(g.release)
	}
	select {
	case <-g.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.Tree.Hash(ctx, paths)
}

// TestHashesAreAskedForAhead: a directory of files to compare does not cost a round trip for each request, one after another;
// and what differs is found among them.
func TestHashesAreAskedForAhead(t *testing.T) {
	w := newWorld(t)
	w.wrap = func(t slave.Tree) slave.Tree { return &together{Tree: t, want: 4, release: make(chan struct{})} }
	const files = 64*6 + 5
	for i := range files {
		name, same := fmt.Sprint("d/f", i), "the same"
		w.write(name, same)
		w.ok(os.MkdirAll(w.there("d"), 0o755))
		if i%50 == 7 {
			same = "not that" // as long
		}
		w.ok(os.WriteFile(w.there(name), []byte(same), 0o644))
	}
	w.mark("")
	w.connect()
	w.inStep()
	if n, want := w.counters.Files.Load(), int64((files+42)/50); n != want {
		t.Errorf("%d files were sent, want %d", n, want)
	}
}
