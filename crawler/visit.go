package crawler

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/crawler/share"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/slave"
)

// visitLoop surveys and visits directories until the crawl is over.
func (w *crawl) visitLoop() {
	for {
		nodes := w.stack.pop()
		if nodes == nil {
			return
		}
		nodes, states, err := w.survey(nodes)
		if err != nil {
			w.cancel(err)
			return
		}
		for i, n := range nodes {
			if w.ctx.Err() != nil {
				return
			}
			w.visit(n, &states[i])
			w.ended(1)
		}
	}
}

// survey asks for the state of the nodes' directories in one request, but not of those that the slave lacks. What does not go
// into one answer is put back.
func (w *crawl) survey(nodes []*node) ([]*node, []slave.DirState, error) {
	var queries []slave.Query
	states, asked := make([]slave.DirState, len(nodes)), make([]int, 0, len(nodes))
	for i, n := range nodes {
		if known := w.foreseen(n); known != nil {
			states[i] = *known
		} else if !n.absent {
			queries, asked = append(queries, n.query()), append(asked, i)
		}
	}
	var got []slave.DirState
	if len(queries) > 0 {
		var err error
		if got, err = w.c.opts.Tree.Survey(w.ctx, queries); err != nil {
			return nil, nil, err
		}
		w.c.opts.Counters.Surveyed.Add(int64(len(got)))
	}
	for i, at := range asked[:len(got)] {
		states[at] = got[i]
	}
	for k := len(asked) - 1; k >= len(got); k-- {
		at := asked[k]
		w.stack.push(nodes[at])
		nodes, states = slices.Delete(nodes, at, at+1), slices.Delete(states, at, at+1)
	}
	return nodes, states, nil
}

// visit reads one directory of the master, or the next part of it, and submits what the plan says.
func (w *crawl) visit(n *node, state *slave.DirState) {
	w.beginVisit(n)
	d := w.enter(n)
	if d == nil {
		w.visited(n)
		return
	}
	defer func() {
		w.visited(n)
		for _, c := range d.later {
			w.push(c)
		}
	}()
	w.stands(n, state)
	if state.Truncated && n.parts > 0 {
		w.halve(n)
		return
	}
	if n.hint != nil {
		if !w.visitHinted(n, d, state) {
			w.list(n)
		}
		return
	}
	w.c.opts.Counters.Visited.Add(1)
	if state.Err != nil && !errors.Is(state.Err, fs.ErrNotExist) {
		w.failNode(n, "survey", state.Err)
		return
	}
	if n.again && (state.Err != nil || state.Record.GFID != n.entry.Record.GFID) {
		// The slave has yet to get this directory, which moved while the crawl passed: the next crawl comes to it.
		w.skipNode(n)
		w.hold(n)
		return
	}
	names, total, err := w.m.List(d.Dir, n.part, n.parts, n.path == "")
	if err != nil {
		w.failNode(n, "list", err)
		return
	}
	if n.parts == 0 && (state.Truncated || names == nil && total > 0) {
		n.parts = share.Parts(max(state.Total, int64(total)))
		n.base = n.parts
		w.again(n)
		return
	}
	if n.parent == nil {
		keepLostAndFound(names, state)
		w.knownSince(n, state)
	}
	if err := w.notEmptied(n, total, state); err != nil {
		w.cancel(err)
		return
	}
	listed := w.entries(n, d, names, state)
	p := plan.Compute(listed, state.Entries, w.planOptions(n))
	if !n.counted {
		n.counted = true
		w.c.opts.Counters.planned(listed, &p)
	}
	w.carryOut(n, d, p)
}

// halve has a share of a directory that is too large for one answer worked on in two. In a second visit it is too late for that:
// the next crawl comes to it.
func (w *crawl) halve(n *node) {
	switch {
	case n.second || n.given != nil:
		w.hold(n)
	case n.parts >= share.Max:
		n.part = n.parts - 1 // the others would be no better
		w.failNode(n, "list", unix.E2BIG)
		if n.parent != nil {
			w.skipNode(n) // what finishes it would take the failure back
		}
	default:
		n.parts *= 2
		w.again(n)
	}
}

// beginVisit counts the visit as one of the node's own operations, unless again has done so.
func (w *crawl) beginVisit(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !n.requeued {
		n.own++
	}
	n.requeued = false
}

// again puts the node back, to be surveyed anew. It must be the last thing that a visit does with it.
func (w *crawl) again(n *node) {
	w.mu.Lock()
	n.own++ // for the coming visit, so that the node does not seem complete meanwhile
	n.requeued = true
	w.closeDir(n)
	w.mu.Unlock()
	w.push(n)
}

func (w *crawl) planOptions(n *node) plan.Options {
	return plan.Options{Namespace: w.c.opts.Tree.Info().Namespace, Quick: w.c.opts.Quick, Wary: n.had < w.c.opts.FilterSince}
}

// enter opens the node's directory and prepares what finishes it: from the first part on it stays as it was read then,
// since only an xtime from before the listing may be stamped. nil means that there is nothing to visit.
func (w *crawl) enter(n *node) *directory {
	select {
	case w.open <- struct{}{}:
	case <-w.ctx.Done():
		return nil
	}
	d, err := w.m.Open(n.path, n.entry.Record.GFID)
	if err != nil {
		<-w.open
		w.cannotEnter(n, err)
		return nil
	}
	w.opened(n, d)
	if n.finish.Kind != 0 {
		return d
	}
	n.rules = Tagged(w.m.filter, n.filter, d.Dir)
	meta, err := w.m.Meta(d.Dir, "", &d.Stat)
	if err != nil {
		w.failNode(n, "read", err)
		return nil
	}
	n.finish = slave.Op{Kind: slave.OpFinish, Entry: slave.Dir, Path: n.path, Meta: meta, Pass: w.c.pass,
		Record: slave.Record{GFID: n.entry.Record.GFID, Xtime: d.Xtime}}
	n.upto = d.Xtime
	return d
}

