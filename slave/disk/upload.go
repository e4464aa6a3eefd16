package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/delta"
)

// uploads are the contents that are sent ahead of their operations. Each is a file in partial/ under its GFID, with a
// journal beside it of what has arrived: a header of its own and then the ranges, each noted after its data was written.
// The journal counts for as long as the kernel runs that has the data in its memory, so that nothing has to wait for
// the disk; after a power cut, and when the content is another version, what is there serves as a basis.
//
// mu guards which are open, and comes before upload.mu. spec, file, journal and basis do not change
// while it is open.
type uploads struct {
	*store
	hashing chan struct{} // the reader's
	// inRoom is the cleaner's, which has uploads of its own to delete where nothing else makes room.
	inRoom func(call func() error) (evicted bool, err error)

	mu    sync.Mutex
	open  map[xtime.GFID]*upload
	turns uint64
}

// newUploads has none open. inRoom is set before the first use.
func newUploads(r *reader) *uploads {
	return &uploads{store: r.store, hashing: r.hashing, open: map[xtime.GFID]*upload{}}
}

// upload is one that is open. Its fields but mu's belong to whoever holds mu.
type upload struct {
	spec    slave.Upload
	turn    uint64 // of its last use; protected by uploads.mu, as is users
	users   int
	resumed bool // data may lie where the journal knows of none
	file    *beneath.Inode
	journal *beneath.Inode
	basis   *beneath.Inode // nil where there is none
	was     beneath.Stat   // of the basis
	extents extents        // of the basis

	mu      sync.Mutex
	have    []slave.Range
	noted   int64 // length of the journal
	flushed int64 // since the last StartFlush
	held    hold
}

// maxUploads bounds the uploads that are held open; those not used for longest are closed, and open again when asked for.
const maxUploads = 64

const (
	journalSuffix = ".got"
	basisSuffix   = ".old"
	headerSize    = 16 + 8 + 32
	rangeSize     = 16
)

// header is what the journal of an upload begins with: what it is of, and on which run of which
// kernel. A journal with another header is that of another content, or of another boot, and its
// file serves as a basis.
func header(u *slave.Upload) []byte {
	b := binary.BigEndian.AppendUint64(append([]byte(nil), u.Version[:]...), uint64(u.Size))
	boot := sha256.Sum256([]byte(bootID()))
	return append(b, boot[:]...)
}

