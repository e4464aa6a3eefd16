package crawler

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"georep/slave"
)

// ErrMaxDelete means that a crawl would remove more of the slave than the operator allows without being asked.
var ErrMaxDelete = errors.New("too much would be deleted on the slave")

// freeDeletes is how many entries a crawl may always remove, however small the tree is.
const freeDeletes = 1000

// guard counts what a crawl removes (invariant 10).
type guard struct {
	opts    *Options
	removed atomic.Int64
}

// allow asks whether the entries may be parked, and counts them. A directory counts with all that lies in it.
func (g *guard) allow(ctx context.Context, dir string, stale []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(stale) == 0 {
		return nil
	}
	var dirs []string
	for _, s := range stale {
		if s.Kind == slave.Dir {
			dirs = append(dirs, join(dir, s.Name))
		}
	}
	n := int64(len(stale) - len(dirs))
	for len(dirs) > 0 {
		k := min(len(dirs), slave.MaxItems)
		counts, err := g.opts.Tree.Count(ctx, dirs[:k], g.limit()+1)
		if err != nil {
			return err
		}
		for _, c := range counts {
			n += c
		}
		dirs = dirs[k:]
	}
	if removed := g.removed.Add(n); removed > g.limit() {
		return fmt.Errorf("%w: %d entries or more, over %d %% of the volume; if that is right, say so with "+
			"`georep config MASTER SLAVE max-delete 100`, and set it back afterwards", ErrMaxDelete, removed, g.opts.MaxDelete)
	}
	return nil
}

// limit is how many entries may go: a share of what there was, of which the part that is still there is known.
func (g *guard) limit() int64 {
	var left int64
	if g.opts.MasterEntries != nil {
		left = g.opts.MasterEntries()
	}
	share := int64(g.opts.MaxDelete)
	// removed <= share % of (left + removed), solved for removed.
	return max(freeDeletes, left*share/(100-share))
}