// cannotEnter tells a directory that moved away, which its new mark brings back, from one that cannot be read.
func (w *crawl) cannotEnter(n *node, err error) {
	switch {
	case n.parent != nil && source.Gone(err):
		w.movedAway(n)
	case n.parent == nil:
		w.skipNode(n)
		w.cancel(source.GoesOn(source.RootError(w.c.opts.Path, err)))
	case errors.Is(err, unix.EXDEV):
		if w.m.KnowsMounts() { // else the kernel cannot tell one mount from another
			w.hold(n) // mounted since the directory above was read; the next crawl passes over it
		}
		w.skipNode(n)
	default:
		w.skipNode(n)
		w.failNode(n, "open", err)
	}
}

// movedAway gives up a directory that its path does not lead to. If it has left its parent, that one is marked anew, and defers
// what was missed until then. If it is one above it that has left its place, those in between are not: they must not be
// stamped, since on the slave they may move to where they are now as they are.
func (w *crawl) movedAway(n *node) {
	w.skipNode(n)
	if n.again {
		w.hold(n) // its new place says nothing of what was to be looked at in it
		return
	}
	from, p := n, n.parent
	for ; p.parent != nil && !w.m.LeadsTo(p.path, p.entry.Record.GFID); from, p = p, p.parent {
		w.skipNode(p)
	}
	if p == n.parent && w.m.LeadsTo(n.path, n.entry.Record.GFID) {
		w.hold(n) // it is back
		return
	}
	_, name := beneath.Split(from.path)
	w.missed(p, name)
}

func (w *crawl) skipNode(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.skip = true
}

// endsOn ends the crawl if err says that the master is not there, or not as a whole: that is no trouble of one path.
func (w *crawl) endsOn(err error) bool {
	if !errors.Is(err, source.ErrNotMaster) {
		return false
	}
	w.cancel(err)
	return true
}

// failNode notes that the directory itself could not be worked on.
func (w *crawl) failNode(n *node, what string, err error) {
	if w.ctx.Err() != nil {
		return
	}
	w.hold(n)
	if w.endsOn(err) {
		return
	}
	w.c.failures.Add(n.path, slave.OpFinish, n.entry.Record.Xtime, &slave.PathError{Op: what, Path: n.path, Err: err}, w.c.pass)
}

// lostAndFound belongs to the file system whose root the slave is, not to the replica.
const lostAndFound = "lost+found"

// keepLostAndFound takes the slave's out of the comparison, unless the master has one too.
func keepLostAndFound(master []beneath.Entry, state *slave.DirState) {
	is := func(e beneath.Entry) bool { return e.Name == lostAndFound }
	at := slices.IndexFunc(state.Entries, func(s slave.EntryState) bool {
		return s.Name == lostAndFound && s.Kind == slave.Dir && s.Record.GFID.IsZero()
	})
	if at >= 0 && !slices.ContainsFunc(master, is) {
		state.Entries = slices.Delete(state.Entries, at, at+1)
		state.Total--
	}
}

// notEmptied refuses to take an empty master for the wish to delete everything (invariant 10).
func (w *crawl) notEmptied(n *node, total int, state *slave.DirState) error {
	if n.parent != nil || total > 0 || state.Total == 0 || w.c.opts.MaxDelete >= 100 {
		return nil
	}
	if len(state.Entries) > 0 && w.ownOf(n, state) == len(state.Entries) {
		return nil
	}
	return w.guard.Emptied(w.ctx, underGuard{n}, state.Entries)
}

// entries reads the listed names. What vanished since is left out: its removal marks the directory anew. But then it
// must not count as stale either, so the directory's purge checks again (see stale). What is covered is left out on both sides, and
// so is what the filter says.
func (w *crawl) entries(n *node, d *directory, names []beneath.Entry, state *slave.DirState) []plan.Entry {
	out := make([]plan.Entry, 0, len(names))
	r := w.m.Reader(n.path, d.Dir, true)
	var covered []beneath.Entry
	var leftOut map[string]bool
	if n.rules != nil {
		leftOut = map[string]bool{}
	}
	for _, e := range names {
		if n.early(r, d.Dir, e) {
			leftOut[e.Name] = true
			continue
		}
		m, err := r.Entry(e.Name)
		switch {
		case err == nil && leavesOut(n.rules, &m):
			leftOut[e.Name] = true
		case err == nil:
			out = append(out, m)
		case errors.Is(err, source.ErrCovered):
			covered = append(covered, e)
		case !source.Gone(err):
			w.failEntry(n, e.Name, slave.OpMeta, 0, err)
		}
	}
	w.c.opts.Counters.Entries.Add(int64(len(out)))
	if len(covered) > 0 {
		w.passOver(n, d, covered, state)
	}
	w.m.leaveAlone(n, leftOut, out, state)
	if err := w.lookThrough(n, d, leftOut); err != nil {
		w.cancel(err)
	}
	return out
}

// stale leaves only what the master still lacks at this moment: a listing may miss what is renamed while it is read, and what
// came back since is yet to be brought over.
func (w *crawl) stale(n *node, d *directory, entries []slave.EntryState) []slave.EntryState {
	out := entries[:0]
	for _, s := range entries {
		stale, yet := w.isGone(n, d, s.Name)
		if stale {
			out = append(out, s)
		}
		if yet {
			w.missed(n, s.Name)
		}
	}
	return out
}
