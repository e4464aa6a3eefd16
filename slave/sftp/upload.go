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
	*space
	inRoom func(func() error) (evicted bool, err error) // the cleaner's

	// mu guards open, the uploads that this session has begun. It is held while one is opened, so that none is opened
	// twice.
	mu   sync.Mutex
	open map[xtime.GFID]*upload
}

func newUploads(sp *space) *uploads { return &uploads{space: sp, open: map[xtime.GFID]*upload{}} }

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
func (ups *uploads) Begin(ctx context.Context, spec *slave.Upload) (slave.UploadState, error) {
	if err := ups.use(ctx); err != nil {
		return slave.UploadState{}, err
	}
	defer ups.leave()
	if !spec.Valid() {
		return slave.UploadState{Err: trouble("upload", spec.Basis, slave.ErrInvalid)}, nil
	}
	var u *upload
	_, err := ups.inRoom(func() (err error) {
		ups.mu.Lock()
		defer ups.mu.Unlock()
		u, err = ups.beginLocked(spec)
		return err
	})
	if err != nil {
		return slave.UploadState{Err: trouble("upload", spec.Basis, err)}, ups.first().Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return slave.UploadState{Have: slices.Clone(u.have)}, nil
}

// beginLocked gives the upload of that inode, of this very version, opened and with what it has. ups.mu is
// held.
func (ups *uploads) beginLocked(spec *slave.Upload) (*upload, error) {
	if u := ups.open[spec.GFID]; u != nil {
		if u.spec.Version == spec.Version && u.spec.Size == spec.Size {
			return u, nil
		}
		ups.closeUpload(u)
	}
	for _, u := range ups.open {
		if len(ups.open) >= maxUploads {
			ups.closeUpload(u)
		}
	}
	u := &upload{spec: *spec, c: ups.any(), path: partialDir + "/" + spec.GFID.String()}
	text, err := ups.readSmall(u.path + gotSuffix)
	a, serr := ups.lstat(u.path)
	flags, resumed := uint32(wire.OpenRead|wire.OpenWrite), false
	if err == nil && serr == nil && kindOf(a) == slave.File && u.parse(text) {
		resumed, u.filled = true, int64(a.Size)
	} else {
		// Whatever stands there is removed, not written to: it may have other names.
		for _, path := range []string{u.path, u.path + gotSuffix} {
			if err := ignoreAbsent(u.c.Remove(ups.abs(path))); err != nil {
				return nil, err
			}
		}
		u.have = nil
		flags |= wire.OpenCreate | wire.OpenExcl
	}
	u.file, err = u.c.Open(ups.abs(u.path), flags, newFile(nil))
	if err != nil && resumed && u.c.Err() == nil {
		// It may have got the mode that it was to be published with.
		if err = u.c.Setstat(ups.abs(u.path), newFile(nil)); err == nil {
			u.file, err = u.c.Open(ups.abs(u.path), flags, newFile(nil))
		}
	}
	if err != nil {
		return nil, err
	}
	ups.open[spec.GFID] = u
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
func (ups *uploads) closeUpload(u *upload) {
	delete(ups.open, u.spec.GFID)
	u.file.Release()
}

// closeAll closes all; what they have stays for the next session.
func (ups *uploads) closeAll() {
	ups.mu.Lock()
	defer ups.mu.Unlock()
	for g, one := range ups.open {
		one.file.Release()
		delete(ups.open, g)
	}
}

// Sums has no basis to sign.
func (ups *uploads) Sums(ctx context.Context, q slave.SumsQuery, _ func(int64, []byte) error) (slave.Result, error) {
	if err := ups.enter(); err != nil {
		return slave.Result{}, err
	}
	defer ups.leave()
	return slave.Result{Err: trouble("sign", ups.uploadPath(q.GFID), slave.ErrInvalid)}, ups.live(ctx)
}

// uploadPath names an upload in errors.
func (ups *uploads) uploadPath(g xtime.GFID) string { return partialDir + "/" + g.String() }

// upload is the one that was begun for this very version, nil where none was.
func (ups *uploads) upload(g xtime.GFID, v slave.Version) *upload {
	ups.mu.Lock()
	defer ups.mu.Unlock()
	if u := ups.open[g]; u != nil && u.spec.Version == v {
		return u
	}
	return nil
}

// Write puts a segment in its place.
func (ups *uploads) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	if err := ups.use(ctx); err != nil {
		return slave.Result{}, err
	}
	defer ups.leave()
	err, evicted := error(slave.ErrNeedContent), false
	if u := ups.upload(s.GFID, s.Version); u != nil {
		evicted, err = ups.inRoom(func() error {
			if err := ups.check.refused(); err != nil {
				return err
			}
			return ups.writeSegment(u, s)
		})
	}
	if lost := ups.first().Err(); lost != nil {
		return slave.Result{}, lost
	}
	return slave.Result{Err: trouble("write", ups.uploadPath(s.GFID), ups.reason(err)), Evicted: evicted}, nil
}

// writeSegment writes the parts and, where something else may be there, zeros between them.
func (ups *uploads) writeSegment(u *upload, s *slave.Segment) error {
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
	return ups.noteRange(u, s.Range)
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
func (ups *uploads) noteRange(u *upload, r slave.Range) error {
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
		err = ups.put(u.path+gotSuffix, text)
	}
	u.mu.Lock()
	u.noting = false
	u.mu.Unlock()
	return err
}

// endUpload removes the journal of an upload that is in its place. One that is left is removed by the next upload, or Clean.
func (ups *uploads) endUpload(it *item) {
	if it.op.Uploaded && it.err == nil && it.staged == "" {
		_ = ups.any().Remove(ups.abs(ups.uploadPath(it.op.Record.GFID) + gotSuffix))
	}
}

// cleanUploads removes what nobody goes on with.
func (ups *uploads) cleanUploads(ctx context.Context, limit int64) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	err := ups.list(partialDir, func(n wire.Name) error {
		if int64(n.Mtime) > limit {
			return nil
		}
		id, perr := xtime.ParseGFID(n.Name)
		ups.mu.Lock()
		if u := ups.open[id]; perr == nil && u != nil {
			ups.closeUpload(u)
		}
		ups.mu.Unlock()
		g.Go(func() error { return ignoreAbsent(ups.any().Remove(ups.abs(partialDir + "/" + n.Name))) })
		return gctx.Err()
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, g.Wait())
}
