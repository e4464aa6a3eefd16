package marker

import (
	"cmp"
	"slices"

	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/tree"
	"georep/marker/xtime"
)

const (
	maxBatch   = 4096    // places marked with one xtime
	maxRetries = 1 << 16 // places remembered for another try
)

// batch is what is marked with one xtime: places, by directory. The name "" is the directory itself; a directory that
// is in the batch is marked in any case.
type batch struct {
	dirs  map[beneath.HandleKey]names
	count int
	// news is what hints tell beyond the places: names that went, and where directories came from.
	news  news
	moves []dirMove
	// begun are directories that were made: nothing in them is older than they are, but what moves there.
	begun map[beneath.HandleKey]struct{}
	// removed are directories that were removed, with those in which they were.
	removed map[beneath.HandleKey]beneath.HandleKey
	made    map[fanotify.Place]struct{} // names that came about
	left    []detachedInode             // inodes that lost a young name
}

// names are entries of a directory, each with the inodes that events told of under that name.
type names map[string][]beneath.HandleKey

// newBatch gives an empty batch. It has one user at a time, and belongs to the goroutine that reads
// events.
func newBatch() *batch {
	return &batch{dirs: map[beneath.HandleKey]names{}, news: newNews(), made: map[fanotify.Place]struct{}{},
		begun: map[beneath.HandleKey]struct{}{}, removed: map[beneath.HandleKey]beneath.HandleKey{}}
}

// size is what the batch holds in places, inodes and names: what bounds its memory, and the length
// of a mark.
func (b *batch) size() int { return b.count }

// add adds a place of which no inode is known.
func (b *batch) add(p fanotify.Place) { b.addInode(p, "") }

// addInode adds a place with the inode that was met there; "" where that is not known.
func (b *batch) addInode(p fanotify.Place, inode beneath.HandleKey) {
	in, ok := b.dirs[p.Dir]
	if !ok {
		b.dirs[p.Dir] = nil
		b.count++
	}
	if p.Name == "" {
		return
	}
	if in == nil {
		in = names{}
		b.dirs[p.Dir] = in
	}
	known, have := in[p.Name]
	if !have {
		b.count++
	}
	if inode != "" && !slices.Contains(known, inode) {
		known = append(known, inode)
		b.count += len(known) - 1
	}
	in[p.Name] = known
}

// lose adds inodes that lost a young name.
func (b *batch) lose(all ...detachedInode) {
	b.left = append(b.left, all...)
	b.count += len(all)
}

// addAll adds places of which not all that changed there is known any more.
func (b *batch) addAll(more *batch) {
	b.news.partial = true
	b.lose(more.left...)
	for dir, in := range more.dirs {
		b.add(fanotify.Place{Dir: dir})
		for name, inodes := range in {
			p := fanotify.Place{Dir: dir, Name: name}
			b.add(p)
			for _, k := range inodes {
				b.addInode(p, k)
			}
		}
	}
}

// mark marks a batch (invariant 1). What could not be marked now is in c.retry afterwards. The
// error is the clock's. Places outside of the volume are passed over. The xtime is taken after the
// directories were found, so nothing that is read later can be older. Entries are marked first,
// then what leads to detached inodes, then the directories, the root last, and only then are the
// workers told.
func (c *core) mark(b *batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.counts.retrying.Store(c.retries()) }()
	s := c.newDetached(b)
	if len(b.removed)+len(b.moves) > 0 {
		defer c.tree.letGo(false) // one that moved may have taken the place of another
	}
	depth := c.locateAll(b, s)
	c.arrivals.moves(c.tree, b, depth)
	if len(depth) == 0 && len(s.all) == 0 {
		return nil
	}
	t, err := c.clock.Next()
	if err != nil {
		c.retry.addAll(b)
		return err
	}
	c.counts.marks.Add(1)
	n := c.note()
	for dir, in := range b.dirs {
		if _, inside := depth[dir]; inside && len(in) > 0 {
			c.markEntries(dir, in, t, s)
		}
	}
	s.lead(depth, t, n)
	if len(depth) > 0 {
		c.markDirs(b, depth, t, n)
		c.tell(n, b, t)
	}
	return nil
}

