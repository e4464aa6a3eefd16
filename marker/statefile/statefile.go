// Package statefile reads and replaces the small files in which the marker keeps what it has to know again after its end.
package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// FS reads and replaces the marker's files. It may be used from any goroutine.
type FS struct {
	// Hook, where a test set it, is asked before each system call: with the operation and the path.
	Hook func(op, path string) error
}

// do makes one system call, or fails as the hook says.
func (s FS) do(op, path string, call func() error) error {
	if s.Hook != nil {
		if err := s.Hook(op, path); err != nil {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	return call()
}

// Read is all of a file.
func (s FS) Read(path string) (content []byte, err error) {
	err = s.do("read", path, func() error { content, err = os.ReadFile(path); return err })
	return content, err
}

// Replace gives path new content, atomically; with durable it is on the device when it returns.
func (s FS) Replace(path string, content []byte, durable bool) error {
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

// write makes the new file beside the old one. An error leaves it there, and the next Replace
// overwrites it.
func (s FS) write(path string, content []byte, durable bool) error {
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

// syncDir makes the rename itself durable, which syncing the file does not.
func (s FS) syncDir(path string) error {
	dir, err := s.open(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(s.do("fsync", path, dir.Sync), dir.Close())
}

// open asks the hook first. The files are for everybody to read, since `status` may be run by
// another user.
func (s FS) open(path string, flags int) (f *os.File, err error) {
	err = s.do("open", path, func() error { f, err = os.OpenFile(path, flags, 0o644); return err })
	return f, err
}