// Begin prepares an upload, or goes on with one. What is refused is in the state, and the crawler
// sends the content with its operation. An upload that is begun need not be ended: what nobody goes
// on with is deleted by Clean.
func (us *uploads) Begin(ctx context.Context, spec *slave.Upload) (slave.UploadState, error) {
	if err := us.enter(); err != nil {
		return slave.UploadState{}, err
	}
	defer us.leave()
	if err := us.live(ctx); err != nil {
		return slave.UploadState{}, err
	}
	if !spec.Valid() {
		return slave.UploadState{Err: trouble("upload", spec.Basis, slave.ErrInvalid)}, nil
	}
	var u *upload
	_, err := us.inRoom(func() (err error) {
		us.mu.Lock()
		defer us.mu.Unlock()
		u, err = us.beginLocked(spec)
		return err
	})
	us.mu.Lock()
	defer us.mu.Unlock()
	if err == nil && us.open[spec.GFID] != u {
		err = unix.EBUSY // others wanted so many meanwhile that this one had to make way
	}
	if err != nil {
		return slave.UploadState{Err: trouble("upload", spec.Basis, err)}, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	state := slave.UploadState{Have: slices.Clone(u.have)}
	if u.basis != nil {
		state.BasisSize, state.BlockSize = u.was.Size, delta.BlockSize(u.was.Size)
	}
	return state, nil
}

// beginLocked finds the upload, or opens it. Another version's that is in use stays, and is an
// error. EBUSY is for a version that changes while its content is still being written by another
// call.
func (us *uploads) beginLocked(spec *slave.Upload) (*upload, error) {
	if u := us.open[spec.GFID]; u != nil {
		if u.spec.Version == spec.Version && u.spec.Size == spec.Size {
			return us.used(u), nil
		}
		if u.users > 0 {
			return nil, unix.EBUSY
		}
		us.shut(u)
	}
	us.makeRoom()
	u := &upload{spec: *spec}
	err := us.openUpload(u)
	if err == nil {
		err = us.openBasis(u)
	}
	if err != nil {
		u.close()
		return nil, err
	}
	us.open[spec.GFID] = u
	return us.used(u), nil
}

// used notes that the upload was asked for now. uploads.mu is held.
func (us *uploads) used(u *upload) *upload {
	us.turns++
	u.turn = us.turns
	return u
}

// makeRoom closes the upload not used for longest, where there are too many.
func (us *uploads) makeRoom() {
	if len(us.open) < maxUploads {
		return
	}
	var oldest *upload
	for _, u := range us.open {
		if u.users == 0 && (oldest == nil || u.turn < oldest.turn) {
			oldest = u
		}
	}
	if oldest != nil {
		us.shut(oldest)
	}
}

// shut closes an upload that nobody uses; what it has stays on disk.
func (us *uploads) shut(u *upload) {
	delete(us.open, u.spec.GFID)
	u.close()
}

// close gives its descriptors back. The files stay in partial/.
func (u *upload) close() {
	for _, i := range []*beneath.Inode{u.file, u.journal, u.basis} {
		if i != nil {
			i.Close()
		}
	}
}

// openUpload opens what was received of this version, or begins anew. Everything that arrived
// counts, whichever connection it came over.
func (us *uploads) openUpload(u *upload) error {
	name := u.spec.GFID.String()
	have, err := us.readJournal(u)
	if err == nil {
		u.file, err = us.partial.OpenWrite(name)
	}
	if err == nil {
		u.journal, err = us.partial.OpenWrite(name + journalSuffix)
	}
	if err == nil {
		u.have, u.resumed = have, true
		if u.held, err = us.holdOf(u.file); err != nil {
			return err
		}
		u.noted = headerSize + int64(len(have))*rangeSize
		return us.rewriteJournal(u)
	}
	u.close()
	u.file, u.journal = nil, nil
	return us.newUpload(u, name)
}

// errOther means that what lies in partial/ is no part of this upload.
var errOther = errors.New("another upload")

// readJournal reads which ranges have arrived. What a crash tore at its end does not count.
func (us *uploads) readJournal(u *upload) ([]slave.Range, error) {
	st, err := us.partial.Stat(u.spec.GFID.String())
	if err != nil || slave.KindOf(st.Mode) != slave.File || st.Nlink != 1 {
		return nil, errors.Join(err, errOther)
	}
	text, err := readSmall(us.partial, u.spec.GFID.String()+journalSuffix)
	if err != nil || len(text) < headerSize || string(text[:headerSize]) != string(header(&u.spec)) {
		return nil, errors.Join(err, errOther)
	}
	var have []slave.Range
	for text = text[headerSize:]; len(text) >= rangeSize; text = text[rangeSize:] {
		r := slave.Range{Off: int64(binary.BigEndian.Uint64(text)), End: int64(binary.BigEndian.Uint64(text[8:]))}
		if r.Off < 0 || r.End < r.Off || r.End > u.spec.Size {
			return nil, errOther
		}
		if have = slave.AddRange(have, r); len(have) > slave.MaxRanges {
			return nil, errOther
		}
	}
	return have, nil
}

// rewriteJournal makes the journal of an upload that goes on as short as it can be.
func (us *uploads) rewriteJournal(u *upload) error {
	text := header(&u.spec)
	for _, r := range u.have {
		text = appendRange(text, r)
	}
	if err := us.sys.truncate(u.journal, 0); err != nil {
		return err
	}
	return us.sys.write(u.journal, text, 0)
}

func appendRange(b []byte, r slave.Range) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(r.Off)), uint64(r.End))
}

