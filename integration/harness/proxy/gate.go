package proxy

import (
	"context"
	"sync"
)

// way is a direction.
type way int

const (
	up   way = iota // from clients to the server
	down            // and back
)

// gate is what every delivery passes: it can be shut, and it can count bytes down to a cut.
type gate struct {
	mu      sync.Mutex
	stalled [2]bool       // by way
	cutting bool          // the budget is spent and the cut not yet done
	budget  int64         // bytes until the cut; negative is no cut
	changed chan struct{} // closed at the next change of the flags
}

func newGate() *gate { return &gate{budget: -1, changed: make(chan struct{})} }

// set changes the flags under the lock and wakes who waits.
func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	close(g.changed)
	g.changed = make(chan struct{})
}

// shut stalls ways; open is Resume.
func (g *gate) shut(ways ...way) {
	g.set(func() {
		for _, w := range ways {
			g.stalled[w] = true
		}
	})
}

func (g *gate) open() { g.set(func() { g.stalled = [2]bool{} }) }

// afterCut lets new connections pass once the old ones are gone.
func (g *gate) afterCut() { g.set(func() { g.cutting = false }) }

// allow sets how many bytes pass before a cut. 0 and less mean none is ahead: the caller cuts at once for 0.
func (g *gate) allow(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n <= 0 {
		n = -1
	}
	g.budget = n
}

// pass waits until the gate is open and returns how many of n bytes may be delivered now. last says that the budget
// ends with them: the caller must cut and then call afterCut, and nobody else passes before.
func (g *gate) pass(ctx context.Context, w way, n int) (allowed int, last bool, err error) {
	for {
		g.mu.Lock()
		changed, isOpen := g.changed, !g.stalled[w] && !g.cutting
		if isOpen {
			allowed, last = g.spend(n)
		}
		g.mu.Unlock()
		if isOpen {
			return allowed, last, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
}

// spend wants the lock held.
func (g *gate) spend(n int) (allowed int, last bool) {
	if g.budget < 0 {
		return n, false
	}
	allowed = int(min(g.budget, int64(n)))
	g.budget -= int64(allowed)
	if g.budget > 0 {
		return allowed, false
	}
	g.budget, g.cutting = -1, true
	return allowed, true
}
