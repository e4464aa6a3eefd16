package crawler

import (
	"errors"
	"io/fs"
	"slices"

	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// This file has what hints change about a crawl: a directory of which they tell all is not listed on either side. The
// names that they give are looked at instead, as a listing would look at them, and everything else, from the plan to the
// stamp, goes its way.
//
// Why the stamp is right (invariant 5). A hint is made by the mark itself, so what it says is true: whatever changed in or below
// the directory with an xtime later than points[0], up to end, did so under names. The slave's stamp S says that it has
// everything there up to S. If S is one of points, the names cover all that is between S and end, and once they are
// applied the directory may be stamped with end: not with the xtime it has now, of which a later hint tells. A hint that
// was lost, late, doubled or out of order leaves an S that is not among the points, and the directory is listed.
//
// Where files wait to be shipped (deferrals.go), S is what has been reached but for them.
//
// One thing more: if the directory above is stamped with a value beyond the run's end, as one that was listed may be, then
// what changed here after the run would count as applied. So there the directory must not have been marked since.

// partNames is how many names of a directory are worked on at once.
const partNames = slave.MaxNames / 2

// foreseeDirs and foreseeNames bound what is surveyed ahead.
const (
	foreseeDirs  = 512
	foreseeNames = 8192
)

// proven tells whether the hints say all about the directory of n, given what the slave has.
func (w *crawl) proven(n *node, d *directory, state *slave.DirState) bool {
	t, mark := n.hint, w.m.Since()
	if _, is := t.names[filter.Tag]; is && w.m.filter.Caches() {
		return false // it may have come or gone: then other entries are left out
	}
	if state.Err != nil || state.Record.GFID != n.entry.Record.GFID || d.Refuses {
		return false
	}
	if t.end < mark || t.end > d.Xtime {
		return false // compared anew because the operator wants it, or marked by another clock
	}
	if n.parent != nil && t.end != d.Xtime && (w.run == nil || n.parent.finish.Record.Xtime > w.run.end || !t.joins(n.parent.hint)) {
		return false
	}
	// S may be end itself: then only what has its own mark below is left to do, and nothing is, or what was put off.
	return n.reach == t.end || slices.ContainsFunc(t.points, func(p xtime.Time) bool { return max(p, mark) == n.reach })
}

// joins tells whether all marks up to the end of the directory above are known here, too. Of a reminder that is so where the
// one above is visited for no other reason.
func (t *dirHint) joins(above *dirHint) bool { return !t.reminder || above != nil && above.reminder }

// visitHinted does for a directory of which hints tell what visit does for one that is listed. It gives false, and has
// done nothing, where it must be listed after all.
func (w *crawl) visitHinted(n *node, d *directory, state *slave.DirState) bool {
	if !w.proven(n, d, state) {
		return false
	}
	names := n.hint.part(n.part, n.parts, n.path == "")
	if w.giveWay.leaveUnseen(n, names) {
		names, state.Entries = nil, nil
	}
	if n.parent == nil {
		keepLostAndFound(w.present(d, lostAndFound), state)
		w.knownSince(n, state)
	}
	p := plan.Compute(w.entries(n, d, names, state), state.Entries, w.planOptions(n))
	if n.parent == nil && len(p.Stale) > 0 && w.emptied(d) {
		return false // by itself a reason to stop, or not: the listing tells
	}
	if !n.found { // not yet counted
		w.c.opts.Counters.Hinted.Add(1)
	}
	if n.upto != n.hint.end || n.finish.Record.Xtime != n.hint.end {
		// Not in a second visit: children of the first may be looking.
		n.upto, n.finish.Record.Xtime = n.hint.end, n.hint.end
	}
	w.looksAt(n.hint, int64(len(names)))
	w.mu.Lock()
	n.keeps = true
	w.mu.Unlock()
	w.carryOut(n, d, p)
	w.leave(n)
	return true
}

// expect counts as pending what hints tell of, until it is looked at.
func (w *crawl) expect(r *hintRange) {
	if r == nil {
		return
	}
	for _, t := range r.dirs {
		t.waits = t.entries()
		w.pending.add(amount{entries: t.waits})
	}
}

// looksAt takes up to so many of a directory's names out of what is pending: from now on its plan counts.
func (w *crawl) looksAt(t *dirHint, names int64) {
	w.mu.Lock()
	names = min(names, t.waits)
	t.waits -= names
	w.mu.Unlock()
	w.pending.done(amount{entries: names})
}

// list gives up the hints for a directory and has it visited anew. In a second visit it is too late for that: directories in
// it were visited on their own since the first, and a listing would stamp what changed in them after that. The next crawl
// comes to it then.
func (w *crawl) list(n *node) {
	w.looksAt(n.hint, int64(len(n.hint.names)))
	if n.given != nil {
		w.hold(n)
		return
	}
	w.mu.Lock()
	n.deferred = deferredNames{}
	w.mu.Unlock()
	n.hint, n.part, n.parts, n.base, n.found, n.finish = nil, 0, 0, 0, false, slave.Op{}
	w.again(n)
}

// hinted gives a node what the hints tell of its directory, or what is due there if nothing else has changed. state is what the slave
// has of it, nil where that is not known yet.
func (w *crawl) hinted(n *node, state *slave.EntryState) *node {
	n.hint = w.run.of(n.entry.Record.GFID)
	if n.hint == nil && state != nil && !n.entry.Always {
		n.hint = w.c.deferrals.reminder(state, n.entry.Record.Xtime, w.c.debounce.now(), w.c.names.few)
	}
	if n.hint != nil {
		n.parts = uint32(len(n.hint.names)/partNames + 1)
		n.base = n.parts
	}
	return n
}

// part is those of the names that are to be worked on together.
func (t *dirHint) part(part, parts uint32, atRoot bool) (names []beneath.Entry) {
	for name := range t.names {
		if slave.PartOf(name, parts) == part && !(atRoot && name == slave.Reserved) {
			names = append(names, beneath.Entry{Name: name})
		}
	}
	return names
}

// query asks the slave about a node's directory.
func (n *node) query() slave.Query {
	if n.hint == nil {
		return slave.Query{Path: n.path, Part: n.part, Parts: n.parts}
	}
	q := slave.Query{Path: n.path, ByName: true}
	for _, e := range n.hint.part(n.part, n.parts, n.path == "") {
		q.Names = append(q.Names, e.Name)
	}
	return q
}

// weight is about how much the slave will have to say about a node's directory.
func (n *node) weight() int64 {
	if n.hint != nil {
		return int64(min(len(n.hint.names), partNames)) * nameBytes
	}
	return n.entry.Stat.Size
}

// present lists name where the master has it.
func (w *crawl) present(d *directory, name string) []beneath.Entry {
	if _, err := d.Dir.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []beneath.Entry{{Name: name}}
}

var errOne = errors.New("there is one")

// emptied tells whether the master's root holds nothing. It reads the beginning of the listing only.
func (w *crawl) emptied(d *directory) bool {
	err := w.m.Names(d.Dir, true, func(beneath.Entry) error { return errOne })
	return err == nil
}

// ahead is one directory that was surveyed before its turn.
type ahead struct {
	path  string
	rules *filter.Dir // without Tags
	gfid  xtime.GFID
	hint  *dirHint
	state slave.DirState
}

// foresee surveys the directories that hints tell of in one request, where the crawl would go down to them one by one,
// and parks what is gone before anything new is looked for: so what moved is found parked, in whichever order its
// directories come. What stands where another inode belongs by now is remembered for the same reason. What would weigh too
// much is left to the visits.
func (w *crawl) foresee() error {
	if w.root.hint == nil {
		return nil
	}
	all := w.unfold(w.root)
	queries := make([]slave.Query, len(all))
	for i, a := range all {
		queries[i] = (&node{path: a.path, hint: a.hint, parts: 1}).query()
	}
	w.ahead = map[string]*slave.DirState{}
	for weight := int64(0); len(queries) > 0 && weight < slave.MaxSurvey; {
		states, err := w.c.opts.Tree.Survey(w.ctx, queries)
		if err != nil {
			return err
		}
		w.c.opts.Counters.Surveyed.Add(int64(len(states)))
		for i := range states {
			weight += states[i].Weight()
			all[i].state = states[i]
			if err := w.takeAhead(&all[i]); err != nil {
				return err
			}
		}
		all, queries = all[len(states):], queries[len(states):]
	}
	return nil
}

// takeAhead takes what a survey has told of one of the directories.
func (w *crawl) takeAhead(a *ahead) error {
	if a.state.Err != nil || a.state.Truncated || a.state.Record.GFID != a.gfid {
		return nil
	}
	if err := w.parkAhead(a); err != nil {
		return err
	}
	w.ahead[a.path] = &a.state
	return nil
}

// unfold lists the directories that the hints lead to from the root, as long as they are few.
func (w *crawl) unfold(root *node) []ahead {
	all := []ahead{{gfid: root.entry.Record.GFID, hint: root.hint, rules: root.filter}}
	names := len(root.hint.names)
	if names > partNames {
		return all[:0]
	}
	for i := 0; i < len(all); i++ {
		for name, g := range all[i].hint.names {
			t := w.run.of(g)
			if t == nil || len(t.names) > partNames || len(all) == foreseeDirs || names+len(t.names) > foreseeNames {
				continue
			}
			if all[i].rules.Excludes(name, true, -1) {
				continue
			}
			names += len(t.names)
			all = append(all, ahead{path: join(all[i].path, name), gfid: g, hint: t, rules: all[i].rules.Down(name)})
		}
	}
	return all
}

// foreseen is the survey of a node that was made ahead, once.
func (w *crawl) foreseen(n *node) *slave.DirState {
	if n == w.root && w.looked != nil {
		known := w.looked
		w.looked = nil // from now on this crawl changes things
		return known
	}
	if n.hint == nil || n.parts > 1 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.ahead[n.path]
	delete(w.ahead, n.path)
	if s != nil && (s.Record.GFID != n.entry.Record.GFID || n.copy != 0 && s.Copy != n.copy) {
		return nil // another has come to its place meanwhile, or another copy
	}
	return s
}

// parkAhead parks those entries of a directory that the master lacks. What cannot be done, or may not be, is left to the
// visit.
func (w *crawl) parkAhead(a *ahead) error {
	d, err := w.m.Open(a.path, a.gfid)
	if err != nil {
		return nil
	}
	defer d.Dir.Close()
	rules, in := w.m.rulesOf(a.path)
	if !in {
		return nil
	}
	n := &node{path: a.path, rules: Tagged(w.m.filter, rules, d.Dir), entry: plan.Entry{Record: slave.Record{GFID: a.gfid}}, hint: a.hint}
	if a.path != "" {
		n.parent = &node{} // the visit will know better
	}
	w.stands(n, &a.state)
	if !w.proven(n, d, &a.state) || a.path == "" && w.emptied(d) {
		return nil
	}
	if a.path == "" {
		keepLostAndFound(w.present(d, lostAndFound), &a.state)
	}
	stale, _, err := w.apartKept(n, w.lookAhead(n, d, a.state.Entries))
	if err != nil || len(stale) == 0 {
		return err
	}
	if err := w.guard.Allow(w.ctx, underGuard{n}, stale); limit.IsRefused(err) {
		w.stillStand(n, stale)
		return nil
	} else if err != nil {
		return err
	}
	ops := make([]slave.Op, len(stale))
	for i, s := range stale {
		ops[i] = w.park(n, s).op
	}
	w.looksAt(a.hint, int64(len(ops)))
	results, err := w.applyNow(ops)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for i, r := range results {
		w.noteParked(r)
		if r.Err == nil {
			w.c.failures.Clear(ops[i].Path)
			gone[stale[i].Name] = true
		}
	}
	a.state.Entries = slices.DeleteFunc(a.state.Entries, func(s slave.EntryState) bool { return gone[s.Name] })
	return nil
}

// lookAhead gives those of a directory's entries that the master lacks, and remembers which others stand in the places of
// other inodes (swaps and cycles).
func (w *crawl) lookAhead(n *node, d *directory, entries []slave.EntryState) (stale []slave.EntryState) {
	r := w.m.Reader(n.path, d.Dir, false)
	var inTheWay []*slave.EntryState
	for i := range entries {
		if r.Covered(entries[i].Name) || leavesEntry(n.rules, d.Dir, entries[i].Name) {
			continue // what the filter deletes the visit sees to
		}
		switch g, err := w.m.GFID(d.Dir, entries[i].Name); {
		case errors.Is(err, fs.ErrNotExist):
			if w.m.filter.Deletes() || !leavesOutState(n.rules, &entries[i]) {
				stale = append(stale, entries[i])
			}
		case err == nil && g != entries[i].Record.GFID && w.m.OnMount(d.Dir, entries[i].Name):
			inTheWay = append(inTheWay, &entries[i])
		}
	}
	w.moves.mu.Lock() // the master may have answered slowly until now
	defer w.moves.mu.Unlock()
	for _, s := range inTheWay {
		w.displace(n, s)
	}
	return stale
}
