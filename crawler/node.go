package crawler

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/crawler/share"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// errPassOver ends the goroutines of a crawl that is complete.
var errPassOver = errors.New("the crawl is over")

// maxOpen bounds the directories that are held open for operations on their way.
const maxOpen = 512

// crawl is one pass. Nodes of directories in progress form a tree towards the root; a node is finished when its own
// operations and its children are.
type crawl struct {
	c      *Crawler
	m      *view
	ctx    context.Context // of this crawl; what is applied on the slave has the session's
	cancel context.CancelCauseFunc
	ship   *shipper

	uploads      uploads
	moves        moves
	guard        *limit.Guard
	pending      pending
	links        links
	giveWay      giveWay
	stack        stack
	open         chan struct{} // a token for each directory held open
	done         chan struct{} // closed when the root is finished
	stime        xtime.Time    // written before done is closed, as the next three are
	coveredXtime xtime.Time
	waiting      bool
	met          bool

	session   context.Context
	root      *node
	run       *hintRange                 // what hints tell; nil: nothing
	ahead     map[string]*slave.DirState // surveyed before their turn, by path; under mu
	looked    *slave.DirState            // the slave's root before this crawl, for the first visit; nil: not known
	checked   map[xtime.GFID]int         // how often the names of inodes were checked in this pass
	behind    map[xtime.GFID][]string    // names of those that lacked some, and were to be compared first; finishRoot's
	revisits  []*node                    // to be visited once those on their way are finished; finishRoot's
	through   []string                   // names of inodes that changed through others, which are left out; under mu
	unsettled bool                       // names of inodes are left to be checked; finishRoot's
	refused   *limit.Refusal             // what was left standing in the end; under mu
	tasks     errgroup.Group

	mu   sync.Mutex // guards the counters of all nodes and live
	live map[*node]struct{}
}

// node is one directory in progress.
type node struct {
	parent  *node
	path    string
	entry   plan.Entry  // as its parent listed it
	absent  bool        // the slave has nothing there: no survey
	copy    slave.Copy  // of the directory on the slave; 0 where that is not known. Under crawl.mu
	part    uint32      // being worked on
	parts   uint32      // 0 until it is known to be large
	base    uint32      // parts in the beginning; see share.go
	found   bool        // what was parked has been brought back: do not look again
	filter  *filter.Dir // nil: nothing is left out; rules are the same with what a Tag in it adds, since it was entered
	rules   *filter.Dir
	hint    *dirHint        // what changed, where hints tell all of it: not listed
	again   bool            // a visit for the sake of hard links, on top of the crawl
	second  bool            // was put off before
	counted bool            // what it has in step
	given   map[string]bool // children that have nodes of their own since then
	putOff  bool            // waits for its second visit, which one of own stands for
	off     amount          // what that visit is for
	// requeued is set between again and the visit that follows.
	requeued bool
	sought   map[xtime.GFID]bool // what was looked for when found was set

	had      xtime.Time    // the stamp that the slave has; written under crawl.mu, as the next two are
	reach    xtime.Time    // up to there it has everything, but what old says
	old      *deferral     // what was deferred before; nil: nothing, or not known
	deferred deferredNames // what is deferred now; under crawl.mu, as deferral is
	deferral *deferral     // settled; nil: nothing
	upto     xtime.Time    // the stamp, if nothing is deferred
	keeps    bool          // what is sent stays in kept until the visit ends; both under crawl.mu
	kept     []task
	// handed tells that the end of the visit counts with the operations that it sent (behind.go); under crawl.mu.
	handed bool

	dir    *directory // open while operations need it
	finish slave.Op   // ready once the directory was read
	own    int        // operations without a result, and one while it is being visited
	below  int        // children that are not finished
	held   bool       // no stamp: something at or below it failed
	skip   bool       // it is not there any more: nothing to finish
}

// underGuard shows a node to the guard, which knows nothing of crawls: where the directory is, which one it is, and what it lies in. Path
// and entry of a node never change.
type underGuard struct{ n *node }

