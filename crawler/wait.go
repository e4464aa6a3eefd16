package crawler

import (
	"maps"
	"strings"

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
// refuses, those moves are left out, and what they were to take stays known.
func (w *crawl) mayMakeWay(n *node, ops []slave.Op, fresh []newcomer) ([]slave.Op, error) {
	moving, blocked := movedBy(ops), map[xtime.GFID]bool{}
	var inTheWay []slave.EntryState
	for i := range fresh {
		if s, g := fresh[i].state, fresh[i].Record.GFID; s != nil && moving[g] && !moving[s.Record.GFID] {
			inTheWay, blocked[g] = append(inTheWay, *s), true
		}
	}
	err := w.guard.allow(w.ctx, n.path, inTheWay)
	if !isRefused(err) {
		return ops, err
	}
	places := map[string]bool{}
	for i := range ops {
		if op := &ops[i]; takesPlace(op) && blocked[op.Record.GFID] {
			places[op.Path] = true
		}
	}
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	if w.moves.blocked == nil {
		w.moves.blocked = map[xtime.GFID]bool{}
	}
	maps.Copy(w.moves.blocked, blocked)
	out := ops[:0]
	for _, op := range ops {
		switch {
		case op.Kind == slave.OpPark && blocked[op.Expect]:
			w.displaceAt(op.Expect, op.Path)
		case op.Kind == slave.OpLink && blocked[op.Record.GFID]:
			w.displaceAt(op.Record.GFID, op.From)
		case !places[op.Path]:
			out = append(out, op)
		}
	}
	return out, nil
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
func (w *crawl) putBack(ops []slave.Op, stood map[xtime.GFID]string) error {
	var back []slave.Op
	for _, op := range ops {
		if from, is := stood[op.Record.GFID]; is && op.Kind == slave.OpUnpark {
			op.Path, op.From = from, ""
			back = append(back, op)
		}
	}
	results, err := w.applyNow(back)
	for i, r := range results {
		if r.Err != nil {
			w.guard.gone(back[i].Record.GFID)
		}
	}
	return err
}

// countedAs is the inode as which the guard counted what an OpUnpark takes: that of the parked directory that it lies in.
func countedAs(op *slave.Op) xtime.GFID {
	top, _, inside := strings.Cut(op.From, "/")
	if !inside {
		return op.Record.GFID
	}
	top, _, _ = strings.Cut(top, ".") // one of several of that GFID
	g, err := xtime.ParseGFID(top)
	if err != nil {
		return op.Record.GFID
	}
	return g
}
