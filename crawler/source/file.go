package source

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/slave"
)

// File is a file of the master that is open for reads at any place. It is the inode that was listed, whatever has its name by now. It is
// for one goroutine at a time.
type File interface {
	// Size is how long the file was when it was opened, in bytes. Sparse tells that it had holes then.
	Size() int64
	Sparse() bool
	// Version tells the content that was opened from every other content that the inode has had or will have.
	Version() slave.Version
	// ReadAt fills b from off on, unless the file ends there. It tells how much it read; the end of the file is no error.
	ReadAt(b []byte, off int64) (int, error)
	// Data finds the next run of data at or behind off, up to limit. Without more there is an empty one at limit.
	Data(off, limit int64) (start, end int64, err error)
	// Changed tells whether content or metadata may have changed since the file was listed.
	Changed() (bool, error)
	// Digest digests the content. It is slave.ErrConflict if the content may have changed since the file was listed. live is asked
	// after each piece, and its error ends the digest.
	Digest(live func() error) slave.HashResult
	Close() error
}

// OpenFile implements Source.
func (m *Local) OpenFile(d *beneath.Dir, listed *plan.Entry) (File, error) {
	f, err := d.OpenQuietly(listed.Name)
	if err != nil {
		return nil, err
	}
	// Before anything is read: what has taken the file's place may be a device or a FIFO, whose content has no end, or is not for us.
	st, err := look(f, &listed.Stat)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &localFile{file: f, listed: listed.Stat, opened: st}, nil
}

// Version implements Source.
func (m *Local) Version(listed *plan.Entry) slave.Version { return versionOf(&listed.Stat) }

// versionOf goes by the ctime: whatever changes the content changes that.
func versionOf(st *beneath.Stat) slave.Version {
	b := binary.BigEndian.AppendUint64(nil, uint64(st.Size))
	for _, t := range []beneath.Time{st.Mtime, st.Ctime} {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(t.Sec)), t.Nsec)
	}
	sum := sha256.Sum256(b)
	return slave.Version(sum[:16])
}

// localFile is a File on a file system of this host.
type localFile struct {
	file           *beneath.Inode
	listed, opened beneath.Stat
}

func (f *localFile) Size() int64            { return f.opened.Size }
func (f *localFile) Sparse() bool           { return int64(f.opened.Blocks)*512 < f.opened.Size }
func (f *localFile) Version() slave.Version { return versionOf(&f.opened) }
func (f *localFile) Close() error           { return f.file.Close() }

func (f *localFile) ReadAt(b []byte, off int64) (int, error) { return f.file.ReadAt(b, off) }

func (f *localFile) Data(off, limit int64) (start, end int64, err error) {
	if !f.Sparse() {
		return off, limit, nil
	}
	start, end, err = f.file.Extent(off)
	if errors.Is(err, unix.ENXIO) || err == nil && start >= limit {
		return limit, limit, nil // nothing more, or cut short meanwhile
	}
	return start, min(end, limit), err
}

func (f *localFile) Changed() (bool, error) {
	st, err := f.file.Stat()
	return err == nil && differs(&st, &f.listed), err
}

// Digest implements File. The ctime may have moved: a mark changes that, and a further name. What is written after the file was read here
// gets a newer xtime than that.
func (f *localFile) Digest(live func() error) (res slave.HashResult) {
	var err error
	if res.Size, res.Sum, err = f.file.Digest(&f.listed, live); err != nil {
		return slave.HashResult{Err: err}
	}
	st, err := f.file.Stat()
	if err == nil && (st.Size != f.listed.Size || res.Size != st.Size || st.Mtime != f.listed.Mtime) {
		err = slave.ErrConflict
	}
	if err != nil {
		return slave.HashResult{Err: err}
	}
	return res
}

// look describes a file that is open, which must be the inode that was listed, and no device or FIFO that took its place.
func look(f *beneath.Inode, listed *beneath.Stat) (beneath.Stat, error) {
	st, err := f.Stat()
	if err == nil && (!SameFile(&st, listed) || slave.KindOf(st.Mode) != slave.File) {
		err = ErrMoved
	}
	return st, err
}

// differs tells whether a file is no longer what was listed: a ctime that moved means that content or metadata did.
func differs(st, listed *beneath.Stat) bool {
	return st.Ctime != listed.Ctime || st.Size != listed.Size || st.Mtime != listed.Mtime
}
