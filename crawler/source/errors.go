package source

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// ErrNotMaster means that the master's root is not what was recorded as the volume: it was unmounted, replaced or
// emptied. Nothing is purged on such evidence (invariant 10).
var ErrNotMaster = errors.New("the master is not there")

// ErrMoved means that a path does not lead to the inode that was listed. Whatever moved it marked where it went.
var ErrMoved = errors.New("moved meanwhile")

// Gone tells that an entry is not where it was listed: its removal has marked the directory anew.
func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrMoved) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}