// Path is relative to the root.
func (d underGuard) Path() string { return d.n.path }

// GFID is the master's.
func (d underGuard) GFID() xtime.GFID { return d.n.entry.Record.GFID }

// Above is nil above the root.
func (d underGuard) Above() limit.Dir {
	if d.n.parent == nil {
		return nil
	}
	return underGuard{d.n.parent}
}

// newCrawl prepares a pass: it takes the hints that have come, and reads the master's root. Nothing runs yet. look is what a look at the
// slave has just found, nil for nothing.
func newCrawl(ctx context.Context, c *Crawler, m *view, look *State) (*crawl, error) {
	at, gfid, err := m.Head()
	if err != nil {
		return nil, err
	}
	r := c.take(gfid, at)
	w := &crawl{c: c, m: m, run: r, open: make(chan struct{}, maxOpen), done: make(chan struct{}), live: map[*node]struct{}{},
		checked: map[xtime.GFID]int{}, behind: map[xtime.GFID][]string{}}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.session = ctx
	w.pending.counters = c.opts.Counters
	w.ship = newShipper(ctx, w)
	w.guard = limit.NewGuard(limit.Options{Slave: c.opts.Tree, Path: c.opts.Path, MaxDelete: c.opts.MaxDelete, Free: c.free, Approvals: c.opts.Approvals},
		c.losses)
	c.losses.Start()
	w.ship.ended = w.opEnded
	w.giveWay.init(w)
	w.uploads.init()
	w.stack.init()
	w.expect(r)
	w.root = w.hinted(&node{filter: c.opts.Filter.Root(), entry: plan.Entry{Kind: slave.Dir, Record: slave.Record{GFID: gfid}}}, nil)
	if look != nil && w.root.hint == nil { // hints park before the first visit, and ask for names only
		w.looked = &look.Dir
	}
	return w, nil
}

// opEnded books what an operation did.
func (w *crawl) opEnded(op *slave.Op, r slave.Result) {
	w.guard.Ended(op, r)
	w.c.parkedFrom(op, r)
}

// push has a node visited. It counts until the visit has ended.
func (w *crawl) push(n *node) {
	w.moves.began(1)
	w.stack.push(n)
}

// opened registers the directory of n, so that it is closed at the end whatever happens.
func (w *crawl) opened(n *node, d *directory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.dir = d
	w.live[n] = struct{}{}
}

// closeDir closes n's directory and gives its token back. w.mu is held.
func (w *crawl) closeDir(n *node) {
	if n.dir == nil {
		return
	}
	n.dir.Dir.Close()
	n.dir = nil
	delete(w.live, n)
	<-w.open
}

// release closes what a crawl that ended early left open. No goroutine of the crawl runs any more.
func (w *crawl) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.live {
		w.closeDir(n)
	}
}

// started counts ops operations more for the node.
func (w *crawl) started(n *node, ops int) {
	w.moves.began(ops)
	w.mu.Lock()
	defer w.mu.Unlock()
	n.own += ops
}

// opsDone counts the ends of what was started.
func (w *crawl) opsDone(n *node, ops int) {
	w.ownDone(n, ops)
	w.ended(ops)
}

// adopt counts a child, before it is pushed.
func (w *crawl) adopt(n *node) {
	w.pending.add(dirs(1))
	w.mu.Lock()
	defer w.mu.Unlock()
	n.below++
}

// hold keeps the stamp of the node from being set.
func (w *crawl) hold(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.held = true
}

// ownDone counts results. When all have come the directory is closed, and if no child is left, the node goes on.
func (w *crawl) ownDone(n *node, ops int) {
	w.mu.Lock()
	n.own -= ops
	if n.own == 0 || n.own == 1 && n.putOff {
		w.closeDir(n)
	}
	complete := n.own == 0 && n.below == 0
	w.mu.Unlock()
	if complete {
		w.complete(n)
	}
}

// childDone counts a finished child.
func (w *crawl) childDone(n *node, held bool) {
	w.mu.Lock()
	n.below--
	n.held = n.held || held
	complete := n.own == 0 && n.below == 0
	w.mu.Unlock()
	if complete {
		w.complete(n)
	}
}

