package sftp

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// nobody is an account that may give files to nobody else.
const nobody = 65534

// ordinary runs OpenSSH's server as such an account, where this test may.
func ordinary(t testing.TB, root string) server {
	if os.Getuid() != 0 {
		return program
	}
	if err := os.Chown(root, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return programAs(nobody)
}

// TestOrdinaryAccount: what an account may not set is on record, and told; what it could not go on with is not set.
func TestOrdinaryAccount(t *testing.T) {
	root := memory(t)
	start := ordinary(t, root)
	tree, err := Open(t.Context(), options(t, root, start, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	dir, file := slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("d/f", slavetest.Rec(2, 1), "content")
	file.Meta.UID, file.Meta.GID, file.Meta.Mode = 12, 34, 0o6755
	done := slavetest.Finish("d", slavetest.Rec(1, 1), 1)
	done.Meta.UID, done.Meta.GID, done.Meta.Mode = 12, 34, 0
	f.Must(dir)
	if r := f.Must(file); r[0].Lost&slave.LostOwner == 0 || r[0].Lost&slave.LostMode == 0 {
		t.Errorf("the file lost %v", r[0].Lost)
	}
	if r := f.Must(done); r[0].Lost&slave.LostOwner == 0 || r[0].Lost&slave.LostMode == 0 {
		t.Errorf("the directory lost %v", r[0].Lost)
	}
	for path, want := range map[string]uint32{"d": 0o700, "d/f": 0o755} {
		var st unix.Stat_t
		if err := unix.Lstat(f.Path(path), &st); err != nil || st.Mode&0o7777 != want || st.Uid == 12 {
			t.Errorf("%s has mode %o of %d, %v", path, st.Mode, st.Uid, err)
		}
	}
	_, entries := f.Survey("d")
	if e := entries["f"]; e.Mode != 0o6755 || e.UID != 12 || e.GID != 34 || e.Record != file.Record {
		t.Errorf("on record: %+v", e)
	}
	if os.Getuid() != 0 {
		return
	}
	restoredAs(t, root, start, "d/f", file.Meta)
	restoredAs(t, root, start, "d", done.Meta)
	// What belongs to another: refused by name, and nothing else is.
	if err := os.Chown(f.Path("d"), 0, 0); err != nil {
		t.Fatal(err)
	}
	results, err := tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{slavetest.Put("d/g", slavetest.Rec(3, 1), "x"),
		slavetest.Put("h", slavetest.Rec(4, 1), "y")}})
	if err != nil || !errors.Is(results[0].Err, unix.EACCES) || results[1].Err != nil {
		t.Errorf("%v, %v", results, err)
	}
}

// restoredAs: what is on record alone comes back with a restore.
func restoredAs(t *testing.T, root string, start server, path string, want slave.Meta) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "copy")
	if out, err := Restore(t.Context(), options(t, root, start, 1), dest); err != nil || out.Unknown > 0 || len(out.Kept) > 0 {
		t.Fatalf("restore: %+v, %v", out, err)
	}
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(dest, path), &st)
	if err != nil || st.Mode&0o7777 != want.Mode || st.Uid != want.UID || st.Gid != want.GID {
		t.Errorf("restored, %s has mode %o of %d:%d, %v; want %o of %d:%d", path, st.Mode, st.Uid, st.Gid, err,
			want.Mode, want.UID, want.GID)
	}
}
