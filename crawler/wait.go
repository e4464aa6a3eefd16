package crawler

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/marker/xtime"
	"georep/slave"
)

// This file tells what moved from what was removed, where that decides whether more goes than max-delete allows
// (invariant 10). A crawl may come to the old place of an inode before the new one. So what the guard refuses is neither
// parked nor refused at once: it stands where it is, and its directory is visited again when the rest of the crawl is
// through. By then what moved was taken from there to where the master has it now, in one batch, which is no removal and
// counts nowhere. If all that is left is still too much, the crawl ends with nothing of it removed.

// letStand takes out of the plan what the guard refuses, for another visit. It gives false when there will be none: then
// it is a removal.
func (w *crawl) letStand(n *node, p *plan.Plan, stale []slave.EntryState) bool {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	if w.moves.over {
		return false
	}
	items := p.Items[:0:0]
	for _, it := range p.Items {
		if it.ParkFirst {
			w.displace(n, it.State)
		} else {
			items = append(items, it)
		}
	}
	for i := range stale {
		w.displace(n, &stale[i])
	}
	more := left(p, items, p.Children)
	more.entries += int64(len(stale))
	w.pending.add(more)
	p.Items = items
	w.mu.Lock()
	waits := n.putOff
	w.mu.Unlock()
	if waits {
		n.off = n.off.plus(more, 1)
		return true
	}
	n.off = more
	w.wait(n, p)
	return true
}

// stillStand remembers what was refused before the first visit.
func (w *crawl) stillStand(n *node, stale []slave.EntryState) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	for i := range stale {
		w.displace(n, &stale[i])
	}
}

// mayMakeWay asks the guard about what stands in the places of newcomers and is not moved by the same operations. Where it
// refuses, those moves are left out, and what they were to take stays known. What is itself such a newcomer elsewhere is no
// removal (swaps and cycles of large directories): it makes way, and is put in its place when that is free.
func (w *crawl) mayMakeWay(n *node, ops []slave.Op, fresh []newcomer) ([]slave.Op, error) {
	moving, blocked := movedBy(ops), map[xtime.GFID]bool{}
	var inTheWay, claimed []slave.EntryState
	for i := range fresh {
		s, g := fresh[i].state, fresh[i].Record.GFID
		if s != nil && moving[g] && !moving[s.Record.GFID] && !w.isBlocked(s.Record.GFID) &&
			!w.guard.MayReplace(join(n.path, fresh[i].Name), s, fresh[i].Kind, fresh[i].Record.GFID) {
			inTheWay, blocked[g] = append(inTheWay, *s), true
		}
	}
	err := w.guard.Allow(w.ctx, underGuard{n}, inTheWay)
	refused := limit.IsRefused(err)
	if err != nil && !refused {
		return nil, err
	}
	if refused {
		if w.isOver() {
			w.refuse(n, err)
		}
		w.block(blocked)
		maps.DeleteFunc(moving, func(g xtime.GFID, _ bool) bool { return blocked[g] })
	}
	for i := range fresh {
		s, g := fresh[i].state, fresh[i].Record.GFID
		if s != nil && moving[g] && !moving[s.Record.GFID] && w.isBlocked(s.Record.GFID) {
			claimed = append(claimed, *s)
		}
	}
	if err := w.guard.Take(w.ctx, underGuard{n}, claimed); err != nil || !refused {
		return ops, err
	}
	return w.without(ops, blocked), nil
}

// block notes inodes that have to wait for their places, which may be a reason for another round.
func (w *crawl) block(blocked map[xtime.GFID]bool) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	if w.moves.blocked == nil {
		w.moves.blocked = map[xtime.GFID]bool{}
	}
	for g := range blocked {
		w.moves.progress = w.moves.progress || !w.moves.blocked[g]
		w.moves.blocked[g] = true
	}
}

