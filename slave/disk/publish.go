package disk

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/gfidindex"
)

// publisher carries out operations, one after the other, on the committer's goroutine. It looks at
// what stands there first, and each of them may come twice (invariant 9). It holds no state from
// one operation to the next but holds, which are the directories that may not be stamped in this
// pass.
type publisher struct {
	*records
	own     *ownership
	finder  *finder
	parents *parents
	park    *park
	links   *links
	stager  *stager
	left    *leftovers
	holds   apply.Holds
	queue   *queue
	// It is namesAStep, but in tests.
	step int // so many names of an inode are replaced before what waits goes first
}

// nameOf is the last name of an operation's path; "" for the root.
func nameOf(op *slave.Op) string {
	_, name := beneath.Split(op.Path)
	return name
}

// absent tells whether err means that there is no such entry, or nothing that could have it. ELOOP
// and ENOTDIR stand for a path that leads through something that is no directory any more.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// sameInode tells whether both are names of one inode. Numbers are only compared between entries
// that are there at the same time.
func sameInode(a, b beneath.Stat) bool { return a.Ino == b.Ino && a.Dev == b.Dev }

// Put publishes a staged file, link or node. A name that is not there yet costs one system call.
// The name is taken without a look first, since most files are new; only where that fails is it
// looked at what stands there.
func (pub *publisher) Put(it *item) error {
	op := it.op
	p, err := pub.parents.open(op.Path)
	if err != nil {
		return err
	}
	if op.Links <= 1 && it.rest == nil {
		err := pub.moveIn(it, p, unix.RENAME_NOREPLACE)
		// EINVAL is a file system that does not know the flag.
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	if old.kind == slave.Dir {
		return slave.ErrConflict
	}
	if it.rest != nil || apply.ReplacesAll(op, old.standing(), int(old.st.Nlink)) {
		return pub.replaceGroup(it, p, old)
	}
	return pub.replace(it, p, old)
}

// moveIn renames what is staged to p. On success nothing is staged any more; on failure the
// operation still owns what is.
func (pub *publisher) moveIn(it *item, p place, flags uint) error {
	err := pub.writable(p.dir, func() error { return pub.sys.rename(place{pub.staging, it.staged}, p, flags) })
	if err == nil {
		it.staged = ""
	}
	return err
}

// replace renames what is staged over old, which is parked without a gap if it is another inode of
// the master. Inodes with further names on the master are marked dirty before one of their names
// goes. The rename itself leaves no moment in which the name is missing.
func (pub *publisher) replace(it *item, p place, old entry) error {
	if apply.Displaces(it.op, old.standing()) {
		if err := pub.links.leaving(old); err != nil {
			return err
		}
		if err := pub.park.beside(p, old); err != nil {
			return err
		}
		it.res.Parked = true
		pub.links.forgetName(old, it.op.Path)
	}
	if old.beside {
		pub.forgetBeside(p)
	}
	return pub.moveIn(it, p, 0)
}

// Mkdir makes a directory, or takes the one that is there. A directory that is there already may
// be another inode of the master, whose entries stay: the crawler says so by Expect, and sends what
// differs. It loses its stamp then (disown).
func (pub *publisher) Mkdir(it *item) error {
	op := it.op
	p := place{pub.dir, ""}
	if op.Path != "" {
		var err error
		if p, err = pub.parents.open(op.Path); err != nil {
			return err
		}
		err = pub.writable(p.dir, func() error { return pub.sys.mkdir(p, op.Meta.Mode&0o777|0o700) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		var done func()
		if p, done, err = pinned(p); err != nil {
			return err
		}
		defer done()
	}
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	if err := apply.Mkdir(op, old.standing()); err != nil {
		return err
	}
	meta := op.Meta
	if !pub.root {
		meta.Mode |= 0o700 // until its OpFinish
	}
	s := old.st
	c := &change{
		r: pub.records, inode: p.dir.At(p.name).As(nameOf(op)), kind: slave.Dir, meta: &meta, had: old.rec, fitting: fitting{beside: old.beside},
		now: shape{mode: s.Mode & 0o7777, uid: s.UID, gid: s.GID}, record: op.Record, isRoot: op.Path == "",
	}
	delete(pub.parents.keys, op.Path) // it may have another GFID from now on
	for _, step := range []func() error{c.open, c.owner, c.disown, c.gfid, c.keep, c.mode, c.aside} {
		if err := step(); err != nil {
			return err
		}
	}
	it.res.Lost = c.lost
	return nil
}

// Finish sets a directory's meta. The stamp follows after a sync. The root's finish ends the
// crawl, so what moves left behind is cleared away with it. ErrHeldBack says that something below
// has failed, and is what the crawler expects then.
func (pub *publisher) Finish(it *item) error {
	op := it.op
	d, err := pub.openDir(op.Path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := pub.finishDir(it, d); err != nil {
		return err
	}
	if op.Path == "" {
		pub.left.dropParkedNames()
	}
	if pub.holds.Held(op.Pass, op.Path) {
		return slave.ErrHeldBack
	}
	if op.Path == "" && op.Stamp {
		pub.left.dropTwice()
	}
	return nil
}

// finishDir is Finish for the directory itself. An ordinary user may have to open it up for that, and nobody lifts its mode
// meanwhile.
func (pub *publisher) finishDir(it *item, d *beneath.Dir) error {
	op := it.op
	if !pub.root {
		pub.permMu.Lock()
		defer pub.permMu.Unlock()
		if err := pub.openUp(d); err != nil {
			return err
		}
	}
	old, err := pub.lookBy(place{d, ""}, pub.onRecord) // opened up as far as it can be
	if err != nil {
		return err
	}
	it.copy = copyOf(old.st)
	if err := apply.Finish(op, old.standing(), it.copy); err != nil {
		return err
	}
	c := &change{
		r: pub.records, inode: d.At(""), kind: slave.Dir, meta: &op.Meta, record: op.Record, had: old.rec, isRoot: op.Path == "",
	}
	return pub.applyInPlace(it, c, old)
}

// applyInPlace runs a change of an entry that is in the tree. others may look at the entry
// meanwhile: the steps are in an order in which no one sees rights that nobody gave.
func (pub *publisher) applyInPlace(it *item, c *change, old entry) (err error) {
	if c.now, err = shapeOf(c.inode, old.st); err != nil {
		return err
	}
	c.inPlace, c.beside = true, old.beside
	done, err := pub.sys.used.grows(c.inode, c.meta, &old.st)
	if err != nil {
		return err
	}
	defer done()
	it.res.Lost, err = c.apply()
	return err
}

// Meta sets the meta and record of an entry whose content is right. It is for an entry that was
// compared: the content is the same, and the record is to say so. ErrConflict: another inode stands
// there by now.
func (pub *publisher) Meta(it *item) error {
	op := it.op
	p, err := pub.parents.open(op.Path)
	if err != nil {
		return err
	}
	p, done, err := pinned(p)
	if err != nil {
		return err
	}
	defer done()
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	if err := apply.Meta(op, old.standing(), old.kind.CarriesRecord(pub.names.Namespace)); err != nil {
		return err
	}
	c := &change{
		r: pub.records, inode: p.dir.At(p.name).As(nameOf(op)), kind: old.kind, meta: &op.Meta, record: op.Record, had: old.rec, stamps: true,
	}
	if err := pub.applyInPlace(it, c, old); err != nil {
		return err
	}
	if op.Links > 1 || old.st.Nlink > 1 {
		pub.links.noteGroup(op, old.st, []string{op.Path})
	}
	return nil
}

// publish does one operation that is still to be done, and remembers where its inode is from then
// on. moving tells Find that an inode may be between two places at this moment. The index learns
// the place only of what has succeeded.
func (pub *publisher) publish(it *item) error {
	// Clean must not delete a parked name that the operation relies on.
	pub.park.mu.Lock()
	defer pub.park.mu.Unlock()
	if k := it.op.Kind; k == slave.OpPark || k == slave.OpUnpark {
		pub.park.moving.Add(1)
		defer pub.park.moving.Add(1)
	}
	if err := pub.inPlace(it.op); err != nil {
		return err
	}
	if it.without {
		return pub.doWithout(it)
	}
	err := apply.Do(it.op.Kind, pub, it)
	if err == nil {
		pub.notePlace(it.op)
	}
	return err
}

// inPlace tells with ErrMoved that an operation's path does not lie in the directory any more that
// it is meant for: on their way from the master another crawl, or another part of this one, may
// have moved that. One without a record is new. It costs one look for each directory of a group,
// since keys are remembered (parents).
func (pub *publisher) inPlace(op *slave.Op) error {
	dir, insists := apply.MeantFor(op)
	if !insists {
		return nil
	}
	if key, known := pub.parents.key(op.Path, dir); known && key != gfidindex.KeyOf(op.In) {
		return slave.ErrMoved
	}
	return nil
}

// Filter puts the session's filter on record.
func (pub *publisher) Filter(it *item) error { return pub.own.putFilter(it.op) }

// notePlace remembers where the inode is that an operation has put, or found, in its place.
func (pub *publisher) notePlace(op *slave.Op) {
	g := op.Record.GFID
	if g.IsZero() || op.Path == "" || op.Kind == slave.OpPark {
		return
	}
	if op.Entry != slave.Unknown && !op.Entry.CarriesRecord(pub.names.Namespace) {
		return
	}
	dir, name := beneath.Split(op.Path)
	if key, ok := pub.parents.key(op.Path, dir); ok {
		pub.finder.index.Note(gfidindex.Entry{Key: gfidindex.KeyOf(g), Place: gfidindex.Place{Dir: key, Name: name}})
	}
}
