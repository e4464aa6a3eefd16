package disk

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/slavetest"
)

// ambush exchanges two names of a user's directory right before the n-th system call that an operation makes.
type ambush struct {
	dir   string
	n     atomic.Int64
	calls atomic.Int64
}

func (a *ambush) hook(string, string) error {
	if a.calls.Add(1) == a.n.Load() {
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(a.dir, "a"), unix.AT_FDCWD, filepath.Join(a.dir, "b"), unix.RENAME_EXCHANGE)
	}
	return nil
}

// TestExchangedAtAnyMoment: a user who owns a directory exchanges the names of a file of root's and one of his own while root
// works on his own. Whatever he wins, root's file stays as it was (invariant 17).
func TestExchangedAtAnyMoment(t *testing.T) {
	meta := slavetest.MetaOf(0o666)
	meta.UID, meta.GID = 1234, 1234
	meta.Xattrs = []slave.Xattr{{Name: "user.his", Value: []byte("his")}}
	for name, test := range map[string]struct {
		dirs bool // a and b are directories
		op   slave.Op
	}{
		"meta":   {false, slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "home/b", Record: slavetest.Rec(3, 2), Expect: slavetest.GFID(3), Meta: meta}},
		"mkdir":  {true, slave.Op{Kind: slave.OpMkdir, Path: "home/b", Record: slavetest.Rec(3, 0), Meta: meta}},
		"anew":   {true, slave.Op{Kind: slave.OpMkdir, Path: "home/b", Record: slavetest.Rec(9, 0), Expect: slavetest.GFID(3), Meta: meta}},
		"finish": {true, slave.Op{Kind: slave.OpFinish, Path: "home/b", Record: slavetest.Rec(3, 2), Meta: meta, Stamp: true, Pass: 1}},
		"link":   {false, slave.Op{Kind: slave.OpLink, Entry: slave.File, Path: "home/c", From: "home/b", Record: slavetest.Rec(3, 2), Links: 2, Meta: meta}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); exchanged(t, n, test.dirs, test.op) >= n; n++ {
			}
		})
	}
}

// exchanged runs one try, and tells how many system calls the operation made.
func exchanged(t *testing.T, n int64, dirs bool, op slave.Op) int64 {
	t.Helper()
	a := &ambush{}
	root, err := os.MkdirTemp("/dev/shm", "georep")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	tree, err := open(testOptions(t, root), func(call, name string) error { return a.hook(call, name) })
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	secret := slavetest.Put("home/a", slavetest.Rec(2, 1), "secret")
	his := slavetest.Put("home/b", slavetest.Rec(3, 1), "his")
	if dirs {
		secret, his = slavetest.Mkdir("home/a", slavetest.Rec(2, 0)), slavetest.Mkdir("home/b", slavetest.Rec(3, 0))
	}
	secret.Meta, his.Meta = slavetest.MetaOf(0o600), slavetest.MetaOf(0o644)
	his.Meta.UID, his.Meta.GID = 1234, 1234
	f.Must(slavetest.Mkdir("home", slavetest.Rec(1, 0)), secret, his)
	fd, err := unix.Open(f.Path("home/a"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		t.Fatal(err)
	}
	a.dir = f.Path("home")
	a.n.Store(n)
	a.calls.Store(0)
	tree.dir.Hook(a.hook)
	f.Apply(op) // it may fail
	tree.dir.Hook(nil)
	made := a.calls.Load()
	a.n.Store(0)
	if err := unix.Fstat(fd, &after); err != nil {
		t.Fatal(err)
	}
	if before.Mode != after.Mode || before.Uid != after.Uid || before.Gid != after.Gid || before.Nlink != after.Nlink {
		t.Errorf("before call %d: root's is mode %o of %d:%d with %d names now", n, after.Mode, after.Uid, after.Gid, after.Nlink)
	}
	for _, name := range []string{"home/a", "home/b"} {
		st := f.Stat(name)
		if _, err := unix.Getxattr(f.Path(name), "user.his", make([]byte, 8)); st.Ino == before.Ino && !errors.Is(err, unix.ENODATA) {
			t.Errorf("before call %d: root's has his xattr, %v", n, err)
		}
	}
	return made
}

// TestMountsAreNotCrossed: what is mounted in the slave's tree is not the slave's, and is neither read nor changed.
func TestMountsAreNotCrossed(t *testing.T) {
	base := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	root, outside := filepath.Join(base, "slave"), filepath.Join(base, "outside")
	for _, dir := range []string{root, filepath.Join(outside, "dir")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(outside, "file")
	if err := os.WriteFile(secret, []byte("the secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(testOptions(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	f.Must(slavetest.Put("file", slavetest.Rec(2, 1), "file"), slavetest.Mkdir("dir", slavetest.Rec(3, 0)),
		slavetest.Put("other", slavetest.Rec(4, 1), "other"))
	for _, name := range []string{"file", "dir"} {
		if err := unix.Mount(filepath.Join(outside, name), f.Path(name), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(f.Path(name), unix.MNT_DETACH)
	}
	var before, after [2]unix.Stat_t
	stat := func(to *[2]unix.Stat_t) {
		for i, name := range []string{"file", "dir"} {
			if err := unix.Lstat(filepath.Join(outside, name), &to[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	stat(&before)
	meta := slavetest.MetaOf(0o777)
	meta.UID = 1234
	meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: []byte("x")}}
	for _, op := range []slave.Op{
		{Kind: slave.OpMeta, Entry: slave.File, Path: "file", Record: slavetest.Rec(2, 2), Meta: meta},
		{Kind: slave.OpMkdir, Path: "dir", Record: slavetest.Rec(3, 0), Meta: meta},
		{Kind: slave.OpFinish, Path: "dir", Record: slavetest.Rec(3, 2), Meta: meta, Pass: 1},
		slavetest.Put("dir/new", slavetest.Rec(5, 1), "x"), slavetest.Put("file", slavetest.Rec(2, 3), "x"),
		slavetest.Park("file", slavetest.GFID(2)), slavetest.Park("dir", slavetest.GFID(3)),
		slavetest.Link("link", "file", slavetest.Rec(2, 1), 2),
	} {
		if res := f.Apply(op); res[0].Err == nil {
			t.Errorf("%s %s crossed a mount", op.Kind, op.Path)
		} else {
			t.Log(res[0].Err)
		}
	}
	if sums, err := tree.Hash(t.Context(), []string{"file"}); err != nil || sums[0].Err == nil {
		t.Errorf("hash: %+v, %v", sums, err)
	}
	state, err := tree.Begin(t.Context(), &slave.Upload{GFID: slavetest.GFID(7), Size: 1 << 20, Basis: "file"})
	if err != nil || state.Err == nil && state.BasisSize > 0 {
		t.Errorf("the basis of an upload: %+v, %v", state, err)
	}
	if _, entries := f.Survey(""); len(entries) != 1 || entries["other"].Name == "" {
		t.Errorf("a survey: %+v", entries)
	}
	stat(&after)
	for i := range before {
		if before[i] != after[i] {
			t.Errorf("outside: %+v, before %+v", after[i], before[i])
		}
	}
	if list, err := os.ReadDir(filepath.Join(outside, "dir")); err != nil || len(list) > 0 {
		t.Errorf("outside: %v, %v", list, err)
	}
}
