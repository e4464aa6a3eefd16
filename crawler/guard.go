package crawler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"georep/internal/beneath"
	"georep/marker/xtime"
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
//
// What it refuses may have moved, so it is left standing until the crawl has met what is new (wait.go). What moves from
// where it stands to its new place never counts; what was parked first counts until it is brought back.
type guard struct {
	opts   *Options
	losses *losses
	free   int64 // may always be removed

	mu      sync.Mutex
	removed int64
	had     int64                // what the slave had at least, when the crawl began
	counted map[xtime.GFID]int64 // what of removed each inode that was parked stands for
	renamed map[xtime.GFID]int   // further names that inodes got: as many may go
	behind  map[string]int64     // how many of them left their old names in or below a directory
}

// maxCounted bounds each of the guard's maps. What is beyond it counts as removed though it comes back.
const maxCounted = 100_000

// allow asks whether the entries of dir may be parked, and counts them. A directory counts with all that lies in it.
func (g *guard) allow(ctx context.Context, dir string, stale []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(stale) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	sizes, err := g.sizes(ctx, dir, stale)
	if err != nil {
		return err
	}
	before := max(g.removed, g.losses.lately())
	removed := before + sum(sizes)
	if err := g.count(ctx, before, removed); err != nil {
		return err
	}
	if removed > g.free && removed > g.had/100*int64(g.opts.MaxDelete) {
		return fmt.Errorf("%w: %d entries of about %d lately, over %d %%; if that is right, say so with "+
			"`georep config MASTER SLAVE max-delete 100`, and set it back afterwards", ErrMaxDelete, removed, g.had,
			g.opts.MaxDelete)
	}
	g.lost(stale, sizes)
	return nil
}

// take counts entries of dir that are parked on their way to another place, until they come back.
func (g *guard) take(ctx context.Context, dir string, moving []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(moving) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	sizes, err := g.sizes(ctx, dir, moving)
	if err != nil {
		return err
	}
	g.lost(moving, sizes)
	return nil
}

func sum(sizes []int64) (n int64) {
	for _, size := range sizes {
		n += size
	}
	return n
}

// lost counts what is removed. mu is held.
func (g *guard) lost(stale []slave.EntryState, sizes []int64) {
	n := sum(sizes)
	g.removed += n
	g.losses.add(n)
	for i := range stale {
		id := stale[i].Record.GFID
		if sizes[i] == 0 {
			if g.renamed[id]--; g.renamed[id] == 0 {
				delete(g.renamed, id)
			}
			continue
		}
		if !id.IsZero() && len(g.counted) < maxCounted {
			if g.counted == nil {
				g.counted = map[xtime.GFID]int64{}
			}
			g.counted[id] += sizes[i]
		}
	}
}

// gone counts an inode that left the tree unasked.
func (g *guard) gone(id xtime.GFID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost([]slave.EntryState{{Record: slave.Record{GFID: id}}}, []int64{1})
}

// isRefused tells that the guard said no.
func isRefused(err error) bool { return errors.Is(err, ErrMaxDelete) }

// back counts n entries that came back into the tree from where the inode id was parked, with all in it.
func (g *guard) back(id xtime.GFID, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.losses.add(-n)
	was := min(g.counted[id], n)
	if was == 0 {
		return // parked by another crawl
	}
	g.removed -= was
	if g.counted[id] -= was; g.counted[id] == 0 {
		delete(g.counted, id)
	}
}

// outstanding is what there is to come back.
func (g *guard) outstanding() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(g.removed, g.losses.lately())
}

// furtherName notes that an inode got one, so that the removal of one loses nothing.
func (g *guard) furtherName(id xtime.GFID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.renamed == nil {
		g.renamed = map[xtime.GFID]int{}
	}
	if len(g.renamed) < maxCounted {
		g.renamed[id]++
	}
}

// leaves notes that an inode moved and left its old name behind, so that no more is lost with that, nor with a directory that it
// is in.
func (g *guard) leaves(op *slave.Op) {
	g.furtherName(op.Record.GFID)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.behind == nil {
		g.behind = map[string]int64{}
	}
	for dir, _ := beneath.Split(op.From); dir != "" && len(g.behind) < maxCounted; dir, _ = beneath.Split(dir) {
		g.behind[dir]++
	}
}

// sizes tells for how many entries each of the stale ones counts. mu is held.
func (g *guard) sizes(ctx context.Context, dir string, stale []slave.EntryState) ([]int64, error) {
	var dirs []string
	var at []int
	sizes, spare := make([]int64, len(stale)), map[xtime.GFID]int{}
	for i, s := range stale {
		id := s.Record.GFID
		switch {
		case s.Kind == slave.Dir:
			dirs, at = append(dirs, join(dir, s.Name)), append(at, i)
		case g.renamed[id] > spare[id]:
			spare[id]++
		default:
			sizes[i] = 1
		}
	}
	for len(dirs) > 0 {
		k := min(len(dirs), slave.MaxItems)
		counts, err := g.opts.Tree.Count(ctx, dirs[:k], countAll)
		if err != nil {
			return nil, err
		}
		for i, c := range counts {
			sizes[at[i]] = max(c-g.behind[dirs[i]], 1)
		}
		dirs, at = dirs[k:], at[k:]
	}
	return sizes, nil
}

// countAll is no limit.
const countAll = 1 << 62

// count makes had large enough to allow removed entries, if the slave is. What was removed before may or may not be gone
// by now; it is counted as gone.
func (g *guard) count(ctx context.Context, before, removed int64) error {
	need := (removed/int64(max(g.opts.MaxDelete, 1)) + 1) * 100
	if removed <= g.free || g.had >= need {
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
