package disk

import (
	"errors"
	"io/fs"
)

// pendingFiles keeps the marks of dirty inodes in pending/. A mark is a symbolic link, because the
// target of one is there as soon as its name is. It implements dirty.Files. Everything that must be
// durable is made so by Sync, which the journal calls.
type pendingFiles struct{ *store }

// Make makes a link.
func (p pendingFiles) Make(name, text string) error {
	return p.sys.symlink(text, place{p.pending, name})
}

// Replace makes a link in staging, and renames it. A crash between the two steps leaves the old
// mark, and a link in staging that the next session clears.
func (p pendingFiles) Replace(name, text string) error {
	temp := place{p.staging, p.stagingName() + bookSuffix}
	if err := p.sys.symlink(text, temp); err != nil {
		return err
	}
	if err := p.sys.rename(temp, place{p.pending, name}, 0); err != nil {
		return errors.Join(err, p.sys.unlink(temp))
	}
	return nil
}

// Remove removes a link.
func (p pendingFiles) Remove(name string) error {
	return ignoreAbsent(p.sys.unlink(place{p.pending, name}))
}

// Read reads a link; an earlier version's is a file.
func (p pendingFiles) Read(name string) (text string, there bool) {
	text, err := p.pending.Readlink(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return text, err == nil
	}
	if _, err := p.pending.Stat(name); err != nil {
		return "", false
	}
	b, _ := readSmall(p.pending, name) // what it cannot read says that there is one
	return string(b), true
}

// Sync syncs pending/.
func (p pendingFiles) Sync() error { return p.sys.fsyncDir(p.pending, "pending") }

// anyDirty tells whether Groups has anything to look at.
func (s *store) anyDirty() (bool, error) {
	found := errors.New("found")
	err := eachName(s.pending, func(string) error { return found })
	if err == found {
		return true, nil
	}
	return false, err
}
