package disk

import (
	"errors"
	"io/fs"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
)

// namesAStep is how many names of an inode get new content before other batches that wait are published.
const namesAStep = 500

// errUnfinished says that an operation gave way to what waits, and is to go on after that.
var errUnfinished = errors.New("the operation goes on")

// replacing is what an operation that replaces all names of an inode has done. The staged inode
// stays the same meanwhile. It lives in the item, so that the operation can go on after it gave
// way. A crash forgets it, and the operation is repeated.
type replacing struct {
	names   []string            // that lead to it by now, the operation's own first
	found   map[string]struct{} // all that were looked at, or are to be
	todo    []named             // of these, those to come
	gaveWay bool                // others were published since todo was found
}

// replaceGroup puts new content of an inode that has, or had, several names in place of all of them: the operation's
// own name last, so that a crash in between leaves the old record there and all of this is done again. Of many names it does
// some, and gives way to batches that wait (errUnfinished). What it finds when it goes on is as after such a crash.
func (pub *publisher) replaceGroup(it *item, p place, old entry) error {
	if it.rest == nil {
		if err := pub.beginGroup(it, old); err != nil {
			return err
		}
	}
	staged, err := pub.staging.Stat(it.staged)
	if err != nil {
		return err
	}
	if err := pub.replaceSome(it, staged); err != nil {
		return err
	}
	for it.rest.gaveWay {
		if err := pub.findMore(it, p); err != nil {
			return err
		}
		if err := pub.replaceSome(it, staged); err != nil {
			return err
		}
	}
	// The same content may have come with another batch meanwhile. To rename a name of an inode to another of it does nothing.
	if !old.there || !sameInode(old.st, staged) {
		if err := pub.replace(it, p, old); err != nil {
			return err
		}
	}
	st, err := p.dir.Stat(p.name)
	if err == nil {
		pub.links.noteGroup(it.op, st, it.rest.names)
	}
	return err
}

// beginGroup finds the names, and stages an inode that has the content already in place of the one
// that was shipped. The inode is marked dirty first, durably by the sync that follows: until all
// names lead to the new one, a crash leaves a group that must be looked at.
func (pub *publisher) beginGroup(it *item, old entry) error {
	op := it.op
	if err := pub.links.guard(op.Record.GFID, dirty.Mark{Ino: op.Ino}); err != nil {
		return err
	}
	it.rest = &replacing{names: []string{op.Path}, found: map[string]struct{}{}}
	pub.findGroup(it, old)
	return pub.takeLive(it, old, it.rest.todo)
}

// findGroup finds all names of the inode but the operation's own.
func (pub *publisher) findGroup(it *item, old entry) {
	op, r := it.op, it.rest
	r.todo = pub.finder.knownNames(op.Record.GFID, pub.links.rowNow(op.Record.GFID).names, op.Path)
	if op.Links > 1 {
		r.todo = append(r.todo, pub.hiddenNames(op, old, r.todo)...)
	}
	for _, n := range r.todo {
		r.found[n.path] = struct{}{}
	}
}

// findMore finds the names that came, or moved, while others were published. It looks at no name twice, unless the old inode has
// one that nothing tells of.
func (pub *publisher) findMore(it *item, p place) error {
	g, r := it.op.Record.GFID, it.rest
	r.gaveWay = false
	var more []string
	for _, name := range pub.links.rowNow(g).names {
		if _, known := r.found[name]; !known {
			more = append(more, name)
		}
	}
	r.todo = pub.finder.verified(g, more, it.op.Path)
	for _, n := range r.todo {
		r.found[n.path] = struct{}{}
	}
	old, err := pub.look(p)
	if err == nil && len(r.todo) == 0 && old.there && old.rec.GFID == g && old.st.Nlink > 1+pub.park.namesOf(g, old.st) {
		pub.findGroup(it, old)
	}
	return err
}

// replaceSome replaces names, until all are or it gives way. A name that was found before others
// were published may lead to something else by now. It replaces up to step names at a time while
// others wait; without others, all.
func (pub *publisher) replaceSome(it *item, staged beneath.Stat) error {
	r := it.rest
	for done := 0; len(r.todo) > 0; r.todo = r.todo[1:] {
		n, ok := r.todo[0], true
		if done >= pub.step && pub.queue.waits() {
			r.gaveWay = true
			return errUnfinished
		}
		if r.gaveWay {
			n, ok = pub.finder.verify(it.op.Record.GFID, n.path)
		}
		if !ok {
			continue
		}
		r.names = append(r.names, n.path)
		if sameInode(n.st, staged) {
			continue
		}
		if err := pub.replaceName(it, n.path); err != nil {
			return err
		}
		done++
	}
	return nil
}

// takeLive stages an inode of the group that is already in the tree with just this content, in
// place of the copy that was shipped. So names of one inode that were shipped by two batches become
// one inode.
func (pub *publisher) takeLive(it *item, old entry, others []named) error {
	want := it.op.Record.Xtime
	if want == 0 || it.res.Torn {
		return nil
	}
	for _, n := range others {
		if n.rec.Xtime != want || old.there && sameInode(n.st, old.st) || n.kind != kindOf(it.op) {
			continue
		}
		return pub.stageName(it, n)
	}
	return nil
}