// complete goes on with the next part of a large directory, or finishes the node.
func (w *crawl) complete(n *node) {
	if !n.skip {
		w.giveWay.leaveParts(n)
	}
	if n.parts > 1 && n.part+1 < n.parts && !n.skip {
		n.part, n.parts = share.Next(n.part, n.parts, n.base)
		n.found, n.second, n.counted, n.given = false, false, false, nil
		w.push(n)
		return
	}
	if n.parent == nil {
		// What follows may wait for the slave, and this may be the shipper's own callback.
		w.tasks.Go(func() error { w.finishRoot(n); return nil })
		return
	}
	w.finishNode(n)
}

// finishNode sends the operations that end n and those of its ancestors that wait for nothing else, the root among them: in one
// batch, deepest first, so that stamps climb in one step. The slave holds back an ancestor whose descendant failed.
func (w *crawl) finishNode(n *node) {
	chain := w.chain(n)
	var ops []slave.Op
	for _, c := range chain {
		if c.skip {
			w.c.deferrals.set(c.entry.Record.GFID, nil)
			continue
		}
		ops = append(ops, c.finish)
	}
	if len(ops) == 0 {
		w.finished(chain)
		return
	}
	w.ship.submit(w.ctx, ops, func(results []slave.Result) {
		i := 0
		for _, c := range chain {
			if !c.skip {
				w.finishResult(c, results[i])
				i++
			}
		}
		if chain[len(chain)-1] == w.root {
			w.met = !w.root.held && w.root.deferral == nil
		}
		w.finished(chain)
	})
}

