package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/internal/at"
	"georep/integration/harness/tree"
)

const ownMark = "trusted.glusterfs.01234567-89ab-cdef-0123-456789abcdef.xtime"

// small makes a tree with the entries that the cases below change.
func small(t *testing.T, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("devices and trusted attributes need root")
	}
	write := func(name string, data []byte) {
		check(t, os.WriteFile(filepath.Join(root, name), data, 0o640))
	}
	check(t, os.MkdirAll(filepath.Join(root, "dir/sub"), 0o755))
	check(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	write("file", bytes.Repeat([]byte("content "), 100_000))
	write("dir/sub/deep", []byte("deep"))
	write("xattr", nil)
	check(t, unix.Setxattr(root+"/xattr", "user.a", []byte("1"), 0))
	check(t, unix.Setxattr(root+"/xattr", "trusted.b", nil, 0))
	check(t, unix.Setxattr(root+"/dir", at.ACLDefault, []byte(at.SimpleACL(5, 6)), 0))
	check(t, unix.Setxattr(root+"/dir/sub", at.ACLAccess, []byte(at.SimpleACL(5, 6)), 0))
	write("one", []byte("linked"))
	check(t, os.Link(root+"/one", root+"/dir/two"))
	check(t, os.Link(root+"/one", root+"/three"))
	write("pair", []byte("linked"))
	check(t, os.Link(root+"/pair", root+"/pair2"))
	check(t, os.Symlink("file", root+"/symlink"))
	check(t, unix.Mkfifo(root+"/fifo", 0o600))
	check(t, unix.Mknod(root+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(200, 70000))))
	check(t, unix.Mknod(root+"/socket", unix.S_IFSOCK|0o600, 0))
	write("sparse", []byte("x"))
	check(t, os.Truncate(root+"/sparse", 4<<20))
	// Files made in one tick of the clock have equal times, which one case below must not meet.
	check(t, os.Chtimes(root+"/one", time.Unix(1, 1), time.Unix(1, 1)))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replica copies a with everything, by a tool that is not ours.
