// Package moves has every kind of move that a replica must follow without being sent a content again: what the tests of the
// crawler do to a tree, and those of the whole, live, while nothing runs and across a restart. It checks nothing.
package moves

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Case is one kind of move, to be made in a tree that Fill has made.
type Case struct {
	Name string
	// Lists tells that a directory may have to be listed for it: one that is new, or one that moves and something leaves it.
	Lists bool
	Do    func(t *Tree)
}

// Tree is where moves are made. The first error stays, and nothing is done after it. It is not safe for concurrent use.
type Tree struct {
	root    string
	err     error
	touched []spot
}

// spot is a name in a directory, wherever that moves.
type spot struct {
	dir  uint64 // inode number
	name string
}

// In gives the tree at root.
func In(root string) *Tree { return &Tree{root: root} }

// Fill makes the directories a, b, c and z/deep with files of some 10,000 bytes, a directory and a symbolic link in each,
// and the directory e, which is empty.
func (t *Tree) Fill() error {
	for i, dir := range []string{"a", "b", "c", "z/deep"} {
		t.try("make directory", t.at(dir), func(p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o755) })
		for n := range 3 {
			content := make([]byte, 10_000+n)
			for at := range content {
				content[at] = byte('a' + i + at%(3+n))
			}
			t.try("write", t.at(dir, fmt.Sprint("f", n)), func(p string) error { return os.WriteFile(p, content, 0o644) })
		}
		t.try("write", t.at(dir, "sub/x"), func(p string) error { return os.WriteFile(p, []byte(dir), 0o644) })
		t.try("link", t.at(dir, "link"), func(p string) error { return os.Symlink("target of "+dir, p) })
	}
	t.try("make directory", t.at("e"), func(p string) error { return os.Mkdir(p, 0o755) })
	return t.err
}

// Do makes a case's moves.
func (t *Tree) Do(c Case) error {
	c.Do(t)
	if t.err != nil {
		return fmt.Errorf("%s: %w", c.Name, t.err)
	}
	return nil
}

func (t *Tree) at(parts ...string) string {
	return filepath.Join(append([]string{t.root}, parts...)...)
}

func (t *Tree) try(what, path string, do func(string) error) {
	if t.err != nil {
		return
	}
	if err := do(path); err != nil {
		t.err = fmt.Errorf("%s %s: %w", what, path, err)
	}
}

// touch notes that something changed under a name.
func (t *Tree) touch(path string) {
	dir, name := filepath.Split(path)
	t.try("look at", t.at(dir), func(p string) error {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return err
		}
		t.touched = append(t.touched, spot{st.Ino, name})
		return nil
	})
}

// Touched are the paths, as they are now, under which something changed in directories that are still there.
func (t *Tree) Touched() (paths []string, err error) {
	err = filepath.WalkDir(t.root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(t.root, p)
		for _, s := range t.touched {
			if s.dir == info.Sys().(*syscall.Stat_t).Ino {
				paths = append(paths, filepath.Join(rel, s.name))
			}
		}
		return err
	})
	return paths, err
}

func (t *Tree) rename2(from, to string, flags uint) {
	t.touch(from)
	t.touch(to)
	t.try("rename "+from+" to", t.at(to), func(p string) error {
		return unix.Renameat2(unix.AT_FDCWD, t.at(from), unix.AT_FDCWD, p, flags)
	})
}

// Rename moves.
func (t *Tree) Rename(from, to string) { t.rename2(from, to, 0) }

// Exchange has two entries change places.
func (t *Tree) Exchange(a, b string) { t.rename2(a, b, unix.RENAME_EXCHANGE) }

// Whiteout moves, and leaves a whiteout in its place, as overlayfs does in its upper layer.
func (t *Tree) Whiteout(from, to string) { t.rename2(from, to, unix.RENAME_WHITEOUT) }

// Mkdir makes directories.
func (t *Tree) Mkdir(paths ...string) {
	for _, path := range paths {
		t.touch(path)
		t.try("make directory", t.at(path), func(p string) error { return os.Mkdir(p, 0o755) })
	}
}

// Remove removes with all that is below.
func (t *Tree) Remove(path string) {
	t.touch(path)
	t.try("remove", t.at(path), os.RemoveAll)
}

// Chmod changes the mode.
func (t *Tree) Chmod(path string) {
	t.touch(path)
	t.try("chmod", t.at(path), func(p string) error { return os.Chmod(p, 0o600) })
}
