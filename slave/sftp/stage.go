package sftp

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/semaphore"

	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// stager makes complete in staging what is to be published.
type stager struct {
	*records
	uploads *uploads
	bytes   *semaphore.Weighted // contents in memory
}

// stageLarge begins to stage a content that does not fit in memory.
func (sg *stager) stageLarge(it *item) (*stagedFile, error) {
	s := &stagedFile{stager: sg, c: sg.any(), path: sg.stagingName(), away: make(chan struct{}, piecesAway)}
	var err error
	if s.f, err = s.c.Open(sg.abs(s.path), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, newFile(&it.op.Meta)); err != nil {
		return nil, err
	}
	data := it.data
	it.data, it.staged = nil, s.path
	return s, s.write(data, 0)
}

// newFile are the attributes to create a file with: nobody else is to read it meanwhile.
func newFile(*slave.Meta) wire.Attrs { return wire.Attrs{Flags: wire.HasMode, Mode: 0o600} }

// stage makes what an operation needs complete in staging. Nothing but its name changes later.
func (sg *stager) stage(it *item) error {
	op := it.op
	switch {
	case op.Kind == slave.OpPut && op.Uploaded:
		return sg.stageUploaded(it)
	case op.Kind == slave.OpPut && it.staged == "":
		return sg.stageSmall(it)
	case op.Kind == slave.OpSymlink && sg.feat.symlinks:
		it.staged = sg.stagingName()
		return sg.any().Symlink(op.Meta.Target, sg.abs(it.staged))
	}
	return nil
}

// stageSmall stages a content that is in memory.
func (sg *stager) stageSmall(it *item) error {
	c, path := sg.any(), sg.stagingName()
	f, err := c.Open(sg.abs(path), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, newFile(&it.op.Meta))
	if err != nil {
		return err
	}
	it.staged = path
	return sg.complete(f, it)
}

// complete writes what of a content is in memory, sets a staged file's size, meta and times, makes it durable and closes it,
// in one round trip; more only where the mode may not be set before it is known whether the owner was.
func (sg *stager) complete(f *wire.Handle, it *item) error {
	it.size, it.res.Torn = it.end.Size, it.end.Torn
	m, mine := &it.op.Meta, owned{sg.feat.uid, sg.feat.gid}
	want := owned{m.UID, m.GID}
	last := wire.Last{Data: it.data, Sync: true}
	set := func(a wire.Attrs) error { last.Sets = append(last.Sets, a); return nil }
	// A set-id bit must never be on a file that is not the owner's that it is meant for.
	if m.Mode&0o6000 != 0 && want != mine {
		if err := f.WriteAll(it.data, 0, false); err != nil {
			f.Release()
			return err
		}
		last.Data, set = nil, f.Setstat
	}
	var err error
	if it.end.Size > int64(len(it.data)) {
		err = set(wire.Attrs{Flags: wire.HasSize, Size: it.end.Size})
	}
	if err == nil {
		it.res.Lost, err = sg.setMeta(set, m, slave.File, mine)
	}
	err = errors.Join(err, f.Finish(&last))
	if last.Refused != nil {
		sg.refused.Store(want, struct{}{})
		it.res.Lost |= slave.LostOwner
	}
	return err
}

// take reads a small content into memory, and stages a large one at once.
func (sg *stager) take(it *item, content slave.Content) error {
	// At least 4 KiB even for an empty file, which bounds the number of operations in memory too.
	it.held = min(max(it.op.Meta.Size, 4096), smallBytes)
	if err := sg.bytes.Acquire(context.Background(), it.held); err != nil {
		return err
	}
	var up *stagedFile
	size := int64(0)
	for {
		piece, err := content.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			err = slave.SourceError(err)
		} else if piece.Off < size {
			err = slave.ErrInvalid
		} else if up == nil && piece.Off+int64(len(piece.Data)) > smallBytes {
			up, err = sg.stageLarge(it)
		}
		if err == nil {
			size = piece.Off + int64(len(piece.Data))
			err = sg.keep(it, up, piece)
		}
		if err == nil {
			err = sg.live(context.Background())
		}
		if err != nil {
			return errors.Join(err, up.drop())
		}
	}
	it.end = content.End()
	if it.end.Size < size {
		return errors.Join(slave.ErrInvalid, up.drop())
	}
	return up.finish(it)
}

