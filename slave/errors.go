package slave

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// What callers decide on. They survive the wire, wrapped in a *PathError.
var (
	// ErrConflict: the entry is not what the operation expected. The next crawl sees what is there.
	ErrConflict = errors.New("the entry is not what was expected there")
	// ErrNeedContent: the inode that OpLink or OpUnpark names is not on the slave; ship it.
	ErrNeedContent = errors.New("the slave does not have this inode")
	// ErrMoved: another directory than Op.In is there. The next crawl finds where it is.
	ErrMoved = errors.New("its directory is not there any more")
	// ErrHeldBack: a stamp is refused because one below it failed.
	ErrHeldBack = errors.New("held back by a failure below it")
	// ErrSource: the content could not be read on the master; the cause is beside it.
	ErrSource = errors.New("the source could not be read")
	// ErrXattrRoom: the entry's extended attributes do not fit on the slave. The errno beside it says nothing of the slave as a
	// whole, which has room.
	ErrXattrRoom = errors.New("the slave's file system has no room for its extended attributes")
	// ErrInvalid: the operation or its path is malformed; nothing was done.
	ErrInvalid = errors.New("malformed request")
)

// What ends a session at its beginning. They survive the wire too.
var (
	// ErrVersion: the two ends speak different protocols.
	ErrVersion = errors.New("another version of georep is at the other end")
	// ErrNoVolume: the slave's host knows no such volume, or its directory is not there.
	ErrNoVolume = errors.New("no such slave volume")
	// ErrNotEmpty: the slave holds files and belongs to nobody; the operator must say that it may be used.
	ErrNotEmpty = errors.New("the slave is not empty")
	// ErrForeign: the slave belongs to another master.
	ErrForeign = errors.New("the slave belongs to another master")
	// ErrBusy: another worker is using the slave.
	ErrBusy = errors.New("the slave is in use by another session")
	// ErrPolicy: the policy of the slave's host refuses what the master asks for.
	ErrPolicy = errors.New("the slave's host does not allow this")
	// ErrLimit: the slave holds as much as the policy of its host lets it. It is full then, with an errno beside this one.
	ErrLimit = errors.New("the slave holds all that the policy of its host allows")
	// ErrAbsent: what stands in the slave's place is not the slave that the session has filled, or nothing does: its disk is
	// not mounted, its directory was renamed, removed or replaced. It passes when the slave is back.
	ErrAbsent = errors.New("the slave is not there")
	// ErrPromoted: the slave was made the writable side, and takes nothing from a master any more.
	ErrPromoted = errors.New("the slave was promoted")
	// ErrUnfit: the slave's file system cannot carry records, or cannot be written.
	ErrUnfit = errors.New("the slave's file system cannot be used")
)

// PathError is trouble with one path. Err is, or wraps, a syscall.Errno or one of the sentinels above.
type PathError struct {
	Op   string // what was done: "rename", "setxattr user.x", ...
	Path string // relative to the slave's root
	Err  error
}

// Error names operation and path; the path is quoted, since a name may hold anything.
func (e *PathError) Error() string { return fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

// LimitError says which limit of the policy of the slave's host is reached. It is ErrLimit, and EDQUOT.
type LimitError struct{ Text string }

// Error is the text: what is reached, for the operator.
func (e *LimitError) Error() string { return e.Text }

// Unwrap gives what errors.Is finds.
func (e *LimitError) Unwrap() []error { return []error{ErrLimit, unix.EDQUOT} }

// Errno returns the errno in err, or 0.
func Errno(err error) syscall.Errno {
	var no syscall.Errno
	errors.As(err, &no)
	return no
}

// Full tells whether err says that the slave as a whole takes no more: no space, quota used up, or read-only. It is
// trouble of the session, not of the path it struck.
func Full(err error) bool {
	if errors.Is(err, ErrXattrRoom) {
		return false
	}
	switch Errno(err) {
	case unix.ENOSPC, unix.EDQUOT, unix.EROFS:
		return true
	}
	return false
}

// OutOfRoom tells whether the slave's file system, or a quota there, takes nothing more, so that deleting something could help. What
// the master's file system said is none of that.
func OutOfRoom(err error) bool {
	return err != nil && Full(err) && Errno(err) != unix.EROFS && !errors.Is(err, ErrSource)
}

// SourceError marks trouble as the master's: the slave is well, and the operation is worth another try.
func SourceError(err error) error {
	if errors.Is(err, ErrSource) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSource, err)
}
