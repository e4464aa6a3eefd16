package crawler

import (
	"slices"
	"sync/atomic"

	"georep/crawler/plan"
)

// This file keeps an inode with very many names from holding up what changes meanwhile. A crawl ends only when all that it began
// has ended, and what changed after it began is for the next one. So a crawl of a session that follows links a number of such
// names, and from then on gives way when something else has been marked: the names that are left hold back their directories,
// and all above them, and the next crawl, which begins at once, goes on with them beside what is new. Those that are linked are
// in step by then, so each crawl comes further. No inode is checked for missing names before all of that is done.

const (
	// veryMany is how many names an inode has that is linked in steps: a tree of links, as a backup keeps, has fewer of each.
	veryMany = 1024
	linkStep = 4096 // names that a crawl links before it gives way
	lookStep = 64   // names between two looks at the master's root
)

// giveWay is what a crawl knows of that. The zero value is ready.
type giveWay struct {
	names atomic.Int64
	over  atomic.Bool // no more of them in this crawl
}

// givesWay tells whether a name of an inode with so many is left to the next crawl.
func (w *crawl) givesWay(links uint32) bool {
	if links < w.c.veryMany || !w.c.bulk.on() {
		return false
	}
	if w.giveWay.over.Load() {
		return true
	}
	k := w.giveWay.names.Add(1)
	if k < w.c.linkStep || k%lookStep != 0 || !w.hasNews() {
		return false
	}
	w.giveWay.over.Store(true)
	return true
}

// hasNews tells whether the master has marks that this crawl does not look for. In a first sync that does not count: nothing is
// in step before its end.
func (w *crawl) hasNews() bool {
	w.mu.Lock()
	first := w.root.had == 0
	w.mu.Unlock()
	if first {
		return false
	}
	d, err := w.m.describe(w.c.opts.Root)
	return err == nil && d.xtime != w.root.upto
}

// atOnce is how many of the items are to be linked before it is decided about others.
func (w *crawl) atOnce(items []plan.Item) int {
	many := func(it plan.Item) bool { return it.Entry.Stat.Nlink >= w.c.veryMany }
	if len(items) > batchOps && slices.ContainsFunc(items, many) {
		return batchOps
	}
	return len(items)
}

// inSteps leaves out those of the items that are for the next crawl.
func (w *crawl) inSteps(n *node, items []plan.Item) []plan.Item {
	now := items[:0:0]
	for _, it := range items {
		if w.givesWay(it.Entry.Stat.Nlink) {
			w.pending.done(ofItem(&it))
			w.hold(n)
			continue
		}
		now = append(now, it)
	}
	return now
}

// leaveName gives up a name that waited for its turn.
func (w *crawl) leaveName(n *node, last *task) {
	if last.ahead != nil {
		last.ahead.over()
	}
	w.hold(n)
	w.opsDone(n, 1)
}
