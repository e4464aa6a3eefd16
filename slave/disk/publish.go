package disk

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// nameOf is the last name of an operation's path; "" for the root.
func nameOf(op *slave.Op) string {
	_, name := beneath.Split(op.Path)
	return name
}

// absent tells whether err means that there is no such entry, or nothing that could have it.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// sameInode tells whether both are names of one inode.
func sameInode(a, b beneath.Stat) bool { return a.Ino == b.Ino && a.Dev == b.Dev }

// putOp publishes a staged file, link or node. A name that is not there yet costs one system call.
func (t *Tree) putOp(it *item) error {
	op := it.op
	p, err := t.parents.open(op.Path)
	if err != nil {
		return err
	}
	if op.Links <= 1 {
		err := t.moveIn(it, p, unix.RENAME_NOREPLACE)
		// EINVAL is a file system that does not know the flag.
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	old, err := t.look(p)
	if err != nil {
		return err
	}
	if old.kind == slave.Dir {
		return slave.ErrConflict
	}
	same := old.there && !old.rec.GFID.IsZero() && old.rec.GFID == op.Record.GFID
	if !op.Record.GFID.IsZero() && (op.Links > 1 || same && old.st.Nlink > 1) {
		return t.replaceGroup(it, p, old)
	}
	return t.replace(it, p, old)
}

// moveIn renames what is staged to p.
func (t *Tree) moveIn(it *item, p place, flags uint) error {
	err := t.writable(p.dir, func() error { return t.sys.rename(place{t.staging, it.staged}, p, flags) })
	if err == nil {
		it.staged = ""
	}
	return err
}

// replace renames what is staged over old, which is parked without a gap if it is another inode of the master.
func (t *Tree) replace(it *item, p place, old entry) error {
	if old.there && !old.rec.GFID.IsZero() && old.rec.GFID != it.op.Record.GFID {
		if err := t.links.leaving(old); err != nil {
			return err
		}
		if err := t.park.beside(p, old); err != nil {
			return err
		}
		it.res.Parked = true
		t.links.forgetName(old, it.op.Path)
	}
	if old.beside {
		t.forgetBeside(p)
	}
	return t.moveIn(it, p, 0)
}

// mkdirOp makes a directory, or takes the one that is there.
func (t *Tree) mkdirOp(it *item) error {
	op := it.op
	p := place{t.dir, ""}
	if op.Path != "" {
		var err error
		if p, err = t.parents.open(op.Path); err != nil {
			return err
		}
		err = t.writable(p.dir, func() error { return t.sys.mkdir(p, op.Meta.Mode&0o777|0o700) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		var done func()
		if p, done, err = pinned(p); err != nil {
			return err
		}
		defer done()
	}
	old, err := t.look(p)
	if err != nil {
		return err
	}
	if g := old.rec.GFID; old.kind != slave.Dir || op.Path != "" && !g.IsZero() && g != op.Record.GFID && g != op.Expect {
		return slave.ErrConflict
	}
	meta := op.Meta
	if !t.root {
		meta.Mode |= 0o700 // until its OpFinish
	}
	s := old.st
	c := &change{
		r: t.records, inode: p.dir.At(p.name).As(nameOf(op)), kind: slave.Dir, meta: &meta, had: old.rec, fitting: fitting{beside: old.beside},
		now: shape{mode: s.Mode & 0o7777, uid: s.UID, gid: s.GID}, record: op.Record, isRoot: op.Path == "",
	}
	delete(t.parents.keys, op.Path) // it may have another GFID from now on
	for _, step := range []func() error{c.open, c.owner, c.disown, c.gfid, c.keep, c.mode, c.aside} {
		if err := step(); err != nil {
			return err
		}
	}
	it.res.Lost = c.lost
	return nil
}

// finishOp sets a directory's meta. The stamp follows after a sync.
func (t *Tree) finishOp(it *item) error {
	op := it.op
	d, err := t.openDir(op.Path)
	if err != nil {
		return err
	}
	defer d.Close()
	if !t.root {
		t.permMu.Lock()
		defer t.permMu.Unlock()
		if err := t.openUp(d); err != nil {
			return err
		}
	}
	old, err := t.look(place{d, ""})
	if err != nil {
		return err
	}
	it.copy = copyOf(old.st)
	if op.Copy != 0 && op.Copy != it.copy || op.Path != "" && !op.Record.GFID.IsZero() && op.Record.GFID != old.rec.GFID {
		return slave.ErrMoved
	}
	c := &change{
		r: t.records, inode: d.At(""), kind: slave.Dir, meta: &op.Meta, record: op.Record, had: old.rec, isRoot: op.Path == "",
	}
	if err := t.applyInPlace(it, c, old); err != nil {
		return err
	}
	if op.Path == "" {
		t.dropBehind()
	}
	if t.work.holds.held(op.Pass, op.Path) {
		return slave.ErrHeldBack
	}
	if op.Path == "" && op.Stamp {
		t.dropTwice()
	}
	return nil
}

// applyInPlace runs a change of an entry that is in the tree.
func (t *Tree) applyInPlace(it *item, c *change, old entry) (err error) {
	if c.now, err = shapeOf(c.inode, old.st); err != nil {
		return err
	}
	c.inPlace, c.beside = true, old.beside
	done, err := t.sys.used.grows(c.inode, c.meta, &old.st)
	if err != nil {
		return err
	}
	defer done()
	it.res.Lost, err = c.apply()
	return err
}

// metaOp sets the meta and record of an entry whose content is right.
func (t *Tree) metaOp(it *item) error {
	op := it.op
	p, err := t.parents.open(op.Path)
	if err != nil {
		return err
	}
	p, done, err := pinned(p)
	if err != nil {
		return err
	}
	defer done()
	old, err := t.look(p)
	if err != nil {
		return err
	}
	if old.kind != op.Entry {
		return slave.ErrConflict
	}
	if g := old.rec.GFID; g != op.Expect && g != op.Record.GFID && old.kind.CarriesRecord(t.names.Namespace) {
		return slave.ErrConflict
	}
	c := &change{
		r: t.records, inode: p.dir.At(p.name).As(nameOf(op)), kind: old.kind, meta: &op.Meta, record: op.Record, had: old.rec, stamps: true,
	}
	if err := t.applyInPlace(it, c, old); err != nil {
		return err
	}
	if op.Links > 1 || old.st.Nlink > 1 {
		t.links.noteGroup(op, old.st, []string{op.Path})
	}
	return nil
}
