package sftp

import (
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
	// verdictTime is how long what was learnt of the room counts: a full account refuses thousands of files, and is asked
	// about that once.
	verdictTime = 2 * time.Second
	likely      = "the account's quota is probably used up, or the disk full"
)

// verdict is what was learnt last of the room there.
type verdict struct {
	mu    sync.Mutex // held while it is learnt, so that nobody makes room meanwhile by giving up what was written
	at    time.Time
	found *noRoom // nil where there is room, or nothing can be told
}

// fresh tells whether it still counts. v.mu is held.
func (v *verdict) fresh() bool { return !v.at.IsZero() && time.Since(v.at) < verdictTime }

// refused gives the refusal that a new content would meet, nil where none is known: it is not sent in vain.
func (v *verdict) refused() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.found == nil || !v.fresh() {
		return nil
	}
	return v.found
}

// reason makes more of an error than the protocol tells: servers say "failure" when the disk is full. What of a file was
// written is to be there still, for the room that its removal makes would be found free.
func (t *Tree) reason(err error) error {
	var se *wire.StatusError
	var known *noRoom
	if !errors.As(err, &se) || !se.Vague() || errors.As(err, &known) {
		return err
	}
	v := &t.verdict
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.fresh() {
		v.found, v.at = t.noRoom(se), time.Now()
	}
	if v.found == nil {
		return err
	}
	return v.found
}

// noRoom tells why nothing can be written, nil where that is not known. Of a quota statvfs says nothing, so that is tried.
func (t *Tree) noRoom(refused *wire.StatusError) *noRoom {
	c := t.first()
	if c.CanSpace() {
		s, err := c.Statvfs(t.abs(""))
		switch {
		case err != nil:
		case s.ReadOnly:
			return &noRoom{unix.EROFS, "", refused}
		case s.Free < leastRoom || s.Inodes == 0:
			return &noRoom{unix.ENOSPC, "", refused}
		}
	}
	path := t.stagingName()
	err := t.create(path, make([]byte, trialSize))
	_ = c.Remove(t.abs(path)) // else it is cleared when the next session begins
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
