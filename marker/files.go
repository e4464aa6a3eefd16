package marker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a runtime directory.
const (
	lockFile      = "marker.lock"
	clockFile     = "marker.clock"
	heartbeatFile = "marker.heartbeat"
	statusFile    = "marker.status"
	ownFile       = "marker.own"
	coverageFile  = "marker.coverage"
	mountsFile    = "marker.mounts"
	timesFile     = "marker.times"
	bumpsFile     = "marker.bumps"
	usersFile     = "users.lock"
	// lookFile is made by whoever waits for a mark: a look at what is held open is then due at once.
	lookFile = "marker.look"
)

// lockTries and lockPause let a lock outlast the moment for which Alive holds it.
const (
	lockTries = 10
	lockPause = 20 * time.Millisecond
)

// lock takes the flock that says "this volume's marker lives". Closing the file gives it back.
func lock(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the volume's runtime directory: %w", err)
	}
	for try := 1; ; try++ {
		f, err := tryLock(filepath.Join(dir, lockFile), unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		if try == lockTries {
			return nil, fmt.Errorf("lock %s: %w", filepath.Join(dir, lockFile), ErrRunning)
		}
		if err := pause(ctx, lockPause); err != nil {
			return nil, err
		}
	}
}

// tryLock opens path, making it where needed, and takes a flock on it without waiting.
func tryLock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// files reads and replaces the marker's files. hook, where a test set it, is asked before each system call: with the
// operation and the path.
type files struct {
	hook func(op, path string) error
}

// do makes one system call, or fails as the hook says.
func (s files) do(op, path string, call func() error) error {
	if s.hook != nil {
		if err := s.hook(op, path); err != nil {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	return call()
}

// read is all of a file.
func (s files) read(path string) (content []byte, err error) {
	err = s.do("read", path, func() error { content, err = os.ReadFile(path); return err })
	return content, err
}

// replace gives path new content, atomically; with durable it is on the device when it returns.
func (s files) replace(path string, content []byte, durable bool) error {
	next := path + ".new"
	if err := s.write(next, content, durable); err != nil {
		return err
	}
	if err := s.do("rename", next, func() error { return os.Rename(next, path) }); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	return s.syncDir(filepath.Dir(path))
}

func (s files) write(path string, content []byte, durable bool) error {
	f, err := s.open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	err = s.do("write", path, func() error { _, err := f.Write(content); return err })
	if err == nil && durable {
		err = s.do("fsync", path, f.Sync)
	}
	return errors.Join(err, f.Close())
}

func (s files) syncDir(path string) error {
	dir, err := s.open(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(s.do("fsync", path, dir.Sync), dir.Close())
}

func (s files) open(path string, flags int) (f *os.File, err error) {
	err = s.do("open", path, func() error { f, err = os.OpenFile(path, flags, 0o644); return err })
	return f, err
}

// pause waits for d, or until ctx ends, which is then the error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
