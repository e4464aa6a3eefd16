package strip_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/internal/strip"
	"georep/marker/xtime"
)

// TestTree: the marks of the volume go, in whichever namespace, and those of any volume that only root can have made. All else stays,
// what lies on another mount as well.
func TestTree(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		u, other := xtime.UUID{1}, xtime.UUID{2}
		deep := filepath.Join(dir, "d", "e")
		must(t, os.MkdirAll(deep, 0o755), os.WriteFile(filepath.Join(deep, "f"), []byte("text"), 0o600),
			os.Symlink("f", filepath.Join(deep, "l")), os.Mkdir(filepath.Join(dir, "mount"), 0o755),
			os.MkdirAll(filepath.Join(dir, ".georep", "parked"), 0o700))
		must(t, unix.Mount("tmpfs", filepath.Join(dir, "mount"), "tmpfs", 0, ""))
		t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(dir, "mount"), 0)) })
		trusted, theirs := xtime.NamesFor(xtime.Trusted, u), xtime.NamesFor(xtime.Trusted, other)
		user, users := xtime.NamesFor(xtime.User, u), xtime.NamesFor(xtime.User, other)
		marked := []string{"", "d", "d/e", "d/e/f", "d/e/l"}
		for _, path := range marked {
			set(t, filepath.Join(dir, path), trusted.Xtime)
			set(t, filepath.Join(dir, path), theirs.GFID)
		}
		set(t, filepath.Join(dir, "mount"), trusted.Xtime)
		for _, attr := range []string{user.Xtime, users.Xtime, "user.mine", "trusted.gfid"} {
			set(t, filepath.Join(dir, "d/e/f"), attr)
		}
		root, err := beneath.OpenRoot(dir, true)
		must(t, err)
		defer root.Close()
		for _, want := range []int64{int64(len(marked)), 0} {
			got, err := strip.Tree(t.Context(), root, u)
			if err != nil || got.Failing > 0 || got.Entries != want {
				t.Fatalf("%+v, %v, want %d entries", got, err, want)
			}
		}
		for _, path := range marked {
			for _, attr := range attrs(t, filepath.Join(dir, path)) {
				if strings.HasPrefix(attr, "trusted.glusterfs.") {
					t.Errorf("%q keeps %s", path, attr)
				}
			}
		}
		left := strings.Join(attrs(t, filepath.Join(dir, "d/e/f")), " ")
		for _, attr := range []string{users.Xtime, "user.mine", "trusted.gfid"} {
			if !strings.Contains(left, attr) {
				t.Errorf("%s is gone; left is %s", attr, left)
			}
		}
		if strings.Contains(left, user.Xtime) {
			t.Errorf("%s is left", user.Xtime)
		}
		if !strings.Contains(strings.Join(attrs(t, filepath.Join(dir, "mount")), " "), trusted.Xtime) {
			t.Error("a mount was crossed")
		}
	})
}

// TestWhatCannotBeChangedIsNamed, and the rest is done.
func TestWhatCannotBeChangedIsNamed(t *testing.T) {
	dir := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	u, other := xtime.UUID{1}, xtime.UUID{2}
	names := xtime.NamesFor(xtime.User, u)
	for _, name := range []string{"a", "b", "c"} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		set(t, path, names.Xtime)
	}
	flag(t, filepath.Join(dir, "b"), unix.STATX_ATTR_IMMUTABLE)
	defer flag(t, filepath.Join(dir, "b"), 0)
	root, err := beneath.OpenRoot(dir, true)
	must(t, err)
	defer root.Close()
	got, err := strip.Tree(t.Context(), root, u, other)
	if err != nil || got.Entries != 2 || got.Failing != 1 || !strings.Contains(got.Failed[0], `"b"`) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBase: a slave that is in use keeps its directory, and nobody can open one that is held. What is removed can be removed again where
// that was cut short.
func TestBase(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, ".georep")
	must(t, os.MkdirAll(filepath.Join(base, "parked", "x"), 0o700), os.WriteFile(filepath.Join(base, "lock"), nil, 0o600),
		os.WriteFile(filepath.Join(base, "owner"), nil, 0o600))
	lock, err := os.Open(filepath.Join(base, "lock"))
	must(t, err, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	inUse := func(what string) {
		t.Helper()
		if _, err := strip.Hold(dir); !errors.Is(err, strip.ErrInUse) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	inUse("an agent has it open")
	must(t, lock.Close())
	lease := filepath.Join(base, "lease")
	must(t, os.WriteFile(lease, nil, 0o600))
	inUse("a session by SFTP has it open")
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(lease, old, old))
	b, err := strip.Hold(dir)
	must(t, err)
	inUse("it is held")
	must(t, b.Remove())
	b.Close()
	if _, err := os.Stat(base); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	for _, left := range []string{"owner", "lock", ""} { // what a cut may leave
		must(t, os.Mkdir(base, 0o700))
		if left != "" {
			must(t, os.WriteFile(filepath.Join(base, left), nil, 0o600))
		}
		b, err := strip.Hold(dir)
		must(t, err)
		must(t, b.Remove())
		b.Close()
	}
}

// TestForeignBase: what has the name of georep's directory, and is not that, stays.
func TestForeignBase(t *testing.T) {
	for what, put := range map[string]func(base, other string) error{
		"a directory": func(base, _ string) error {
			return errors.Join(os.Mkdir(base, 0o700), os.WriteFile(filepath.Join(base, "mine"), nil, 0o600))
		},
		"a file": func(base, _ string) error { return os.WriteFile(base, nil, 0o600) },
		"a link to another slave's": func(base, other string) error {
			return errors.Join(os.WriteFile(filepath.Join(other, "owner"), nil, 0o600), os.Symlink("../"+filepath.Base(other), base))
		},
		"a link within": func(base, _ string) error {
			return errors.Join(os.Mkdir(base+"2", 0o700), os.WriteFile(base+"2/owner", nil, 0o600), os.Symlink(".georep2", base))
		},
	} {
		dir, other := t.TempDir(), t.TempDir()
		base := filepath.Join(dir, ".georep")
		must(t, put(base, other))
		b, err := strip.Hold(dir)
		if err == nil {
			b.Close()
			t.Errorf("%s is taken for georep's", what)
		}
		if _, err := os.Lstat(base); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func set(t *testing.T, path, attr string) {
	t.Helper()
	must(t, unix.Lsetxattr(path, attr, []byte("value"), 0))
}

func attrs(t *testing.T, path string) []string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	return strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
}

// flag sets the inode's flags: FS_IMMUTABLE_FL has the number of statx's.
func flag(t *testing.T, path string, flags uint32) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)))
}
