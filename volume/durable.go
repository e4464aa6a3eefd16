package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// Nobody but the owner reads what is in the state directory: it names hosts, logins and keys.
	dirMode  = 0o700
	fileMode = 0o600
)

// writeDurable replaces path by data so that a reader, also one after a power cut, sees all of the old or all of the
// new. The caller holds the registry's lock, so there is one temporary file, and what a crash left of it is used again.
// It begins with a dot, which no name in the registry does.
func writeDurable(path string, data []byte) error { return writeBy(path, ".new", data) }

// WriteOwn replaces a file durably that has one writer of its own at a time, whatever lock that holds.
func WriteOwn(path string, data []byte) error { return writeBy(path, "."+filepath.Base(path), data) }

// The directory is synced after the rename, so the new name survives a power cut. An error leaves
// the old file.
func writeBy(path, temporary string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.OpenFile(filepath.Join(dir, temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // fails, as it should, once the file has its name
	err = fill(tmp, data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(dir)
}

// fill writes and syncs: the name must never come to stand for content that a power cut takes away.
func fill(f *os.File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// removeDurable removes a file that may be missing. A name that it removed does not come back with
// a power cut. A file that is gone already is a success.
func removeDurable(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

// makeDir makes a directory and its parents, each durable within its own parent. Directories that
// are there are left as they are, with their mode.
func makeDir(dir string) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("create directory %s: a file is in its place", dir)
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create directory %s: %w", dir, err)
	}
	return syncDir(parent)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a parent that may be passed but not read, as / may be for others than its owner
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
