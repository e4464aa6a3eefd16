package disk

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// TestXattrsThatLookLikeMarks: what looks like another volume's mark is the user's, and replicated as all else. A record of this
// volume cannot be forged by it, and the marks of a volume that has the slave for its master stay.
func TestXattrsThatLookLikeMarks(t *testing.T) {
	root := t.TempDir()
	cascade := xtime.NamesFor(xtime.User, xtime.UUID{8})
	if err := unix.Setxattr(root, cascade.Xtime, make([]byte, 8), 0); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(testOptions(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	users, forged := xtime.NamesFor(xtime.User, xtime.UUID{7}), xtime.NamesFor(xtime.User, xtime.UUID{1})
	op := slavetest.Put("x", slavetest.Rec(2, 1), "x")
	for _, name := range []string{users.Xtime, users.GFID, forged.GFID} {
		op.Meta.Xattrs = append(op.Meta.Xattrs, slave.Xattr{Name: name, Value: []byte("mine")})
	}
	f.Must(op)
	has := func(name string, want bool) {
		t.Helper()
		_, err := unix.Getxattr(f.Path("x"), name, make([]byte, 64))
		if got := err == nil; got != want || err != nil && !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
	has(users.Xtime, true)
	has(users.GFID, true)
	has(forged.GFID, false)
	for _, name := range []string{cascade.Xtime, cascade.GFID} {
		if err := unix.Setxattr(f.Path("x"), name, make([]byte, 16), 0); err != nil {
			t.Fatal(err)
		}
	}
	f.Must(slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "x", Record: slavetest.Rec(2, 2), Expect: slavetest.GFID(2), Meta: slavetest.MetaOf(0o644)})
	has(users.Xtime, false)
	has(users.GFID, false)
	// The volume whose root carries a mark is known by it, the other one's name is a user's.
	has(cascade.Xtime, true)
}