// locateAll returns the directories of the batch that lie below the root and all those above them, each with its depth.
func (c *core) locateAll(b *batch, s *batchDetached) map[beneath.HandleKey]int {
	depth := map[beneath.HandleKey]int{}
	for dir, in := range b.dirs {
		chain, err := c.tree.chain(dir)
		switch tree.Judge(err, tree.Unseen) {
		case tree.Done:
		case tree.Again:
			c.troubles.unopened(c.tree, dir, err)
			c.retry.addAll(&batch{dirs: map[beneath.HandleKey]names{dir: in}})
			continue
		default:
			// It is gone, and what removed it is an event of its own. Whether it was below the root nobody knows.
			s.orphans(dir, in, true)
			continue
		}
		include(depth, chain)
	}
	return depth
}

// include adds a directory and those above it to those that are marked.
func include(depth map[beneath.HandleKey]int, chain []beneath.HandleKey) {
	for i, k := range chain {
		if _, have := depth[k]; have {
			break
		}
		depth[k] = len(chain) - i
	}
}

// markEntries marks the entries of one directory. An entry that is gone needs no mark, since what
// removed it is an event of its own; the inode that events met there may live on, and is then
// detached. mu is held.
func (c *core) markEntries(dir beneath.HandleKey, in names, t xtime.Time, s *batchDetached) {
	d, err := c.tree.dir(dir)
	if err != nil {
		if tree.Judge(err, tree.Unseen) == tree.Again {
			c.troubles.unopened(c.tree, dir, err)
			c.retry.addAll(&batch{dirs: map[beneath.HandleKey]names{dir: in}})
		} else {
			s.orphans(dir, in, false)
		}
		return
	}
	for name, inodes := range in {
		if c.stamp(d, name, t) == tree.Again {
			c.retry.add(fanotify.Place{Dir: dir, Name: name})
		}
		for _, k := range inodes {
			if s.meet(d, fanotify.Place{Dir: dir, Name: name}, k) {
				continue
			}
			switch c.stampInode(d, name, k, t) {
			case tree.Done:
				s.all = append(s.all, detachedInode{dir: dir, inode: k})
			case tree.Again:
				c.retry.addInode(fanotify.Place{Dir: dir, Name: name}, k)
			}
		}
	}
}

// stampInode marks an inode that an event named, whose name no longer leads to it: it may have others.
func (c *core) stampInode(d *beneath.Dir, name string, k beneath.HandleKey, t xtime.Time) tree.Result {
	err := c.setByKey(k, t)
	v := tree.Judge(err, func() bool { return c.ByCtimeOfKey(k) })
	switch v {
	case tree.Refused:
		c.troubles.refuse(d, name, err)
	case tree.Again:
		c.troubles.failed(d, name, err)
	}
	return v
}

// markDirs marks the deepest first. A directory that refuses does not keep those above it from
// being marked. n learns the xtime of each before it is overwritten: hints need it.
func (c *core) markDirs(b *batch, depth map[beneath.HandleKey]int, t xtime.Time, n *note) {
	keys := make([]beneath.HandleKey, 0, len(depth))
	for k := range depth {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b beneath.HandleKey) int { return cmp.Compare(depth[b], depth[a]) })
	for _, k := range keys {
		d, err := c.tree.dir(k)
		v := tree.Judge(err, tree.Unseen)
		switch v {
		case tree.Done:
			n.before(d, k)
			v = c.stamp(d, "", t)
		case tree.Again:
			c.troubles.unopened(c.tree, k, err)
		}
		if _, is := b.begun[k]; is && (v == tree.Done || v == tree.Bumped) {
			c.arrivals.begins(b, k, d)
		}
		if v == tree.Again {
			c.retry.add(fanotify.Place{Dir: k})
		}
		n.marked(k, v)
	}
}

// takeRetry hands over what has to be tried again.
func (c *core) takeRetry() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.retry
	c.retry = newBatch()
	c.counts.retrying.Store(c.retries())
	return b
}
