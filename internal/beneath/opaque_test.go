package beneath_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

func openedRoot(t *testing.T, path string) *beneath.Dir {
	t.Helper()
	d, err := beneath.OpenRoot(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestGFIDOnFUSE: the daemon that serves a file system counts its handles up from 1 again whenever it starts, so that one file had the
// handle of another before. Neither may be taken for the other.
func TestGFIDOnFUSE(t *testing.T) {
	src, at := t.TempDir(), filepath.Join(t.TempDir(), "mnt")
	names := []string{"a", "b", "c"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(src, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func(names ...string) (all map[string]xtime.GFID) {
		t.Helper()
		fstest.Bindfs(t, src, at)
		defer fstest.Unserve(t, at)
		root := openedRoot(t, at)
		defer root.Close()
		if _, err := root.Handle(""); !beneath.Opaque(root) || !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("opaque: %v, with handles that last: %v", beneath.Opaque(root), err)
		}
		if err := beneath.Identifies(root); err != nil {
			t.Error(err)
		}
		all = map[string]xtime.GFID{}
		for _, name := range append(names, "") {
			g, err := root.GFID(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = g
		}
		return all
	}
	before, after := look("a", "b", "c"), look("c", "b", "a")
	for _, name := range append(names, "") {
		if before[name] != after[name] || before[name].IsZero() {
			t.Errorf("%q was %v, and is %v once it is mounted again", name, before[name], after[name])
		}
	}
	if beneath.Opaque(openedRoot(t, src)) {
		t.Error("the file system behind it is no daemon's")
	}
}

// TestMadeUpInodes: sshfs shows the numbers that the kernel's cache goes by.
func TestMadeUpInodes(t *testing.T) {
	src := t.TempDir()
	at := fstest.Sshfs(t, src)
	root := openedRoot(t, at)
	if err := beneath.Identifies(root); err != nil {
		t.Errorf("an empty root tells nothing: %v", err)
	}
	if err := os.Mkdir(filepath.Join(at, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := root.GFID("d"); !errors.Is(err, beneath.ErrMadeUp) {
		t.Errorf("an entry: %v", err)
	}
	if err := beneath.Identifies(root); !errors.Is(err, beneath.ErrMadeUp) {
		t.Errorf("its root: %v", err)
	}
	if err := beneath.Identifies(openedRoot(t, filepath.Join(at, "d"))); !errors.Is(err, beneath.ErrMadeUp) {
		t.Errorf("a directory below its root: %v", err)
	}
	// A slave is identified all the same, as long as it is mounted.
	if _, err := root.Identity(); err != nil {
		t.Error(err)
	}
}
