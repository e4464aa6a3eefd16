package sftp

import (
	"errors"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// replaceGroup puts new content of an inode that has, or had, several names in place of all of them
// (invariant 14): the operation's own name first, so that the others can be made from it. The inode
// is marked before, and its names are checked until all of them are replaced. Where the slave turns
// out to have just this content, the name becomes one of that.
func (b *batch) replaceGroup(it *item, p place, e index.Entry) error {
	op := it.op
	places, all, err := b.links.others(op.Record.GFID, op.Path)
	if err != nil {
		return err
	}
	e.Links = max(e.Links, uint32(len(places)+1)) // as many names are here, whatever the master has by now (linkedBelow)
	for i, f := range all {
		if b.first().CanLink() && f.entry.Record == e.Record && e.Record.Xtime != 0 && f.entry.Kind == e.Kind {
			return b.linkHere(it, p, f.entry, places[i]) // the slave has just this content
		}
	}
	if len(places) > 0 {
		err := b.idx.Set(index.Pending, op.Record.GFID.String(), index.Entry{Record: slave.Record{GFID: op.Record.GFID}, Ino: op.Ino})
		if err != nil {
			return err
		}
	}
	if err := b.keepTimes(places); err != nil {
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
		if err := b.replaceName(p, other, e); err != nil {
			return err
		}
	}
	if err := b.restoreTimes(places); err != nil {
		return err
	}
	if len(places) > 0 && !b.first().CanLink() {
		it.res.Lost |= slave.LostLinks
	}
	b.links.noteGroup(op, names)
	return nil
}

// replaceName is linkName for a name that the inode had a moment ago. Where it is another inode's
// by now it stays as it is.
func (pub *publisher) replaceName(from, to place, e index.Entry) error {
	defer pub.busy.lockName(to)()
	if f, err := pub.look(to); err != nil || !f.known || f.gfid() != e.Record.GFID {
		return err
	}
	return pub.linkName(from, to, e)
}

// linkName makes a place one more name of what stands at from: a link where the server makes them,
// else a copy. What was there is replaced, without a gap. The caller has lockName of it.
func (pub *publisher) linkName(from, to place, e index.Entry) error {
	temp := pub.stagingName()
	if !e.Virtual {
		if err := pub.stageName(from.path, temp, &e); err != nil {
			return errors.Join(err, ignoreAbsent(pub.any().Remove(pub.abs(temp))))
		}
	}
	return pub.change(to, &e, func() error {
		if e.Virtual {
			return ignoreAbsent(pub.any().Remove(pub.abs(to.path)))
		}
		err := pub.replace(temp, to.path, pub.stagingName())
		if err == nil {
			// Where both are names of one inode already, a rename does nothing, and leaves the first.
			return ignoreAbsent(pub.any().Remove(pub.abs(temp)))
		}
		return errors.Join(err, ignoreAbsent(pub.any().Remove(pub.abs(temp))))
	})
}

// stageName makes temp a link to, or a copy of, what stands at path. Some servers follow a symbolic
// link that they are to link to; then it is made anew, and e gets what the new one shows.
func (pub *publisher) stageName(path, temp string, e *index.Entry) error {
	c := pub.any()
	if e.Kind == slave.Symlink {
		if c.CanLink() && c.Link(pub.abs(path), pub.abs(temp)) == nil {
			if a, err := c.Lstat(pub.abs(temp)); err == nil && kindOf(a) == slave.Symlink {
				return nil
			}
			_ = c.Remove(pub.abs(temp)) // a link to what it points to: this server follows it
		}
		if err := c.Symlink(e.Meta.Target, pub.abs(temp)); err != nil {
			return err
		}
		if c.CanSetLink() {
			_ = c.LSetstat(pub.abs(temp), wire.Attrs{Flags: wire.HasTimes, Atime: e.Seconds, Mtime: e.Seconds}) // then not
			pub.setOwner(func(a wire.Attrs) error { return c.LSetstat(pub.abs(temp), a) }, owned{e.Meta.UID, e.Meta.GID})
		}
		a, err := c.Lstat(pub.abs(temp))
		e.Size, e.Seconds = a.Size, a.Mtime
		return err
	}
	if c.CanLink() {
		return c.Link(pub.abs(path), pub.abs(temp))
	}
	return pub.copyFile(path, temp, e)
}

// copyFile reads a file back and writes it under another name, with its meta, durably where the
// server can. There is no other way on a server that makes no links.
func (pub *publisher) copyFile(path, temp string, e *index.Entry) error {
	from, err := pub.any().Open(pub.abs(path), wire.OpenRead, wire.Attrs{})
	if err != nil {
		return err
	}
	defer from.Release()
	c := pub.any()
	to, err := c.Open(pub.abs(temp), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
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
		_, err = pub.setMeta(to.Setstat, &e.Meta, e.Kind, owned{pub.feat.uid, pub.feat.gid})
	}
	if err == nil && c.CanSync() {
		err = to.Fsync()
	}
	return errors.Join(err, to.Close())
}

// Link makes Path a further name of an inode that the slave has. ErrNeedContent tells the crawler
// that there is no source, and that it has to send the content.
func (b *batch) Link(it *item) error {
	op := it.op
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	defer b.busy.lockName(p)()
	old, err := b.look(p)
	if err != nil {
		return err
	}
	source := &apply.Source[candidate]{}
	if old.kind != slave.Dir {
		if source, err = b.links.source(op); err != nil {
			return err
		}
	}
	src := source.Best
	// Without an inode to tell names of one by, those are that have the same state.
	one := old.known && old.gfid() == op.Record.GFID && old.entry.Record == src.Record
	as, err := apply.Link(op, old.standing(), standing(&src.Entry, source.Found), one)
	if err != nil {
		return err
	}
	if as != apply.LinkNew {
		return b.sameLink(it, p, src.Entry, src.at, source.Found)
	}
	if err := b.makeWay(it, p, &old); err != nil {
		return err
	}
	return b.linkNow(it, p, src.Entry, src.at)
}

// makeWay parks what stands in the operation's place, if it is another inode.
func (b *batch) makeWay(it *item, p place, old *found) error {
	if !apply.Displaces(it.op, old.standing()) {
		return nil
	}
	return b.parkReplaced(it, p, old.entry)
}

// linkHere is linkNow for a content that the slave turns out to have. It takes the lock of the
// name, which linkNow's caller has.
func (b *batch) linkHere(it *item, p place, src index.Entry, from place) error {
	defer b.busy.lockName(p)()
	old, err := b.look(p)
	if err != nil {
		return err
	}
	if err := b.makeWay(it, p, &old); err != nil {
		return err
	}
	return b.linkNow(it, p, src, from)
}

// sameLink remembers a name that has the inode's content already. Two copies become one inode where
// the server can. Where all of it is known nothing is written.
func (b *batch) sameLink(it *item, p place, src index.Entry, from place, ok bool) error {
	op := it.op
	e, there, err := b.idx.Get(p.dir, p.name)
	if err != nil {
		return err
	}
	names := []string{op.Path}
	if ok {
		names = append(names, from.path)
	}
	if ok && there && e.Record == src.Record && e.ID != src.ID && b.first().CanLink() && !e.Virtual {
		return b.linkNow(it, p, src, from)
	}
	if there && op.Links > e.Links && op.Record == e.Record {
		e.Links, e.Ino = op.Links, op.Ino
		if err := b.idx.Set(p.dir, p.name, e); err != nil {
			return err
		}
	}
	if !b.links.knownAll(op, names) {
		b.links.noteGroup(op, names)
	}
	return nil
}

// linkNow makes the name and remembers it. The entry at from gets the number of names that the
// operation told, and two at least, since the inode has as many here: one may go with its directory
// (linkedBelow). The source may be gone since it was found: ErrNeedContent.
func (b *batch) linkNow(it *item, p place, src index.Entry, from place) error {
	op, was := it.op, src
	src.Links, src.Ino = max(op.Links, src.Links, 2), op.Ino
	if err := b.linkName(from, p, src); err != nil {
		if noFile(err) {
			return errors.Join(slave.ErrNeedContent, err)
		}
		return err
	}
	if !b.first().CanLink() && src.Kind == slave.File {
		it.res.Lost |= slave.LostLinks
	}
	err := b.idx.Update(from.dir, from.name, func(e *index.Entry) {
		if e.Record == was.Record && e.ID == was.ID {
			*e = src
		}
	})
	if err != nil {
		return err
	}
	b.links.noteGroup(op, []string{op.Path, from.path})
	return nil
}

// metaOfGroup gives the other names of an inode the meta that one of them was given, if they are on
// record as it was: where they are one inode it changed for all. Another state of the inode is to
// be compared, and keeps its record. Trouble is logged: such a name is compared by the next crawl.
func (b *batch) metaOfGroup(it *item, was slave.Record, e index.Entry) {
	op := it.op
	places, all, err := b.links.others(op.Record.GFID, op.Path)
	for i, p := range places {
		if err != nil {
			break
		}
		if all[i].entry.Record == was {
			err = b.metaOfName(&op.Meta, p, was, e)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		b.log.Debug().Err(err).Str("path", op.Path).Msg("the other names keep their meta")
	}
}

// metaOfName does it for one of them, unless that is another inode's by now.
func (pub *publisher) metaOfName(meta *slave.Meta, p place, was slave.Record, e index.Entry) error {
	defer pub.busy.lockName(p)()
	f, err := pub.look(p)
	if err != nil || !f.known || f.entry.Record != was {
		return err
	}
	if e.Kind == slave.File && !(pub.first().CanLink() && e.ID != 0 && f.entry.ID == e.ID) { // one file has it already
		if _, err := pub.setMeta(pub.setAt(p.path), meta, e.Kind, owned{f.attrs.UID, f.attrs.GID}); err != nil {
			return err
		}
	}
	return pub.idx.Set(p.dir, p.name, e)
}