// newUpload begins with an empty file. What was received of another version is kept as a basis. The
// old content becomes the basis even if its journal was lost: a delta proves each block by its sum.
func (us *uploads) newUpload(u *upload, name string) error {
	if err := ignoreAbsent(us.sys.unlink(place{us.partial, name + journalSuffix})); err != nil {
		return err
	}
	st, err := us.partial.Stat(name)
	switch {
	case err == nil && slave.KindOf(st.Mode) == slave.File && st.Nlink == 1 && st.Size > 0:
		err = us.sys.rename(place{us.partial, name}, place{us.partial, name + basisSuffix}, 0)
	case err == nil:
		err = us.sys.unlink(place{us.partial, name})
	}
	if err := ignoreAbsent(err); err != nil {
		return err
	}
	if u.file, err = us.sys.create(place{us.partial, name}, 0o600); err != nil {
		return err
	}
	if u.journal, err = us.sys.create(place{us.partial, name + journalSuffix}, 0o600); err != nil {
		return err
	}
	u.noted, u.held = headerSize, hold{used: us.sys.used}
	return us.sys.write(u.journal, header(&u.spec), 0)
}

// openBasis opens the file that may have parts of the content: the one that was named, or what was
// received of an earlier version. That there is none is no error. The basis is read only by
// position, and checked before each copy (basisAsItWas). It may be a file of the tree that is
// replaced meanwhile; the descriptor keeps its blocks.
func (us *uploads) openBasis(u *upload) error {
	candidates := []func() (*beneath.Inode, error){
		func() (*beneath.Inode, error) { return us.openNamed(u.spec.Basis) },
		func() (*beneath.Inode, error) { return us.partial.OpenInode(u.spec.GFID.String() + basisSuffix) },
	}
	for _, open := range candidates {
		f, err := open()
		if err != nil {
			continue
		}
		st, err := f.Stat()
		if err != nil || slave.KindOf(st.Mode) != slave.File || st.Size == 0 {
			f.Close()
			continue
		}
		u.basis, u.was = f, st
		return nil
	}
	return nil
}

func (us *uploads) openNamed(path string) (*beneath.Inode, error) {
	if path == "" {
		return nil, fs.ErrNotExist
	}
	dir, name := beneath.Split(path)
	d, err := us.openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.OpenInode(name)
}

// using finds an open upload for a call; done must follow. As long as done has not been called the
// upload stays open.
func (us *uploads) using(g xtime.GFID, v slave.Version) (u *upload, done func(), err error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u = us.open[g]
	if u == nil || u.spec.Version != v {
		return nil, nil, slave.ErrNeedContent
	}
	us.used(u).users++
	return u, func() {
		us.mu.Lock()
		defer us.mu.Unlock()
		u.users--
	}, nil
}

// Sums computes the signature of an upload's basis. emit is called from this goroutine, with sums
// in the order of the blocks. It may block, and its error ends the call.
func (us *uploads) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	if err := us.enter(); err != nil {
		return slave.Result{}, err
	}
	defer us.leave()
	u, done, err := us.using(q.GFID, q.Version)
	if err == nil {
		defer done()
		err = us.sign(ctx, u, q, emit)
	}
	if err := us.live(ctx); err != nil {
		return slave.Result{}, err
	}
	return slave.Result{Err: trouble("sign", us.uploadPath(q.GFID), err)}, nil
}

// sign reads the basis once. Two at a time, as with hashing, leave the processors to others.
func (us *uploads) sign(ctx context.Context, u *upload, q slave.SumsQuery, emit func(int64, []byte) error) (err error) {
	which := delta.Which(q.Which)
	if u.basis == nil || which.Check() != nil {
		return slave.ErrInvalid
	}
	select {
	case us.hashing <- struct{}{}:
		defer func() { <-us.hashing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-us.closing:
		return ErrClosed
	}
	var text []byte
	s := delta.Signer{Key: q.Key, Shape: delta.NewShape(u.was.Size), Basis: readerAt{u.basis}, Which: which,
		Emit: func(first int64, blocks []delta.Block) error {
			text = which.AppendBlocks(text[:0], blocks)
			return errors.Join(us.live(ctx), emit(first, text))
		}}
	if s.Extent, err = u.extents.of(u.basis, &u.was); err != nil {
		return err
	}
	return s.Sign(ctx)
}

// readerAt reads an inode as io.ReaderAt wants it.
type readerAt struct{ *beneath.Inode }

// ReadAt says io.EOF where the file ends.
func (r readerAt) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.Inode.ReadAt(b, off)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// Write puts a segment in its place. Segments may come in any order, over several streams, and
// twice. The result is that of this segment alone.
func (us *uploads) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	if err := us.enter(); err != nil {
		return slave.Result{}, err
	}
	defer us.leave()
	if err := us.live(ctx); err != nil {
		return slave.Result{}, err
	}
	u, done, err := us.using(s.GFID, s.Version)
	evicted := false
	if err == nil {
		defer done()
		evicted, err = us.inRoom(func() error { return us.writeSegment(u, s) })
	}
	return slave.Result{Err: trouble("write", us.uploadPath(s.GFID), err), Evicted: evicted}, nil
}

