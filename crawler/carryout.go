package crawler

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// task is one operation with what follows from its result.
type task struct {
	op   slave.Op
	then func(slave.Result) // called in place of the ordinary treatment where it is set
	// ahead is set where the content is to be sent before the operation: on the last of several tasks only.
	ahead *upload
	parks bool // another inode stands in its place
}

// carryOut submits what the plan says, in an order in which nothing stands in the way of anything.
func (w *crawl) carryOut(n *node, d *directory, p plan.Plan) {
	p.Children = n.notGiven(p.Children)
	if restored, ok := w.bringBack(n, &p); !ok || restored {
		return
	}
	w.leaveBlocked(n, &p)
	w.awaitPark(n, &p)
	w.putOff(n, &p)
	stale, err := w.sweep(n, w.stale(n, d, p.Stale))
	if err != nil {
		w.cancel(err)
		return
	}
	err = w.guard.Allow(w.ctx, underGuard{n}, w.removals(stale, &p))
	if limit.IsRefused(err) {
		if !w.letStand(n, &p, stale) {
			w.refuse(n, err)
			p.Items = slices.DeleteFunc(p.Items, func(it plan.Item) bool { return it.ParkFirst })
		}
		stale, err = nil, nil
	}
	if err != nil {
		w.cancel(err)
		return
	}
	w.pending.add(amount{entries: int64(len(stale))})
	for _, s := range stale {
		w.pending.done(amount{entries: 1})
		w.send(n, w.park(n, s))
	}
	for i := range p.Children {
		w.child(n, d, &p.Children[i])
	}
	w.items(n, d, p.Items)
	w.short(n, p.MissingNames)
}

// short tells the slave of inodes that have more names on the master: it links those that it knows to be names of the
// same inode, and keeps in mind what lacks some, for checkGroups. Of very many names one word is enough: each crawl meets all that were
// linked before.
func (w *crawl) short(n *node, entries []plan.Entry) {
	further := w.giveWay.further()
	for i := range entries {
		if e := &entries[i]; !further(e) {
			w.send(n, task{op: linkOf(n, e, "")})
		}
	}
}

// items brings over what is no directory. Each way that needs an answer of the slave first asks once for all.
func (w *crawl) items(n *node, d *directory, items []plan.Item) {
	var compare, linked []plan.Item
	for i := range items {
		w.pending.add(ofItem(&items[i]))
	}
	for i := range items {
		it := &items[i]
		if it.How == plan.Compare && w.c.opts.Tree.Info().ReadsBack && mostlyHoles(&it.Entry) {
			w.pending.done(ofItem(it))
			it.How = plan.Replace // to send the data is less than to read all of it back
			w.pending.add(ofItem(it))
		}
		switch {
		case w.isHeldBack(n, &it.Entry):
			w.pending.done(ofItem(it))
			w.hold(n)
		case w.waits(n, d, it):
			w.pending.done(ofItem(it)) // counted as what waits
		case w.isBeside(n, d, it):
		case it.How == plan.Compare:
			compare = append(compare, *it)
		case it.How != plan.Adopt && it.Entry.Stat.Nlink > 1:
			linked = append(linked, *it)
		default:
			w.item(n, d, it)
		}
	}
	known := w.linkKnown(n, d, linked)
	for i := range known {
		w.pending.add(ofItem(&known[i]))
	}
	compare = append(compare, known...)
	w.compare(n, d, compare)
}

// mostlyHoles tells whether a file has much less data than its size says.
func mostlyHoles(e *plan.Entry) bool {
	return e.Kind == slave.File && e.Stat.Size >= uploadBytes && int64(e.Stat.Blocks)*512 < e.Stat.Size/2
}

// removals is everything of the plan that leaves the tree.
func (w *crawl) removals(stale []slave.EntryState, p *plan.Plan) []slave.EntryState {
	out := append([]slave.EntryState(nil), stale...)
	for _, it := range p.Items {
		if it.ParkFirst {
			out = append(out, *it.State)
		}
	}
	return out
}

// find is Tree.Find for as many of the GFIDs as go into one request and its answer.
func (w *crawl) find(gfids []xtime.GFID) ([]slave.Found, error) {
	return w.c.opts.Tree.Find(w.ctx, gfids[:min(len(gfids), slave.MaxItems)])
}

