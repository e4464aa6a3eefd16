package marker

import (
	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/hint"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// news is what a batch has for hints beyond its places: what is not to be marked, but to be told.
// It is kept apart from the places because it is bounded with them, but never tried again: after a
// failure hints tell of whole directories instead.
type news struct {
	names map[beneath.HandleKey]map[string]struct{} // entries that went, and directories
	from  map[beneath.HandleKey][]beneath.HandleKey // directories that were moved, and where they were
	// partial is set where places are tried again whose names were forgotten.
	partial bool
}

// newNews gives empty news, whose maps may be written to.
func newNews() news {
	return news{names: map[beneath.HandleKey]map[string]struct{}{}, from: map[beneath.HandleKey][]beneath.HandleKey{}}
}

// tell has the name of p told, whose directory is in the batch.
func (b *batch) tell(p fanotify.Place) {
	if p.Name == "" || p.Name == "." {
		return
	}
	in := b.news.names[p.Dir]
	if in == nil {
		in = map[string]struct{}{}
		b.news.names[p.Dir] = in
	}
	if _, have := in[p.Name]; !have {
		in[p.Name] = struct{}{}
		b.count++
	}
}

// moved notes that a directory came from another, or from where nobody knows.
func (b *batch) moved(dir, from beneath.HandleKey) {
	b.news.from[dir] = append(b.news.from[dir], from)
}

// note collects, while a mark is made, what there is to tell about it. A nil note collects nothing.
// It is made and used during one mark, with the core's mu held. Most marks have no listeners, so
// collecting has to cost nothing then: hence the nil note.
type note struct {
	*core
	seen map[beneath.HandleKey]struct{}            // inodes that were found under a name of the batch, or one more
	lost map[beneath.HandleKey][]beneath.HandleKey // inodes that were not, by the directory of that name
	more map[beneath.HandleKey][]string            // names beyond those of the batch
	dirs []noted                                   // in the order of the mark
	at   map[beneath.HandleKey]int                 // index into dirs
}

// noted is one directory of a mark.
type noted struct {
	key     beneath.HandleKey
	gfid    xtime.GFID // zero if it is not known
	before  xtime.Time
	name    string // "" if it is not known
	unclear bool   // what changed in it cannot be told
}

// note begins a note where somebody wants to be told and all can be.
func (c *core) note() *note {
	if !c.telling.hints.Wanted() || c.telling.certain != nil && !c.telling.certain() {
		return nil
	}
	return &note{core: c, seen: map[beneath.HandleKey]struct{}{}, at: map[beneath.HandleKey]int{},
		lost: map[beneath.HandleKey][]beneath.HandleKey{}, more: map[beneath.HandleKey][]string{}}
}

// found says that an inode lies under a name that the batch does not have.
func (n *note) found(k, dir beneath.HandleKey, name string) {
	if n != nil {
		n.seen[k] = struct{}{}
		n.more[dir] = append(n.more[dir], name)
	}
}

// loose says that an inode lives on that is no longer under its name in dir, and under no other that is known.
func (n *note) loose(dir, k beneath.HandleKey) {
	if n != nil {
		n.lost[dir] = append(n.lost[dir], k)
	}
}

// met says that an inode was found under its name.
func (n *note) met(k beneath.HandleKey) {
	if n != nil {
		n.seen[k] = struct{}{}
	}
}

// before notes a directory's xtime, just before it gets a new one, and its name.
func (n *note) before(d *beneath.Dir, k beneath.HandleKey) {
	if n == nil {
		return
	}
	x, err := d.Xtime("", &n.Names)
	// Of what a directory without an xtime was bumped for, that tells nothing.
	one := noted{key: k, gfid: n.tree.gfid(k, d), before: x, unclear: err != nil || x == 0 && n.scans.Cover.Bumped.Has(d, n.RootStat.Dev)}
	// If it is being moved at this moment, name or parent may be those of later: but then there is an event to come, and
	// a later mark tells both names and both parents.
	one.name = d.LastName()
	n.at[k] = len(n.dirs)
	n.dirs = append(n.dirs, one)
}

// marked notes how the mark of a directory went. One that is gone is not told of; one that is not marked says nothing of
// what is in it.
func (n *note) marked(k beneath.HandleKey, v tree.Result) {
	if n == nil || v == tree.Done || v == tree.Gone {
		return
	}
	i, ok := n.at[k]
	if !ok {
		i = len(n.dirs)
		n.at[k] = i
		n.dirs = append(n.dirs, noted{key: k, gfid: n.tree.gfid(k, nil)})
	}
	n.dirs[i].unclear = true
}

// tell gives the workers the hint of a mark that is complete, or a gap where not all of it can be told. It is called
// with mu held.
func (c *core) tell(n *note, b *batch, t xtime.Time) {
	var h *hint.Hint
	if n != nil && !b.news.partial && len(n.dirs) > 0 {
		h = n.hint(b, t)
	}
	if h == nil {
		c.telling.hints.Gap()
		return
	}
	c.telling.hints.Publish(h)
}

// hint is what a mark tells; nil where not all of it can be told. It tells nothing where the root
// took no mark, or had a newer xtime: a worker joins hints by the root's xtimes. A directory of
// which not all is known is told as a whole, and the worker lists it.
func (n *note) hint(b *batch, t xtime.Time) *hint.Hint {
	root := &n.dirs[len(n.dirs)-1]
	if root.key != n.tree.top() || root.unclear || root.before >= t {
		return nil
	}
	n.cloud(b)
	names := map[beneath.HandleKey]map[string]xtime.GFID{}
	for i := range n.dirs {
		names[n.dirs[i].key] = b.told(n.dirs[i].key, n.more[n.dirs[i].key])
	}
	h := &hint.Hint{Xtime: t}
	for i := range n.dirs { // the deepest first: all below a directory have put their names in by its turn
		d := &n.dirs[i]
		out := hint.Dir{GFID: d.gfid, Before: d.before, Whole: d.unclear || d.before >= t}
		if d.before >= t { // left by somebody else's clock
			out.Before = 0
		}
		if d.gfid.IsZero() || !n.nameIn(d, names) {
			return nil
		}
		if !out.Whole {
			for name, g := range names[d.key] {
				out.Names = append(out.Names, hint.Name{Name: name, Dir: g})
			}
		}
		h.Dirs = append(h.Dirs, out)
	}
	return h
}

// cloud marks as unclear the directories of which names do not tell all that changed.
func (n *note) cloud(b *batch) {
	for i := range n.dirs {
		d := &n.dirs[i]
		// What failed there earlier was forgotten, but for its directory.
		if _, owed := n.retry.dirs[d.key]; owed {
			d.unclear = true
		}
		// What went on in a directory while it lay elsewhere, nobody marked.
		for _, from := range b.news.from[d.key] {
			if _, inside := n.at[from]; !inside {
				d.unclear = true
			}
		}
		// An inode that is not under its name, nor under any other of the batch, may be under one in the same directory.
		for _, k := range n.lost[d.key] {
			if _, found := n.seen[k]; !found {
				d.unclear = true
			}
		}
	}
}

// told are the names of a directory that the batch knows to have changed. The values are GFIDs of
// those among the names that are marked directories; they are filled in by nameIn.
func (b *batch) told(dir beneath.HandleKey, more []string) map[string]xtime.GFID {
	out := map[string]xtime.GFID{}
	for _, name := range more {
		out[name] = xtime.GFID{}
	}
	for name := range b.dirs[dir] {
		out[name] = xtime.GFID{}
	}
	for name := range b.news.names[dir] {
		out[name] = xtime.GFID{}
	}
	return out
}

// nameIn puts a directory among the names of the one that it lies in, which has its turn later. It tells whether that one
// is known.
func (n *note) nameIn(d *noted, names map[beneath.HandleKey]map[string]xtime.GFID) bool {
	if d.key == n.tree.top() {
		return true
	}
	up, known := n.tree.parent(d.key)
	i, marked := n.at[up]
	switch {
	case !known || !marked:
		// Gone, and so is this one from there; or forgotten, after more directories than the tree remembers.
		return known
	case d.name == "":
		n.dirs[i].unclear = true
	default:
		names[up][d.name] = d.gfid
	}
	return true
}
