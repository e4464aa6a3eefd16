package sftp

import (
	"errors"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
)

// parkReplaced parks what an operation puts another inode in the place of, and says so in the
// result. The name stays taken where the server makes links.
func (b *batch) parkReplaced(it *item, p place, old index.Entry) error {
	to, err := b.park.parkBeside(p, old)
	if err != nil {
		return err
	}
	it.res.Parked = true
	b.links.nameParked(old, p.path, to.name)
	return nil
}

// Park moves what the master no longer has out of the tree. What is gone already needs nothing;
// ErrConflict says that another entry stands there than the master expects. A directory goes as a
// whole, with all that is in it.
func (b *batch) Park(it *item) error {
	op := it.op
	p, err := b.parent(op.Path)
	if noFile(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.busy.lockName(p)()
	f, err := b.look(p)
	if err != nil {
		return err
	}
	if !f.present() {
		return b.idx.Delete(p.dir, p.name)
	}
	if _, err := apply.Park(op, f.standing()); err != nil {
		return err
	}
	old := f.entry
	if !f.known {
		old = index.Entry{Kind: f.kind}
	}
	defer b.park.lockParked(old.Record.GFID)()
	to, same, err := b.park.parkPlace(old)
	switch {
	case err != nil:
		return err
	case same && old.Virtual:
		err = b.idx.Delete(p.dir, p.name)
	case same:
		err = b.change(p, nil, func() error { return b.any().Remove(b.abs(p.path)) })
	default:
		to, err = b.park.moveOut(p, to, old)
	}
	if err != nil {
		return err
	}
	it.res.Parked = true
	b.dirs.moved(op.Path)
	if old.Kind == slave.Dir {
		b.park.inDirs.add(to.name, old.ID)
		return b.links.forgetBelow(old.ID, op.Path, to.name)
	}
	b.links.nameParked(old, op.Path, to.name)
	return nil
}

// Unpark puts a parked inode back under a name. ErrNeedContent tells the crawler that it is not
// there any more, and has to be sent. What stands at the name makes way, unless it is a directory.
func (b *batch) Unpark(it *item) error {
	op := it.op
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	from := parkedPlace(op.Record.GFID.String())
	if op.From != "" {
		if from, err = b.park.placeBelow(op.From); err != nil {
			return errors.Join(slave.ErrNeedContent, err)
		}
	}
	pk, err := b.look(from)
	if err != nil {
		return err
	}
	defer b.busy.lockName(p)()
	old, err := b.look(p)
	if err != nil {
		return err
	}
	if bring, err := apply.Unpark(op, pk.standing(), old.standing()); !bring {
		return err
	}
	switch {
	case old.known:
		if err := b.parkReplaced(it, p, old.entry); err != nil {
			return err
		}
	case old.there:
		// Nobody knows what it is: maybe a further name of this very inode, and a rename to that would do nothing.
		if err := ignoreAbsent(b.any().Remove(b.abs(p.path))); err != nil {
			return err
		}
	}
	return b.bringBack(it, from, p, pk.entry)
}

// bringBack moves a parked entry to its place. Where another file is still there, it is parked
// under a second name already. A directory that something is taken out of loses its stamp first,
// and so do those above it.
func (b *batch) bringBack(it *item, from, p place, e index.Entry) error {
	op := it.op
	if op.From != "" {
		if err := b.park.unstampAbove(op.From); err != nil {
			return err
		}
	}
	if e.Kind == slave.Dir {
		if err := ignoreAbsent(b.any().Remove(b.abs(p.path))); err != nil {
			return err
		}
	}
	parked := e
	e.Since = 0
	err := b.changes([]step{{from, nil}, {p, &e}}, func() error {
		if e.Virtual {
			return ignoreAbsent(b.any().Remove(b.abs(p.path)))
		}
		return b.replace(from.path, p.path, b.stagingName())
	})
	if err != nil {
		return err
	}
	b.dirs.moved(op.Path)
	b.touched(from.path)
	switch {
	case parked.Kind == slave.Dir:
		return b.links.backBelow(parked.ID, op.Path)
	case op.Links > 1 || parked.Links > 1:
		b.links.noteGroup(op, []string{op.Path})
	}
	return nil
}