// applyNow applies operations outside the stream of batches and waits for them, also when the crawl is given up
// meanwhile (see shipper). The master is asked before each batch whether all of it could be seen, as the shipper does.
func (w *crawl) applyNow(ops []slave.Op) ([]slave.Result, error) {
	var all []slave.Result
	for len(ops) > 0 {
		k := min(len(ops), batchOps)
		if err := w.m.Intact(); err != nil {
			return nil, err
		}
		w.pending.add(ofOps(ops[:k]))
		results, err := w.c.opts.Tree.Apply(w.session, &slave.Batch{Ops: ops[:k]})
		w.pending.done(ofOps(ops[:k]))
		if err != nil {
			return nil, err
		}
		for i := range results {
			w.c.opts.Counters.end(&ops[i], results[i])
			w.opEnded(&ops[i], results[i])
			w.logResult(&ops[i], results[i])
		}
		all, ops = append(all, results...), ops[k:]
	}
	return all, nil
}

func (w *crawl) park(n *node, s slave.EntryState) task {
	return task{op: slave.Op{Kind: slave.OpPark, Entry: s.Kind, Path: join(n.path, s.Name), Expect: s.Record.GFID,
		In: n.entry.Record.GFID}}
}

// child makes the directory where the slave lacks it, and goes down into it.
func (w *crawl) child(n *node, d *directory, c *plan.Child) {
	next := &node{parent: n, path: join(n.path, c.Entry.Name), entry: c.Entry, absent: c.Absent, filter: n.filter.Down(c.Entry.Name)}
	if !c.Make {
		if w.stillDefers(n, c) {
			return
		}
		w.adopt(n)
		next.copy = c.State.Copy
		if next = w.hinted(next, c.State); n.hint != nil {
			d.later = append(d.later, next)
		} else {
			w.push(next)
		}
		return
	}
	if w.c.failures.HeldBack(next.path, c.Entry.Record.Xtime, w.c.pass) {
		w.hold(n)
		return
	}
	var tasks []task
	if c.ParkFirst != nil {
		tasks = append(tasks, w.park(n, *c.ParkFirst))
	}
	if c.Absent {
		w.guard.Comes(next.path, limit.Arrival{Dir: underGuard{n}, Name: c.Entry.Name, GFID: c.Entry.Record.GFID})
	}
	mkdir := slave.Op{Kind: slave.OpMkdir, Entry: slave.Dir, Path: next.path, Meta: source.PlainMeta(&c.Entry.Stat),
		Record: c.Entry.Record, In: n.entry.Record.GFID}
	if c.State != nil {
		mkdir.Expect = c.State.Record.GFID
	}
	w.adopt(n)
	w.c.deferrals.set(c.Entry.Record.GFID, nil) // they are of another copy
	tasks = append(tasks, task{op: mkdir, then: func(r slave.Result) {
		if r.Err != nil {
			w.result(n, &mkdir, r)
			w.pending.done(dirs(1))
			w.childDone(n, true)
			return
		}
		w.push(next)
	}})
	w.send(n, tasks...)
}

// item brings over one entry that is no directory.
func (w *crawl) item(n *node, d *directory, it *plan.Item) { w.oneOf(n, d, it, false) }

// oneOf is item. many tells that more names follow of the inode whose attributes are to be set.
func (w *crawl) oneOf(n *node, d *directory, it *plan.Item, many bool) {
	w.pending.done(ofItem(it)) // what follows counts it as what it is sent as
	op, err := w.shipOp(n, d, it)
	if err != nil {
		w.failEntry(n, it.Entry.Name, opFor(it.Entry.Kind), it.Entry.Record.Xtime, err)
		return
	}
	var tasks []task
	if it.ParkFirst {
		tasks = append(tasks, w.park(n, *it.State))
	}
	tasks = append(tasks, task{op: op, ahead: w.sendAhead(d, it, &op), parks: it.State != nil && foreign(it.State, &it.Entry)})
	w.comes(n, it)
	if op.Links > 1 && (op.Kind != slave.OpMeta || many) {
		w.inTurn(n, tasks)
		return
	}
	w.send(n, tasks...)
}

// comes notes an entry where nothing stood. What replaces another one is no arrival, but young if that was.
func (w *crawl) comes(n *node, it *plan.Item) {
	a := limit.Arrival{Dir: underGuard{n}, Name: it.Entry.Name, GFID: it.Entry.Record.GFID}
	if it.State != nil {
		if !foreign(it.State, &it.Entry) || it.ParkFirst {
			return
		}
		a.Was = limit.EntryKey(n.entry.Record.GFID, it.State.Name, it.State.Record.GFID)
		if w.c.losses.IsYoung(a.Was) == 0 {
			return
		}
	}
	w.guard.Comes(join(n.path, it.Entry.Name), a)
}

