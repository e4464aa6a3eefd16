package disk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	mk := func(name string, files ...string) string {
		root := filepath.Join(dir, name)
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return root
	}
	foreign := mk("foreign")
	first, err := Open(Options{Path: foreign, Master: xtime.UUID{9}, Session: xtime.UUID{2}})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	full := mk("full", "file")
	for _, c := range []struct {
		name string
		o    Options
		want error
	}{
		{"missing", Options{Path: filepath.Join(dir, "none")}, slave.ErrNoVolume},
		{"missing parent", Options{Path: filepath.Join(dir, "none/none"), Create: true}, slave.ErrNoVolume},
		{"a file", Options{Path: filepath.Join(full, "file")}, slave.ErrNoVolume},
		{"not empty", Options{Path: full}, slave.ErrNotEmpty},
		{"another master", Options{Path: foreign}, slave.ErrForeign},
		{"no place for files", Options{Path: "/proc/self/task", Force: true}, slave.ErrUnfit},
		{"forced", Options{Path: full, Force: true}, nil},
		{"owned now", Options{Path: full}, nil},
		{"forced over another master", Options{Path: foreign, Force: true}, nil},
		{"made", Options{Path: filepath.Join(dir, "new"), Create: true}, nil},
		{"there already", Options{Path: filepath.Join(dir, "new"), Create: true}, nil},
		{"a new file system", Options{Path: mk("mkfs", "lost+found")}, nil},
	} {
		c.o.Master, c.o.Session = xtime.UUID{1}, xtime.UUID{2}
		tree, err := Open(c.o)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), c.o.Path) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %q is not one line that names the slave", c.name, err)
		}
		if tree != nil {
			tree.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(full, ".georep")); err != nil {
		t.Error(err)
	}
}

func TestOpenTwice(t *testing.T) {
	o := testOptions(t, t.TempDir())
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, err := Open(o); !errors.Is(err, slave.ErrBusy) {
		t.Fatalf("got %v, want ErrBusy", err)
	}
	tree.Close()
	again, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// holderDir makes a re-executed test hold the slave at this path until it is ended.
const holderDir = "GEOREP_TEST_HOLDER_DIR"

func TestHolder(t *testing.T) {
	root := os.Getenv(holderDir)
	if root == "" {
		return // it is TestLeftOver that runs this
	}
	if _, err := Open(testOptions(t, root)); err != nil {
		t.Fatal(err)
	}
	fmt.Println("HELD")
	select {}
}

// TestLeftOver takes a slave from a left-over process of the same session, and from no other.
func TestLeftOver(t *testing.T) {
	root := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHolder$")
	cmd.Path = mustExe(t)
	cmd.Env = append(os.Environ(), holderDir+"="+root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "HELD"; {
	}
	o := testOptions(t, root)
	o.Session = xtime.UUID{7}
	if _, err := Open(o); !errors.Is(err, slave.ErrBusy) {
		t.Fatalf("another session: got %v, want ErrBusy", err)
	}
	o.Session = xtime.UUID{2}
	tree, err := Open(o)
	if err != nil {
		t.Fatalf("the same session: %v", err)
	}
	tree.Close()
}

func mustExe(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// aclUser is an ACL of version 2: owner rwx, user 1 rwx, group r-x, mask rwx, others r-x.
func aclUser() []byte {
	entry := func(tag, perm byte, id uint32) []byte {
		return []byte{tag, 0, perm, 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}
	}
	const none = 1<<32 - 1
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][]byte{
		entry(1, 7, none), entry(2, 7, 1), entry(4, 5, none), entry(16, 7, none), entry(32, 5, none),
	} {
		acl = append(acl, e...)
	}
	return acl
}

// TestDefaultACL sees that nothing is inherited from a root with a default ACL, and that ACLs are kept.
func TestDefaultACL(t *testing.T) {
	root := t.TempDir()
	if err := unix.Setxattr(root, attrDefaultACL, aclUser(), 0); err != nil {
		t.Fatal(err)
	}
	f, _ := seamed(t, root)
	has := func(path, attr string) bool {
		_, err := unix.Lgetxattr(f.Path(path), attr, make([]byte, 256))
		return err == nil
	}
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("a", slavetest.Rec(2, 1), "a"),
		slavetest.Finish("d", slavetest.Rec(1, 1), 1))
	if has("a", attrACL) || has("d", attrDefaultACL) || has("d", attrACL) {
		t.Fatal("an ACL was inherited")
	}
	put, fin := slavetest.Put("b", slavetest.Rec(3, 1), "b"), slavetest.Finish("d", slavetest.Rec(1, 2), 1)
	put.Meta.Mode = 0o4775
	put.Meta.Xattrs = []slave.Xattr{{Name: attrACL, Value: aclUser()}}
	fin.Meta.Xattrs = []slave.Xattr{{Name: attrACL, Value: aclUser()}, {Name: attrDefaultACL, Value: aclUser()}}
	fin.Meta.Mode = 0o2775
	f.Must(put, fin)
	if !has("b", attrACL) || !has("d", attrDefaultACL) || !has("d", attrACL) {
		t.Fatal("an ACL was lost")
	}
	if b, d := f.Stat("b").Mode&0o7777, f.Stat("d").Mode&0o7777; b != 0o4775 || d != 0o2775 {
		t.Fatalf("modes %o and %o", b, d)
	}
}

// TestCapability sees that a capability outlives the change of owner that precedes it.
func TestCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may set capabilities")
	}
	f, _ := newSeamed(t)
	// VFS_CAP_REVISION_2 with the effective bit, cap_net_raw permitted.
	value := []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	put := slavetest.Put("ping", slavetest.Rec(1, 1), "x")
	put.Meta.UID, put.Meta.Mode = 12, 0o755
	put.Meta.Xattrs = []slave.Xattr{{Name: attrCapability, Value: value}, {Name: "trusted.t", Value: []byte("t")}}
	if res := f.Must(put); res[0].Lost != 0 {
		t.Fatalf("lost %v", res[0].Lost)
	}
	meta := put
	meta.Kind, meta.Expect, meta.Open, meta.Record = slave.OpMeta, slavetest.GFID(1), nil, slavetest.Rec(1, 2)
	meta.Meta.UID = 13
	f.Must(meta)
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(f.Path("ping"), attrCapability, buf)
	if err != nil || string(buf[:n]) != string(value) {
		t.Fatalf("capability %x, %v", buf[:max(n, 0)], err)
	}
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

