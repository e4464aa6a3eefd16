package sftp

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// uploads are the contents that are sent ahead of their operations. Each is a file in partial/ under its GFID, with a
// journal beside it of the ranges that are durable there, as far as the server can make them so: a later session goes on
// from those. What is acknowledged but not yet durable counts in this session only.
type uploads struct {
	// mu guards open, the uploads that this session has begun. It is held while one is opened, so that none is opened
	// twice.
	mu   sync.Mutex
	open map[xtime.GFID]*upload
}

type upload struct {
	// spec, c, file, path and filled do not change.
	spec slave.Upload
	c    *wire.Client
	file *wire.Handle
	path string
	// filled is up to where data may lie though no range says so: an earlier session wrote it.
	filled int64

	mu sync.Mutex
	// have is what is written, sorted and merged.
	have  []slave.Range
	fresh int64 // bytes that came since the last note
	// noting says that a note is being written: there is one at a time.
	noting bool
}

const (
	gotSuffix = ".got"
	// noteStep is how much of an upload may have to be sent again after a cut.
	noteStep = 16 << 20
	// A journal is a header, the version (16 bytes) and the size (8), and a list of ranges of two numbers of 8 bytes,
	// big-endian.
	headerSize = 16 + 8
	rangeSize  = 16
	// maxUploads bounds the handles that uploads hold; one more closes others, which go on from their last note.
	maxUploads = 16
)

// Begin prepares an upload, or goes on with one. No basis is offered: its signature would have to be read back.
func (t *Tree) Begin(ctx context.Context, spec *slave.Upload) (slave.UploadState, error) {
	if err := t.enter(); err != nil {
		return slave.UploadState{}, err
	}
	defer t.leave()
	if err := t.live(ctx); err != nil {
		return slave.UploadState{}, err
	}
	if !spec.Valid() {
		return slave.UploadState{Err: trouble("upload", spec.Basis, slave.ErrInvalid)}, nil
	}
	var u *upload
	_, err := t.inRoom(func() (err error) {
		t.uploads.mu.Lock()
		defer t.uploads.mu.Unlock()
		u, err = t.beginLocked(spec)
		return err
	})
	if err != nil {
		return slave.UploadState{Err: trouble("upload", spec.Basis, err)}, t.first().Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return slave.UploadState{Have: slices.Clone(u.have)}, nil
}

// beginLocked gives the upload of that inode, of this very version, opened and with what it has. t.uploads.mu is
// held.
func (t *Tree) beginLocked(spec *slave.Upload) (*upload, error) {
	if u := t.uploads.open[spec.GFID]; u != nil {
		if u.spec.Version == spec.Version && u.spec.Size == spec.Size {
			return u, nil
		}
		t.closeUpload(u)
	}
	for _, u := range t.uploads.open {
		if len(t.uploads.open) >= maxUploads {
			t.closeUpload(u)
		}
	}
	u := &upload{spec: *spec, c: t.any(), path: partialDir + "/" + spec.GFID.String()}
	text, err := t.readSmall(u.path + gotSuffix)
	a, serr := t.lstat(u.path)
	flags, resumed := uint32(wire.OpenRead|wire.OpenWrite), false
	if err == nil && serr == nil && kindOf(a) == slave.File && u.parse(text) {
		resumed, u.filled = true, int64(a.Size)
	} else {
		// Whatever stands there is removed, not written to: it may have other names.
		for _, path := range []string{u.path, u.path + gotSuffix} {
			if err := ignoreAbsent(u.c.Remove(t.abs(path))); err != nil {
				return nil, err
			}
		}
		u.have = nil
		flags |= wire.OpenCreate | wire.OpenExcl
	}
	u.file, err = u.c.Open(t.abs(u.path), flags, newFile(nil))
	if err != nil && resumed && u.c.Err() == nil {
		// It may have got the mode that it was to be published with.
		if err = u.c.Setstat(t.abs(u.path), newFile(nil)); err == nil {
			u.file, err = u.c.Open(t.abs(u.path), flags, newFile(nil))
		}
	}
	if err != nil {
		return nil, err
	}
	t.uploads.open[spec.GFID] = u
	return u, nil
}

// parse reads the ranges of a journal that is of this very version.
func (u *upload) parse(text []byte) bool {
	if len(text) < headerSize || string(text[:headerSize]) != string(u.header()) {
		return false
	}
	for text = text[headerSize:]; len(text) >= rangeSize; text = text[rangeSize:] {
		r := slave.Range{Off: int64(binary.BigEndian.Uint64(text)), End: int64(binary.BigEndian.Uint64(text[8:]))}
		if r.Off < 0 || r.End < r.Off || r.End > u.spec.Size {
			return false
		}
		u.have = slave.AddRange(u.have, r)
	}
	return true
}

// header names the version that the ranges are of.
func (u *upload) header() []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), u.spec.Version[:]...), uint64(u.spec.Size))
}

// closeUpload closes an upload; what it has stays.
func (t *Tree) closeUpload(u *upload) {
	delete(t.uploads.open, u.spec.GFID)
	u.file.Release()
}

// closeAll closes all; what they have stays for the next session.
func (u *uploads) closeAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for g, one := range u.open {
		one.file.Release()
		delete(u.open, g)
	}
}

// Sums has no basis to sign.
func (t *Tree) Sums(ctx context.Context, q slave.SumsQuery, _ func(int64, []byte) error) (slave.Result, error) {
	if err := t.enter(); err != nil {
		return slave.Result{}, err
	}
	defer t.leave()
	return slave.Result{Err: trouble("sign", t.uploadPath(q.GFID), slave.ErrInvalid)}, t.live(ctx)
}