// chain is n and each ancestor that only waits for the one before it. It settles who is stamped.
func (w *crawl) chain(n *node) []*node {
	w.mu.Lock()
	chain := w.climb(n)
	// Where names of inodes were looked for there is more to know of the root.
	last := w.reachesRoot(chain) && len(w.checked) == 0 && !w.unsettled
	w.mu.Unlock()
	// Nothing else is going on by then, and the mark is in a file.
	if !last || w.c.opts.VolumeMark() != w.m.Mark() {
		return chain
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.withRoot(chain)
}

// climb is chain up to the root, which is left out. w.mu is held.
func (w *crawl) climb(n *node) []*node {
	chain := []*node{n}
	w.decideStamp(n)
	for p := n.parent; w.waitsOnly(p) && len(chain) < batchOps; p = p.parent {
		p.held = p.held || n.held
		w.decideStamp(p)
		chain, n = append(chain, p), p
	}
	return chain
}

// waitsOnly tells whether p can be finished right behind its one unfinished child. w.mu is held.
func (w *crawl) waitsOnly(p *node) bool {
	return p.parent != nil && p.own == 0 && p.below == 1 && (p.parts <= 1 || p.part+1 == p.parts)
}

func (w *crawl) finishResult(n *node, r slave.Result) {
	if r.Err == nil {
		w.c.failures.Clear(n.path)
		w.c.deferrals.set(n.entry.Record.GFID, n.deferral)
		return
	}
	w.c.deferrals.set(n.entry.Record.GFID, nil)
	w.hold(n)
	if !errors.Is(r.Err, slave.ErrHeldBack) && !errors.Is(r.Err, slave.ErrMoved) {
		w.c.failures.Add(n.path, slave.OpFinish, n.entry.Record.Xtime, r.Err, w.c.pass)
	}
}

// finished tells the parent of the last of a chain; where that is the root, the crawl is through.
func (w *crawl) finished(chain []*node) {
	last := chain[len(chain)-1]
	if last == w.root {
		w.pending.done(dirs(len(chain) - 1))
		w.rootDone(last)
		return
	}
	w.pending.done(dirs(len(chain)))
	held := false
	w.mu.Lock()
	for _, n := range chain {
		held = held || n.held
	}
	w.mu.Unlock()
	w.childDone(last.parent, held)
}

// finishRoot checks the inodes with several names, which may lead to further directories, and stamps the root: the
// slave's stime.
func (w *crawl) finishRoot(n *node) {
	if n.skip {
		w.cancel(source.ErrNotMaster)
		return
	}
	if len(w.revisits) == 0 && !w.giveWay.postpones() {
		more, ok := w.checkGroups()
		through, all := w.throughNodes(more)
		w.unsettled = w.unsettled || !ok || !all
		w.revisits = append(more, through...)
	}
	if len(w.revisits) > 0 {
		var now []*node
		now, w.revisits = apart(w.revisits)
		w.goOn(n, now)
		return
	}
	if w.c.opts.VolumeMark() != w.m.Mark() {
		w.hold(n) // raised meanwhile: what was in step by the old one is to be compared
	}
	w.decideRootStamp(n)
	w.ship.submit(w.ctx, []slave.Op{n.finish}, func(results []slave.Result) {
		w.finishResult(n, results[0])
		w.met = w.met && results[0].Err == nil
		w.rootDone(n)
	})
}

// decideRootStamp is decideStamp for the root. A directory that defers something and is met nowhere has moved past the crawl, if it is
// not gone: what it defers would not be missed any more. So nothing is stamped this time, and the next crawl finds it.
func (w *crawl) decideRootStamp(n *node) {
	w.c.deferrals.set(n.entry.Record.GFID, nil) // it is about to be written anew
	w.mu.Lock()
	defer w.mu.Unlock()
	w.decideStamp(n)
	if !n.held && w.c.deferrals.prune(n.deferral) {
		n.held = true
		w.decideStamp(n)
	}
	w.met = !n.held && n.deferral == nil
	if (w.unsettled || n.deferral == nil && w.giveWay.later.Load()) && !n.held {
		n.held = true
		w.decideStamp(n)
	}
	if n.held && w.ctx.Err() == nil {
		w.c.deferrals.forgetUnmet(w.c.debounce.now())
	}
}

// rootDone ends the crawl.
func (w *crawl) rootDone(n *node) {
	if !n.held {
		w.stime = n.finish.Record.Xtime
		w.c.leftCount.Store(0)
	}
	w.coveredXtime, w.waiting = n.upto, n.deferral != nil && !n.held
	close(w.done)
}

// goOn visits further directories before the root is finished.
func (w *crawl) goOn(root *node, more []*node) {
	w.pending.add(dirs(len(more)))
	w.mu.Lock()
	root.below += len(more)
	w.mu.Unlock()
	for _, n := range more {
		n.parent = root
		w.push(n)
	}
}

// stack holds the nodes to visit, last in first out, which keeps a crawl deep rather than wide and so in bounded
// memory. It is safe for concurrent use.
type stack struct {
	mu     sync.Mutex
	cond   *sync.Cond
	nodes  []*node
	closed bool
}

func (s *stack) init() { s.cond = sync.NewCond(&s.mu) }

func (s *stack) push(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, n)
	s.cond.Signal()
}

func (s *stack) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
}

// pop waits for nodes and takes some from the top: as many as fit in one survey, but no more than a fair share.
func (s *stack) pop() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.nodes) == 0 && !s.closed {
		s.cond.Wait()
	}
	if s.closed {
		return nil
	}
	most := max(1, min(len(s.nodes)/visitors, surveyDirs))
	first, bytes := len(s.nodes)-1, s.nodes[len(s.nodes)-1].weight()
	for len(s.nodes)-first < most {
		bytes += s.nodes[first-1].weight()
		if bytes > surveyBytes {
			break
		}
		first--
	}
	out := append([]*node(nil), s.nodes[first:]...)
	clear(s.nodes[first:])
	s.nodes = s.nodes[:first]
	return out
}

// Bounds of one survey request: directories, and the size of them on the master, which tells roughly how many entries
// will come back.
const (
	surveyDirs  = 64
	surveyBytes = 1 << 20
)

// join and the like are here so that nobody builds paths by hand.
func join(dir, name string) string { return beneath.Join(dir, name) }
