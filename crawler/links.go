package crawler

import (
	"errors"
	"slices"
	"sync"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// links makes names of one inode that are on their way at the same time follow the first of them, so that its content travels
// once. The zero value is ready.
type links struct {
	mu   sync.Mutex
	out  map[xtime.GFID]*inode
	done map[xtime.GFID]inode // was shipped in this crawl: linksKept at most
}

// linksKept bounds the inodes of which a crawl remembers that it has shipped them. Of the others the slave is asked.
const linksKept = 10_000

// inode is one that is being shipped now, or was.
type inode struct {
	record  slave.Record // what was shipped last, successfully
	path    string       // under which name; "" if nothing was
	state   xtime.Time   // that it has at least: what changed while it was read has no xtime in its record
	waiting []waiter
}

// waiter is a name that waits for one before it.
type waiter struct {
	record slave.Record
	ships  bool // a link is no use
	turn   func(shipped inode)
}

// linksTo tells whether a name becomes a link once the inode has been shipped: in the state in which the name was listed, or in a
// later one. While an inode gets thousands of names it is marked with each.
func (x *waiter) linksTo(i inode) bool {
	return !x.ships && i.path != "" && i.state >= x.record.Xtime
}

// acquire calls turn now, or when it is known what those before it have shipped. Where that is what this one wants it becomes a
// link, at the same time as others, and has no turn to release.
func (l *links) acquire(x waiter) {
	g := x.record.GFID
	l.mu.Lock()
	if l.out == nil {
		l.out, l.done = map[xtime.GFID]*inode{}, map[xtime.GFID]inode{}
	}
	was := l.done[g]
	if i := l.out[g]; !x.linksTo(was) && i != nil {
		i.waiting = append(i.waiting, x)
		l.mu.Unlock()
		return
	} else if !x.linksTo(was) {
		l.out[g] = &inode{}
	}
	l.mu.Unlock()
	x.turn(was)
}

// release ends a turn; ok tells that op put the inode, and torn that it changed meanwhile. All names that become links go on, and the
// newest of the others. Names of what is torn become links, too: each would be torn again while the inode changes.
func (l *links) release(op *slave.Op, ok, torn bool) {
	g := op.Record.GFID
	l.mu.Lock()
	i := l.out[g]
	if ok {
		i.record, i.path, i.state = op.Record, op.Path, op.Record.Xtime
		if torn {
			i.record.Xtime = 0
		}
		if len(l.done) >= linksKept {
			clear(l.done)
		}
		l.done[g] = inode{record: i.record, path: i.path, state: i.state}
	}
	shipped := inode{record: i.record, path: i.path, state: i.state}
	var on, rest []waiter
	for _, x := range i.waiting {
		if x.linksTo(shipped) {
			on = append(on, x)
		} else {
			rest = append(rest, x)
		}
	}
	if len(rest) == 0 {
		delete(l.out, g)
	} else {
		k := newest(rest)
		on = append(on, rest[k])
		i.waiting = slices.Delete(rest, k, k+1)
	}
	l.mu.Unlock()
	for _, x := range on {
		x.turn(shipped)
	}
}

// newest is the index of the first that wants the latest state.
func newest(all []waiter) (k int) {
	for i := range all {
		if all[i].record.Xtime > all[k].record.Xtime {
			k = i
		}
	}
	return k
}

// inTurn sends tasks, of which the last ships an inode with several names: with its content if it is the first, as a
// link otherwise.
func (w *crawl) inTurn(n *node, tasks []task) {
	w.started(n, 1)
	op := tasks[len(tasks)-1].op
	w.pending.add(ofContent(&op))
	x := waiter{record: op.Record}
	x.turn = func(shipped inode) {
		w.pending.done(ofContent(&op))
		if x.linksTo(shipped) {
			w.linkTo(n, tasks, shipped)
		} else {
			w.lastInTurn(n, tasks)
		}
	}
	w.links.acquire(x)
}

// linkTo sends the tasks with a link in the place of the content, and the content after all, in its turn, if that cannot be.
func (w *crawl) linkTo(n *node, tasks []task, shipped inode) {
	last := tasks[len(tasks)-1]
	if w.giveWay.now(last.op.Links, w.c.names.step) {
		w.giveWay.leaveName(n, &last)
		return
	}
	link := last.op
	link.Kind, link.Record, link.From, link.Open = slave.OpLink, shipped.record, shipped.path, nil
	all := append(append([]task(nil), tasks[:len(tasks)-1]...), task{op: link, then: func(r slave.Result) {
		if errors.Is(r.Err, slave.ErrNeedContent) {
			w.links.acquire(waiter{record: last.op.Record, ships: true, turn: func(inode) { w.lastInTurn(n, []task{last}) }})
			return
		}
		if last.ahead != nil {
			last.ahead.over()
		}
		w.result(n, &link, r)
		w.opsDone(n, 1)
	}})
	w.send(n, all...)
}

func (w *crawl) lastInTurn(n *node, tasks []task) {
	last := tasks[len(tasks)-1]
	op := last.op
	last.then = func(r slave.Result) { w.endTurn(n, &op, r) }
	w.send(n, append(append([]task(nil), tasks[:len(tasks)-1]...), last)...)
}

func (w *crawl) endTurn(n *node, op *slave.Op, r slave.Result) {
	w.result(n, op, r)
	w.links.release(op, r.Err == nil, r.Torn)
	w.opsDone(n, 1)
}

// researches tells whether the names of an inode that is brought over, or linked, have to be searched again although the slave
// has been told how many there are: under a filter names come into sight without a mark on the inode.
func (w *crawl) researches() bool { return w.c.opts.FilterSince != 0 }

// linkOf makes an entry of n a further name of its inode, which the slave has under from, "" if that is not known.
func linkOf(n *node, e *plan.Entry, from string) slave.Op {
	return slave.Op{Kind: slave.OpLink, Entry: e.Kind, Path: join(n.path, e.Name), Record: e.Record, Links: e.Stat.Nlink,
		Ino: e.Stat.Ino, From: from, In: n.entry.Record.GFID}
}

// asFound is the item as it stands after its link was made: in need of a comparison, if it is a file.
func asFound(it plan.Item, f slave.Found) plan.Item {
	it.State = &slave.EntryState{Name: it.Entry.Name, Kind: it.Entry.Kind, Record: f.Record, Size: it.Entry.Stat.Size}
	it.How, it.ParkFirst = plan.Compare, false
	if it.Entry.Kind != slave.File {
		it.How = plan.Replace
	}
	return it
}

// groupsAtOnce bounds the inodes whose names are checked at a time.
const groupsAtOnce = 10_000

// checkGroups looks after inodes with several names whose names on the slave may be wrong (invariant 14). The slave keeps
// a list of them, and so they are met again after any end:
//
//   - the slave has fewer names than the master: a file that had one name when it was shipped and got another since. The
//     others are found by a listing of the whole master, without a stat, once for all of them, and linked;
//   - a name of the inode was removed on the slave: what was changed through it before shows on the master under the
//     others too, in directories that no mark leads to;
//   - the session before this one ended, by a power cut perhaps, while the slave worked on the inode: what it knew then may
//     be lost. Its names are compared with the master's, and all linked again.
//
// Directories that have to be visited for that are returned. ok tells whether the root may be stamped otherwise.
func (w *crawl) checkGroups() (visit []*node, ok bool) {
	if !w.c.groups.Load() {
		return nil, true
	}
	w.c.groups.Store(false)
	groups, err := w.c.opts.Tree.Groups(w.ctx, w.c.groupsAtOnce)
	if err != nil {
		w.cancel(err)
		return nil, false
	}
	w.c.joined.keep(groups)
	full := w.c.isFull(groups) // before anything is taken out of them
	fresh, again := groups[:0], false
	for _, g := range groups {
		// Once more after its directory was visited: only then may the slave take it off its list.
		if n := w.checked[g.GFID]; n == 0 || n == 1 && (!g.MissingNames || w.behind[g.GFID] != nil) {
			w.checked[g.GFID]++
			fresh = append(fresh, g)
		} else {
			again = again || g.MissingNames
		}
	}
	if len(groups) > 0 {
		w.c.groups.Store(true) // until the slave says that there are none
	}
	visit, ok, err = w.settleGroups(fresh)
	if err != nil {
		w.cancel(err)
		return nil, false
	}
	return visit, ok && !full && !again // what lacks names since they were settled is for the next crawl
}

// isFull tells whether the slave may have had more groups to tell of than go into one answer. These are for the next crawl.
func (c *Crawler) isFull(groups []slave.Group) bool {
	weight := int64(0)
	for i := range groups {
		weight += groups[i].Weight()
	}
	return len(groups) >= c.groupsAtOnce || weight > slave.MaxGroups-slave.MaxGroup
}

func (w *crawl) settleGroups(groups []slave.Group) (visit []*node, ok bool, err error) {
	names := map[xtime.GFID][]string{}
	wanted := map[uint64]xtime.GFID{}
	for i := range groups {
		names[groups[i].GFID] = w.stillNames(&groups[i])
		g := groups[i]
		switch known := w.behind[g.GFID]; {
		case known != nil:
			names[g.GFID] = known // it was compared since
		case g.MissingNames && g.Ino != 0 && !w.isAll(g.GFID, names[g.GFID]):
			wanted[g.Ino], names[g.GFID] = g.GFID, nil
		}
	}
	sure, err := w.findNames(wanted, names)
	if err != nil {
		return nil, false, err
	}
	ok = sure
	var ops []placed
	seen := map[string]bool{}
	for _, g := range groups {
		// Without a name, what the slave has under those that it knows is stale, and goes with its directory.
		stale, links := w.settleOps(g, names[g.GFID], sure || wanted[g.Ino] != g.GFID)
		ops = append(ops, links...)
		if stale == "" {
			continue
		}
		if w.checked[g.GFID] > 1 {
			ok = false // the visit did not come to it: the next crawl does
			continue
		}
		if g.MissingNames {
			w.behind[g.GFID] = names[g.GFID]
		}
		n, comes := w.revisit(stale, seen)
		if ok = ok && comes; n != nil {
			visit = append(visit, n)
		}
	}
	joined, err := w.join(ops)
	return visit, ok && joined, err
}

// stillNames are those of the slave's names that lead to the inode on the master too. Its number there is filled in where
// the slave did not know it.
func (w *crawl) stillNames(g *slave.Group) (out []string) {
	for _, path := range g.Names {
		if e, err := w.entryAt(path); err == nil && e.Record.GFID == g.GFID && !w.m.leaves(path, &e) {
			out = append(out, path)
			g.Ino = e.Stat.Ino
		}
	}
	return out
}

// placed is an operation on a name, and the directory that has this name on the master. A path alone would not do: if
// directories swapped places since the slave got them, it leads to another one there.
type placed struct {
	op    slave.Op
	dir   xtime.GFID
	short bool // the slave's directory may change: a name is made there, or led elsewhere
	// stale tells that the content is yet to be compared. So it is not said that these are all names: the inode would be off
	// the slave's list, and if the comparison does not come to it, nobody would know that it is deferred.
	stale bool
	done  bool // an earlier crawl has linked it, and gave way
}

// dirOf is the path of the directory that the name is in.
func (p *placed) dirOf() string {
	dir, _ := beneath.Split(p.op.Path)
	return dir
}

// settleOps are the links that make the names of an inode one on the slave, and one of the names if its content is to be
// compared. sure tells that there are no others in the volume.
func (w *crawl) settleOps(g slave.Group, paths []string, sure bool) (stale string, ops []placed) {
	from := ""
	if g.Record != (slave.Record{}) && len(g.Names) > 0 {
		from = g.Names[0] // all that the slave knows are one inode: it need not look which of them is the best, for each
	}
	for _, p := range paths {
		e, dir, err := w.entryIn(p)
		if err != nil || e.Record.GFID != g.GFID || w.m.leaves(p, &e) {
			continue // gone meanwhile
		}
		if e.Record != g.Record {
			if stale = p; !g.MissingNames {
				return stale, nil // it stays on the slave's list until its content was compared
			}
		}
		op := slave.Op{Kind: slave.OpLink, Entry: e.Kind, Path: p, Record: e.Record, Links: e.Stat.Nlink, Ino: e.Stat.Ino, In: dir,
			From: from}
		if g.MissingNames && sure {
			op.Links, op.LinksFinal = uint32(len(paths)), true
		}
		ops = append(ops, placed{op: op, dir: dir, short: g.MissingNames, done: w.c.joined.has(&op)})
		if !g.MissingNames && stale == "" {
			break // all is there, and the names are one: this only says so
		}
	}
	for i := range ops {
		ops[i].stale = stale != ""
	}
	return stale, ops
}

// revisit makes a node for the directory of path, as a child of the root, unless there is one. comes tells whether the crawl comes
// to it, or did: the root was listed at the beginning of this crawl, and what came later is marked there, unless hints told of
// it.
func (w *crawl) revisit(path string, seen map[string]bool) (n *node, comes bool) {
	dir, _ := beneath.Split(path)
	if dir == "" {
		return nil, w.root.hint == nil
	}
	if seen[dir] {
		return nil, true
	}
	e, err := w.entryAt(dir)
	if err != nil || e.Kind != slave.Dir {
		return nil, false
	}
	rules, in := w.m.rulesOf(dir)
	if !in {
		return nil, false
	}
	seen[dir] = true
	return &node{path: dir, entry: e, again: true, filter: rules}, true
}

// apart splits nodes into those that lie in no directory of another of them, and the rest: a visit to a directory may go
// down to any below it, and two visits to one at the same time would each take the slave for what it was before the
// other.
func apart(nodes []*node) (now, later []*node) {
	dirs := map[string]bool{}
	for _, n := range nodes {
		dirs[n.path] = true
	}
	for _, n := range nodes {
		if within(n.path, dirs) {
			later = append(later, n)
		} else {
			now = append(now, n)
		}
	}
	return now, later
}

// within tells whether path lies below one of dirs.
func within(path string, dirs map[string]bool) bool {
	for path != "" {
		path, _ = beneath.Split(path)
		if dirs[path] {
			return true
		}
	}
	return false
}
