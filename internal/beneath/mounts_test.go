package beneath

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountsBelow(t *testing.T) {
	table := "20 1 0:19 / / rw - tmpfs none rw\n" +
		"21 20 0:20 / /top/a rw,relatime shared:1 - tmpfs none rw\n" +
		"22 20 0:20 / /top/white\\040space\\134\\012 rw - tmpfs none rw\n" +
		"23 21 0:20 / /top/a rw - tmpfs none rw\n" + // on the one on a
		"24 21 0:20 / /top/a/b rw - tmpfs none rw\n" + // within it
		"25 20 0:20 / /topmost rw - tmpfs none rw\n" +
		"26 20 0:20 / /top rw - tmpfs none rw\n" + // on the directory itself
		"27 20 0:20 /f /top/d/f rw - tmpfs none rw\n" +
		"28 20 0:20 /f /top/d/f rw - tmpfs none rw\n" +
		"damaged 20\n29 20 0:20 / /top/bad\\ rw - tmpfs none rw"
	want := []string{"a", "white space\\\n", "d/f", "bad\\"}
	if got := mountsBelow([]byte(table), 20, "/top/"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	want = []string{"top/a", "top/white space\\\n", "topmost", "top", "top/d/f", "top/bad\\"}
	if got := mountsBelow([]byte(table), 20, "/"); !slices.Equal(got, want) {
		t.Errorf("of the root of all %q, want %q", got, want)
	}
}

// TestMountTable mounts and unmounts: each is told once, and what is beneath can be seen all the time.
func TestMountTable(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	table, err := OpenMountTable()
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	key, err := root.Key("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "a"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(filepath.Join(dir, "a"), unix.MNT_DETACH) }()
	if err := table.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := table.Below(root); err != nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("mounted are %q, %v", got, err)
	}
	if !root.Covered("a") || root.Covered("c") || root.Covered("none") {
		t.Error("only a is covered")
	}
	bare, err := root.Bare()
	if err != nil {
		t.Fatal(err)
	}
	if k, err := bare.Key("a"); k != key || err != nil {
		t.Errorf("beneath the mount is %q, %v", k, err)
	}
	bare.Close()
	if err := unix.Unmount(filepath.Join(dir, "a"), 0); err != nil {
		t.Fatal(err)
	}
	if !table.Changed() {
		t.Error("the end of a mount was not told")
	}
	if got, err := table.Below(root); err != nil || len(got) > 0 {
		t.Errorf("mounted are %q, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	other, err := OpenMountTable() // what others mount beside this test is no matter
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the wait: %v", err)
	}
}
