package sftp

import (
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// Mkdir makes a directory, or takes the one that is there. ErrConflict says that something else has
// its place. Its owner can work in it until the finish sets the mode that it is to have.
func (b *batch) Mkdir(it *item) error {
	op := it.op
	if op.Path == "" {
		return b.adoptDir(it, place{index.Top, "", index.TopName}, index.Root)
	}
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	defer b.busy.lockName(p)()
	if have, err := b.hasDir(p); err != nil || have {
		if err == nil {
			b.dirs.made(op.Path)
			err = b.adoptDir(it, p, index.NewID())
		}
		return err
	}
	// Its owner must be able to work in it until OpFinish sets the mode that it is to have.
	mode := op.Meta.Mode&0o7777 | 0o700
	id := index.NewID()
	e := index.Entry{Kind: slave.Dir, Record: slave.Record{GFID: op.Record.GFID}, ID: id, Meta: op.Meta}
	var there error
	err = b.change(p, &e, func() error {
		there = b.any().Mkdir(b.abs(op.Path), wire.Attrs{Flags: wire.HasMode, Mode: mode})
		return there
	})
	if err == nil {
		b.dirs.made(op.Path)
		return nil
	}
	if there == nil {
		return err
	}
	a, lerr := b.lstat(op.Path)
	switch {
	case lerr != nil:
		return err
	case kindOf(a) != slave.Dir:
		return slave.ErrConflict
	}
	b.dirs.made(op.Path)
	return b.adoptDir(it, p, index.NewID())
}

// hasDir tells whether a directory is on record at a place, and there.
func (pub *publisher) hasDir(p place) (bool, error) {
	e, ok, err := pub.idx.Get(p.dir, p.name)
	if err != nil || !ok || e.Kind != slave.Dir {
		return false, err
	}
	a, err := pub.lstat(p.path)
	return err == nil && kindOf(a) == slave.Dir, ignoreAbsent(err)
}

// adoptDir takes a directory that is there: one that is on record keeps its shard, and its stamp if
// it is the same. One of another inode loses the stamp, with a note, before anything comes to it.
func (pub *publisher) adoptDir(it *item, p place, id index.ID) error {
	e, ok, err := pub.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	if !ok || e.Kind != slave.Dir || e.ID == 0 {
		e = index.Entry{Kind: slave.Dir, ID: id}
	}
	if err := apply.Mkdir(it.op, standing(&e, true)); err != nil {
		return err
	}
	another := e.Record.GFID != it.op.Record.GFID
	if another {
		e.Record = slave.Record{GFID: it.op.Record.GFID}
	}
	e.Meta = it.op.Meta
	meta := it.op.Meta
	meta.Mode |= 0o700 // until its OpFinish
	set := func() (err error) {
		it.res.Lost, err = pub.setMeta(pub.setAt(p.path), &meta, slave.Dir, pub.ownerOf(p.path, &meta))
		return err
	}
	if another { // with a note: what comes to it now, or goes, is nothing that the stamp it had may claim after a cut
		return pub.change(p, &e, set)
	}
	if err := set(); err != nil {
		return err
	}
	return pub.idx.Set(p.dir, p.name, e)
}
