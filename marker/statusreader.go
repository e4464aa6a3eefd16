package marker

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// StatusReader reads the status of a volume's marker as often as one likes: it opens the file only when another has taken its
// place. It is safe for concurrent use.
type StatusReader struct {
	dir  string
	mu   sync.Mutex
	seen fileVersion
	last Status
}

// fileVersion tells one status file from the next. A file system may use an inode's number again, and a clock may stand still,
// but hardly both.
type fileVersion struct {
	ino          uint64
	mtime, ctime unix.StatxTimestamp
	size         uint64
}

// NewStatusReader reads the status of the marker whose files lie in dir.
func NewStatusReader(dir string) *StatusReader { return &StatusReader{dir: dir} }

// Read is ReadStatus.
func (r *StatusReader) Read() (Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := r.version()
	if err != nil {
		return Status{}, fmt.Errorf("read the marker's status: %w", err)
	}
	if now == r.seen {
		return r.last, nil
	}
	// Looked at before it is read: what replaces the file in between is read again at the next call.
	s, err := ReadStatus(r.dir)
	if err != nil {
		return s, err
	}
	r.seen, r.last = now, s
	return s, nil
}

func (r *StatusReader) version() (v fileVersion, err error) {
	path := filepath.Join(r.dir, statusFile)
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_MTIME|unix.STATX_CTIME|unix.STATX_SIZE, &st); err != nil {
		return v, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return fileVersion{ino: st.Ino, mtime: st.Mtime, ctime: st.Ctime, size: st.Size}, nil
}
