package limit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"georep/crawler/source"
	"georep/marker/xtime"
	"georep/slave"
)

// Purge is what a crawl did not remove, because it is more than the operator allows without being asked. Once he has
// approved it (Approvals), what it names may go, and nothing else: an entry is known by its inode, or by its name where the
// slave keeps no record of it, and a directory only while it holds no more entries than at that time.
type Purge struct {
	Emptied bool  // the master is empty, so everything would go
	Entries int64 // that would go, with all that lies in directories
	Before  int64 // went within a minute before
	Had     int64 // about how many the slave has had; 0: not known
	Percent int   // max-delete
	Free    int64 // free-deletes
	Items   []PurgeItem
	Keys    map[uint64]int64 // of how many entries each consists, by key; a part where there are more than maxCounted
	More    int64            // entries of those that are not among Keys
}

// PurgeItem is an entry that would go.
type PurgeItem struct {
	Path    string
	Entries int64 // with all that lies in it
	Dir     bool
}

// maxItems bounds what a Purge names. Those with the most entries are kept.
const maxItems = 1000

// Approvals is where a crawl learns what the operator has approved.
type Approvals interface {
	// Approved is what may go; nil: nothing. A crawl asks once, when it would be refused something.
	Approved() *Purge
	// Done is told when a crawl came to its end, and stamped the root: nothing is refused any more.
	Done()
}

// Refused is what a crawl was refused that ended with err; nil where it was not.
func Refused(err error) *Purge {
	var r *Refusal
	if !errors.As(err, &r) {
		return nil
	}
	r.purge.sort()
	return &r.purge
}

// add counts what one refusal is about. A directory is one item and one key, with all that lies in it as its size.
func (p *Purge) add(list []leaving) {
	for i := range list {
		e := &list[i]
		p.Entries += e.all
		p.note(e.key, e.all)
		p.Items = append(p.Items, PurgeItem{Path: e.path, Entries: e.all, Dir: e.dir})
	}
	p.shorten()
}

// with adds what was refused elsewhere in the same crawl.
func (p *Purge) with(more *Purge) {
	p.Entries, p.Had = p.Entries+more.Entries, max(p.Had, more.Had)
	p.Before = max(p.Before, more.Before)
	p.More += more.More
	for k, n := range more.Keys {
		p.note(k, n)
	}
	p.Items = append(p.Items, more.Items...)
	p.shorten()
}

// note adds entries under a key, and beyond the bound of what is remembered without one.
func (p *Purge) note(key uint64, n int64) {
	if p.Keys == nil {
		p.Keys = map[uint64]int64{}
	}
	if _, is := p.Keys[key]; !is && len(p.Keys) >= maxCounted {
		p.More += n
		return
	}
	p.Keys[key] += n
}

// shorten keeps what is named within twice its bound, so that sorting costs little for each item.
func (p *Purge) shorten() {
	if len(p.Items) > 2*maxItems {
		p.sort()
	}
}

// sort puts those items first that have the most entries, and leaves out what is beyond the bound.
func (p *Purge) sort() {
	slices.SortFunc(p.Items, func(a, b PurgeItem) int {
		return cmp.Or(cmp.Compare(b.Entries, a.Entries), cmp.Compare(a.Path, b.Path))
	})
	p.Items = slices.Clip(p.Items[:min(len(p.Items), maxItems)])
}

// approved is what the operator allowed, as far as the crawl has not made use of it.
type approved struct {
	asked bool
	keys  map[uint64]int64
	more  int64
	all   bool // the master is empty, and may be
}

// approved has what the operator approved not count; nil where he has approved nothing of it. mu is held.
func (g *Guard) approved(list []leaving) []leaving {
	g.learn()
	if len(g.word.keys) == 0 && !g.word.all {
		return nil
	}
	out, some := slices.Clone(list), false
	for i := range out {
		if g.word.all || g.covers(&out[i]) {
			out[i].old, some = 0, true
		}
	}
	if !some {
		return nil
	}
	return out
}

// covers tells whether an entry may go by the operator's word: it holds no more than at the time of the word. What had no key of its own then
// goes as long as there is room in the count of those.
func (g *Guard) covers(e *leaving) bool {
	n, is := g.word.keys[e.key]
	switch {
	case is:
		return e.all <= n
	case e.all > g.word.more:
		return false
	}
	g.word.more -= e.all
	g.word.keys[e.key] = e.all // for the next visit
	return true
}

// learn asks once what the operator has approved: a word that comes during a crawl is for the next one, which sees the same tree as he did. mu is held.
func (g *Guard) learn() {
	if g.word.asked || g.opts.Approvals == nil {
		return
	}
	g.word.asked = true
	if p := g.opts.Approvals.Approved(); p != nil {
		g.word.keys, g.word.more = maps.Clone(p.Keys), p.More
	}
}

// Emptied asks whether everything on the slave may go, as the master is empty. What it refuses is what the slave has. An empty master is
// most often a file system that is not mounted, so no share of MaxDelete below 100 allows it: only the operator's word does.
func (g *Guard) Emptied(ctx context.Context, n Dir, entries []slave.EntryState) error {
	counts, err := g.opts.Slave.Count(ctx, []string{""}, countAll)
	if err != nil {
		return err
	}
	root := leaving{dir: true, all: max(counts[0]-1, 1), key: dirKey(n.GFID())}
	if g.mayEmpty(&root) {
		return nil
	}
	r := &Refusal{error: errEmptied(g.opts.Path, root.all), purge: Purge{Emptied: true, Had: root.all,
		Percent: g.opts.MaxDelete, Free: g.opts.Free}}
	list, err := g.leaving(ctx, n, entries)
	if err != nil {
		return err
	}
	r.purge.add(list)
	r.purge.Entries = root.all
	r.purge.note(root.key, root.all)
	return r
}

// mayEmpty tells whether the operator has approved that all goes.
func (g *Guard) mayEmpty(root *leaving) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.learn()
	most, is := g.word.keys[root.key]
	if is = is && root.all <= most; is {
		g.word.all = true
	}
	return is
}

// MayReplace tells whether a file that came to the slave lately may take the place of another: as if the content of that had
// changed. It is young no more once it has (replaced).
func (g *Guard) MayReplace(path string, old *slave.EntryState, by slave.Kind, gfid xtime.GFID) bool {
	if old.Kind == slave.Dir || by == slave.Dir || !g.losses.cameLately(gfid) {
		return false
	}
	g.removals.Lock()
	defer g.removals.Unlock()
	if g.aging == nil {
		g.aging = map[string]bool{}
	}
	g.aging[path] = true
	return true
}

// Replaced notes that an inode has got its new place.
func (g *Guard) Replaced(op *slave.Op) {
	g.removals.Lock()
	is := g.aging[op.Path]
	delete(g.aging, op.Path)
	g.removals.Unlock()
	if is {
		g.losses.age(op.Record.GFID)
	}
}

// errEmptied refuses to remove all that the slave has because the master has nothing.
func errEmptied(path string, there int64) error {
	return fmt.Errorf("%w: %s is empty, while the slave has %d entries (is its file system mounted?); if the slave is "+
		"to be emptied, say so with `georep approve MASTER SLAVE`", source.ErrNotMaster, path, there)
}