func opFor(k slave.Kind) slave.OpKind {
	switch {
	case k == slave.File:
		return slave.OpPut
	case k == slave.Symlink:
		return slave.OpSymlink
	}
	return slave.OpNode
}

// shipOp builds the operation for an item.
func (w *crawl) shipOp(n *node, d *directory, it *plan.Item) (slave.Op, error) {
	e := it.Entry // a copy, which the operation keeps until it is sent
	op := slave.Op{Kind: opFor(e.Kind), Entry: e.Kind, Path: join(n.path, e.Name), Record: e.Record, In: n.entry.Record.GFID}
	if e.Stat.Nlink > 1 {
		op.Links, op.Ino, op.LinksFinal = e.Stat.Nlink, e.Stat.Ino, w.researches()
	}
	if it.How == plan.Adopt {
		op.Kind, op.Expect = slave.OpMeta, it.State.Record.GFID
	}
	var err error
	if op.Kind != slave.OpPut {
		op.Meta, err = w.m.MetaOf(d.Dir, &e)
		return op, err
	}
	dir := d.Dir
	op.Open = func() (slave.Content, error) {
		c, err := w.m.OpenContent(dir, &e)
		switch {
		case err == nil:
			return stopping{c, w.ctx}, nil
		case source.Gone(err):
			return nil, unix.ENOENT // what moved is gone from here; the far end only knows errnos
		}
		return nil, err
	}
	// Whatever else the name leads to meanwhile, the content that goes with this is that of the inode that was listed.
	op.Meta, err = w.m.FileMeta(d.Dir, &e)
	return op, err
}

// send submits tasks of one directory that belong into one batch, in order.
func (w *crawl) send(n *node, tasks ...task) {
	if tasks[len(tasks)-1].ahead != nil {
		w.uploadThen(n, tasks)
		return
	}
	w.started(n, len(tasks))
	if now := w.keep(n, tasks); len(now) > 0 {
		w.submit(n, now, nil)
	}
}

// noteParked remembers that there are parked entries, that the removal of a name may ask for a look at others, and that
// what moved may be found now.
func (w *crawl) noteParked(r slave.Result) {
	if r.Parked {
		w.moves.found()
		w.countParked()
	}
}

func (w *crawl) countParked() {
	w.c.parked.Add(1)
	w.c.groups.Store(true)
}

// result is the ordinary treatment: a success clears an earlier failure, a failure holds back the directory. What vanished or
// moved on the master is no failure: that has marked its directory anew, and is deferred until then.
func (w *crawl) result(n *node, op *slave.Op, r slave.Result) {
	w.logResult(op, r)
	switch {
	case r.Err == nil:
		w.c.failures.Clear(op.Path)
		if op.Links > 1 {
			w.c.groups.Store(true)
		}
	case errors.Is(r.Err, slave.ErrMoved):
		w.hold(n) // where it is now there is a mark, or a hint, of its own
	case errors.Is(r.Err, slave.ErrSource) && errors.Is(r.Err, fs.ErrNotExist):
		_, name := beneath.Split(op.Path)
		w.missed(n, name)
	default:
		w.hold(n)
		w.c.failures.Add(op.Path, op.Kind, op.Record.Xtime, r.Err, w.c.pass)
	}
}

func (w *crawl) logResult(op *slave.Op, r slave.Result) {
	e := w.c.opts.Logger.Debug()
	if !e.Enabled() {
		return // what is given to it would be copied to the heap first
	}
	e.Uint32("pass", w.c.pass).Stringer("op", op.Kind).Str("path", op.Path).
		Stringer("gfid", op.Record.GFID).Stringer("xtime", op.Record.Xtime).Uint32("links", op.Links).Bool("torn", r.Torn).
		Err(r.Err).Msg("applied")
}

// failEntry notes an entry that could not be read on the master; what is gone by now is no failure.
func (w *crawl) failEntry(n *node, name string, op slave.OpKind, at xtime.Time, err error) {
	if source.Gone(err) {
		w.missed(n, name)
		return
	}
	w.hold(n)
	if w.endsOn(err) {
		return
	}
	path := join(n.path, name)
	w.c.failures.Add(path, op, at, &slave.PathError{Op: "read", Path: path, Err: err}, w.c.pass)
}
