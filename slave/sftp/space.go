package sftp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/sftp/wire"
)

// noRoom is a refusal of the server with the reason that it did not give.
type noRoom struct {
	no   syscall.Errno // of what was found; slave.Full holds
	what string        // in words; "" where the errno says it
	se   *wire.StatusError
}

// Error is the same for every request that was refused: it is said of the slave as a whole.
func (e *noRoom) Error() string {
	what := e.what
	if what == "" {
		what = e.no.Error()
	}
	return fmt.Sprintf("%s (the server says no more than %q)", what, e.se.Msg)
}

// Unwrap gives the errno first: it is what slave.Errno finds.
func (e *noRoom) Unwrap() []error { return []error{e.no, e.se} }

const (
	// leastRoom: a server that reports 0 exactly when a write fails is rare.
	leastRoom = 1 << 20
	// trialSize is what is written to learn whether anything can be: more than what fits in an inode.
	trialSize = 64 << 10
	// checkTime is how long what was learnt of the room counts: a full account refuses thousands of files, and is asked
	// about that once.
	checkTime = 2 * time.Second
	likely    = "the account's quota is probably used up, or the disk full"
)

// spaceCheck is what was learnt last of the room there.
type spaceCheck struct {
	mu    sync.Mutex // held while it is learnt, so that nobody makes room meanwhile by giving up what was written
	at    time.Time
	found *noRoom // nil where there is room, or nothing can be told
}

// fresh tells whether what was found still counts. mu is held.
func (v *spaceCheck) fresh() bool { return !v.at.IsZero() && time.Since(v.at) < checkTime }

// refused gives the refusal that a new content would meet, nil where none is known: it is not sent
// in vain. It makes no request.
func (v *spaceCheck) refused() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.found == nil || !v.fresh() {
		return nil
	}
	return v.found
}

// space tells why the server refuses to write, where that is for want of room: most servers say
// "failure" and no more. All parts ask the one space, so that a full account is looked into once.
type space struct {
	*session
	check spaceCheck
}

// reason makes more of an error than the protocol tells: servers say "failure" when the disk is full. What of a file was
// written is to be there still, for the room that its removal makes would be found free.
func (sp *space) reason(err error) error {
	var se *wire.StatusError
	var known *noRoom
	if !errors.As(err, &se) || !se.Vague() || errors.As(err, &known) {
		return err
	}
	v := &sp.check
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.fresh() {
		v.found, v.at = sp.noRoom(se), time.Now()
	}
	if v.found == nil {
		return err
	}
	return v.found
}

// noRoom tells why nothing can be written, nil where that is not known. Of a quota statvfs says nothing, so that is tried.
func (sp *space) noRoom(refused *wire.StatusError) *noRoom {
	c := sp.first()
	if c.CanSpace() {
		s, err := c.Statvfs(sp.abs(""))
		switch {
		case err != nil:
		case s.ReadOnly:
			return &noRoom{unix.EROFS, "", refused}
		case s.Free < leastRoom || s.Inodes == 0:
			return &noRoom{unix.ENOSPC, "", refused}
		}
	}
	path := sp.stagingName()
	err := sp.create(path, make([]byte, trialSize))
	_ = c.Remove(sp.abs(path)) // else it is cleared when the next session begins
	var se *wire.StatusError
	switch {
	case !errors.As(err, &se):
	case se.Vague():
		return &noRoom{unix.EDQUOT, likely, refused}
	case slave.Full(se):
		return &noRoom{se.Errno(), "", refused}
	}
	return nil
}

// unfit says that the slave cannot be used, and why, and what the operator can do. Errors that say
// so already, or that are of the connection, stay as they are.
func (sp *space) unfit(err error) error {
	for _, clear := range []error{slave.ErrBusy, slave.ErrUnfit, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrPromoted, slave.ErrAbsent,
		context.Canceled} {
		if errors.Is(err, clear) {
			return err
		}
	}
	for _, c := range sp.all() {
		if c.Err() != nil {
			return err // of the connection, which says nothing of the slave
		}
	}
	return fmt.Errorf("slave %s: %w: %w%s", sp.name(), slave.ErrUnfit, sp.reason(err), sp.hint(err))
}

// hint tells what the operator can do about an error.
func (sp *space) hint(err error) string {
	switch slave.Errno(sp.reason(err)) {
	case unix.EACCES:
		return "; this account must be allowed to write there"
	case unix.EROFS:
		return "; it is read-only"
	case unix.ENOSPC, unix.EDQUOT:
		return "; make room there"
	}
	return ""
}
