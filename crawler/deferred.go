package crawler

import (
	"time"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// stands notes what the slave has of a node's directory: which copy, its stamp, and up to where it has everything but what is
// deferred. Where it has another copy than at an earlier look, what was done since went to either of them, so neither is stamped.
func (w *crawl) stands(n *node, state *slave.DirState) {
	had, old := xtime.Time(0), (*deferral)(nil)
	if state.Err == nil && state.Record.GFID == n.entry.Record.GFID {
		had = state.Record.Xtime
		old = w.c.deferrals.known(n.entry.Record.GFID, state.Copy, had)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.copy == 0 {
		n.copy = state.Copy
	}
	n.held = n.held || n.copy != state.Copy
	n.finish.Copy = n.copy
	n.had, n.reach, n.old = had, had, old
	if old != nil {
		n.reach = old.coveredXtime
	}
}

// waits tells whether an item has to wait because its file keeps changing, and notes that it is deferred. Files with several
// names do not wait: what changes through one of them concerns directories that no mark leads to.
func (w *crawl) waits(n *node, d *directory, it *plan.Item) bool {
	e := &it.Entry
	if e.Kind != slave.File || it.How == plan.Adopt || e.Stat.Nlink > 1 || n.again || d.Refuses {
		return false
	}
	wait, ok := w.c.debounce.ship(place{n.entry.Record.GFID, e.Name}, e.Record.Xtime, e.Stat.Size)
	if ok {
		return false
	}
	w.deferName(n, e.Name, deferredName{safeXtime: w.deferredBefore(n, e.Name).safeXtime, wait: wait, path: join(n.path, e.Name), size: e.Stat.Size})
	return true
}

// missedPause is the longest pause between two looks at a name that is missed again and again.
const missedPause = time.Second

// missed notes that what the directory has under a name was replaced, moved or removed before it was brought over. The slave
// may still have what was there before that, or nothing, while the xtime to be stamped claims what is missed now: so the name
// is deferred, and the next crawl looks at it. Where it is missed for long, crawls come after pauses as long as that.
func (w *crawl) missed(n *node, name string) {
	if n.entry.Always {
		w.hold(n) // hints say nothing of what is in it
		return
	}
	now, before := w.c.debounce.now(), w.deferredBefore(n, name)
	o := deferredName{safeXtime: before.safeXtime, path: join(n.path, name), wait: wait{due: now, since: now}}
	if since := before.wait.since; !since.IsZero() {
		o.wait = wait{due: now.Add(min(now.Sub(since), missedPause)), since: since}
	}
	w.deferName(n, name, o)
}

// deferredBefore is what was deferred under a name when this crawl came to it: where nothing was, the slave has everything there up
// to what it has of the directory.
func (w *crawl) deferredBefore(n *node, name string) deferredName {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.old == nil {
		return deferredName{safeXtime: n.reach}
	}
	if before, is := n.old.names[name]; is {
		return before
	}
	if !n.old.left.none() { // it may be among these: nobody knows that of one name
		return deferredName{safeXtime: min(n.reach, n.old.left.safeXtime)}
	}
	return deferredName{safeXtime: n.reach}
}

func (w *crawl) deferName(n *node, name string, o deferredName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.deferName(name, o)
}

// deferredNames is what a node defers.
type deferredNames struct {
	names map[string]deferredName
	left  leftNames // in this crawl
}

func (n *node) deferName(name string, o deferredName) {
	if n.deferred.names == nil {
		n.deferred.names = map[string]deferredName{}
	}
	n.deferred.names[name] = o
}

// stillDefers tells whether a child lacks nothing but what it is known to defer, none of which is due: then it is not visited. To a crawl
// that gives way only files are due.
func (w *crawl) stillDefers(n *node, c *plan.Child) bool {
	g := c.Entry.Record.GFID
	t, over := w.run.of(g), w.giveWay.over.Load()
	if c.State == nil || c.Entry.Always || t != nil && !(over && t.reminder) {
		return false
	}
	d := w.c.deferrals.known(g, c.State.Copy, c.State.Record.Xtime)
	if d == nil || d.coveredXtime != c.Entry.Record.Xtime || w.c.deferrals.due(g, w.c.debounce.now(), over) {
		return false
	}
	w.deferName(n, c.Entry.Name, deferredName{dir: g, safeXtime: d.stamp})
	return true
}

// decideStamp decides how a node is stamped, and what it defers from then on. It may be called again. w.mu is held.
func (w *crawl) decideStamp(n *node) {
	n.held = n.held || w.ctx.Err() != nil // a crawl that was given up has left something undone, maybe here
	n.finish.Stamp, n.finish.Record.Xtime, n.deferral = !n.held, n.upto, nil
	if n.held || n.skip {
		return
	}
	if n.hint != nil && n.old != nil {
		for name, o := range n.old.names { // of what nobody looked at
			if _, looked := n.hint.names[name]; !looked {
				n.deferName(name, o)
			}
		}
	}
	d := &deferral{copy: n.copy, coveredXtime: n.upto, stamp: n.upto, names: n.deferred.names, left: leftBy(n)}
	if len(d.names) == 0 && d.left.none() {
		return
	}
	for _, o := range d.names {
		d.stamp = min(d.stamp, o.safeXtime)
	}
	if !d.left.none() {
		d.stamp = min(d.stamp, d.left.safeXtime)
	}
	if n.parent == nil && w.giveWay.later.Load() {
		d.stamp = min(d.stamp, n.had) // what inodes lack is deferred nowhere
	}
	d.stamp = max(d.stamp, n.had) // that it carries, and it is true, also where something is deferred up to less
	n.deferral, n.finish.Record.Xtime = d, d.stamp
	n.finish.Stamp = d.stamp > n.had
	switch {
	case n.parent == nil:
	case n.again:
		n.parent.held = true // its place in the tree is another
	default:
		_, name := beneath.Split(n.path)
		n.parent.deferName(name, deferredName{dir: n.entry.Record.GFID, safeXtime: d.stamp})
	}
}

// Waiting is a file that keeps changing and so waits to be shipped, or a large one that is worked on beside the crawls.
type Waiting struct {
	Path  string
	Since time.Time // of its first change that the slave lacks
	Large bool
}