func TestImmutableStaysAndDoesNotStopClean(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may set the immutable flag")
	}
	f, _ := seamed(t, t.TempDir())
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("d/a", slavetest.Rec(2, 1), "a"),
		slavetest.Put("d/b", slavetest.Rec(3, 1), "b"), slavetest.Put("c", slavetest.Rec(4, 1), "c"))
	file, err := os.Open(f.Path("d/a"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	flags := func(v int) {
		if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, v); err != nil {
			t.Fatal(err)
		}
	}
	flags(immutableFlag)
	defer flags(0)
	f.Must(slavetest.Park("d", slavetest.GFID(1)), slavetest.Park("c", slavetest.GFID(4)))
	if err := f.Tree.Clean(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(f.Path(".georep/trash/*/*"))
	parked, err2 := os.ReadDir(f.Path(".georep/parked"))
	if err != nil || err2 != nil || len(left) != 1 || filepath.Base(left[0]) != "a" || len(parked) != 0 {
		t.Fatalf("trash %v, parked %v", left, parked)
	}
}

// TestFullDisk fills the slave: what does not fit fails alone, leaves nothing behind, and the slave goes on.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	f, _ := seamed(t, root)
	f.Must(slavetest.Put("a", slavetest.Rec(1, 1), "old"))
	res := f.Apply(slavetest.Put("a", slavetest.Rec(1, 2), strings.Repeat("x", 4<<20)), slavetest.Put("b", slavetest.Rec(2, 2), "b"))
	if !slave.Full(res[0].Err) || res[1].Err != nil {
		t.Fatalf("%v, %v", res[0].Err, res[1].Err)
	}
	f.Content("a", "old")
	f.StagingEmpty()
	f.Must(slavetest.Put("a", slavetest.Rec(1, 3), "fits"))
	f.Tree.Close()
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testOptions(t, root)); !errors.Is(err, slave.ErrUnfit) || !errors.Is(err, unix.EROFS) {
		t.Fatalf("read-only: got %v, want ErrUnfit and EROFS", err)
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add([]byte("12 3\na\x00b/c\x00"))
	f.Add([]byte("12 3\n../x\x00.georep/y\x00\x00half"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		row := parseRow(text)
		for _, name := range row.names {
			if name == "" || !slave.AllowedPath(name) {
				t.Fatalf("name %q", name)
			}
		}
		again := parseRow(row.text())
		if again.Ino != row.Ino || again.Want != row.Want || len(again.names) != len(row.names) {
			t.Fatalf("%+v became %+v", row, again)
		}
	})
}
