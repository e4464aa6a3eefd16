package crawler

import (
	"slices"
	"sync/atomic"

	"georep/crawler/plan"
	"georep/crawler/share"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// This file keeps an inode with very many names from holding up what changes meanwhile. A crawl ends only when all that it began
// has ended, and what changed after it began is for the next one. So a crawl of a session that follows links such names in small
// steps, one step at a time, and gives way when something else has been marked. The names that are left are deferred (left.go): their
// directories are stamped up to what they hold, and the next crawl, which begins at once, looks at some of them beside what is
// new. No inode is checked for missing names before all of that is done.
//
// A directory that cannot defer is held back, and listed by the next crawl. So that a listing is not made for a few names each time,
// a crawl links a share of those that it has listed.

// names are how inodes with very many of them are treated.
type names struct {
	many uint32 // an inode with as many is linked in steps: a tree of links, as a backup keeps, has fewer of each
	step int64  // names that a crawl links before it gives way
	look int64  // names between two looks at the master's root
	// A crawl looks at so many of the names that were left: at few where other changes wait for it.
	share, few int
}

// usualNames are those of every Crawler but a test's.
func usualNames() names {
	return names{many: 1024, step: batchOps, look: 64, share: partNames, few: batchOps}
}

// listedShare is which part of what was listed a crawl links at least.
const listedShare = 8

// giveWay is what a crawl knows of that.
type giveWay struct {
	w      *crawl
	turn   chan struct{} // has room for the one directory that links a step now
	linked atomic.Int64  // names, in this crawl
	over   atomic.Bool   // no more of them in this crawl
	later  atomic.Bool   // what inodes lack is checked by a later crawl
}

func (g *giveWay) init(w *crawl) { g.w, g.turn = w, make(chan struct{}, 1) }

// of tells whether an inode with so many names is linked in steps.
func (g *giveWay) of(links uint32) bool { return links >= g.w.c.names.many && g.w.c.bulk.on() }

// now tells whether a name of such an inode is left to a later crawl. least is how many are linked before that.
func (g *giveWay) now(links uint32, least int64) bool {
	if !g.of(links) {
		return false
	}
	if g.over.Load() {
		return true
	}
	k := g.linked.Add(1)
	if k <= least || k%g.w.c.names.look != 0 || !g.hasNews() {
		return false
	}
	g.over.Store(true)
	return true
}

// hasNews tells whether the master has marks that this crawl does not look for. In a first sync that does not count: nothing is
// in step before its end.
func (g *giveWay) hasNews() bool {
	if g.isFirst() {
		return false
	}
	at, _, err := g.w.m.Head()
	return err == nil && at != g.w.root.upto
}

// isFirst tells whether the slave has no stamp at all yet.
func (g *giveWay) isFirst() bool {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.root.had == 0
}

// least is how many names are linked before anything gives way to what changes elsewhere, where a directory has so many to link.
func (g *giveWay) least(n *node, items int) int64 {
	w := g.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.hint == nil && (n.held || !g.mayDefer(n)) {
		return max(w.c.names.step, int64(items/listedShare))
	}
	return w.c.names.step
}

// step takes a step of the items that are to be linked: the rest, and those of the step that are done now. Where names are linked
// in steps no other directory does that until end is called.
func (g *giveWay) step(n *node, items []plan.Item, least int64) (now, rest []plan.Item, end func()) {
	many := func(it plan.Item) bool { return g.of(it.Entry.Stat.Nlink) }
	if !slices.ContainsFunc(items, many) || g.isFirst() {
		return items, nil, func() {}
	}
	select {
	case g.turn <- struct{}{}:
	case <-g.w.ctx.Done():
		return nil, nil, func() {}
	}
	k := min(len(items), batchOps)
	var left []string
	for _, it := range items[:k:k] {
		if g.now(it.Entry.Stat.Nlink, least) {
			g.w.pending.done(ofItem(&it))
			left = append(left, it.Entry.Name)
			continue
		}
		now = append(now, it)
	}
	g.leave(n, left...)
	return now, items[k:], func() { <-g.turn }
}

// leaveName leaves a name that waited for its turn.
func (g *giveWay) leaveName(n *node, last *task) {
	if last.ahead != nil {
		last.ahead.over()
	}
	_, name := beneath.Split(last.op.Path)
	g.leave(n, name)
	g.w.opsDone(n, 1)
}

// leave leaves names of a directory to a later crawl.
func (g *giveWay) leave(n *node, left ...string) {
	if len(left) == 0 {
		return
	}
	w := g.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !g.mayDefer(n) {
		n.held = true
		return
	}
	more := leftNames{names: left, dir: n.path, safeXtime: max(n.reach, vacuous), since: earlier(w.c.debounce.now(), firstMark(n).Time())}
	if n.old != nil {
		if was := &n.old.left; !was.none() {
			more.safeXtime, more.since = min(more.safeXtime, was.safeXtime), earlier(more.since, was.since)
		}
		for _, name := range left {
			switch o, is := n.old.names[name]; {
			case is && o.dir.IsZero():
				more.safeXtime, more.since = min(more.safeXtime, o.safeXtime), earlier(more.since, o.wait.since)
			case is:
				n.deferName(name, o) // a hint may name a directory as it names a file
			}
		}
	}
	n.deferred.left.add(more)
}

// firstMark is the first mark of a directory that the slave lacks, as far as that is known.
func firstMark(n *node) xtime.Time {
	if n.hint != nil {
		for _, p := range n.hint.points {
			if p > n.reach {
				return p
			}
		}
	}
	return n.upto
}

// mayDefer tells whether it can be remembered what a directory lacks, for the copy that the slave has. w.mu is held.
func (g *giveWay) mayDefer(n *node) bool {
	return n.copy != 0 && !n.again && !n.entry.Always && (n.dir == nil || !n.dir.Refuses)
}

// leaveUnseen leaves names that hints tell of in a directory without a look at them, where this crawl is to end. It leaves none where
// there is a directory among them, which is to be visited, or where they are few.
func (g *giveWay) leaveUnseen(n *node, names []beneath.Entry) bool {
	if !g.over.Load() || int64(len(names)) < g.w.c.names.look || n.second {
		return false
	}
	left := make([]string, len(names))
	for i, e := range names {
		if left[i] = e.Name; !n.hint.names[e.Name].IsZero() {
			return false
		}
	}
	g.w.looksAt(n.hint, int64(len(left)))
	g.leave(n, left...)
	return true
}

// leaveParts is leaveUnseen for the parts of a directory that are yet to be visited.
func (g *giveWay) leaveParts(n *node) {
	for n.hint != nil && n.part+1 < n.parts {
		part, parts := share.Next(n.part, n.parts, n.base)
		if !g.leaveUnseen(n, n.hint.part(part, parts, n.path == "")) {
			return
		}
		n.part, n.parts = part, parts
	}
}

// postpones tells whether this crawl leaves it to a later one to check what inodes lack: names that are left would all be missing.
func (g *giveWay) postpones() bool {
	if !g.w.c.groups.Load() || !g.over.Load() && !g.w.c.deferrals.anyLeft() {
		return false
	}
	g.later.Store(true)
	return true
}

// further tells of one entry after the other whether it is a further name of an inode with very many: one of them stands for all.
func (g *giveWay) further() func(*plan.Entry) bool {
	seen := map[xtime.GFID]bool{}
	return func(e *plan.Entry) bool {
		if e.Kind == slave.Dir || e.Stat.Nlink < g.w.c.names.many {
			return false
		}
		was := seen[e.Record.GFID]
		seen[e.Record.GFID] = true
		return was
	}
}

// onlyFirst leaves one name of each inode with very many names: what moved of it is found by that, and the others become links.
func (g *giveWay) onlyFirst(fresh []newcomer) []newcomer {
	further := g.further()
	return slices.DeleteFunc(fresh, func(e newcomer) bool { return further(&e.Entry) })
}
