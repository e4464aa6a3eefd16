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

// others gives the places of the known names of an inode but path, which lead to it.
func (t *Tree) others(g xtime.GFID, path string) (places []place, all []found, err error) {
	b, err := t.book(g)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range b.names {
		if n == path {
			continue
		}
		if f, p, ok := t.verify(g, n); ok {
			places, all = append(places, p), append(all, f)
		}
	}
	return places, all, nil
}

// replaceGroup puts new content of an inode that has, or had, several names in place of all of them: the operation's own
// name first, so that the others can be made from it; the book says that they are to be checked until they are.
func (b *batch) replaceGroup(it *item, p place, e index.Entry) error {
	op, t := it.op, b.t
	places, all, err := t.others(op.Record.GFID, op.Path)
	if err != nil {
		return err
	}
	e.Links = max(e.Links, uint32(len(places)+1)) // as many names are here, whatever the master has by now (linkedBelow)
	for i, f := range all {
		if t.first().CanLink() && f.entry.Record == e.Record && e.Record.Xtime != 0 && f.entry.Kind == e.Kind {
			return b.linkHere(it, p, f.entry, places[i]) // the slave has just this content
		}
	}
	if len(places) > 0 {
		err := t.idx.Set(index.Pending, op.Record.GFID.String(), index.Entry{Record: slave.Record{GFID: op.Record.GFID}, Ino: op.Ino})
		if err != nil {
			return err
		}
	}
	if err := t.touches(places); err != nil {
		return err
	}
	if err := b.replaceAt(it, p, e); err != nil {
		return err
	}
	names := []string{op.Path}
	for i, other := range places {
		names = append(names, other.path)
		if all[i].entry.Record == e.Record && e.Record.Xtime != 0 {
			continue // a copy of just this content
		}
		if err := t.furtherStill(p, other, e); err != nil {
			return err
		}
	}
	if err := t.asTheyWere(places); err != nil {
		return err
	}
	if len(places) > 0 && !t.first().CanLink() {
		it.res.Lost |= slave.LostLinks
	}
	t.noteGroup(op, names)
	return nil
}

// furtherStill is further for a name that the inode had a moment ago. Where it is another inode's by now it stays as it is.
func (t *Tree) furtherStill(from, to place, e index.Entry) error {
	defer t.busyName(to)()
	if f, err := t.look(to); err != nil || !f.known || f.gfid() != e.Record.GFID {
		return err
	}
	return t.further(from, to, e)
}

// further makes a place one more name of what stands at from: a link where the server makes them, else a copy. What was
// there is replaced. The caller has busyName of it.
func (t *Tree) further(from, to place, e index.Entry) error {
	temp := t.stagingName()
	if !e.Virtual {
		if err := t.second(from.path, temp, &e); err != nil {
			return errors.Join(err, ignoreAbsent(t.any().Remove(t.abs(temp))))
		}
	}
	return t.change(to, &e, func() error {
		if e.Virtual {
			return ignoreAbsent(t.any().Remove(t.abs(to.path)))
		}
		err := t.replace(temp, to.path, t.stagingName())
		if err == nil {
			// Where both are names of one inode already, a rename does nothing, and leaves the first.
			return ignoreAbsent(t.any().Remove(t.abs(temp)))
		}
		return errors.Join(err, ignoreAbsent(t.any().Remove(t.abs(temp))))
	})
}

// second makes temp a link to, or a copy of, what stands at path.
func (t *Tree) second(path, temp string, e *index.Entry) error {
	c := t.any()
	if e.Kind == slave.Symlink {
		if c.CanLink() && c.Link(t.abs(path), t.abs(temp)) == nil {
			if a, err := c.Lstat(t.abs(temp)); err == nil && kindOf(a) == slave.Symlink {
				return nil
			}
			_ = c.Remove(t.abs(temp)) // a link to what it points to: this server follows it
		}
		if err := c.Symlink(e.Meta.Target, t.abs(temp)); err != nil {
			return err
		}
		if c.CanSetLink() {
			_ = c.LSetstat(t.abs(temp), wire.Attrs{Flags: wire.HasTimes, Atime: e.Seconds, Mtime: e.Seconds}) // then not
			t.setOwner(func(a wire.Attrs) error { return c.LSetstat(t.abs(temp), a) }, owned{e.Meta.UID, e.Meta.GID})
		}
		a, err := c.Lstat(t.abs(temp))
		e.Size, e.Seconds = a.Size, a.Mtime
		return err
	}
	if c.CanLink() {
		return c.Link(t.abs(path), t.abs(temp))
	}
	return t.copyFile(path, temp, e)
}

