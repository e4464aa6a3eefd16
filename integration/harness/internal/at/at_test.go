package at

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func openRoot(t *testing.T, path string) int {
	t.Helper()
	fd, err := OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestNamesAreSortedBytesAndCanBeReadAgain(t *testing.T) {
	dir := t.TempDir()
	want := []string{"\x01", " ", "-x", "...", "a\nb", strings.Repeat("n", 255), "\xff\xfe"}
	for _, name := range want {
		if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	fd := openRoot(t, dir)
	for range 2 {
		if got, err := Names(fd); err != nil || !slices.Equal(got, want) {
			t.Errorf("Names = %q, %v; want %q", got, err, want)
		}
	}
}

func TestNothingFollowsASymlink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/dir", 0o700), os.Symlink("dir", dir+"/link"),
		unix.Setxattr(dir+"/dir", "user.a", []byte("1"), 0)); err != nil {
		t.Fatal(err)
	}
	fd := openRoot(t, dir)
	if _, err := OpenDir(fd, "link"); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		t.Errorf("OpenDir of a symlink: %v", err)
	}
	if st, err := Stat(fd, "link"); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("Stat of a symlink: mode %o, %v", st.Mode, err)
	}
	if attrs, err := Xattrs(fd, "link"); err != nil || len(attrs) != 0 {
		t.Errorf("Xattrs of a symlink: %q, %v", attrs, err)
	}
	if target, err := Readlink(fd, "link"); err != nil || target != "dir" {
		t.Errorf("Readlink = %q, %v", target, err)
	}
}

func TestXattrsOfEverySize(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{"user.empty": "", "user.small": "x", "user.2k": strings.Repeat("v", 2048)}
	fd := openRoot(t, dir)
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for attr, value := range want {
		if err := SetXattr(fd, "file", attr, value); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Xattrs(fd, "file"); err != nil || !maps.Equal(got, want) {
		t.Errorf("Xattrs = %q, %v", got, err)
	}
}

func TestErrorsKeepTheirErrno(t *testing.T) {
	fd := openRoot(t, t.TempDir())
	_, open := Open(fd, "absent", unix.O_RDONLY)
	_, stat := Stat(fd, "absent")
	_, link := Readlink(fd, "absent")
	_, attrs := Xattrs(fd, "absent")
	set := SetXattr(fd, "absent", "user.a", "")
	_, root := OpenRoot("/absent/absent")
	for i, err := range []error{open, stat, link, attrs, set, root} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("case %d: %v", i, err)
		}
	}
}

// TestACLAsGetfaclReadsIt has another program read what we encode.
func TestACLAsGetfaclReadsIt(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, ACLAccess, []byte(SimpleACL(4711, 6)), 0); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("getfacl", "--omit-header", "--numeric", "--absolute-names", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "user::rwx\nuser:4711:rw-\ngroup::r--\nmask::rw-\nother::---\n"; strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
		t.Errorf("getfacl says\n%s, want\n%s", out, want)
	}
}