func replica(t *testing.T, a, b string) {
	t.Helper()
	out, err := exec.Command("cp", "-a", "--sparse=always", a, b).CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// change is one thing done to the copy, and what must be reported for it and nothing else.
type change struct {
	name string
	do   func(b string) error
	// want lists "kind path" of every difference.
	want []string
	// rsync is what a line of rsync's must hold; "" where rsync does not see it.
	rsync string
}

// keepTimes does something and puts the times of the named entries back, so that only one thing differs.
func keepTimes(do func(b string) error, names ...string) func(string) error {
	return func(b string) error {
		stats := make([]unix.Stat_t, len(names))
		for i, name := range names {
			if err := unix.Lstat(filepath.Join(b, name), &stats[i]); err != nil {
				return err
			}
		}
		if err := do(b); err != nil {
			return err
		}
		for i, name := range names {
			ts := []unix.Timespec{stats[i].Atim, stats[i].Mtim}
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(b, name), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		return nil
	}
}

// addTime moves the modification time of an entry.
func addTime(name string, d time.Duration) func(string) error {
	return func(b string) error {
		path := filepath.Join(b, name)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		when := time.Unix(st.Mtim.Unix()).Add(d)
		ts := unix.Timespec{Sec: when.Unix(), Nsec: int64(when.Nanosecond())}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func overwrite(name string, offset int64, data string) func(string) error {
	return func(b string) error {
		f, err := os.OpenFile(filepath.Join(b, name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(data), offset)
		return errors.Join(err, f.Close())
	}
}

// anew replaces an entry by what mk makes there.
func anew(name string, mk func(path string) error) func(string) error {
	return keepTimes(func(b string) error {
		path := filepath.Join(b, name)
		return errors.Join(os.Remove(path), mk(path))
	}, ".", name)
}

func unlinkAndWrite(name, data string) func(string) error {
	return keepTimes(func(b string) error {
		path := filepath.Join(b, name)
		return errors.Join(os.Remove(path), os.WriteFile(path, []byte(data), 0o640))
	}, ".", name)
}

func setxattr(name, attr, value string) func(string) error {
	return func(b string) error { return unix.Lsetxattr(filepath.Join(b, name), attr, []byte(value), 0) }
}

func removexattr(name, attr string) func(string) error {
	return func(b string) error { return unix.Lremovexattr(filepath.Join(b, name), attr) }
}

func mknod(mode uint32, major, minor uint32) func(string) error {
	return func(path string) error { return unix.Mknod(path, mode, int(unix.Mkdev(major, minor))) }
}

func attributeChanges() []change {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	return []change{
		{"mode of a file", func(b string) error { return os.Chmod(b+"/file", 0o641) }, []string{"mode file"}, "p"},
		{"setuid", func(b string) error { return unix.Chmod(b+"/file", 0o4640) }, []string{"mode file"}, "p"},
		{"mode of a directory", func(b string) error { return os.Chmod(b+"/empty", 0o700) }, []string{"mode empty"}, "p"},
		{"mode of a fifo", func(b string) error { return os.Chmod(b+"/fifo", 0o644) }, []string{"mode fifo"}, "p"},
		{"mode of the root", func(b string) error { return os.Chmod(b, 0o700) }, []string{"mode ."}, "p"},
		{"uid", func(b string) error { return os.Lchown(b+"/file", 77, 0) }, []string{"uid file"}, "o"},
		{"gid of a symlink", func(b string) error { return os.Lchown(b+"/symlink", 0, 77) }, []string{"gid symlink"}, "g"},
		{"time of a file by 1 ns", addTime("file", 1), []string{"mtime file"}, "t"},
		{"time of a directory by 1 ns", addTime("dir/sub", -1), []string{"mtime dir/sub"}, "t"},
		{"time of a symlink by 1 s", addTime("symlink", time.Second), []string{"mtime symlink"}, "t"},
		{"time of a fifo", addTime("fifo", time.Hour), []string{"mtime fifo"}, "t"},
		{"time of a device", addTime("device", time.Hour), []string{"mtime device"}, "t"},
		{"time of a file with several names", addTime("one", 1),
			[]string{"mtime dir/two", "mtime one", "mtime three"}, "t"},
		{"xattr value", setxattr("xattr", "user.a", "2"), []string{"xattr xattr"}, "x"},
		{"xattr more", setxattr("xattr", "user.c", ""), []string{"xattr xattr"}, "x"},
		{"xattr fewer, empty value", removexattr("xattr", "trusted.b"), []string{"xattr xattr"}, "x"},
		{"xattr on a symlink", setxattr("symlink", "trusted.s", "2"), []string{"xattr symlink"}, "x"},
		{"xattr on a directory", setxattr("empty", "user.a", "2"), []string{"xattr empty"}, "x"},
		{"xattr on the root", setxattr(".", "user.a", "2"), []string{"xattr ."}, "x"},
		{"xattr of georep's kind with a wrong name", setxattr("file", ownMark+"x", "2"), []string{"xattr file"}, "x"},
		{"capability", setxattr("file", "security.capability", capability), []string{"xattr file"}, "x"},
		{"access ACL", setxattr("dir/sub", at.ACLAccess, at.SimpleACL(6, 6)), []string{"xattr dir/sub"}, "a"},
		{"default ACL", setxattr("dir", at.ACLDefault, at.SimpleACL(5, 7)), []string{"xattr dir"}, "a"},
		{"default ACL gone", removexattr("dir", at.ACLDefault), []string{"xattr dir"}, "a"},
	}
}

func contentChanges() []change {
	return []change{
		{"content, size and time the same", keepTimes(overwrite("file", 700_000, "X"), "file"), []string{"content file"}, "c"},
		{"first byte", keepTimes(overwrite("dir/sub/deep", 0, "X"), "dir/sub/deep"), []string{"content dir/sub/deep"}, "c"},
		{"last byte", keepTimes(overwrite("file", 799_999, "X"), "file"), []string{"content file"}, "c"},
		{"size", keepTimes(overwrite("file", 800_000, "X"), "file"), []string{"size file"}, "s"},
		{"shorter", keepTimes(func(b string) error { return os.Truncate(b+"/file", 1) }, "file"), []string{"size file"}, "s"},
		{"hole filled with zeros",
			keepTimes(overwrite("sparse", 1<<20, strings.Repeat("\x00", 1<<20)), "sparse"), []string{"holes sparse"}, ""},
		{"symlink target", anew("symlink", func(p string) error { return os.Symlink("elsewhere", p) }),
			[]string{"target symlink"}, "c"},
		{"device minor", anew("device", mknod(unix.S_IFCHR|0o600, 200, 70001)), []string{"rdev device"}, "c"},
		{"device kind", anew("device", mknod(unix.S_IFBLK|0o600, 200, 70000)), []string{"type device"}, ""},
		{"fifo for a socket", anew("socket", mknod(unix.S_IFIFO|0o600, 0, 0)), []string{"type socket"}, "S"},
		{"directory for a file", anew("file", func(p string) error { return os.Mkdir(p, 0o640) }), []string{"type file"}, "file"},
		{"file for a symlink", anew("symlink", func(p string) error { return os.WriteFile(p, nil, 0o777) }),
			[]string{"type symlink"}, "symlink"},
	}
}

func namespaceChanges() []change {
	return []change{
		{"missing file", keepTimes(func(b string) error { return os.Remove(b + "/file") }, "."), []string{"missing file"}, "+++"},
		{"missing directory", keepTimes(func(b string) error { return os.RemoveAll(b + "/dir/sub") }, "dir"),
			[]string{"missing dir/sub"}, "+++"},
		{"extra file", keepTimes(func(b string) error { return os.WriteFile(b+"/aaa", nil, 0o644) }, "."),
			[]string{"extra aaa"}, "*deleting"},
		{"extra directory last", keepTimes(func(b string) error { return os.Mkdir(b+"/zzz", 0o755) }, "."),
			[]string{"extra zzz"}, "*deleting"},
		{"reserved directory below the root",
			keepTimes(func(b string) error { return os.Mkdir(b+"/dir/.georep", 0o755) }, "dir"),
			[]string{"extra dir/.georep"}, "*deleting"},
		{"hard link broken", unlinkAndWrite("pair", "linked"),
			[]string{"nlink pair", "nlink pair2", "links pair2"}, "h"},
		{"hard link of another group", keepTimes(func(b string) error {
			return errors.Join(os.Remove(b+"/three"), os.Link(b+"/pair", b+"/three"))
		}, "."), []string{"nlink dir/two", "nlink one", "nlink pair", "nlink pair2", "mtime three", "links three"}, ""},
		{"twins made one inode", keepTimes(func(b string) error {
			return errors.Join(os.Remove(b+"/one"), os.Remove(b+"/three"), os.Remove(b+"/dir/two"),
				os.Link(b+"/pair", b+"/one"), os.Link(b+"/pair", b+"/three"), os.Link(b+"/pair", b+"/dir/two"))
		}, ".", "dir", "pair"), nil, ""},
	}
}

// TestEveryKindOfDifference makes equal trees, changes one thing, and wants exactly that reported.
func TestEveryKindOfDifference(t *testing.T) {
	dir := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	a := filepath.Join(dir, "a")
	check(t, os.Mkdir(a, 0o755))
	small(t, a)
	for _, c := range slices.Concat(attributeChanges(), contentChanges(), namespaceChanges()) {
		t.Run(c.name, func(t *testing.T) {
			b := filepath.Join(dir, "b")
			replica(t, a, b)
			defer os.RemoveAll(b)
			opts := Replica()
			opts.Holes = true
			if found, err := Trees(a, b, opts); err != nil || len(found) != 0 {
				t.Fatalf("equal trees: %v\n%s", err, List(found))
			}
			check(t, c.do(b))
			found, err := Trees(a, b, opts)
			check(t, err)
			var got []string
			for _, d := range found {
				got = append(got, fmt.Sprintf("%s %s", d.Kind, d.Path))
			}
			if c.want != nil && !slices.Equal(got, c.want) || len(got) == 0 {
				t.Errorf("reported %q, want %q\n%s", got, c.want, List(found))
			}
			lines := Rsync(t, a, b)
			if c.rsync != "" && !strings.Contains(strings.Join(lines, "\n"), c.rsync) {
				t.Errorf("rsync says %q, want something with %q", lines, c.rsync)
			}
		})
	}
}

func TestWhatGeorepKeepsIsIgnored(t *testing.T) {
	a, b := t.TempDir()+"/a", t.TempDir()+"/b"
	check(t, os.Mkdir(a, 0o755))
	small(t, a)
	replica(t, a, b)
	check(t, setxattr("file", ownMark, "12345678")(b))
	check(t, setxattr("dir", strings.Replace(ownMark, "xtime", "gfid", 1), "1234567812345678")(b))
	check(t, setxattr("dir", strings.Replace(ownMark, "trusted", "user", 1), "12345678")(a))
	check(t, keepTimes(func(b string) error {
		return errors.Join(os.Mkdir(b+"/.georep", 0o700), os.WriteFile(b+"/.georep/staged", []byte("x"), 0o600))
	}, ".")(b))
	MustEqual(t, a, b, Replica())
	if lines := Rsync(t, a, b); len(lines) != 0 {
		t.Errorf("rsync says %q", lines)
	}
	found, err := Trees(a, b, Options{})
	check(t, err)
	if len(found) != 4 {
		t.Errorf("without the options there are 4 differences, got\n%s", List(found))
	}
}

// TestEqualCopyOfEverything has other tools copy one of everything, and finds nothing.
func TestEqualCopyOfEverything(t *testing.T) {
	for _, kind := range fstest.All() {
		t.Run(kind, func(t *testing.T) {
			dir := fstest.Mount(t, kind, fstest.Options{})
			a := filepath.Join(dir, "a")
			check(t, os.Mkdir(a, 0o755))
			_, err := tree.OneOfEverything(a)
			check(t, err)
			b := filepath.Join(dir, "b")
			out, err := exec.Command("rsync", "-aHAXS", "--numeric-ids", "--modify-window=-1", "--exclude=/"+tree.LongTop,
				"--filter=-x system.*", a+"/", b+"/").CombinedOutput()
			if err != nil {
				t.Fatalf("rsync: %v: %s", err, out)
			}
			opts := Replica()
			opts.Holes = true
			opts.Skip = func(path string) bool { return path == tree.LongTop }
			// rsync counts no hard links to what it must not see.
			opts.IgnoreNlink = true
			MustEqual(t, a, b, opts)
			if lines := Rsync(t, a, b, "/"+tree.LongTop); len(lines) != 0 {
				t.Errorf("rsync says %q", lines)
			}
		})
	}
}

func TestDifferenceAtTheEndOfALongPath(t *testing.T) {
	a, b := fstest.Mount(t, fstest.Tmpfs, fstest.Options{}), fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	for _, root := range []string{a, b} {
		_, err := tree.OneOfEverything(root)
		check(t, err)
	}
	opts := Options{IgnoreMtime: true}
	MustEqual(t, a, b, opts)
	check(t, overwrite(tree.LongTop+"/hard-link-up", 0, "XXXX")(b))
	found, err := Trees(a, b, opts)
	check(t, err)
	if len(found) != 3 || len(found[0].Path) < 6000 || found[0].Kind != Content {
		t.Errorf("want a difference of content by three names:\n%s", List(found))
	}
}

func TestDifferencesAreBoundedAndInOrder(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for i := range 50 {
		check(t, os.WriteFile(fmt.Sprintf("%s/%02d", a, i), nil, 0o600))
	}
	found, err := Trees(a, b, Options{Max: 7, IgnoreRoot: true})
	check(t, err)
	if len(found) != 7 {
		t.Fatalf("%d differences, want 7", len(found))
	}
	for i, d := range found {
		if want := fmt.Sprintf("%02d", i); d.Path != want || d.Kind != Missing {
			t.Errorf("difference %d is %s, want %s", i, d, want)
		}
	}
}

func TestOptionsNarrow(t *testing.T) {
	a, b := t.TempDir()+"/a", t.TempDir()+"/b"
	check(t, os.Mkdir(a, 0o755))
	small(t, a)
	replica(t, a, b)
	check(t, addTime("file", 1)(b))
	check(t, addTime("dir", 1)(b))
	check(t, addTime(".", 1)(b))
	check(t, setxattr("empty", "user.x", "")(b))
	for _, c := range []struct {
		opts Options
		want int
	}{
		{Options{}, 4},
		{Options{IgnoreMtime: true}, 1},
		{Options{IgnoreDirMtime: true}, 2},
		{Options{IgnoreRoot: true}, 3},
		{Options{IgnoreTop: []string{"file", "empty"}}, 2},
		{Options{IgnoreXattr: func(name string) bool { return name == "user.x" }}, 3},
		{Options{Skip: func(path string) bool { return path == "empty" || path == "dir" }}, 2},
	} {
		found, err := Trees(a, b, c.opts)
		check(t, err)
		if len(found) != c.want {
			t.Errorf("%+v: want %d differences, got\n%s", c.opts, c.want, List(found))
		}
	}
}

func TestRsyncThatCannotJudgeIsAnError(t *testing.T) {
	dir := t.TempDir()
	for name, try := range map[string]struct {
		a, b string
		opts RsyncOptions
	}{
		"no such binary": {dir, dir, RsyncOptions{Binary: dir + "/rsync"}},
		"no such tree":   {dir + "/absent", dir, RsyncOptions{}},
	} {
		if lines, err := RsyncCheck(t.Context(), try.a, try.b, try.opts); err == nil {
			t.Errorf("%s: %q and no error", name, lines)
		}
	}
}

func TestMissingRootIsAnError(t *testing.T) {
	there, absent := t.TempDir(), t.TempDir()+"/absent"
	for _, pair := range [][2]string{{there, absent}, {absent, there}} {
		if _, err := Trees(pair[0], pair[1], Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Trees(%q): %v", pair, err)
		}
	}
}

func TestWaitSeesTheTreesBecomeEqual(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(a+"/file", []byte("x"), 0o600))
	opts := Options{IgnoreMtime: true, IgnoreRoot: true}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ended, a, b, opts); !errors.Is(err, ErrDiffer) || !strings.Contains(err.Error(), "file") {
		t.Errorf("Wait on different trees: %v", err)
	}
	looked := make(chan struct{}, 1000)
	opts.Skip = func(string) bool { looked <- struct{}{}; return false }
	result := make(chan error, 1)
	go func() { result <- Wait(t.Context(), a, b, opts) }()
	<-looked
	check(t, os.WriteFile(b+"/file", []byte("x"), 0o600))
	check(t, <-result)
}

func TestOwnXattr(t *testing.T) {
	for name, want := range map[string]bool{
		ownMark: true, "user.glusterfs.01234567-89ab-cdef-0123-456789abcdef.gfid": true,
		"trusted.glusterfs.volume-mark": false, "user.glusterfs.0123.xtime": false, ownMark + "2": false, "x" + ownMark: false,
		"trusted.glusterfs.01234567-89ab-cdef-0123-456789abcdef.stime": false,
	} {
		if OwnXattr(name) != want {
			t.Errorf("OwnXattr(%q) = %v", name, !want)
		}
	}
}
