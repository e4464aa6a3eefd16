package crawler

import (
	"sync"

	"georep/crawler/plan"
	"georep/slave"
)

// amount is what is pending: see Counters.
type amount struct{ entries, files, bytes, meta int64 }

// plus adds b, or with a sign of -1 takes it away.
func (a amount) plus(b amount, sign int64) amount {
	return amount{a.entries + sign*b.entries, a.files + sign*b.files, a.bytes + sign*b.bytes, a.meta + sign*b.meta}
}

// pending counts what a crawl knows to differ, from the plan on until the slave has it, and forgets it all when the crawl
// is over, however that ended. It is safe for concurrent use.
type pending struct {
	counters *Counters
	mu       sync.Mutex
	sum      amount
}

func (p *pending) add(a amount)  { p.count(a, 1) }
func (p *pending) done(a amount) { p.count(a, -1) }

func (p *pending) count(a amount, sign int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum = p.sum.plus(a, sign)
	p.counters.PendingEntries.Add(sign * a.entries)
	p.counters.PendingFiles.Add(sign * a.files)
	p.counters.PendingBytes.Add(sign * a.bytes)
	p.counters.PendingMeta.Add(sign * a.meta)
}

// clear forgets what is left.
func (p *pending) clear() {
	p.mu.Lock()
	left := p.sum
	p.mu.Unlock()
	p.done(left)
}

// ofOp is what an operation stands for that is on its way. A directory counts from its visit to its end, not with the
// operations that make and finish it.
func ofOp(op *slave.Op) amount {
	switch op.Kind {
	case slave.OpMkdir, slave.OpFinish:
		return amount{}
	case slave.OpPut:
		return amount{entries: 1, files: 1, bytes: inBatch(op)}
	case slave.OpMeta:
		return amount{entries: 1, meta: 1}
	}
	return amount{entries: 1}
}

func ofOps(ops []slave.Op) (sum amount) {
	for i := range ops {
		sum = sum.plus(ofOp(&ops[i]), 1)
	}
	return sum
}

// ofItem is what an item of a plan stands for that is yet to be sent.
func ofItem(it *plan.Item) amount {
	switch {
	case it.How == plan.Adopt:
		return amount{entries: 1, meta: 1}
	case it.How == plan.Compare || it.Entry.Kind != slave.File:
		return amount{entries: 1}
	}
	return amount{entries: 1, files: 1, bytes: Share(&it.Entry.Stat)}
}

// left is what a plan has beyond these items and children.
func left(p *plan.Plan, items []plan.Item, children []plan.Child) (sum amount) {
	for i := range p.Items {
		sum = sum.plus(ofItem(&p.Items[i]), 1)
	}
	for i := range items {
		sum = sum.plus(ofItem(&items[i]), -1)
	}
	return sum.plus(dirs(len(p.Children)-len(children)), 1)
}

// ofContent is what a file stands for whose content goes ahead, or has to wait for that of another.
func ofContent(op *slave.Op) amount {
	if op.Kind != slave.OpPut {
		return ofOp(op)
	}
	return amount{entries: 1, files: 1, bytes: op.Meta.Size}
}

// dirs is so many directories that are being worked on.
func dirs(n int) amount { return amount{entries: int64(n)} }