// keep puts a piece where it belongs: in memory, or in the staged file.
func (sg *stager) keep(it *item, up *stagedFile, p slave.Piece) error {
	if up != nil {
		return up.write(p.Data, p.Off)
	}
	if gap := p.Off - int64(len(it.data)); gap > 0 {
		it.data = append(it.data, make([]byte, gap)...)
	}
	it.data = append(it.data, p.Data...)
	return nil
}

// unstage removes what is staged; what cannot be removed now is cleared when the next session begins.
func (sg *stager) unstage(it *item) {
	if it.staged != "" && sg.first().Err() == nil {
		_ = sg.any().Remove(sg.abs(it.staged))
		it.staged = ""
	}
}

// stageUploaded takes an upload that is complete for the staged content. It stays where it is, with its journal, until it is
// renamed to its place: a cut before that must not cost the content.
func (sg *stager) stageUploaded(it *item) error {
	op := it.op
	sg.uploads.mu.Lock()
	u := sg.uploads.open[op.Record.GFID]
	if u == nil || u.spec.Version != op.Version {
		sg.uploads.mu.Unlock()
		return sg.published(it)
	}
	u.mu.Lock()
	whole := len(u.have) == 1 && u.have[0] == slave.Range{End: u.spec.Size} || u.spec.Size == 0
	u.mu.Unlock()
	if !whole {
		sg.uploads.mu.Unlock()
		return slave.ErrNeedContent
	}
	// No further Write finds it from here on.
	delete(sg.uploads.open, op.Record.GFID)
	sg.uploads.mu.Unlock()
	it.end = slave.End{Size: u.spec.Size}
	if err := sg.complete(u.file, it); err != nil {
		return err
	}
	it.staged = u.path
	return nil
}

// published makes an operation whose answer was lost a success: what it would make is there.
func (sg *stager) published(it *item) error {
	op := it.op
	e, ok := sg.recorded(op.Record.GFID, op.Path)
	if !ok || e.Record != op.Record || op.Record.Xtime == 0 {
		return slave.ErrNeedContent
	}
	f, _, ok := sg.verify(op.Record.GFID, op.Path)
	if !ok || f.entry.Record != op.Record {
		return slave.ErrNeedContent
	}
	return errPublished
}

// errPublished is success, for which nothing is left to be done.
var errPublished = errors.New("it is there already")

// entryOf gives the entry of what an operation has staged, or of what the slave cannot have.
func (sg *stager) entryOf(it *item) (index.Entry, error) {
	op := it.op
	switch op.Kind {
	case slave.OpPut:
		e := sg.entryFor(op, slave.File, it.res.Torn)
		e.Size, e.Meta.Size = it.size, it.size
		if it.noted.intent.ID != 0 {
			e.ID = it.noted.intent.ID
		}
		return e, nil
	case slave.OpSymlink:
		it.res.Lost |= sg.lostAlways(&op.Meta, slave.Symlink)
		if it.staged == "" {
			it.res.Lost |= slave.LostSymlink
			break
		}
		e := sg.entryFor(op, slave.Symlink, false)
		return e, sg.setLinkTimes(it, &e)
	}
	kind := op.Entry
	if op.Kind == slave.OpSymlink {
		kind = slave.Symlink
	}
	it.res.Lost |= sg.lostAlways(&op.Meta, kind)
	e := sg.entryFor(op, kind, false)
	e.Virtual = true
	return e, nil
}

// setLinkTimes sets a staged link's times where the server can, and notes what it shows.
func (sg *stager) setLinkTimes(it *item, e *index.Entry) error {
	c := sg.any()
	if c.CanSetLink() {
		_ = c.LSetstat(sg.abs(it.staged), wire.Attrs{Flags: wire.HasTimes, Atime: e.Seconds, Mtime: e.Seconds}) // then not
		if want := (owned{e.Meta.UID, e.Meta.GID}); want != (owned{sg.feat.uid, sg.feat.gid}) {
			set := func(a wire.Attrs) error { return c.LSetstat(sg.abs(it.staged), a) }
			if !sg.setOwner(set, want) {
				it.res.Lost |= slave.LostOwner
			}
		}
	}
	a, err := c.Lstat(sg.abs(it.staged))
	if a.Mtime != e.Seconds {
		it.res.Lost |= slave.LostTime
	}
	e.Size, e.Seconds = a.Size, a.Mtime
	return err
}