// uploadPath names an upload in messages.
func (us *uploads) uploadPath(g xtime.GFID) string {
	return slave.Reserved + "/" + apply.Partial + "/" + g.String()
}

// writeSegment writes the parts, clears what lies between them where something else may be there,
// and notes the range. The range is noted after its data is written, so the journal never promises
// what is not there. Nothing is synced here: the operation that publishes the content sees to that.
func (us *uploads) writeSegment(u *upload, s *slave.Segment) error {
	if !s.Valid(u.spec.Size, u.was.Size) { // which is 0 where there is no basis
		return slave.ErrInvalid
	}
	if err := u.hold(s); err != nil {
		return err
	}
	defer u.measure()
	at := s.Off
	for i := range s.Parts {
		p := &s.Parts[i]
		if err := us.clearGap(u, at, p.Off); err != nil {
			return err
		}
		if err := us.writePart(u, p); err != nil {
			return err
		}
		at = p.Off + p.Size()
	}
	if err := us.clearGap(u, at, s.End); err != nil {
		return err
	}
	return us.noteRange(u, s.Range)
}

// clearGap makes a hole of what an earlier try may have written there. A file that began empty has
// holes already.
func (us *uploads) clearGap(u *upload, from, to int64) error {
	if !u.resumed || from >= to {
		return nil
	}
	if err := us.sys.before("clear", u.file.Name()); err != nil {
		return err
	}
	return u.file.Clear(from, to-from)
}

// writePart writes one part: bytes that came, or a piece of the basis, which is shared where the
// file system can.
func (us *uploads) writePart(u *upload, p *slave.Part) error {
	if p.Data != nil {
		return us.sys.write(u.file, p.Data, p.Off)
	}
	if err := us.sys.before("copy", u.file.Name()); err != nil {
		return err
	}
	if err := u.basisAsItWas(); err != nil {
		return err
	}
	return u.file.CopyFrom(u.basis, p.From, p.Off, p.Len)
}

// basisAsItWas refuses a basis that somebody has written to since its signature: its blocks are not what they were.
func (u *upload) basisAsItWas() error {
	now, err := u.basis.Stat()
	if err != nil {
		return err
	}
	if now.Size != u.was.Size || now.Mtime != u.was.Mtime {
		return fmt.Errorf("%w: the file that it is built from was changed on the slave", slave.ErrConflict)
	}
	return nil
}

// noteRange puts a range that is written on record, and begins to write large contents to the
// device. Beyond MaxRanges that do not touch it refuses: a journal of that size would be no use.
func (us *uploads) noteRange(u *upload, r slave.Range) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	apart := func(h slave.Range) bool { return h.End < r.Off || h.Off > r.End }
	if len(u.have) >= slave.MaxRanges && !slices.ContainsFunc(u.have, func(h slave.Range) bool { return !apart(h) }) {
		return fmt.Errorf("%w: more than %d ranges that do not touch", slave.ErrInvalid, slave.MaxRanges)
	}
	if err := us.sys.write(u.journal, appendRange(nil, r), u.noted); err != nil {
		return err
	}
	u.noted += rangeSize
	u.have = slave.AddRange(u.have, r)
	if u.flushed += r.End - r.Off; u.flushed >= flushStep {
		u.file.StartFlush(0, 0) // to the end: what was begun before costs nothing
		u.flushed = 0
	}
	return nil
}
