package crawler

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// moves lets a crawl find what was moved, wherever it comes first: a directory with entries that may have come from
// elsewhere is left at that point, and visited again when the rest of the crawl is through. By then everything that has
// left its place is parked, or known to stand where another inode belongs (swaps and cycles), and is put in its new place
// without its content. A directory that has got its place may bring more of that to light, so there are rounds, until one
// finds nothing: what is left is shipped.
//
// A crawl by hints has looked at all that they tell of before its first visit (foresee), so nothing is put off: what the
// slave has elsewhere, by what it remembers of places, is moved from there at once.
type moves struct {
	mu        sync.Mutex
	since     xtime.Time           // the slave's stime at the beginning: older inodes may be on the slave
	hinted    bool                 // the root is visited by hints: nothing needs to be put off
	off       bool                 // nothing is put off any more, but what is blocked
	over      bool                 // nor is anything left standing that nobody has claimed
	progress  bool                 // something was found since the last round, or may be by what was met for the first time
	waiting   []*node              // for their second visit
	displaced map[xtime.GFID]stood // inodes that stand where others belong, and where
	blocked   map[xtime.GFID]bool  // inodes whose places are taken by more than may be removed
	busy      int                  // visits and operations on their way

	awaited atomic.Int64 // names that are left to the next crawl (awaitPark); without mu
}

// maxDisplaced bounds what is remembered for swaps; beyond that contents are sent.
const maxDisplaced = 100_000

// mayHaveMoved tells whether an inode that the slave does not have in this place may be there in another: it is older
// than what the slave has. A mistake costs a second visit, or a content that is sent again.
func (w *crawl) mayHaveMoved(e *plan.Entry) bool {
	born := e.Stat.Btime
	return born.Sec != 0 && xtime.FromTime(source.UnixTime(born)) < w.moves.since
}

// knownSince notes how far the slave was when the crawl began.
func (w *crawl) knownSince(root *node, state *slave.DirState) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	w.moves.hinted = root.hint != nil
	if w.moves.since == 0 && state.Record.GFID == root.entry.Record.GFID {
		w.moves.since = state.Record.Xtime
		w.guard.FilledBefore(w.moves.since != 0)
	}
}

// putOff takes out of the plan what may be elsewhere on the slave, for a second visit.
func (w *crawl) putOff(n *node, p *plan.Plan) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	onlyBlocked := w.moves.off || w.moves.hinted
	if w.moves.over || w.moves.since == 0 || onlyBlocked && len(w.moves.blocked) == 0 {
		return
	}
	items, children := p.Items[:0:0], p.Children[:0:0]
	for _, it := range p.Items {
		if foreign(it.State, &it.Entry) && w.mayCome(&it.Entry) && !w.isHeldBack(n, &it.Entry) {
			w.displace(n, it.State)
		} else {
			items = append(items, it)
		}
	}
	for _, c := range p.Children {
		if c.Make && w.mayCome(&c.Entry) && !w.isHeldBack(n, &c.Entry) {
			w.displace(n, c.State)
		} else {
			children = append(children, c)
		}
	}
	if len(items) == len(p.Items) && len(children) == len(p.Children) {
		return
	}
	n.off = left(p, items, children)
	w.pending.add(n.off)
	p.Items, p.Children = items, children
	w.wait(n, p)
}

// maxAwaited bounds what a crawl leaves to the next one by awaitPark; beyond that contents are sent.
const maxAwaited = 10_000

// moveAge is how much later than the birth of an inode a mark must be to be taken for that of a move. In a burst the first
// marks of new files come that late, and a new file must not wait for a second crawl.
const moveAge = 2 * time.Second