// without leaves out the operations that move the blocked inodes, unless others need the places where they stand.
func (w *crawl) without(ops []slave.Op, blocked map[xtime.GFID]bool) []slave.Op {
	left, taken := map[string]bool{}, map[string]bool{}
	for i := range ops {
		if op := &ops[i]; takesPlace(op) {
			if blocked[op.Record.GFID] {
				left[op.Path] = true
			} else {
				taken[op.Path] = true
			}
		}
	}
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	out := ops[:0]
	for _, op := range ops {
		switch {
		case op.Kind == slave.OpPark && blocked[op.Expect] && !taken[op.Path]:
			w.displaceAt(op.Expect, stood{op.Path, op.In})
		case op.Kind == slave.OpLink && blocked[op.Record.GFID]:
			w.displaceAt(op.Record.GFID, stood{path: op.From})
		case !left[op.Path]:
			out = append(out, op)
		}
	}
	return out
}

// isOver tells that there will be no further round.
func (w *crawl) isOver() bool {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	return w.moves.over
}

// isBlocked tells whether an inode was met in another place on the master, which is taken.
func (w *crawl) isBlocked(g xtime.GFID) bool {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	return w.moves.blocked[g]
}

// takesPlace tells whether an operation puts an inode that the slave has in its place.
func takesPlace(op *slave.Op) bool { return op.Kind == slave.OpUnpark || op.Kind == slave.OpLink }

// movedBy are the inodes that operations put in their places.
func movedBy(ops []slave.Op) map[xtime.GFID]bool {
	out := map[xtime.GFID]bool{}
	for i := range ops {
		if takesPlace(&ops[i]) {
			out[ops[i].Record.GFID] = true
		}
	}
	return out
}

// putBack puts what was taken from its place, and could not be moved, back there. What cannot be is lost from the tree, and
// counts.
func (w *crawl) putBack(ops []slave.Op, taken map[xtime.GFID]stood) error {
	var back []slave.Op
	for _, op := range ops {
		if from, is := taken[op.Record.GFID]; is && op.Kind == slave.OpUnpark {
			op.Path, op.In, op.From = from.path, from.dir, ""
			back = append(back, op)
		}
	}
	results, err := w.applyNow(back)
	for i, r := range results {
		if r.Err != nil {
			w.guard.Gone(back[i].Record.GFID)
		}
	}
	return err
}

// countedAs is the inode as which the guard counted what an OpUnpark takes, and whether that is a parked directory in which it
// lies.
func countedAs(op *slave.Op) (g xtime.GFID, within bool) {
	top, _, inside := strings.Cut(op.From, "/")
	if !inside {
		return op.Record.GFID, false
	}
	top, _, _ = strings.Cut(top, ".") // one of several of that GFID
	g, err := xtime.ParseGFID(top)
	if err != nil {
		return op.Record.GFID, false
	}
	return g, true
}

// refuse notes what is left standing in the end, so that nothing above it is stamped. Everything else goes on.
func (w *crawl) refuse(n *node, err error) {
	var r *limit.Refusal
	if !errors.As(err, &r) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n.held = true
	w.refused = w.refused.With(r)
}

// leaveBlocked takes out of the plan what cannot get its place, because what stands there may not be removed. It stays
// where it is.
func (w *crawl) leaveBlocked(n *node, p *plan.Plan) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	if !w.moves.over || len(w.moves.blocked) == 0 {
		return
	}
	before := len(p.Items) + len(p.Children)
	blocked := func(s *slave.EntryState, e *plan.Entry) bool {
		return s != nil && foreign(s, e) && w.moves.blocked[e.Record.GFID]
	}
	p.Items = slices.DeleteFunc(p.Items, func(it plan.Item) bool { return blocked(it.State, &it.Entry) })
	p.Children = slices.DeleteFunc(p.Children, func(c plan.Child) bool { return c.Make && blocked(c.State, &c.Entry) })
	if len(p.Items)+len(p.Children) < before {
		w.hold(n)
	}
}