// kindOf is the kind of what an operation makes.
func kindOf(op *slave.Op) slave.Kind {
	switch op.Kind {
	case slave.OpPut:
		return slave.File
	case slave.OpSymlink:
		return slave.Symlink
	}
	return op.Entry
}

// stageName stages a further name of the inode that was found at a path. Another one may have its
// name by now, so what was linked is looked at once more. ErrConflict says that the source changed
// under the look; the operation fails and is repeated by the next crawl.
func (pub *publisher) stageName(it *item, src named) error {
	dir, name := beneath.Split(src.path)
	d, err := pub.openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	temp := pub.stagingName()
	if err := pub.sys.link(place{d, name}, place{pub.staging, temp}); err != nil {
		return err
	}
	pub.stager.drop(it)
	it.staged = temp
	st, err := pub.staging.Stat(temp)
	if err == nil && !sameInode(st, src.st) {
		err = slave.ErrConflict // the staged name is dropped with the operation
	}
	return err
}

// replaceName makes another name of the group lead to the staged inode. Its directory is none that
// this batch is about, so its times and mode stay. The directory's mtime is set back: nothing has
// changed in it on the master.
func (pub *publisher) replaceName(it *item, path string) error {
	dir, name := beneath.Split(path)
	d, err := pub.openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		return err
	}
	temp := place{pub.staging, pub.stagingName()}
	if err := pub.sys.link(place{pub.staging, it.staged}, temp); err != nil {
		return err
	}
	pub.forgetBeside(place{d, name})
	err = pub.writable(d, func() error { return pub.sys.rename(temp, place{d, name}, 0) })
	if err != nil {
		return errors.Join(err, pub.sys.unlink(temp))
	}
	if now, err := d.Stat(""); err == nil && now.Mode != st.Mode {
		if err := pub.sys.chmod(d.At(""), st.Mode&0o7777); err != nil {
			return err
		}
	}
	return pub.sys.setMtime(d.At(""), st.Mtime)
}

// hiddenNames finds the names of the group that the link table does not have: where an inode has
// more names than are known, the tree is searched for its number. It costs a walk over the whole
// slave, so it is done only where the inode's own link count proves that names are missing from the
// table.
func (pub *publisher) hiddenNames(op *slave.Op, old entry, known []named) []named {
	g := op.Record.GFID
	count := map[uint64]uint32{} // known names by inode number
	links := map[uint64]beneath.Stat{}
	note := func(e entry) { count[e.st.Ino]++; links[e.st.Ino] = e.st }
	paths := map[string]bool{op.Path: true}
	if old.there && old.rec.GFID == g {
		note(old)
	}
	for _, n := range known {
		note(n.entry)
		paths[n.path] = true
	}
	wanted := map[uint64]bool{}
	for ino, st := range links {
		if st.Nlink > count[ino]+pub.park.namesOf(g, st) {
			wanted[ino] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	var all []named
	for _, hit := range pub.finder.search(wanted) {
		if paths[hit.path] {
			continue
		}
		if n, ok := pub.finder.verify(g, hit.path); ok {
			all = append(all, n)
		}
	}
	return all
}

// Link makes Path a further name of an inode that the slave has. ErrNeedContent tells the crawler
// that no source was found, and that it has to send the content.
func (pub *publisher) Link(it *item) error {
	op := it.op
	p, err := pub.parents.open(op.Path)
	if err != nil {
		return err
	}
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	var src named
	if old.kind != slave.Dir {
		src = pub.source(op).Best
	}
	as, err := apply.Link(op, old.standing(), src.standing(), src.there && sameInode(old.st, src.st))
	switch {
	case err != nil:
		return err
	case as == apply.LinkKept:
		pub.links.noteGroup(op, old.st, []string{op.Path})
		return nil
	case as == apply.LinkKnown:
		pub.links.noteGroup(op, old.st, []string{op.Path, src.path})
		return nil
	}
	if err := pub.links.guard(op.Record.GFID, dirty.Mark{Ino: op.Ino}); err != nil {
		return err
	}
	if err := pub.stageName(it, src); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return slave.ErrNeedContent
		}
		return err
	}
	if err := pub.replace(it, p, old); err != nil {
		return err
	}
	pub.left.candidates.leaves(op)
	st, err := p.dir.Stat(p.name)
	if err == nil {
		pub.links.noteGroup(op, st, []string{op.Path, src.path})
	}
	return err
}

// source finds the inode that an OpLink means: through From, or the link table, where the newest state is the best.
func (pub *publisher) source(op *slave.Op) *apply.Source[named] {
	s, g := &apply.Source[named]{Op: op}, op.Record.GFID
	if from, ok := s.From(); ok {
		if n, found := pub.finder.verify(g, from); found && s.Fits(n.kind) {
			s.Take(n, n.rec)
			return s
		}
	}
	look := func(n named, found bool) {
		if found && s.Fits(n.kind) && s.Better(n.path, n.rec) {
			s.Take(n, n.rec)
		}
	}
	for name := range pub.links.namesOf(g) {
		if name != op.Path {
			look(pub.finder.verify(g, name))
		}
		if s.Enough() {
			return s
		}
	}
	if n, found := pub.finder.placed(g); found && n.kind != slave.Dir {
		look(n, true)
	}
	return s
}
