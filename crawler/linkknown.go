package crawler

import (
	"georep/crawler/plan"
	"georep/marker/xtime"
	"georep/slave"
)

// This file makes further names of inodes that the slave has.

// linkKnown links those of the items whose inode the slave has under another name: one question, and one answer awaited,
// for many. Those that it has, but not in its newest state, are returned: they are compared like a file that is there.
// The rest is shipped.
func (w *crawl) linkKnown(n *node, d *directory, items []plan.Item) (compare []plan.Item) {
	least := w.giveWay.least(n, len(items))
	known := map[xtime.GFID]slave.Found{}
	for len(items) > 0 {
		part, rest, end := w.giveWay.step(n, items, least)
		for items = rest; len(part) > 0; {
			some, k, err := w.linkSome(n, d, part, known)
			if err != nil {
				end()
				w.cancel(err)
				return nil
			}
			compare, part = append(compare, some...), part[k:]
		}
		end()
	}
	return compare
}

// linkSome is linkKnown for as many of the items as one answer of the slave tells of. known is where inodes with very many names have
// been found, and were linked: they need not be asked for again.
func (w *crawl) linkSome(n *node, d *directory, items []plan.Item, known map[xtime.GFID]slave.Found) (compare []plan.Item, k int, err error) {
	found, err := w.findItems(items, known)
	if err != nil {
		return nil, 0, err
	}
	items = items[:len(found)]
	var ops []slave.Op
	var linked []int // of items, as their links follow each other in ops
	for i, it := range items {
		sameInode := it.State != nil && it.State.Record.GFID == it.Entry.Record.GFID
		if sameInode || !found[i].Linked || !w.mayTake(found[i].Path, &it.Entry) {
			w.item(n, d, &it)
			continue
		}
		if it.ParkFirst {
			ops = append(ops, w.park(n, *it.State).op)
		}
		link := linkOf(n, &it.Entry, found[i].Path)
		link.LinksFinal = w.researches()
		ops, linked = append(ops, link), append(linked, i)
	}
	results, err := w.applyNow(ops)
	if err != nil {
		return nil, 0, err
	}
	for i := range results {
		w.noteParked(results[i])
		if ops[i].Kind != slave.OpLink {
			continue
		}
		it := items[linked[0]]
		f := found[linked[0]]
		linked = linked[1:]
		w.c.groups.Store(true)
		if results[i].Err != nil {
			delete(known, f.Record.GFID)
			w.item(n, d, &it)
			continue
		}
		if w.giveWay.of(it.Entry.Stat.Nlink) {
			known[f.Record.GFID] = f
		}
		if it.State == nil {
			w.c.losses.FurtherName(f.Record.GFID)
		}
		w.pending.done(ofItem(&it))
		if it.Entry.Record != f.Record {
			compare = append(compare, asFound(it, f))
		}
	}
	return compare, len(found), nil
}

// findItems asks where the slave has the inodes of the items, once for each, as far as one answer goes: an inode may have
// thousands of names.
func (w *crawl) findItems(items []plan.Item, known map[xtime.GFID]slave.Found) (found []slave.Found, err error) {
	var gfids []xtime.GFID
	at := map[xtime.GFID]int{}
	for i := range items {
		g := items[i].Entry.Record.GFID
		_, have := known[g]
		if _, asked := at[g]; !asked && !have {
			at[g], gfids = len(gfids), append(gfids, g)
		}
	}
	var each []slave.Found
	if len(gfids) > 0 {
		if each, err = w.find(gfids); err != nil {
			return nil, err
		}
	}
	for i := range items {
		g := items[i].Entry.Record.GFID
		f, have := known[g]
		if k := at[g]; !have && k >= len(each) {
			break
		} else if !have {
			f = each[k]
		}
		found = append(found, f)
	}
	return found, nil
}
