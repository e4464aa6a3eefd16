package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootError: each errno stays what it is, and gets a remedy of its own.
func TestRootError(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]unix.Errno{}
	for _, errno := range []unix.Errno{unix.EACCES, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE, unix.ENOTCONN, unix.EIO,
		unix.EHOSTDOWN} {
		err := RootError(dir, &os.PathError{Op: "open directory", Path: dir, Err: errno})
		cause, remedy, ok := strings.Cut(err.Error(), errno.Error()+": ")
		if !ok || remedy == "" || !strings.Contains(cause, dir) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
		if other, have := seen[remedy]; have {
			t.Errorf("%v and %v have one remedy: %s", other, errno, remedy)
		}
		seen[remedy] = errno
	}
	if err := RootError(dir, unix.EMFILE); err != unix.EMFILE {
		t.Errorf("of another errno it says %v", err)
	}
}

// TestRealRootErrors gets errors from the kernel.
func TestRealRootErrors(t *testing.T) {
	dir := t.TempDir()
	file, loop := filepath.Join(dir, "file"), filepath.Join(dir, "loop")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink("loop", loop)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "stands in its way", loop: "circle", filepath.Join(dir, "none"): "mount or restore",
		filepath.Join(file, "x"): "stands in its way"} {
		_, err := OpenRoot(path, true)
		if err = RootError(path, err); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	root, err := OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if got, sub := root.PathFrom(root, ""), root.PathFrom(root, "a"); got != "." || sub != "a" {
		t.Errorf("the root is called %q, and what lies in it %q", got, sub)
	}
	if got := above("/a/b c/d"); strings.Join(got, "|") != "/|/a|/a/b c|/a/b c/d" {
		t.Errorf("above: %q", got)
	}
	if got := above("/"); strings.Join(got, "|") != "/" {
		t.Errorf("above the top: %q", got)
	}
}
