package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LockMode is how a lock is held. It guards against other processes that ask for it, and against
// nobody else.
type LockMode int

// Shared locks exclude only Exclusive ones.
const (
	Shared    LockMode = unix.LOCK_SH
	Exclusive LockMode = unix.LOCK_EX
)

// lockPoll is how often a wait for a lock looks again. flock(2) can wait by itself, but no context
// ends that. A wait is on average half of this too long.
const lockPoll = 20 * time.Millisecond

// Lock is an advisory lock (flock) on a file. It ends with Close or with the process. Safe for concurrent use. A lock
// is between descriptors, not processes: two of one process exclude each other too.
type Lock struct {
	// mu guards file.
	mu   sync.Mutex
	file *os.File // nil once closed
}

// TryLock locks the file, which it creates with mode 0600 where it is missing. It returns ErrLocked at once when
// another holder is in the way. The file is never removed, so that all processes lock the same inode.
func TryLock(path string, mode LockMode) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := flock(f, int(mode)|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{file: f}, nil
}

// WaitLock is TryLock that waits until the lock is free or ctx ends; then the error wraps both ctx's and ErrLocked.
func WaitLock(ctx context.Context, path string, mode LockMode) (*Lock, error) {
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		l, err := TryLock(path, mode)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// Locked tells whether someone holds the lock in a way that excludes mode. A missing file is not
// locked, and is not created. To find out, the lock is taken for an instant: whoever takes such a
// lock for good should try more than once. The answer may be out of date when it is given.
func Locked(path string, mode LockMode) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("test lock: %w", err)
	}
	defer f.Close()
	err = flock(f, int(mode)|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("test lock %s: %w", path, err)
	}
	return false, flock(f, unix.LOCK_UN)
}

// Close gives the lock up. It is idempotent.
func (l *Lock) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	// Closing alone would leave the lock with a child that was forked a moment ago and has not reached its exec.
	err := errors.Join(flock(l.file, unix.LOCK_UN), l.file.Close())
	l.file = nil
	return err
}

// flock is flock(2), which a signal may interrupt.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
