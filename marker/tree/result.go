package tree

import (
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// Result is how a mark went, and so what to do about it.
type Result int

const (
	Done    Result = iota // it carries the mark
	Gone                  // the entry vanished: whatever removed it marks the directory
	Refused               // it will not succeed however often it is tried
	Bumped                // the same of a directory, whose ctime tells in place of its xtime
	Again                 // it has to be tried again
)

// Judge decides about a failed mark, or about an entry that could not be reached for one. byCtime tells whether a crawl
// sees a change of the entry though it is not marked: only then may there be an end of trying.
func Judge(err error, byCtime func() bool) Result {
	switch {
	case err == nil:
		return Done
	case IsAny(err, unix.ENOENT, unix.ESTALE, unix.ENOTDIR):
		return Gone
	case IsAny(err, unix.EPERM, unix.EACCES, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE, unix.EINVAL):
		// Any of these may be over soon: a disk is full, or read-only for a while, or rights change. Nor does the errno tell
		// a full disk from an inode whose other xattrs leave no room: for ext4 both are ENOSPC.
		if byCtime() {
			return Refused
		}
		return Again
	case IsAny(err, unix.EOPNOTSUPP, unix.ELOOP, unix.EXDEV):
		return Refused
	}
	return Again
}

// Unseen is for what no ctime tells: what lies below a directory that could not be reached.
func Unseen() bool { return false }

// readOnlyPart tells whether the entry lies in a read-only part of a file system that is not read-only, such as a
// snapshot: it takes no mark, and needs none.
func readOnlyPart(root, d *beneath.Dir, name string) bool {
	return errors.Is(d.Access(name, unix.W_OK), unix.EROFS) && !errors.Is(root.Access("", unix.W_OK), unix.EROFS)
}

// Unreadable tells whether this user may not read the entry: then no crawl can either.
func Unreadable(d *beneath.Dir, name string) bool {
	return IsAny(d.Access("", unix.X_OK), unix.EACCES, unix.EPERM) || IsAny(d.Access(name, unix.R_OK), unix.EACCES, unix.EPERM)
}

// IsAny tells whether err is one of errnos.
func IsAny(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Bare is the errno alone: whoever reads it knows of what.
func Bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
