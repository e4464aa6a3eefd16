package sftp

import (
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// parent finds the place of a path, after it has looked at the directories above it. A directory
// that is there and not on record gets a shard.
func (b *batch) parent(path string) (place, error) {
	dir, name := beneath.Split(path)
	if err := b.dirs.check(dir); err != nil {
		return place{}, err
	}
	id, err := b.ensureID(dir)
	return place{id, path, name}, err
}

// certain tells whether an error leaves no doubt that nothing was changed: the server said so of
// the one request it took. A lost connection leaves doubt, and so does a replacement that ended
// half way.
func certain(err error) bool {
	var se *wire.StatusError
	return errors.As(err, &se) && !errors.Is(err, errHalf)
}

// Put publishes a staged file or link, or what stands in the index alone. ErrConflict says that a
// directory has its place.
func (b *batch) Put(it *item) error {
	op := it.op
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	old, ok, err := b.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	if ok && old.Kind == slave.Dir {
		f, err := b.look(p)
		if err != nil || f.kind == slave.Dir {
			return errors.Join(err, slave.ErrConflict)
		}
	}
	e, err := b.stager.entryOf(it)
	if err != nil {
		return err
	}
	names, there := 0, standing(&old, ok)
	if op.Links <= 1 && ok && !op.Record.GFID.IsZero() && old.Record.GFID == op.Record.GFID {
		known, err := b.links.row(op.Record.GFID)
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

// replaceAt puts what is staged, or what is virtual, at a place. What stood there is parked if it
// is another inode (invariant 15). The note that was made ahead is used if it is of just this
// change.
func (b *batch) replaceAt(it *item, p place, e index.Entry) error {
	defer b.busy.lockName(p)()
	old, ok, err := b.idx.Get(p.dir, p.name)
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
			return ignoreAbsent(b.any().Remove(b.abs(p.path)))
		}
		return b.moveIn(it, p)
	}
	if noted, err := it.noted.is(p, &e); noted || err != nil {
		if err != nil {
			return err
		}
		if err = b.carry([]step{{p, &e}}, do); certain(err) {
			b.noteAsIs(it.noted.intent)
		}
		return err
	}
	return b.change(p, &e, do)
}

// moveIn renames what is staged to its place. Nothing is staged any more after that. ErrConflict
// says that a directory stands there.
func (pub *publisher) moveIn(it *item, p place) error {
	err := pub.replace(it.staged, p.path, pub.stagingName())
	if err == nil {
		it.staged = ""
		return nil
	}
	if a, lerr := pub.lstat(p.path); lerr == nil && kindOf(a) == slave.Dir {
		return slave.ErrConflict
	}
	return err
}

// Finish sets a directory's meta. The stamp follows (stamper). Before the root's, names are taken
// out of the park whose inode is in the tree.
func (b *batch) Finish(it *item) error {
	op := it.op
	if op.Path != "" {
		if _, err := b.parent(op.Path); err != nil {
			return err
		}
	}
	dir, err := b.dirs.look(op.Path)
	if err != nil {
		return err
	}
	if it.dir, err = b.ensureID(op.Path); err != nil {
		return err
	}
	if err := b.stillThere(it); err != nil {
		return err
	}
	has := owned{dir.attrs.UID, dir.attrs.GID}
	if dir.attrs.Flags&wire.HasOwner == 0 {
		has = b.ownerOf(op.Path, &op.Meta)
	}
	lost, err := b.setMeta(b.setAt(op.Path), &op.Meta, slave.Dir, has)
	if err != nil {
		return err
	}
	it.res.Lost = lost
	if op.Path == "" && op.Stamp {
		b.left.dropTwice()
	}
	return b.updateDir(op.Path, func(e *index.Entry) {
		e.Meta = op.Meta
		if g := op.Record.GFID; !g.IsZero() && e.Record.GFID != g {
			e.Record = slave.Record{GFID: g}
		}
	})
}

// stillThere tells with ErrMoved that another directory than the one that is to be finished has its
// place by now, or another copy of it, by the index.
func (pub *publisher) stillThere(it *item) error {
	op, old := it.op, apply.Standing{There: true, Kind: slave.Dir}
	if op.Path != "" && !op.Record.GFID.IsZero() {
		if err := pub.dirRecord(op.Path, &old.Record); err != nil {
			return err
		}
	}
	return apply.Finish(op, old, slave.Copy(it.dir))
}

// Meta sets the meta and record of an entry whose content is right: the crawler has compared it.
// ErrConflict says that another inode stands there by now.
func (b *batch) Meta(it *item) error {
	op := it.op
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
		b.links.noteGroup(op, []string{op.Path})
	}
	return nil
}

// metaHere does it for the operation's own name. It gives what was on record, and what is now.
func (b *batch) metaHere(it *item, p place) (was slave.Record, e index.Entry, err error) {
	op := it.op
	defer b.busy.lockName(p)()
	f, err := b.look(p)
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
	e = b.entryFor(op, f.kind, false)
	e.Size, e.Virtual = f.attrs.Size, f.entry.Virtual && f.known
	if f.known {
		e.ID = f.entry.ID
	}
	if f.kind == slave.File {
		e.Meta.Size = f.attrs.Size
		it.res.Lost, err = b.setMeta(b.setAt(op.Path), &op.Meta, f.kind, owned{f.attrs.UID, f.attrs.GID})
		if err != nil {
			return was, e, err
		}
	} else {
		e.Seconds, e.Meta.Target = f.attrs.Mtime, f.entry.Meta.Target
		it.res.Lost = b.lostAlways(&op.Meta, f.kind)
	}
	if e.Links <= 1 && f.known && f.entry.Links > 1 && f.entry.Record.GFID == op.Record.GFID {
		e.Links = f.entry.Links
	}
	if f.known && f.gfid() == op.Record.GFID {
		err = b.idx.Set(p.dir, p.name, e)
	} else { // the journal may have it that something else is there
		err = b.change(p, &e, func() error { return nil })
	}
	b.touched(op.Path)
	return was, e, err
}
