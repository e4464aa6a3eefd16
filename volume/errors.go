package volume

import (
	"errors"
	"fmt"
	"io/fs"
)

// What callers decide on. The errors that wrap these are one line for the operator: what, why and what to do.
var (
	// ErrNoVolume: no volume has this name.
	ErrNoVolume = errors.New("no such volume")
	// ErrVolumeExists: the name or the directory is taken.
	ErrVolumeExists = errors.New("the volume exists already")
	// ErrVolumeBusy: a session or a marker process uses the volume.
	ErrVolumeBusy = errors.New("the volume is in use")
	// ErrNoSession: this master is not replicated to this slave.
	ErrNoSession = errors.New("no such session")
	// ErrSessionExists: this master is replicated to this slave already.
	ErrSessionExists = errors.New("the session exists already")
	// ErrSessionBusy: the session's monitor runs.
	ErrSessionBusy = errors.New("the session is running")
	// ErrOverlap: two trees that must be apart lie within each other.
	ErrOverlap = errors.New("the directories overlap")
	// ErrSyntax: an argument (a name, a path, a slave, a configuration value) is malformed; nothing was done.
	ErrSyntax = errors.New("malformed argument")
	// ErrLocked: another process holds the lock.
	ErrLocked = errors.New("locked by another process")
)

// kindError carries a sentinel without showing its text, where the message says the same in better words.
type kindError struct {
	kind error
	msg  string
}

// Error is the message alone.
func (e *kindError) Error() string { return e.msg }

// Unwrap gives the kind, for errors.Is.
func (e *kindError) Unwrap() error { return e.kind }

// kindf builds an error that errors.Is recognises as kind and that reads as the message alone.
func kindf(kind error, format string, args ...any) error {
	return &kindError{kind: kind, msg: fmt.Sprintf(format, args...)}
}

// stateError explains trouble with the state directory; where access is the reason it says how to choose another one.
func (s *Store) stateError(op string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w (run as root, or choose a state directory of your own with --state-dir or "+
			"GEOREP_STATE_DIR)", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