// awaitPark takes out of the plan what has come to the directory while the crawl went on, where the slave cannot tell what it
// has elsewhere: its old name is told of by a hint that this crawl has not seen. The name is deferred, once, and by the next
// crawl the old one is parked. What lies in a directory that came itself, and has no stamp yet, moved with that.
func (w *crawl) awaitPark(n *node, p *plan.Plan) {
	w.moves.mu.Lock()
	since, hinted := w.moves.since, w.moves.hinted
	w.moves.mu.Unlock()
	if !w.c.opts.Tree.Info().NoPlaces || !hinted || since == 0 || n.had == 0 && w.mayHaveMoved(&n.entry) {
		return
	}
	awaits := func(s *slave.EntryState, e *plan.Entry) bool {
		x, born := e.Record.Xtime, source.UnixTime(e.Stat.Btime)
		// It came with the mark that the slave has, or with one whose hint is yet to come, or with one that only a change gives.
		came := x <= since || x > w.run.end || x > xtime.FromTime(born.Add(moveAge))
		if !foreign(s, e) || !w.mayHaveMoved(e) || !came || w.isHeldBack(n, e) {
			return false
		}
		if e.Kind != slave.Dir && e.Stat.Nlink >= w.c.names.many {
			return false // it has other names, and becomes a link to one
		}
		if !w.deferredBefore(n, e.Name).wait.since.IsZero() {
			return false
		}
		if w.moves.awaited.Add(1) > maxAwaited {
			return false
		}
		w.missed(n, e.Name)
		return true
	}
	p.Items = slices.DeleteFunc(p.Items, func(it plan.Item) bool { return awaits(it.State, &it.Entry) })
	p.Children = slices.DeleteFunc(p.Children, func(c plan.Child) bool { return c.Make && awaits(c.State, &c.Entry) })
}

// mayCome tells whether an inode may get its place by a later round. moves.mu is held.
func (w *crawl) mayCome(e *plan.Entry) bool {
	if w.moves.hinted || w.moves.off {
		return w.moves.blocked[e.Record.GFID]
	}
	return w.mayHaveMoved(e)
}

// wait has n visited once more when nothing else is to be done. What is left of its plan is done now. moves.mu is held.
func (w *crawl) wait(n *node, p *plan.Plan) {
	w.moves.waiting = append(w.moves.waiting, n)
	w.moves.progress = w.moves.progress || !n.second
	n.second = true
	n.give(p.Children)
	w.mu.Lock()
	defer w.mu.Unlock()
	n.own++ // until the second visit has ended
	n.putOff = true
}

// give remembers children that are visited on their own from now on: the next visit to n must not send anybody to them.
func (n *node) give(children []plan.Child) {
	if n.given == nil {
		n.given = map[string]bool{}
	}
	for i := range children {
		n.given[children[i].Entry.Name] = true
	}
}

func (n *node) notGiven(children []plan.Child) []plan.Child {
	if len(n.given) == 0 {
		return children
	}
	return slices.DeleteFunc(children, func(c plan.Child) bool { return n.given[c.Entry.Name] })
}

func (w *crawl) isHeldBack(n *node, e *plan.Entry) bool {
	return w.c.failures.HeldBack(join(n.path, e.Name), e.Record.Xtime, w.c.pass)
}

// foreign tells whether the slave has nothing in the entry's place, or another inode of the master.
func foreign(s *slave.EntryState, e *plan.Entry) bool {
	return s == nil || !s.Record.GFID.IsZero() && s.Record.GFID != e.Record.GFID
}

// began counts visits or operations on their way.
func (m *moves) began(k int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy += k
}

// found notes that another round may find more.
func (m *moves) found() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress = true
}

// ended counts their ends. The last one gives the directories that were put off, and counts their visits as begun: a round has
// ended when all of them have, also where the first ends before the last is queued.
func (m *moves) ended(k int) []*node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy -= k; m.busy > 0 || len(m.waiting) == 0 {
		return nil
	}
	out := m.waiting
	m.over = m.off && !m.progress
	m.waiting, m.off, m.progress = nil, m.off || !m.progress, false
	m.busy += len(out)
	return out
}

// ended counts, and begins the second visits when there is nothing else to do.
func (w *crawl) ended(k int) {
	for _, n := range w.moves.ended(k) {
		w.mu.Lock()
		n.putOff, n.requeued, n.found = false, true, false
		w.pending.done(n.off)
		w.closeDir(n)
		w.mu.Unlock()
		w.stack.push(n)
	}
}

// bringBack puts inodes that have turned up under new names there, and has the directory surveyed anew. ok is false when
// the session ended.
func (w *crawl) bringBack(n *node, p *plan.Plan) (restored, ok bool) {
	w.moves.mu.Lock()
	parked := w.c.parked.Load() > 0
	displaced := len(w.moves.displaced) > 0
	last := w.moves.off || w.moves.hinted // of moves that were made since, no hint may tell yet
	w.moves.mu.Unlock()
	only := last && !parked
	if n.found {
		w.leaveOut(n, p)
	}
	if n.found || !last && !parked && !displaced {
		return false, true
	}
	fresh := newcomers(p)
	n.found, n.sought = true, map[xtime.GFID]bool{}
	for i := range fresh {
		n.sought[fresh[i].Record.GFID] = true
	}
	if only {
		fresh = slices.DeleteFunc(fresh, func(e newcomer) bool {
			return !w.mayHaveMoved(&e.Entry) && !w.isDisplaced(e.Record.GFID)
		})
	}
	if fresh = w.giveWay.onlyFirst(fresh); len(fresh) == 0 {
		return false, true
	}
	restored, err := w.moveIn(n, fresh, last)
	if err != nil {
		w.cancel(err)
		return false, false
	}
	if restored {
		w.moves.found()
		n.absent = false
		w.again(n)
	}
	return restored, true
}

