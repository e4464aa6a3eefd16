package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// entry is what stands at a place.
type entry struct {
	there bool
	kind  slave.Kind
	st    beneath.Stat
	rec   slave.Record
	// beside tells that the record is not on the entry.
	beside bool
	kept   *slave.Kept // what it is on the master, where that is kept
}

// errMounted: whatever is mounted on an entry is not the slave's, and hides what is.
var errMounted = fmt.Errorf("something is mounted there on the slave's host: %w", unix.EXDEV)

// look tells what stands at p; nothing is not an error.
func (t *Tree) look(p place) (entry, error) {
	st, err := p.dir.Stat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, nil
	}
	if err == nil && p.name != "" && st.IsMount() {
		err = errMounted
	}
	if err != nil {
		return entry{}, err
	}
	e := entry{there: true, kind: slave.KindOf(st.Mode), st: st}
	if e.kept, err = t.keptOf(p, &st); e.kept != nil {
		e.kind = slave.KindOf(e.kept.Mode)
	}
	if err != nil {
		return entry{}, err
	}
	e.rec, e.beside, err = t.recordOf(p, e.kind)
	return e, err
}

// nameOf is the last name of an operation's path; "" for the root.
func nameOf(op *slave.Op) string {
	_, name := beneath.Split(op.Path)
	return name
}

// pinned holds on to what stands at p: it is looked at, and changed, whatever becomes of its name meanwhile (invariant 17). The
// caller calls done. A mount is refused with EXDEV.
func (t *Tree) pinned(p place) (pin place, done func(), err error) {
	d, err := p.dir.Pin(p.name)
	if errors.Is(err, unix.EXDEV) {
		err = errMounted
	}
	if err != nil {
		return place{}, nil, err
	}
	return place{d, ""}, func() { d.Close() }, nil
}

// recordOf reads an entry's record. An ordinary user must be allowed to read what he reads xattrs of.
func (t *Tree) recordOf(p place, kind slave.Kind) (rec slave.Record, beside bool, err error) {
	if !kind.CarriesRecord(t.names.Namespace) {
		return rec, false, nil
	}
	rec, beside, err = t.readRecord(p)
	if t.root || !errors.Is(err, unix.EACCES) {
		return rec, beside, err
	}
	err = t.lifted(p.dir.At(p.name), func() error { rec, beside, err = t.readRecord(p); return err })
	return rec, beside, err
}

// readRecord reads GFID and xtime in this order; a record without a GFID has no meaning, whatever its xtime.
func (t *Tree) readRecord(p place) (rec slave.Record, beside bool, err error) {
	if rec.GFID, err = p.dir.RecordedGFID(p.name, &t.names); err != nil {
		return rec, false, err
	}
	if rec.GFID.IsZero() {
		if found, there, err := t.readBeside(p); err != nil || there {
			return found, there, err
		}
	}
	rec.Xtime, err = p.dir.Xtime(p.name, &t.names)
	return rec, false, err
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
	p, err := t.parent(op.Path)
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
		if err := t.leaving(old); err != nil {
			return err
		}
		if err := t.parkBeside(p, old); err != nil {
			return err
		}
		it.res.Parked = true
		t.forgetName(old, it.op.Path)
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
		if p, err = t.parent(op.Path); err != nil {
			return err
		}
		err = t.writable(p.dir, func() error { return t.sys.mkdir(p, op.Meta.Mode&0o777|0o700) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		var done func()
		if p, done, err = t.pinned(p); err != nil {
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
		t: t, inode: p.dir.At(p.name).As(nameOf(op)), kind: slave.Dir, meta: &meta, had: old.rec, beside: old.beside,
		now: shape{mode: s.Mode & 0o7777, uid: s.UID, gid: s.GID}, record: op.Record, isRoot: op.Path == "",
	}
	delete(t.work.keys, op.Path) // it may have another GFID from now on
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
		t: t, inode: d.At(""), kind: slave.Dir, meta: &op.Meta, record: op.Record, had: old.rec, isRoot: op.Path == "",
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

// openUp gives an ordinary user all rights to a directory of his, whose mode is set anew afterwards.
func (t *Tree) openUp(d *beneath.Dir) error {
	st, err := d.Stat("")
	if err != nil || st.Mode&0o700 == 0o700 {
		return err
	}
	return t.sys.chmod(d.At(""), st.Mode&0o7777|0o700)
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
	p, err := t.parent(op.Path)
	if err != nil {
		return err
	}
	p, done, err := t.pinned(p)
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
		t: t, inode: p.dir.At(p.name).As(nameOf(op)), kind: old.kind, meta: &op.Meta, record: op.Record, had: old.rec, stamps: true,
	}
	if err := t.applyInPlace(it, c, old); err != nil {
		return err
	}
	if op.Links > 1 || old.st.Nlink > 1 {
		t.noteGroup(op, old.st, []string{op.Path})
	}
	return nil
}
