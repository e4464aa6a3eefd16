package crawler

import (
	"time"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// stands notes what the slave has of a node's directory: which copy, its stamp, and up to where it has everything but what is
// owed. Where it has another copy than at an earlier look, what was done since went to either of them, so neither is stamped.
func (w *crawl) stands(n *node, state *slave.DirState) {
	had, old := xtime.Time(0), (*debt)(nil)
	if state.Err == nil && state.Record.GFID == n.entry.Record.GFID {
		had = state.Record.Xtime
		old = w.c.debts.known(n.entry.Record.GFID, state.Copy, had)
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
		n.reach = old.reached
	}
}

// waits tells whether an item has to wait because its file keeps changing, and notes that it is owed. Files with several
// names do not wait: what changes through one of them concerns directories that no mark leads to.
func (w *crawl) waits(n *node, d *directory, it *plan.Item) bool {
	e := &it.Entry
	if e.Kind != slave.File || it.How == plan.Adopt || e.Stat.Nlink > 1 || n.again || d.Refuses {
		return false
	}
	wait, ok := w.c.hot.ship(place{n.entry.Record.GFID, e.Name}, e.Record.Xtime, e.Stat.Size)
	if ok {
		return false
	}
	w.owe(n, e.Name, owed{floor: w.owedBefore(n, e.Name).floor, wait: wait, path: join(n.path, e.Name), size: e.Stat.Size})
	return true
}

// missedPause is the longest pause between two looks at a name that is missed again and again.
const missedPause = time.Second

// missed notes that what the directory has under a name was replaced, moved or removed before it was brought over. The slave
// may still have what was there before that, or nothing, while the xtime to be stamped claims what is missed now: so the name
// is owed, and the next crawl looks at it. Where it is missed for long, crawls come after pauses as long as that.
func (w *crawl) missed(n *node, name string) {
	if n.entry.Always {
		w.hold(n) // hints say nothing of what is in it
		return
	}
	now, before := w.c.hot.now(), w.owedBefore(n, name)
	o := owed{floor: before.floor, path: join(n.path, name), wait: wait{due: now, since: now}}
	if since := before.wait.since; !since.IsZero() {
		o.wait = wait{due: now.Add(min(now.Sub(since), missedPause)), since: since}
	}
	w.owe(n, name, o)
}

// owedBefore is what was owed under a name when this crawl came to it: where nothing was, the slave has everything there up
// to what it has of the directory.
func (w *crawl) owedBefore(n *node, name string) owed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.old == nil {
		return owed{floor: n.reach}
	}
	if before, is := n.old.owed[name]; is {
		return before
	}
	if !n.old.left.none() { // it may be among these: nobody knows that of one name
		return owed{floor: min(n.reach, n.old.left.floor)}
	}
	return owed{floor: n.reach}
}

func (w *crawl) owe(n *node, name string, o owed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.owe(name, o)
}

// owing is what a node owes.
type owing struct {
	names map[string]owed
	left  leftNames // in this crawl
}

func (n *node) owe(name string, o owed) {
	if n.owes.names == nil {
		n.owes.names = map[string]owed{}
	}
	n.owes.names[name] = o
}

// stillOwes tells whether a child lacks nothing but what it is known to owe, none of which is due: then it is not visited. To a crawl
// that gives way only files are due.
func (w *crawl) stillOwes(n *node, c *plan.Child) bool {
	g := c.Entry.Record.GFID
	t, over := w.run.of(g), w.giveWay.over.Load()
	if c.State == nil || c.Entry.Always || t != nil && !(over && t.reminder) {
		return false
	}
	d := w.c.debts.known(g, c.State.Copy, c.State.Record.Xtime)
	if d == nil || d.reached != c.Entry.Record.Xtime || w.c.debts.due(g, w.c.hot.now(), over) {
		return false
	}
	w.owe(n, c.Entry.Name, owed{dir: g, floor: d.stamp})
	return true
}

// settle decides how a node is stamped, and what it owes from then on. It may be called again. w.mu is held.
func (w *crawl) settle(n *node) {
	n.held = n.held || w.ctx.Err() != nil // a crawl that was given up has left something undone, maybe here
	n.finish.Stamp, n.finish.Record.Xtime, n.debt = !n.held, n.upto, nil
	if n.held || n.skip {
		return
	}
	if n.told != nil && n.old != nil {
		for name, o := range n.old.owed { // of what nobody looked at
			if _, looked := n.told.names[name]; !looked {
				n.owe(name, o)
			}
		}
	}
	d := &debt{copy: n.copy, reached: n.upto, stamp: n.upto, owed: n.owes.names, left: leftBy(n)}
	if len(d.owed) == 0 && d.left.none() {
		return
	}
	for _, o := range d.owed {
		d.stamp = min(d.stamp, o.floor)
	}
	if !d.left.none() {
		d.stamp = min(d.stamp, d.left.floor)
	}
	if n.parent == nil && w.giveWay.later.Load() {
		d.stamp = min(d.stamp, n.had) // what inodes lack is owed nowhere
	}
	d.stamp = max(d.stamp, n.had) // that it carries, and it is true, also where something is owed up to less
	n.debt, n.finish.Record.Xtime = d, d.stamp
	n.finish.Stamp = d.stamp > n.had
	switch {
	case n.parent == nil:
	case n.again:
		n.parent.held = true // its place in the tree is another
	default:
		_, name := beneath.Split(n.path)
		n.parent.owe(name, owed{dir: n.entry.Record.GFID, floor: d.stamp})
	}
}

// Waiting is a file that keeps changing and so waits to be shipped, or a large one that is worked on beside the crawls.
type Waiting struct {
	Path  string
	Since time.Time // of its first change that the slave lacks
	Large bool
}
