package sftp

import (
	"errors"
	"sync"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// stagedFile is a large content on its way to staging.
type stagedFile struct {
	t *Tree
	// c is the session that f was opened on: a handle is of one session only.
	c    *wire.Client
	f    *wire.Handle
	path string
	away chan struct{} // a slot for each piece that is not answered
	// wait counts the pieces on their way; mu guards err, which is of the last that failed.
	wait sync.WaitGroup
	mu   sync.Mutex
	err  error
}

// piecesAway is how many pieces of one content may be on their way.
const piecesAway = 64

// stageLarge begins to stage a content that does not fit in memory.
func (t *Tree) stageLarge(it *item) (*stagedFile, error) {
	s := &stagedFile{t: t, c: t.any(), path: t.stagingName(), away: make(chan struct{}, piecesAway)}
	var err error
	if s.f, err = s.c.Open(t.abs(s.path), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, newFile(&it.op.Meta)); err != nil {
		return nil, err
	}
	data := it.data
	it.data, it.staged = nil, s.path
	return s, s.write(data, 0)
}

// newFile are the attributes to create a file with: nobody else is to read it meanwhile.
func newFile(*slave.Meta) wire.Attrs { return wire.Attrs{Flags: wire.HasMode, Mode: 0o600} }

// write sends a piece; its error may be that of an earlier one.
func (s *stagedFile) write(data []byte, off int64) error {
	for step := s.c.MaxWrite(); len(data) > 0; {
		piece := append([]byte(nil), data[:min(step, len(data))]...)
		at := off
		data, off = data[len(piece):], off+int64(len(piece))
		s.away <- struct{}{}
		s.wait.Go(func() {
			defer func() { <-s.away }()
			if err := s.f.Write(piece, at); err != nil {
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
			}
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// drop gives up.
func (s *stagedFile) drop() error {
	if s == nil {
		return nil
	}
	s.wait.Wait()
	s.f.Release()
	return nil
}

// finish waits for all pieces and makes the file complete. A content in memory is staged later.
func (s *stagedFile) finish(it *item) error {
	if s == nil {
		return nil
	}
	s.wait.Wait()
	if s.err != nil {
		s.f.Release()
		return s.err
	}
	return s.t.complete(s.f, it)
}

// stage makes what an operation needs complete in staging. Nothing but its name changes later.
func (t *Tree) stage(it *item) error {
	op := it.op
	switch {
	case op.Kind == slave.OpPut && op.Uploaded:
		return t.stageUploaded(it)
	case op.Kind == slave.OpPut && it.staged == "":
		return t.stageSmall(it)
	case op.Kind == slave.OpSymlink && t.feat.symlinks:
		it.staged = t.stagingName()
		return t.any().Symlink(op.Meta.Target, t.abs(it.staged))
	}
	return nil
}

// stageSmall stages a content that is in memory.
func (t *Tree) stageSmall(it *item) error {
	c, path := t.any(), t.stagingName()
	f, err := c.Open(t.abs(path), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl, newFile(&it.op.Meta))
	if err != nil {
		return err
	}
	it.staged = path
	return t.complete(f, it)
}

// complete writes what of a content is in memory, sets a staged file's size, meta and times, makes it durable and closes it,
// in one round trip; more only where the mode may not be set before it is known whether the owner was.
func (t *Tree) complete(f *wire.Handle, it *item) error {
	it.size, it.res.Torn = it.end.Size, it.end.Torn
	m, mine := &it.op.Meta, owned{t.feat.uid, t.feat.gid}
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
		it.res.Lost, err = t.setMeta(set, m, slave.File, mine)
	}
	err = errors.Join(err, f.Finish(&last))
	if last.Refused != nil {
		t.refused.Store(want, struct{}{})
		it.res.Lost |= slave.LostOwner
	}
	return err
}

// owned is whose an entry is.
type owned struct{ uid, gid uint32 }

// setMeta sets what SFTP knows of an entry's meta by set, and tells what is kept in the index alone.
func (t *Tree) setMeta(set func(wire.Attrs) error, m *slave.Meta, kind slave.Kind, has owned) (lost slave.Lost, err error) {
	mode := m.Mode & 0o7777
	if want := (owned{m.UID, m.GID}); want != has && !t.setOwner(set, want) {
		lost |= slave.LostOwner
		if mode&0o6000 != 0 {
			mode &^= 0o6000
			lost |= slave.LostMode
		}
	}
	if kind == slave.Dir && t.feat.uid != 0 && mode&0o700 != 0o700 {
		// Such a directory could not be changed any more, nor listed: the account is one of many, and has no other way.
		mode |= 0o700
		lost |= slave.LostMode
	}
	sec := t.seconds(m.Mtime)
	err = set(wire.Attrs{Flags: wire.HasMode | wire.HasTimes, Mode: mode, Atime: sec, Mtime: sec})
	return lost | t.lostAlways(m, kind), err
}

// setOwner tells whether the entry was given to its owner. What was refused once is not tried again.
func (t *Tree) setOwner(set func(wire.Attrs) error, want owned) bool {
	if _, refused := t.refused.Load(want); refused {
		return false
	}
	err := set(wire.Attrs{Flags: wire.HasOwner, UID: want.uid, GID: want.gid})
	if err != nil && t.first().Err() == nil {
		t.refused.Store(want, struct{}{})
	}
	return err == nil
}

// lostAlways is what the protocol cannot carry.
func (t *Tree) lostAlways(m *slave.Meta, kind slave.Kind) (lost slave.Lost) {
	if len(m.Xattrs) > 0 {
		lost |= slave.LostXattr
	}
	if m.Mtime != (beneath.Time{Sec: int64(t.seconds(m.Mtime))}) {
		lost |= slave.LostTime
	}
	switch {
	case kind.Device():
		lost |= slave.LostDevice
	case kind.Node():
		lost |= slave.LostSpecial
	}
	return lost
}
