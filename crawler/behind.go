package crawler

import (
	"slices"

	"georep/slave"
)

// This file spares round trips where few changes are brought over by hints, as on an idle session: the operations of a
// directory, what finishes it, and what finishes the directories above it up to the root, travel in one batch. The slave
// refuses to finish a directory when an operation below it in the same batch failed (slave.OpFinish), so a stamp is no
// less proven than one that was sent after the results (invariant 5). Where anything fails it all goes the ordinary way
// from there.

// keepOps and keepBytes bound what is kept until the end of a visit.
const (
	keepOps   = batchOps / 4
	keepBytes = batchBytes / 4
)

// keep takes tasks that are to leave with the end of the visit, and gives what must leave now: all of it once it is too
// much to be worth the wait.
func (w *crawl) keep(n *node, tasks []task) (now []task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !n.keeps {
		return tasks
	}
	n.kept = append(n.kept, tasks...)
	bytes := int64(0)
	for i := range n.kept {
		bytes += inBatch(&n.kept[i].op)
	}
	if len(n.kept) <= keepOps && bytes <= keepBytes {
		return nil
	}
	now, n.kept, n.keeps = n.kept, nil, false
	return now
}

// leave sends what was kept during a visit, and behind it what finishes the node and those above it, where nothing else
// has to come before.
func (w *crawl) leave(n *node) {
	same := w.c.opts.VolumeMark() == w.m.Mark()
	w.mu.Lock()
	tasks := n.kept
	n.kept, n.keeps = nil, false
	var chain []*node
	if len(tasks) > 0 && w.alone(n, len(tasks)) {
		chain = w.toRoot(n, same && !slices.ContainsFunc(tasks, task.unsettles))
		n.handed = len(chain) > 0
	}
	w.mu.Unlock()
	if len(tasks) == 0 {
		return
	}
	w.submit(n, tasks, chain)
	if w.c.left != nil {
		w.c.left(n.path)
	}
}

// alone tells whether the node has nothing to do but these operations, while its visit is about to end. w.mu is held.
func (w *crawl) alone(n *node, ops int) bool {
	return n.own == 1+ops && n.below == 0 && !n.held && !n.putOff && !n.requeued && !n.skip && !n.again && n.parts <= 1
}

// unsettles tells whether an operation may leave names of an inode to be looked for before the root is stamped.
func (t task) unsettles() bool { return t.parks || t.op.Kind == slave.OpPark || t.op.Links > 1 }

// toRoot is what finishes a node and those above it, with the root at its end if it may be. w.mu is held.
func (w *crawl) toRoot(n *node, rootToo bool) []*node {
	var chain []*node
	if n.parent != nil {
		chain = w.climb(n)
	}
	if rootToo && w.reachesRoot(chain) {
		chain = w.withRoot(chain)
	}
	return slices.DeleteFunc(chain, func(c *node) bool { return c.skip })
}

// reachesRoot tells whether the root waits for nothing but a chain, which is empty where the root itself is meant, and nothing
// has to be known of it that the results of the chain may tell. w.mu is held.
func (w *crawl) reachesRoot(chain []*node) bool {
	root := w.root
	if len(chain) > 0 && (chain[len(chain)-1].parent != root || root.own != 0 || root.below != 1) {
		return false
	}
	return root.parts <= 1 && !root.skip && len(w.revisits) == 0 && !w.c.groups.Load() && w.c.deferrals.none()
}

// withRoot adds the root to a chain that reaches it. w.mu is held.
func (w *crawl) withRoot(chain []*node) []*node {
	for _, c := range chain {
		w.root.held = w.root.held || c.held
	}
	w.decideStamp(w.root)
	return append(chain, w.root)
}

// visited ends a visit, unless its end was handed to the operations that it sent: these may have come back already, with
// the finish of the node among them, and nothing of it may be counted twice.
func (w *crawl) visited(n *node) {
	w.mu.Lock()
	handed := n.handed
	n.handed = false
	w.mu.Unlock()
	if !handed {
		w.ownDone(n, 1)
	}
}

// submit sends tasks, and behind them what finishes the nodes of chain. Where there is a chain the end of the visit counts
// with the tasks.
func (w *crawl) submit(n *node, tasks []task, chain []*node) {
	ops := make([]slave.Op, 0, len(tasks)+len(chain))
	for i := range tasks {
		ops = append(ops, tasks[i].op)
	}
	own := len(tasks)
	if len(chain) > 0 {
		own++
	}
	for _, c := range chain {
		ops = append(ops, c.finish)
	}
	w.ship.submit(w.ctx, ops, func(results []slave.Result) {
		failed := false
		for i, r := range results[:len(tasks)] {
			w.noteParked(r)
			w.outcome(n, &tasks[i], r)
			failed = failed || r.Err != nil
		}
		if failed || len(chain) == 0 {
			w.ownDone(n, own)
		} else {
			w.allDone(n, own, chain, results[len(tasks):])
		}
		w.ended(len(tasks))
	})
}

// allDone counts the ends of a node's last operations and of the nodes that were finished behind them.
func (w *crawl) allDone(n *node, own int, chain []*node, results []slave.Result) {
	w.mu.Lock()
	n.own -= own
	w.closeDir(n)
	w.mu.Unlock()
	for i, c := range chain {
		w.finishResult(c, results[i])
	}
	w.finished(chain)
}
