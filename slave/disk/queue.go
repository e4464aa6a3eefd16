package disk

import (
	"slices"
	"sync"

	"georep/internal/beneath"
	"georep/slave"
)

// How much one group takes at most, beyond its first batch.
const (
	groupOps   = 4096
	groupBytes = 64 << 20
)

// ticket is a batch on its way: begun, staged, ready, taken by the committer, done.
type ticket struct {
	items   []item
	bytes   int64
	whole   bool // all is staged; protected by queue.mu, as is ready
	ready   bool
	left    int // items without a final result; the committer's
	done    chan struct{}
	touched *footprint // made when it is first needed; protected by queue.mu
}

// results may be called once done is closed.
func (tk *ticket) results() []slave.Result {
	all := make([]slave.Result, len(tk.items))
	for i := range tk.items {
		all[i] = tk.items[i].res
	}
	return all
}

// queue holds the batches that are not yet taken, in the order of their beginnings.
type queue struct {
	mu     sync.Mutex
	list   []*ticket
	closed bool
	wake   chan struct{} // has a token when there may be something to take
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

// begin gives a batch its place.
func (q *queue) begin(b *slave.Batch) *ticket {
	tk := &ticket{items: make([]item, len(b.Ops)), done: make(chan struct{})}
	for i := range b.Ops {
		tk.items[i].op = &b.Ops[i]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, tk)
	return tk
}

// staged notes that the batch is staged, and tells whether it may still be committed.
func (q *queue) staged(tk *ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	tk.whole = !q.closed
	return tk.whole
}

// ready lets the committer have the batch.
func (q *queue) ready(tk *ticket) {
	q.mu.Lock()
	tk.ready = true
	q.mu.Unlock()
	q.poke()
}

// poke wakes the committer. A token that is there already will do: it looks at the whole queue.
func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// remove takes a batch out that will never be ready; those that waited for it may go on.
func (q *queue) remove(tk *ticket) {
	q.mu.Lock()
	if i := slices.Index(q.list, tk); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
	q.mu.Unlock()
	q.poke()
}

// abandon closes the queue and returns what was fully staged and never taken. What is still being staged is dropped by
// Stage itself.
func (q *queue) abandon() []*ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	all := slices.DeleteFunc(q.list, func(tk *ticket) bool { return !tk.whole })
	q.list = nil
	return all
}

// take returns the next group: ready batches in order, none of which touches what an earlier one that is not taken
// touches.
func (q *queue) take() []*ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	var group, rest []*ticket
	ops, bytes := 0, int64(0)
	for _, tk := range q.list {
		if !tk.ready || !fits(group, ops+len(tk.items), bytes+tk.bytes) || tk.overlaps(rest) {
			rest = append(rest, tk)
			continue
		}
		group = append(group, tk)
		ops, bytes = ops+len(tk.items), bytes+tk.bytes
	}
	q.list = rest
	return group
}

// fits tells whether a group may grow to this size. One batch alone always may, or it would wait for ever.
func fits(group []*ticket, ops int, bytes int64) bool {
	return len(group) == 0 || ops <= groupOps && bytes <= groupBytes
}

// overlaps tells whether the batch must wait for one of those.
func (tk *ticket) overlaps(earlier []*ticket) bool {
	for _, e := range earlier {
		if tk.footprint().meets(e.footprint()) {
			return true
		}
	}
	return false
}

// footprint is what a batch touches: names, what lies above them, and inodes.
type footprint struct {
	names map[string]struct{} // paths, and GFIDs behind a NUL
	above map[string]struct{} // the directories above the paths
}

// footprint computes what the batch touches. Most batches never need it: only those that meet one which began earlier
// and is not ready.
func (tk *ticket) footprint() *footprint {
	if tk.touched != nil {
		return tk.touched
	}
	f := &footprint{names: make(map[string]struct{}, 2*len(tk.items)), above: map[string]struct{}{}}
	for i := range tk.items {
		op := tk.items[i].op
		f.path(op.Path)
		if op.From != "" {
			f.path(op.From)
		}
		if !op.Record.GFID.IsZero() {
			f.names["\x00"+string(op.Record.GFID[:])] = struct{}{}
		}
		if !op.Expect.IsZero() {
			f.names["\x00"+string(op.Expect[:])] = struct{}{}
		}
	}
	tk.touched = f
	return f
}

// path notes a name and all that lies above it; the root is above everything.
func (f *footprint) path(p string) {
	f.names[p] = struct{}{}
	for p != "" {
		p, _ = beneath.Split(p)
		if _, known := f.above[p]; known {
			return
		}
		f.above[p] = struct{}{}
	}
}

// meets tells whether the two have a name or an inode in common, or a name of one lies above a name of the other.
func (f *footprint) meets(g *footprint) bool {
	return common(f.names, g.names) || common(f.names, g.above) || common(f.above, g.names)
}

// common tells whether the sets meet; it walks the smaller one.
func common(a, b map[string]struct{}) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for k := range a {
		if _, ok := b[k]; ok {
			return true
		}
	}
	return false
}
