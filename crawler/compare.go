package crawler

import (
	"sync"

	"georep/crawler/plan"
	"georep/marker/xtime"
	"georep/slave"
)

// Bounds of one request for hashes, so that the slave answers within reasonable time.
const (
	hashFiles = 64
	hashBytes = 256 << 20
)

// comparesAhead is how many requests for hashes of one directory are under way.
const comparesAhead = 4

// compared is a request for hashes under way.
type compared struct {
	items []plan.Item
	more  map[xtime.GFID][]plan.Item // further names of some, which have the same content
	same  []bool                     // both ends have the same content; set once done is closed, as is err
	err   error
	done  chan struct{}
}

// compare asks the slave for the hashes of files that are probably right, sends metadata only where they agree, and the
// content where not. Both ends read at the same time, and the next files meanwhile.
func (w *crawl) compare(n *node, d *directory, items []plan.Item) {
	var ahead []*compared
	items, more := firstNames(items)
	for (len(items) > 0 || len(ahead) > 0) && w.ctx.Err() == nil {
		if len(items) == 0 || len(ahead) == comparesAhead {
			w.endCompare(n, d, ahead[0])
			ahead = ahead[1:]
			continue
		}
		k, bytes := 0, int64(0)
		for k < len(items) && k < hashFiles && (k == 0 || bytes+items[k].Entry.Stat.Size <= hashBytes) {
			bytes += items[k].Entry.Stat.Size
			k++
		}
		ahead = append(ahead, w.beginCompare(n, d, items[:k]))
		ahead[len(ahead)-1].more = more
		items = items[k:]
	}
	for _, c := range ahead {
		<-c.done // it uses d
	}
}

func (w *crawl) beginCompare(n *node, d *directory, items []plan.Item) *compared {
	c := &compared{items: items, same: make([]bool, len(items)), done: make(chan struct{})}
	paths := make([]string, len(items))
	for i := range items {
		paths[i] = join(n.path, items[i].Entry.Name)
	}
	var wait sync.WaitGroup
	ours := make([]slave.HashResult, len(items))
	wait.Go(func() {
		for i := range items {
			ours[i] = w.m.digest(d, &items[i].Entry, w.ctx.Err)
		}
	})
	go func() {
		defer close(c.done)
		theirs, err := w.c.opts.Tree.Hash(w.ctx, paths)
		wait.Wait()
		if c.err = err; err != nil {
			return
		}
		for i := range items {
			a, b := &ours[i], &theirs[i]
			c.same[i] = a.Err == nil && b.Err == nil && a.Size == b.Size && a.Sum == b.Sum
		}
	}()
	return c
}

// endCompare waits for the hashes, and sends what follows from them.
func (w *crawl) endCompare(n *node, d *directory, c *compared) {
	if <-c.done; c.err != nil {
		w.cancel(c.err)
		return
	}
	for i, it := range c.items {
		more := c.furtherOf(&it)
		for _, it := range append([]plan.Item{it}, more...) {
			w.known(n, d, it, c.same[i], len(more) > 0)
		}
	}
}

// furtherOf takes the further names that were left to an item: those that the slave has in the same state. Another name of the inode may
// have been compared before, and says nothing of them.
func (c *compared) furtherOf(it *plan.Item) []plan.Item {
	g := it.Entry.Record.GFID
	more := c.more[g]
	if len(more) == 0 || !ofOneInode(it) || more[0].State.Record != it.State.Record {
		return nil
	}
	delete(c.more, g)
	return more
}

// known goes on with an item of which it is known whether both ends have the same content.
func (w *crawl) known(n *node, d *directory, it plan.Item, same, many bool) {
	was := ofItem(&it)
	it.How = plan.Replace
	if same {
		it.How = plan.Adopt
	}
	w.pending.done(was)
	w.pending.add(ofItem(&it))
	w.oneOf(n, d, &it, many)
}

// ofOneInode tells whether an item is one of several names of an inode which the slave has there in an older state: what is
// known of the content under one of them is known of all.
func ofOneInode(it *plan.Item) bool {
	e, s := &it.Entry, it.State
	return e.Stat.Nlink > 1 && s != nil && s.Kind == e.Kind && s.Record.GFID == e.Record.GFID && s.Record.Xtime != 0
}

// firstNames leaves one name of each inode, the one that was listed in its latest state, if the slave has several in one state: an
// inode may have thousands of names, and a large content. The others are returned by the GFID.
func firstNames(items []plan.Item) (first []plan.Item, more map[xtime.GFID][]plan.Item) {
	more = map[xtime.GFID][]plan.Item{}
	at := map[xtime.GFID]int{}
	for _, it := range items {
		g := it.Entry.Record.GFID
		k, met := at[g]
		switch {
		case !ofOneInode(&it) || met && first[k].State.Record != it.State.Record:
			first = append(first, it)
		case !met:
			at[g], first = len(first), append(first, it)
		default:
			if it.Entry.Record.Xtime > first[k].Entry.Record.Xtime {
				first[k], it = it, first[k]
			}
			more[g] = append(more[g], it)
		}
	}
	return first, more
}