// leaveOut takes out of the plan what has come to the directory since it was looked at for what may be elsewhere on the
// slave. The next crawl looks for it first. What it took the place of is missed, so the name is deferred.
func (w *crawl) leaveOut(n *node, p *plan.Plan) {
	came := func(s *slave.EntryState, e *plan.Entry) bool {
		if !foreign(s, e) || n.sought[e.Record.GFID] || !w.mayHaveMoved(e) {
			return false
		}
		w.missed(n, e.Name)
		return true
	}
	p.Items = slices.DeleteFunc(p.Items, func(it plan.Item) bool { return came(it.State, &it.Entry) })
	p.Children = slices.DeleteFunc(p.Children, func(c plan.Child) bool { return c.Make && came(c.State, &c.Entry) })
}

// tryMoves tells whether any inode was put in its place, and which were not found. What could not be moved is shipped.
func (w *crawl) tryMoves(ops []slave.Op) (moved bool, missed map[xtime.GFID]bool, err error) {
	results, err := w.applyNow(ops)
	missed = map[xtime.GFID]bool{}
	moving := movedBy(ops)
	taken := map[xtime.GFID]stood{} // from where it stood, and not yet in its place
	for i, r := range results {
		op := &ops[i]
		_, direct := taken[op.Record.GFID]
		switch {
		case op.Kind == slave.OpPark && r.Parked && moving[op.Expect]:
			w.countParked() // whether that helps anything is yet to be seen
			taken[op.Expect] = stood{op.Path, op.In}
		case !takesPlace(op):
			w.noteParked(r)
		case errors.Is(r.Err, slave.ErrNeedContent):
			missed[op.Record.GFID] = true
		case r.Err == nil:
			moved = true
			w.noteParked(r) // what stood there
			delete(taken, op.Record.GFID)
			if op.Kind == slave.OpLink {
				w.guard.Leaves(op)
			} else if err := w.cameBack(op, direct); err != nil {
				return moved, nil, err
			}
			w.guard.Replaced(op)
		}
	}
	if err != nil {
		return moved, missed, err
	}
	return moved, missed, w.putBack(ops, taken)
}

// cameBack takes what was parked, and moved from there, out of what counts as removed. No more of a directory is counted
// than that. What was moved directly never counted.
func (w *crawl) cameBack(op *slave.Op, direct bool) error {
	if direct || w.c.opts.MaxDelete >= 100 {
		return nil
	}
	lost := w.c.losses.Lately()
	top, within := countedAs(op)
	if !within && w.c.losses.Back(top, op.Entry == slave.Dir) || lost == 0 {
		return nil
	}
	n := int64(1)
	if op.Entry == slave.Dir {
		counts, err := w.c.opts.Tree.Count(w.ctx, []string{op.Path}, lost)
		if err != nil {
			return err
		}
		n = counts[0]
	}
	w.c.losses.BackWithin(top, op.Record.GFID, n)
	return nil
}