// copyFile reads a file back and writes it under another name, with its meta.
func (t *Tree) copyFile(path, temp string, e *index.Entry) error {
	from, err := t.any().Open(t.abs(path), wire.OpenRead, wire.Attrs{})
	if err != nil {
		return err
	}
	defer from.Release()
	c := t.any()
	to, err := c.Open(t.abs(temp), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	if err != nil {
		return err
	}
	off := int64(0)
	err = readAll(from, e.Size, func(data []byte) error {
		err := to.WriteAll(data, off, false)
		off += int64(len(data))
		return err
	})
	if err == nil {
		_, err = t.setMeta(to.Setstat, &e.Meta, e.Kind, owned{t.feat.uid, t.feat.gid})
	}
	if err == nil && c.CanSync() {
		err = to.Fsync()
	}
	return errors.Join(err, to.Close())
}

// touches notes, durably, whose directories are about to lose their times: they are none that the batch is about, and no
// crawl would come to them after a cut.
func (t *Tree) touches(places []place) error {
	if len(places) == 0 {
		return nil
	}
	for _, p := range places {
		dir, _ := beneath.Split(p.path)
		if err := t.idx.Set(index.Touched, "/"+dir, index.Entry{}); err != nil {
			return err
		}
	}
	return t.flush()
}

// asTheyWere gives those directories their times back.
func (t *Tree) asTheyWere(places []place) error {
	for _, p := range places {
		dir, _ := beneath.Split(p.path)
		if err := t.asItWas(dir); err != nil {
			return err
		}
		if err := t.idx.Delete(index.Touched, "/"+dir); err != nil {
			return err
		}
	}
	return nil
}

// mendTouched does that for what a cut left.
func (t *Tree) mendTouched() error {
	var dirs []string
	err := t.idx.Each(index.Touched, func(name string, _ index.Entry) bool {
		dirs = append(dirs, name[1:])
		return true
	})
	for _, dir := range dirs {
		if err == nil && t.checkDirs(dir+"/x") == nil {
			err = ignoreAbsent(t.asItWas(dir))
		}
		if err == nil {
			err = t.idx.Delete(index.Touched, "/"+dir)
		}
	}
	return err
}

// asItWas gives a directory the times that are on record.
func (t *Tree) asItWas(dir string) error {
	var meta *slave.Meta
	err := t.ofDir(dir, func(e *index.Entry) { m := e.Meta; meta = &m })
	if err != nil || meta == nil || meta.Mtime.Sec == 0 {
		return err
	}
	sec := t.seconds(meta.Mtime)
	return t.any().Setstat(t.abs(dir), wire.Attrs{Flags: wire.HasTimes, Atime: sec, Mtime: sec})
}

// linkOp makes Path a further name of an inode that the slave has.
func (b *batch) linkOp(it *item) error {
	op, t := it.op, b.t
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	defer t.busyName(p)()
	old, err := t.look(p)
	if err != nil {
		return err
	}
	var src index.Entry
	var from place
	ok := false
	if old.kind != slave.Dir {
		if src, from, ok, err = t.source(op); err != nil {
			return err
		}
	}
	// Without an inode to tell names of one by, those are that have the same state.
	one := old.known && old.gfid() == op.Record.GFID && old.entry.Record == src.Record
	as, err := apply.Link(op, old.standing(), standing(&src, ok), one)
	if err != nil {
		return err
	}
	if as != apply.LinkNew {
		return b.sameLink(it, p, src, from, ok)
	}
	if err := b.makeWay(it, p, &old); err != nil {
		return err
	}
	return b.linkNow(it, p, src, from)
}

// makeWay parks what stands in the operation's place, if it is another inode.
func (b *batch) makeWay(it *item, p place, old *found) error {
	if !old.known || old.gfid().IsZero() || old.gfid() == it.op.Record.GFID {
		return nil
	}
	return b.parkReplaced(it, p, old.entry)
}

// linkHere is linkNow for a content that the slave turns out to have.
func (b *batch) linkHere(it *item, p place, src index.Entry, from place) error {
	defer b.t.busyName(p)()
	old, err := b.t.look(p)
	if err != nil {
		return err
	}
	if err := b.makeWay(it, p, &old); err != nil {
		return err
	}
	return b.linkNow(it, p, src, from)
}

// sameLink books a name that has the inode's content already. Two copies become one inode where the server can.
func (b *batch) sameLink(it *item, p place, src index.Entry, from place, ok bool) error {
	op, t := it.op, b.t
	e, there, err := t.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	names := []string{op.Path}
	if ok {
		names = append(names, from.path)
	}
	if ok && there && e.Record == src.Record && e.ID != src.ID && t.first().CanLink() && !e.Virtual {
		return b.linkNow(it, p, src, from)
	}
	if there && op.Links > e.Links && op.Record == e.Record {
		e.Links, e.Ino = op.Links, op.Ino
		if err := t.idx.Set(p.dir, p.name, e); err != nil {
			return err
		}
	}
	if !t.knownAll(op, names) {
		t.noteGroup(op, names)
	}
	return nil
}

// linkNow makes the name and books it. The entry at from gets the number of names that the operation told, and two at least,
// since the inode has as many here: one may go with its directory (linkedBelow).
func (b *batch) linkNow(it *item, p place, src index.Entry, from place) error {
	op, t, was := it.op, b.t, src
	src.Links, src.Ino = max(op.Links, src.Links, 2), op.Ino
	if err := t.further(from, p, src); err != nil {
		if noFile(err) {
			return errors.Join(slave.ErrNeedContent, err)
		}
		return err
	}
	if !t.first().CanLink() && src.Kind == slave.File {
		it.res.Lost |= slave.LostLinks
	}
	err := t.idx.Update(from.dir, from.name, func(e *index.Entry) {
		if e.Record == was.Record && e.ID == was.ID {
			*e = src
		}
	})
	if err != nil {
		return err
	}
	t.noteGroup(op, []string{op.Path, from.path})
	return nil
}

// source finds the inode that an OpLink means: through From, or the book, where the newest state is the best.
func (t *Tree) source(op *slave.Op) (best index.Entry, at place, ok bool, err error) {
	fits := func(f found) bool { return op.Entry == slave.Unknown || f.entry.Kind == op.Entry }
	g := op.Record.GFID
	if op.From != "" && op.From != op.Path {
		if f, p, found := t.verify(g, op.From); found && fits(f) {
			return f.entry, p, true, nil
		}
	}
	b, err := t.book(g)
	if err != nil {
		return best, at, false, err
	}
	for _, n := range b.names {
		e, on := t.recorded(g, n)
		if !on || n == op.Path || ok && !apply.Newer(e.Record, best.Record, op.Record) {
			continue // the index says so, without a request
		}
		if f, p, leads := t.verify(g, n); leads && fits(f) {
			best, at, ok = f.entry, p, true
		}
		if ok && best.Record.Xtime == op.Record.Xtime {
			break // no other is better: an inode may have thousands of names
		}
	}
	return best, at, ok, nil
}

// metaOfGroup gives the other names of an inode the meta that one of them was given, if they are on record as it was: where
// they are one inode it changed for all. Another state of the inode is to be compared, and keeps its record.
func (b *batch) metaOfGroup(it *item, was slave.Record, e index.Entry) {
	op, t := it.op, b.t
	places, all, err := t.others(op.Record.GFID, op.Path)
	for i, p := range places {
		if err != nil {
			break
		}
		if all[i].entry.Record == was {
			err = t.metaOfName(&op.Meta, p, was, e)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.log.Debug().Err(err).Str("path", op.Path).Msg("the other names keep their meta")
	}
}

// metaOfName does it for one of them, unless that is another inode's by now.
func (t *Tree) metaOfName(meta *slave.Meta, p place, was slave.Record, e index.Entry) error {
	defer t.busyName(p)()
	f, err := t.look(p)
	if err != nil || !f.known || f.entry.Record != was {
		return err
	}
	if e.Kind == slave.File && !(t.first().CanLink() && e.ID != 0 && f.entry.ID == e.ID) { // one file has it already
		if _, err := t.setMeta(t.setAt(p.path), meta, e.Kind, owned{f.attrs.UID, f.attrs.GID}); err != nil {
			return err
		}
	}
	return t.idx.Set(p.dir, p.name, e)
}