// uploadPath names an upload in errors.
func (t *Tree) uploadPath(g xtime.GFID) string { return partialDir + "/" + g.String() }

// upload is the one that was begun for this very version, nil where none was.
func (t *Tree) upload(g xtime.GFID, v slave.Version) *upload {
	t.uploads.mu.Lock()
	defer t.uploads.mu.Unlock()
	if u := t.uploads.open[g]; u != nil && u.spec.Version == v {
		return u
	}
	return nil
}

// Write puts a segment in its place.
func (t *Tree) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	if err := t.enter(); err != nil {
		return slave.Result{}, err
	}
	defer t.leave()
	if err := t.live(ctx); err != nil {
		return slave.Result{}, err
	}
	err, evicted := error(slave.ErrNeedContent), false
	if u := t.upload(s.GFID, s.Version); u != nil {
		evicted, err = t.inRoom(func() error {
			if err := t.verdict.refused(); err != nil {
				return err
			}
			return t.writeSegment(u, s)
		})
	}
	if lost := t.first().Err(); lost != nil {
		return slave.Result{}, lost
	}
	return slave.Result{Err: trouble("write", t.uploadPath(s.GFID), t.reason(err)), Evicted: evicted}, nil
}

// writeSegment writes the parts and, where something else may be there, zeros between them.
func (t *Tree) writeSegment(u *upload, s *slave.Segment) error {
	if !s.Valid(u.spec.Size, 0) {
		return slave.ErrInvalid
	}
	g := new(errgroup.Group)
	at := s.Off
	for i := range s.Parts {
		p := &s.Parts[i]
		from := at
		g.Go(func() error { return errors.Join(u.zero(from, p.Off), u.file.WriteAll(p.Data, p.Off, false)) })
		at = p.Off + p.Size()
	}
	g.Go(func() error { return u.zero(at, s.End) })
	if err := g.Wait(); err != nil {
		return err
	}
	return t.noteRange(u, s.Range)
}

// zero clears a range of a file that may have something there.
func (u *upload) zero(from, to int64) error {
	to = min(to, u.filled)
	blank := make([]byte, min(256<<10, max(to-from, 0)))
	for from < to {
		n := min(int64(len(blank)), to-from)
		if err := u.file.WriteAll(blank[:n], from, false); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// noteRange remembers a range, and from time to time makes what came durable and notes it for a later session.
func (t *Tree) noteRange(u *upload, r slave.Range) error {
	u.mu.Lock()
	u.have = slave.AddRange(u.have, r)
	u.fresh += r.End - r.Off
	if u.fresh < noteStep || u.noting {
		u.mu.Unlock()
		return nil
	}
	u.fresh, u.noting = 0, true
	text := u.header()
	for _, r := range u.have {
		text = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(text, uint64(r.Off)), uint64(r.End))
	}
	u.mu.Unlock()
	var err error
	if u.c.CanSync() {
		err = u.file.Fsync()
	}
	if err == nil {
		err = t.put(u.path+gotSuffix, text)
	}
	u.mu.Lock()
	u.noting = false
	u.mu.Unlock()
	return err
}

// stageUploaded takes an upload that is complete for the staged content. It stays where it is, with its journal, until it is
// renamed to its place: a cut before that must not cost the content.
func (t *Tree) stageUploaded(it *item) error {
	op := it.op
	t.uploads.mu.Lock()
	u := t.uploads.open[op.Record.GFID]
	if u == nil || u.spec.Version != op.Version {
		t.uploads.mu.Unlock()
		return t.published(it)
	}
	u.mu.Lock()
	whole := len(u.have) == 1 && u.have[0] == slave.Range{End: u.spec.Size} || u.spec.Size == 0
	u.mu.Unlock()
	if !whole {
		t.uploads.mu.Unlock()
		return slave.ErrNeedContent
	}
	// No further Write finds it from here on.
	delete(t.uploads.open, op.Record.GFID)
	t.uploads.mu.Unlock()
	it.end = slave.End{Size: u.spec.Size}
	if err := t.complete(u.file, it); err != nil {
		return err
	}
	it.staged = u.path
	return nil
}

// endUpload removes the journal of an upload that is in its place. One that is left is removed by the next upload, or Clean.
func (t *Tree) endUpload(it *item) {
	if it.op.Uploaded && it.err == nil && it.staged == "" {
		_ = t.any().Remove(t.abs(t.uploadPath(it.op.Record.GFID) + gotSuffix))
	}
}

// published makes an operation whose answer was lost a success: what it would make is there.
func (t *Tree) published(it *item) error {
	op := it.op
	e, ok := t.recorded(op.Record.GFID, op.Path)
	if !ok || e.Record != op.Record || op.Record.Xtime == 0 {
		return slave.ErrNeedContent
	}
	f, _, ok := t.verify(op.Record.GFID, op.Path)
	if !ok || f.entry.Record != op.Record {
		return slave.ErrNeedContent
	}
	return errPublished
}

// errPublished is success, for which nothing is left to be done.
var errPublished = errors.New("it is there already")

// cleanUploads removes what nobody goes on with.
func (t *Tree) cleanUploads(ctx context.Context, limit int64) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	err := t.list(partialDir, func(n wire.Name) error {
		if int64(n.Mtime) > limit {
			return nil
		}
		id, perr := xtime.ParseGFID(n.Name)
		t.uploads.mu.Lock()
		if u := t.uploads.open[id]; perr == nil && u != nil {
			t.closeUpload(u)
		}
		t.uploads.mu.Unlock()
		g.Go(func() error { return ignoreAbsent(t.any().Remove(t.abs(partialDir + "/" + n.Name))) })
		return gctx.Err()
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, g.Wait())
}