// unparks are the operations that put the newcomers that the slave has in their places. What left its place is parked first,
// and so is what stands in the way, where one of them is a directory. A file whose name leads to another one by now keeps it
// until that comes, and gets a further name: else that name, which the stamps claim, would be missed meanwhile. k tells of how many
// of the newcomers the slave has answered for.
func (w *crawl) unparks(n *node, fresh []newcomer, last bool) (ops []slave.Op, k int, err error) {
	gfids := make([]xtime.GFID, len(fresh))
	for i := range fresh {
		gfids[i] = fresh[i].Record.GFID
	}
	found, err := w.find(gfids)
	if err != nil {
		return nil, 0, err
	}
	holding, err := w.keptWhere(n, fresh[:len(found)], found)
	if err != nil {
		return nil, 0, err
	}
	for i := range found {
		e := &fresh[i]
		from, isDisplaced := w.leftBehind(n, e, &found[i], last)
		if !found[i].Parked && !isDisplaced {
			continue
		}
		if !w.mayMove(e, &found[i], from.path, join(n.path, e.Name)) || holding[join(n.path, e.Name)] != nil {
			continue
		}
		shared := isDisplaced && e.Kind != slave.Dir && w.mayLeadElsewhere(from.path, &found[i])
		if isDisplaced && !shared && n.isCopied(from) {
			continue
		}
		if isDisplaced && !shared {
			ops = append(ops, slave.Op{Kind: slave.OpPark, Entry: e.Kind, Path: from.path, Expect: e.Record.GFID, In: from.dir})
		}
		path := join(n.path, e.Name)
		if e.state != nil && (e.Kind == slave.Dir || e.state.Kind == slave.Dir) {
			ops = append(ops, slave.Op{Kind: slave.OpPark, Entry: e.state.Kind, Path: path, Expect: e.state.Record.GFID,
				In: n.entry.Record.GFID})
		}
		op := slave.Op{Kind: slave.OpUnpark, Entry: e.Kind, Path: path, From: parkedAt(&found[i]), In: n.entry.Record.GFID,
			Record: slave.Record{GFID: e.Record.GFID, Xtime: found[i].Record.Xtime}}
		if shared {
			op.Kind, op.From = slave.OpLink, from.path
			w.c.groups.Store(true)
		}
		if e.Kind != slave.Dir && e.Stat.Nlink > 1 {
			// Without these the slave would take the inode for one with a single name, and settle its group too early.
			op.Links, op.Ino, op.LinksFinal = e.Stat.Nlink, e.Stat.Ino, w.researches()
			w.c.groups.Store(true)
		}
		ops = append(ops, op)
	}
	return ops, len(found), nil
}

// leftBehind tells where in the tree the slave has an inode that is elsewhere on the master by now. As a rule that is known
// of what stands where another inode belongs; when nothing is put off any more, whatever the slave remembers is looked at.
func (w *crawl) leftBehind(n *node, e *newcomer, f *slave.Found, last bool) (at stood, ok bool) {
	at, ok = w.takeDisplaced(e.Record.GFID)
	if f.Parked || f.Linked && e.Stat.Nlink > 1 {
		return stood{}, false // it is taken from there, or linked
	}
	if f.Path == "" || !ok && !last {
		return at, ok
	}
	if !w.mayTake(f.Path, &e.Entry) {
		return stood{}, false
	}
	now, err := w.entryAt(f.Path)
	if err == nil && now.Record.GFID == e.Record.GFID || err != nil && !source.Gone(err) {
		return stood{}, false
	}
	return stood{f.Path, f.Dir}, !within(n.path, map[string]bool{f.Path: true}) && n.path != f.Path
}

// isCopied tells whether a name lies in another copy of the node's own directory, which the slave has in the tree. Nothing is taken
// from there: on the master the directory still has what is under that name, and the stamp of that copy says so. Once the copy is parked
// its stamp goes first.
func (n *node) isCopied(at stood) bool {
	dir, _ := beneath.Split(at.path)
	return at.dir == n.entry.Record.GFID && dir != n.path
}

// mayLeadElsewhere tells whether the master may have another file under a name that an inode left. A directory there could only
// come once the name is free. Where the name's directory is elsewhere by now, or gone, nobody knows.
func (w *crawl) mayLeadElsewhere(path string, f *slave.Found) bool {
	e, dir, err := w.entryIn(path)
	switch {
	case err == nil:
		return e.Kind != slave.Dir
	case !source.Gone(err) || !w.c.opts.Tree.Info().Links:
		return false
	}
	return (dir.IsZero() || f.Path == path && !f.Dir.IsZero() && f.Dir != dir) && w.c.mayLeave()
}

// mayLeave tells whether one more name may be left behind where nobody knows who will come to it, and counts it. If this crawl
// ends before its directory is parked, the next one takes all that were left for removals; so they stay well below what
// may always be removed. What is beyond that is taken from its old name, as long as no crawl has stamped the root.
func (c *Crawler) mayLeave() bool {
	return c.opts.MaxDelete >= 100 || c.leftCount.Add(1) <= c.free/2
}

// parkedAt is where in a parked directory an inode was found, if it is not parked itself.
func parkedAt(f *slave.Found) string {
	if f.Parked {
		return f.Path
	}
	return ""
}
