package disk

import (
	"slices"
	"sync"

	"georep/slave"
)

// How much one group takes at most, beyond its first batch.
const (
	groupOps   = 4096
	groupBytes = 64 << 20
)

// ticket is a batch on its way: begun, staged, ready, taken by the committer, done. It is made by
// Stage, filled by the goroutine of its caller until ready, and the committer's from then on.
type ticket struct {
	items  []item
	bytes  int64
	whole  bool // all is staged; protected by queue.mu, as is ready
	ready  bool
	left   int         // items without a final result; the committer's, as is failed
	failed []*slave.Op // operations that hold back the finish of what is above them (apply.HoldsBack)
	done   chan struct{}
}

// results may be called once done is closed. One result for each operation, in the batch's order.
func (tk *ticket) results() []slave.Result {
	all := make([]slave.Result, len(tk.items))
	for i := range tk.items {
		all[i] = tk.items[i].res
	}
	return all
}

// queue holds the batches that are not yet taken, in the order of their beginnings. Its lock is
// held for moments, and nothing is locked under it.
type queue struct {
	mu     sync.Mutex
	list   []*ticket
	closed bool
	wake   chan struct{} // has a token when there may be something to take
}

// init is called once, before anything else.
func (q *queue) init() { q.wake = make(chan struct{}, 1) }

// begin gives a batch its place. The order of beginnings is that in which batches are committed, as
// far as they are ready. The batch stays the caller's to leave unchanged.
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

// staged notes that the batch is staged, and tells whether it may still be committed. False: the
// slave is being closed, and the caller drops what it staged.
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

// remove takes a batch out that will never be ready.
func (q *queue) remove(tk *ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.list, tk); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
}

// abandon closes the queue and returns what was fully staged and never taken. What is still being
// staged is dropped by Stage itself. It is called once, by Close, after the committer has ended.
func (q *queue) abandon() []*ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	all := slices.DeleteFunc(q.list, func(tk *ticket) bool { return !tk.whole })
	q.list = nil
	return all
}

// take returns the next group: ready batches in order. One that is not ready holds up nobody,
// whatever it touches: its contents may be long in coming over another stream, or never come. A
// group is bounded, so that one sync does not wait for more than that, and results do not either.
func (q *queue) take() []*ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	var group, rest []*ticket
	ops, bytes := 0, int64(0)
	for _, tk := range q.list {
		if !tk.ready || !fits(group, ops+len(tk.items), bytes+tk.bytes) {
			rest = append(rest, tk)
			continue
		}
		group = append(group, tk)
		ops, bytes = ops+len(tk.items), bytes+tk.bytes
	}
	q.list = rest
	return group
}

// waits tells whether a batch could be taken now.
func (q *queue) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.list, func(tk *ticket) bool { return tk.ready })
}

// fits tells whether a group may grow to this size. One batch alone always may, or it would wait for ever.
func fits(group []*ticket, ops int, bytes int64) bool {
	return len(group) == 0 || ops <= groupOps && bytes <= groupBytes
}
