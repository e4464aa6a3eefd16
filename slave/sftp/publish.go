package sftp

import (
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// place is where an operation takes effect: a name in a directory that has a shard.
type place struct {
	// dir is the shard of the directory that the name lies in; path is below the slave's root.
	dir  index.ID
	path string
	name string
}

// found is what stands at a place. known says that the index has an entry that fits what is there.
type found struct {
	// there says that something stands there, which kind and attrs are of. entry is the index's, whether it fits or
	// not.
	there bool
	kind  slave.Kind
	attrs wire.Attrs
	entry index.Entry
	known bool
}

// gfid is what is on record there.
func (f *found) gfid() xtime.GFID {
	if !f.known {
		return xtime.GFID{}
	}
	return f.entry.Record.GFID
}

// present tells whether the name is taken, be it in the index alone.
func (f *found) present() bool { return f.there || f.known && f.entry.Virtual }

// standing is what decides about what was found.
func (f *found) standing() apply.Standing {
	s := apply.Standing{There: f.present(), Kind: f.kind}
	if f.known {
		s.Record = f.entry.Record
	}
	return s
}

// standing is what decides about an entry of the index, where there is one.
func standing(e *index.Entry, ok bool) apply.Standing {
	if !ok {
		return apply.Standing{}
	}
	return apply.Standing{There: true, Kind: e.Kind, Record: e.Record}
}

// parent finds the place of a path, after it has looked at the directories above it.
func (b *batch) parent(path string) (place, error) {
	dir, name := beneath.Split(path)
	if err := b.dirs.check(dir); err != nil {
		return place{}, err
	}
	id, err := b.t.ensureID(dir)
	return place{id, path, name}, err
}

// idOf finds the shard of a directory; 0 where it has none.
func (t *Tree) idOf(path string) (index.ID, error) {
	id := index.Root
	for path != "" && id != 0 {
		name := path
		for i := range path {
			if path[i] == '/' {
				name = path[:i]
				break
			}
		}
		path = path[min(len(name)+1, len(path)):]
		e, ok, err := t.idx.Get(id, name)
		if err != nil {
			return 0, err
		}
		if id = e.ID; !ok || e.Kind != slave.Dir {
			id = 0
		}
	}
	return id, nil
}

// ensureID is idOf for a directory that is there; one without a shard gets one.
func (t *Tree) ensureID(path string) (index.ID, error) {
	id, err := t.idOf(path)
	if id != 0 || err != nil {
		return id, err
	}
	t.idMu.Lock()
	defer t.idMu.Unlock()
	return t.newID(path)
}

// newID gives a shard to a directory, and to those above it that have none. t.idMu is held, so that each gets one
// only.
func (t *Tree) newID(path string) (index.ID, error) {
	id, err := t.idOf(path)
	if id != 0 || err != nil || path == "" {
		return id, err
	}
	dir, name := beneath.Split(path)
	above, err := t.newID(dir)
	if err != nil {
		return 0, err
	}
	e := index.Entry{Kind: slave.Dir, ID: index.NewID(), Meta: slave.Meta{Mode: 0o755, UID: t.feat.uid, GID: t.feat.gid}}
	return e.ID, t.idx.Set(above, name, e)
}

// look tells what stands at a place; nothing is not an error.
func (t *Tree) look(p place) (f found, err error) {
	e, ok, err := t.idx.Get(p.dir, p.name)
	if err != nil {
		return f, err
	}
	a, err := t.lstat(p.path)
	switch {
	case noFile(err):
	case err != nil:
		return f, err
	default:
		f.there, f.attrs, f.kind = true, a, kindOf(a)
	}
	f.entry, f.known = e, ok && t.fits(&e, f.there, f.attrs)
	if !f.there && f.known {
		f.kind = e.Kind
	}
	return f, nil
}

// fits tells whether an entry is of what stands there.
func (t *Tree) fits(e *index.Entry, there bool, a wire.Attrs) bool {
	if e.Virtual || !there {
		return e.Virtual && !there
	}
	kind := kindOf(a)
	if kind != e.Kind {
		return false
	}
	if kind != slave.File && kind != slave.Symlink {
		return kind == slave.Dir
	}
	// Seconds are all that the protocol has; what they cannot tell apart is the journal's part.
	return a.Size == e.Size && (!t.feat.times || a.Mtime == e.Seconds)
}

// certain tells whether an error leaves no doubt that nothing was changed: the server said so of the one request it took.
func certain(err error) bool {
	var se *wire.StatusError
	return errors.As(err, &se) && !errors.Is(err, errHalf)
}

// entryFor is the entry of what an operation makes.
func (t *Tree) entryFor(op *slave.Op, kind slave.Kind, torn bool) index.Entry {
	e := index.Entry{Kind: kind, Record: op.Record, ID: index.NewID(), Meta: op.Meta, Size: op.Meta.Size,
		Seconds: t.seconds(op.Meta.Mtime), Links: op.Links, Ino: op.Ino}
	if torn {
		// The content is of no one moment: it is compared again.
		e.Record.Xtime = 0
	}
	return e
}

// putOp publishes a staged file or link, or what stands in the index alone.
func (b *batch) putOp(it *item) error {
	op, t := it.op, b.t
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	old, ok, err := t.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	if ok && old.Kind == slave.Dir {
		f, err := t.look(p)
		if err != nil || f.kind == slave.Dir {
			return errors.Join(err, slave.ErrConflict)
		}
	}
	e, err := t.made(it)
	if err != nil {
		return err
	}
	names, there := 0, standing(&old, ok)
	if op.Links <= 1 && ok && !op.Record.GFID.IsZero() && old.Record.GFID == op.Record.GFID {
		known, err := t.book(op.Record.GFID)
		if err != nil {
			return err
		}
		// The master has one name of it left, but the slave may have others, which share the content.
		names = len(known.names)
	}
	if apply.ReplacesAll(op, there, names) {
		return b.replaceGroup(it, p, e)
	}
	return b.replaceAt(it, p, e)
}

// made gives the entry of what an operation has staged, or of what the slave cannot have.
func (t *Tree) made(it *item) (index.Entry, error) {
	op := it.op
	switch op.Kind {
	case slave.OpPut:
		e := t.entryFor(op, slave.File, it.res.Torn)
		e.Size, e.Meta.Size = it.size, it.size
		if it.noted.intent.ID != 0 {
			e.ID = it.noted.intent.ID
		}
		return e, nil
	case slave.OpSymlink:
		it.res.Lost |= t.lostAlways(&op.Meta, slave.Symlink)
		if it.staged == "" {
			it.res.Lost |= slave.LostSymlink
			break
		}
		e := t.entryFor(op, slave.Symlink, false)
		return e, t.seen(it, &e)
	}
	kind := op.Entry
	if op.Kind == slave.OpSymlink {
		kind = slave.Symlink
	}
	it.res.Lost |= t.lostAlways(&op.Meta, kind)
	e := t.entryFor(op, kind, false)
	e.Virtual = true
	return e, nil
}

// seen sets a staged link's times where the server can, and notes what it shows.
func (t *Tree) seen(it *item, e *index.Entry) error {
	c := t.any()
	if c.CanSetLink() {
		_ = c.LSetstat(t.abs(it.staged), wire.Attrs{Flags: wire.HasTimes, Atime: e.Seconds, Mtime: e.Seconds}) // then not
		if want := (owned{e.Meta.UID, e.Meta.GID}); want != (owned{t.feat.uid, t.feat.gid}) {
			set := func(a wire.Attrs) error { return c.LSetstat(t.abs(it.staged), a) }
			if !t.setOwner(set, want) {
				it.res.Lost |= slave.LostOwner
			}
		}
	}
	a, err := c.Lstat(t.abs(it.staged))
	if a.Mtime != e.Seconds {
		it.res.Lost |= slave.LostTime
	}
	e.Size, e.Seconds = a.Size, a.Mtime
	return err
}

// replaceAt puts what is staged, or what is virtual, at a place. What stood there is parked if it is another inode.
func (b *batch) replaceAt(it *item, p place, e index.Entry) error {
	t := b.t
	defer t.busyName(p)()
	old, ok, err := t.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	if apply.Displaces(it.op, standing(&old, ok)) {
		if err := b.parkReplaced(it, p, old); err != nil {
			return err
		}
	}
	do := func() error {
		if e.Virtual {
			return ignoreAbsent(t.any().Remove(t.abs(p.path)))
		}
		return t.moveIn(it, p)
	}
	if noted, err := it.noted.is(p, &e); noted || err != nil {
		if err != nil {
			return err
		}
		if err = t.carry([]step{{p, &e}}, do); certain(err) {
			t.noteAsIs(it.noted.intent)
		}
		return err
	}
	return t.change(p, &e, do)
}

// moveIn renames what is staged to its place.
func (t *Tree) moveIn(it *item, p place) error {
	err := t.replace(it.staged, p.path, t.stagingName())
	if err == nil {
		it.staged = ""
		return nil
	}
	if a, lerr := t.lstat(p.path); lerr == nil && kindOf(a) == slave.Dir {
		return slave.ErrConflict
	}
	return err
}

// setAt sets attributes by path.
func (t *Tree) setAt(path string) func(wire.Attrs) error {
	return func(a wire.Attrs) error { return t.any().Setstat(t.abs(path), a) }
}

// ownerOf tells whose an entry is, where that matters: where the account may give files away.
func (t *Tree) ownerOf(path string, m *slave.Meta) owned {
	mine := owned{t.feat.uid, t.feat.gid}
	if t.feat.uid != 0 && mine == (owned{m.UID, m.GID}) {
		return mine
	}
	if a, err := t.lstat(path); err == nil {
		return owned{a.UID, a.GID}
	}
	return mine
}

// finishOp sets a directory's meta. The stamp follows (settler).
func (b *batch) finishOp(it *item) error {
	op, t := it.op, b.t
	if op.Path != "" {
		if _, err := b.parent(op.Path); err != nil {
			return err
		}
	}
	dir, err := b.dirs.look(op.Path)
	if err != nil {
		return err
	}
	if it.dir, err = t.ensureID(op.Path); err != nil {
		return err
	}
	if err := t.stillThere(it); err != nil {
		return err
	}
	has := owned{dir.attrs.UID, dir.attrs.GID}
	if dir.attrs.Flags&wire.HasOwner == 0 {
		has = t.ownerOf(op.Path, &op.Meta)
	}
	lost, err := t.setMeta(t.setAt(op.Path), &op.Meta, slave.Dir, has)
	if err != nil {
		return err
	}
	it.res.Lost = lost
	if op.Path == "" && op.Stamp {
		t.dropTwice()
	}
	return t.ofDir(op.Path, func(e *index.Entry) {
		e.Meta = op.Meta
		if g := op.Record.GFID; !g.IsZero() && e.Record.GFID != g {
			e.Record = slave.Record{GFID: g}
		}
	})
}

// stillThere tells with ErrMoved that another directory than the one that is to be finished has its place by now, or another
// copy of it.
func (t *Tree) stillThere(it *item) error {
	op, old := it.op, apply.Standing{There: true, Kind: slave.Dir}
	if op.Path != "" && !op.Record.GFID.IsZero() {
		if err := t.ofDirRead(op.Path, &old.Record); err != nil {
			return err
		}
	}
	return apply.Finish(op, old, slave.Copy(it.dir))
}

// ofDir changes the entry of a directory.
func (t *Tree) ofDir(path string, change func(*index.Entry)) error {
	if path == "" {
		return t.idx.Update(index.Top, index.TopName, change)
	}
	dir, name := beneath.Split(path)
	id, err := t.idOf(dir)
	if err == nil && id == 0 {
		err = slave.ErrConflict
	}
	if err != nil {
		return err
	}
	return t.idx.Update(id, name, change)
}

// metaOp sets the meta and record of an entry whose content is right.
func (b *batch) metaOp(it *item) error {
	op, t := it.op, b.t
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	was, e, err := b.metaHere(it, p)
	if err != nil {
		return err
	}
	if op.Links > 1 || e.Links > 1 {
		b.metaOfGroup(it, was, e)
		t.noteGroup(op, []string{op.Path})
	}
	return nil
}

// metaHere does it for the operation's own name. It gives what was on record, and what is now.
func (b *batch) metaHere(it *item, p place) (was slave.Record, e index.Entry, err error) {
	op, t := it.op, b.t
	defer t.busyName(p)()
	f, err := t.look(p)
	was = f.entry.Record
	switch {
	case err != nil:
		return was, e, err
	case !f.present():
		return was, e, unix.ENOENT
	}
	if err := apply.Meta(op, f.standing(), true); err != nil {
		return was, e, err
	}
	e = t.entryFor(op, f.kind, false)
	e.Size, e.Virtual = f.attrs.Size, f.entry.Virtual && f.known
	if f.known {
		e.ID = f.entry.ID
	}
	if f.kind == slave.File {
		e.Meta.Size = f.attrs.Size
		it.res.Lost, err = t.setMeta(t.setAt(op.Path), &op.Meta, f.kind, owned{f.attrs.UID, f.attrs.GID})
		if err != nil {
			return was, e, err
		}
	} else {
		e.Seconds, e.Meta.Target = f.attrs.Mtime, f.entry.Meta.Target
		it.res.Lost = t.lostAlways(&op.Meta, f.kind)
	}
	if e.Links <= 1 && f.known && f.entry.Links > 1 && f.entry.Record.GFID == op.Record.GFID {
		e.Links = f.entry.Links
	}
	if f.known && f.gfid() == op.Record.GFID {
		err = t.idx.Set(p.dir, p.name, e)
	} else { // the journal may have it that something else is there
		err = t.change(p, &e, func() error { return nil })
	}
	t.touched(op.Path)
	return was, e, err
}
