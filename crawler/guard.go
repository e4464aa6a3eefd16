package crawler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"georep/slave"
)

// ErrMaxDelete means that a crawl would remove more of the slave than the operator allows without being asked.
var ErrMaxDelete = errors.New("too much would be deleted on the slave")

// freeDeletes is how many entries a crawl may always remove, however small the tree is.
const freeDeletes = 1000

// removalWindow is how far back removals count: a tree that is deleted while the slave follows closely goes in many crawls,
// each of which removes little.
const removalWindow = time.Minute

// losses is by how much the slave has shrunk lately, whichever crawl it was: from the most that it had in the window, not
// from what it had at its begin. So what comes makes good what was removed before it, as a move does that is seen from
// its old place first, but what came allows nothing to be removed later. It is safe for concurrent use.
type losses struct {
	now func() time.Time

	mu   sync.Mutex
	list []loss // of the window, oldest first, one a second and sign
}

type loss struct {
	at time.Time
	n  int64
}

// add counts n entries that were removed, or -n that came.
func (l *losses) add(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if k := len(l.list) - 1; k >= 0 && now.Sub(l.list[k].at) < time.Second && (l.list[k].n < 0) == (n < 0) {
		l.list[k].n += n
		return
	}
	l.list = append(l.list, loss{now, n})
}

// lately is the loss at the end of the window.
func (l *losses) lately() (sum int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.now().Add(-removalWindow)
	for len(l.list) > 0 && l.list[0].at.Before(old) {
		l.list = l.list[1:]
	}
	for _, one := range l.list {
		sum = max(sum+one.n, 0)
	}
	return sum
}

// guard counts what a crawl removes, and stops it beyond a share of what the slave had (invariant 10). How much that is
// gets counted only when much is removed, and only as far as needed to know that the share is not reached: the cost
// follows the removals, not the tree.
type guard struct {
	opts   *Options
	losses *losses

	mu      sync.Mutex
	removed int64
	had     int64 // what the slave had at least, when the crawl began
}

// allow asks whether the entries of dir may be parked, and counts them. A directory counts with all that lies in it.
func (g *guard) allow(ctx context.Context, dir string, stale []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(stale) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.size(ctx, dir, stale)
	if err != nil {
		return err
	}
	before := max(g.removed, g.losses.lately())
	removed := before + n
	if err := g.count(ctx, before, removed); err != nil {
		return err
	}
	if removed > freeDeletes && removed > g.had/100*int64(g.opts.MaxDelete) {
		return fmt.Errorf("%w: %d entries of about %d lately, over %d %%; if that is right, say so with "+
			"`georep config MASTER SLAVE max-delete 100`, and set it back afterwards", ErrMaxDelete, removed, g.had,
			g.opts.MaxDelete)
	}
	g.removed += n
	g.losses.add(n)
	return nil
}

// size is how many entries the stale ones are.
func (g *guard) size(ctx context.Context, dir string, stale []slave.EntryState) (int64, error) {
	var dirs []string
	for _, s := range stale {
		if s.Kind == slave.Dir {
			dirs = append(dirs, join(dir, s.Name))
		}
	}
	n := int64(len(stale) - len(dirs))
	for len(dirs) > 0 {
		k := min(len(dirs), slave.MaxItems)
		counts, err := g.opts.Tree.Count(ctx, dirs[:k], countAll)
		if err != nil {
			return 0, err
		}
		for _, c := range counts {
			n += c
		}
		dirs = dirs[k:]
	}
	return n, nil
}

// countAll is no limit.
const countAll = 1 << 62

// count makes had large enough to allow removed entries, if the slave is. What was removed before may or may not be gone
// by now; it is counted as gone.
func (g *guard) count(ctx context.Context, before, removed int64) error {
	need := (removed/int64(max(g.opts.MaxDelete, 1)) + 1) * 100
	if removed <= freeDeletes || g.had >= need {
		return nil
	}
	// Twice as much, so that the next removals need no count of their own.
	counts, err := g.opts.Tree.Count(ctx, []string{""}, 2*need)
	if err != nil {
		return err
	}
	g.had = max(g.had, counts[0]+before)
	return nil
}
