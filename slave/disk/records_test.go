package disk

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// narrow is an ext4 whose inodes have one block of 4 KiB for what xattrs do not fit beside the inode.
func narrow(t *testing.T) string {
	t.Helper()
	return fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 64 << 20, Mkfs: []string{"-b", "4096"}})
}

// fatXattrs are xattrs that leave that many bytes of all that an inode below dir may have.
func fatXattrs(t *testing.T, dir string, left int) []slave.Xattr {
	t.Helper()
	f, err := os.CreateTemp(dir, "probe")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	small := []byte(strings.Repeat("i", 60))
	if err := unix.Setxattr(f.Name(), "user.s", small, 0); err != nil {
		t.Fatal(err)
	}
	size := 5000
	for unix.Setxattr(f.Name(), "user.big", make([]byte, size), 0) != nil {
		size--
	}
	return []slave.Xattr{{Name: "user.s", Value: small}, {Name: "user.big", Value: []byte(strings.Repeat("v", size-left))}}
}

// fat gives an operation these xattrs.
func fat(op slave.Op, xattrs []slave.Xattr) slave.Op {
	op.Meta.Xattrs = xattrs
	return op
}

// metaOf sets the meta of a file.
func metaOf(path string, rec slave.Record) slave.Op {
	return slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: path, Record: rec, Expect: rec.GFID,
		Meta: slavetest.MetaOf(0o644)}
}

// has checks the xattrs of an entry.
func has(f *slavetest.Fixture, path string, want []slave.Xattr) {
	f.Helper()
	buf := make([]byte, 8192)
	for _, x := range want {
		n, err := unix.Lgetxattr(f.Path(path), x.Name, buf)
		if err != nil || string(buf[:n]) != string(x.Value) {
			f.Fatalf("%s: %s has %d bytes, %v; want %d", path, x.Name, n, err, len(x.Value))
		}
	}
}

// besideCount counts the records that do not lie on their entries.
func besideCount(f *slavetest.Fixture) int {
	f.Helper()
	list, err := os.ReadDir(f.Path(".georep/records"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.Fatal(err)
	}
	return len(list)
}

// keptWhole checks that the operations lost nothing.
func keptWhole(f *slavetest.Fixture, results []slave.Result) {
	f.Helper()
	for i, r := range results {
		if r.Err != nil || r.Lost != 0 {
			f.Fatalf("operation %d: %v, lost %v", i, r.Err, r.Lost)
		}
	}
}

// TestRecordsGiveWay sees that the xattrs of the master's files and directories come before our own, however little room they
// leave, and that the records are kept all the same.
func TestRecordsGiveWay(t *testing.T) {
	root := narrow(t)
	for _, left := range []int{0, 8, 40, 72, 80, 88, 96, 120, 160, 240} {
		t.Run(fmt.Sprint(left), func(t *testing.T) {
			sub, err := os.MkdirTemp(root, "slave")
			if err != nil {
				t.Fatal(err)
			}
			xattrs := fatXattrs(t, root, left)
			f, _ := seamed(t, sub)
			keptWhole(f, f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Put("d/f", slavetest.Rec(2, 1), "x"), xattrs),
				slavetest.Put("d/plain", slavetest.Rec(3, 1), "p")))
			keptWhole(f, f.Must(fat(slavetest.Finish("d", slavetest.Rec(1, 5), 1), xattrs), fat(slavetest.Finish("", slavetest.Rec(4, 5), 1), xattrs)))
			f.Must(metaOf("d/plain", slavetest.Rec(3, 2)))
			keptWhole(f, f.Must(fat(metaOf("d/plain", slavetest.Rec(3, 3)), xattrs)))
			check := func() {
				for path, rec := range map[string]slave.Record{"d": slavetest.Rec(1, 5), "d/f": slavetest.Rec(2, 1), "d/plain": slavetest.Rec(3, 3)} {
					has(f, path, xattrs)
					if got := f.Record(path); got != rec {
						t.Fatalf("%s: on record as %v, want %v", path, got, rec)
					}
				}
				if s, _ := f.Survey(""); s.Record != slavetest.Rec(4, 5) {
					t.Fatalf("the root's record is %v", s.Record)
				}
			}
			check()
			f.Tree.Close()
			f, _ = seamed(t, sub)
			check()
		})
	}
}

// TestRecordsBesideFollowTheirInodes takes an entry whose record lies beside through all that can happen to it.
func TestRecordsBesideFollowTheirInodes(t *testing.T) {
	root := narrow(t)
	xattrs := fatXattrs(t, root, 0)
	f, _ := seamed(t, root)
	is := func(path string, rec slave.Record) {
		t.Helper()
		if got := f.Record(path); got != rec {
			t.Fatalf("%s: on record as %v, want %v", path, got, rec)
		}
		has(f, path, xattrs)
	}
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Put("d/f", slavetest.Rec(2, 1), "x"), xattrs),
		fat(slavetest.Finish("d", slavetest.Rec(1, 5), 1), xattrs))
	if n := besideCount(f); n != 2 {
		t.Fatalf("%d records beside, want those of d and d/f", n)
	}
	f.Must(slavetest.Park("d", slavetest.GFID(1)))
	if found, err := f.Tree.Find(t.Context(), []xtime.GFID{slavetest.GFID(1), slavetest.GFID(2)}); err != nil || !found[0].Parked || !found[1].Parked {
		t.Fatalf("%+v, %v", found, err)
	}
	f.Must(slavetest.Unpark("e", slavetest.Rec(1, 5)))
	is("e", slavetest.Rec(1, 5))
	is("e/f", slavetest.Rec(2, 1))
	f.Must(slavetest.Link("e/g", "e/f", slavetest.Rec(2, 1), 2))
	is("e/g", slavetest.Rec(2, 1))
	f.SameInode("e/f", "e/g")
	f.Must(slavetest.Linked(fat(slavetest.Put("e/f", slavetest.Rec(2, 2), "new"), xattrs), 2))
	is("e/g", slavetest.Rec(2, 2))
	f.SameInode("e/f", "e/g")
	f.Must(slavetest.Park("e/g", slavetest.GFID(2)), fat(slavetest.Put("e/f", slavetest.Rec(2, 3), "newer"), xattrs))
	is("e/f", slavetest.Rec(2, 3))
	// Another GFID on the same directory never keeps the stamp.
	other := slavetest.Mkdir("e", slavetest.Rec(7, 0))
	other.Expect = slavetest.GFID(1)
	f.Must(other)
	is("e", slavetest.Rec(7, 0))
	f.Must(fat(slavetest.Finish("e", slavetest.Rec(7, 6), 2), xattrs))
	is("e", slavetest.Rec(7, 6))
	// What goes into a parked directory's place, and out of a parked one, takes its stamp off.
	f.Must(slavetest.Park("e", slavetest.GFID(7)))
	f.Must(func() slave.Op {
		op := slavetest.Unpark("f", slavetest.Rec(2, 3))
		op.From = slavetest.GFID(7).String() + "/f"
		return op
	}())
	f.Must(slavetest.Unpark("e", slavetest.Rec(7, 6)))
	is("e", slavetest.Rec(7, 0))
	is("f", slavetest.Rec(2, 3))
	f.Must(slavetest.Put("f", slavetest.Rec(8, 1), "another"), slavetest.Park("e", slavetest.GFID(7)))
	if err := f.Tree.Clean(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if n := besideCount(f); n != 0 {
		t.Fatalf("%d records beside of what is deleted", n)
	}
}

// TestInspectorReadsRecordsBeside sees that a verification knows them, and that a repair takes them back.
func TestInspectorReadsRecordsBeside(t *testing.T) {
	root := narrow(t)
	xattrs := fatXattrs(t, root, 0)
	f, _ := seamed(t, root)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Put("d/f", slavetest.Rec(2, 1), "x"), xattrs),
		slavetest.Put("d/g", slavetest.Rec(3, 1), "y"), fat(slavetest.Finish("d", slavetest.Rec(1, 5), 1), xattrs),
		fat(slavetest.Finish("", slavetest.Rec(4, 5), 1), xattrs))
	inspector, err := OpenInspector(testOptions(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer inspector.Close()
	details, err := inspector.Examine(t.Context(), slave.Nonce{}, []string{"", "d", "d/f"})
	if err != nil || details[0].Record != slavetest.Rec(4, 5) || details[1].Record != slavetest.Rec(1, 5) || details[2].Record != slavetest.Rec(2, 1) {
		t.Fatalf("%+v, %v", details, err)
	}
	if res, err := inspector.Distrust(t.Context(), []string{"d/f"}); err != nil || res[0].Err != nil {
		t.Fatal(res, err)
	}
	for _, path := range []string{"d", "d/f"} {
		if rec := f.Record(path); rec.Xtime != 0 {
			t.Errorf("%s is believed still: %v", path, rec)
		}
	}
	if s, _ := f.Survey(""); s.Record.Xtime != 0 {
		t.Errorf("the root is believed still: %v", s.Record)
	}
	if rec := f.Record("d/g"); rec != slavetest.Rec(3, 1) {
		t.Errorf("d/g: %v", rec)
	}
}

// TestRecordMovesAsideUnderFailures fails each change in turn while records move from entries that lose their room. None may
// claim what was not done.
func TestRecordMovesAsideUnderFailures(t *testing.T) {
	base := narrow(t)
	xattrs := fatXattrs(t, base, 0)
	for n := 0; ; n++ {
		root, err := os.MkdirTemp(base, "slave")
		if err != nil {
			t.Fatal(err)
		}
		f, s := seamed(t, root)
		f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("d/f", slavetest.Rec(2, 1), "x"),
			slavetest.Finish("d", slavetest.Rec(1, 5), 1))
		ops := func() []slave.Op {
			return []slave.Op{fat(metaOf("d/f", slavetest.Rec(2, 2)), xattrs), fat(slavetest.Finish("d", slavetest.Rec(1, 6), 2), xattrs)}
		}
		s.arm(func(k int, _, _ string) error {
			if k == n {
				return unix.EIO
			}
			return nil
		})
		res := f.Apply(ops()...)
		calls := s.disarm()
		for i, path := range []string{"d/f", "d"} {
			rec, want := f.Record(path), ops()[i].Record
			if res[i].Err != nil && rec == want {
				t.Fatalf("failure of %s: %s is on record as %v, but %v", calls[n], path, rec, res[i].Err)
			}
			if res[i].Err == nil {
				has(f, path, xattrs)
			}
		}
		f.Tree.Close()
		f, _ = seamed(t, root)
		if keptWhole(f, f.Apply(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Put("d/f", slavetest.Rec(2, 3), "x"), xattrs), fat(slavetest.Finish("d", slavetest.Rec(1, 7), 3), xattrs))); f.Record("d") != slavetest.Rec(1, 7) || f.Record("d/f") != slavetest.Rec(2, 3) {
			t.Fatalf("after failure %d: %v, %v", n, f.Record("d"), f.Record("d/f"))
		}
		f.Tree.Close()
		if n >= len(calls) {
			return
		}
	}
}

// TestStampBesideComesLast sees that a stamp beside is written after the sync that makes durable what it claims.
func TestStampBesideComesLast(t *testing.T) {
	root := narrow(t)
	xattrs := fatXattrs(t, root, 0)
	f, s := seamed(t, root)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Finish("d", slavetest.Rec(1, 5), 1), xattrs))
	s.arm(nil)
	f.Apply(slavetest.Put("d/f", slavetest.Rec(2, 1), "x"), fat(slavetest.Finish("d", slavetest.Rec(1, 6), 2), xattrs))
	calls := s.disarm()
	stamped := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, "rename") && strings.HasSuffix(c, ".gfid") })
	placed := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, "rename") && strings.HasSuffix(c, " to f") })
	synced := slices.Index(calls[max(placed, 0):], "syncfs ") + placed
	if placed < 0 || synced < placed || stamped < synced {
		t.Fatalf("f is placed at %d, synced at %d, the stamp written at %d: %q", placed, synced, stamped, calls)
	}
}

// TestTooLargeXattr sees what no room can be made for: it is lost, and told, and all else arrives.
func TestTooLargeXattr(t *testing.T) {
	for _, kind := range []string{fstest.Ext4, fstest.Btrfs} {
		t.Run(kind, func(t *testing.T) {
			root := fstest.Mount(t, kind, fstest.Options{Size: 256 << 20})
			f, _ := seamed(t, root)
			small := []slave.Xattr{{Name: "user.a", Value: []byte("a")}, {Name: "user.z", Value: []byte("z")}}
			all := slices.Insert(slices.Clone(small), 1, slave.Xattr{Name: "user.m", Value: make([]byte, 20_000)})
			put := fat(slavetest.Put("f", slavetest.Rec(1, 1), "x"), all)
			res := f.Must(put, fat(slavetest.Finish("", slavetest.Rec(2, 2), 1), all))
			if res[0].Lost != slave.LostXattr || res[1].Lost != slave.LostXattr {
				t.Fatalf("lost %v, %v", res[0].Lost, res[1].Lost)
			}
			f.Content("f", "x")
			has(f, "f", small)
			if s, _ := f.Survey(""); f.Record("f") != slavetest.Rec(1, 1) || s.Record != slavetest.Rec(2, 2) || besideCount(f) != 0 {
				t.Fatalf("%v, %v, %d beside", f.Record("f"), s.Record, besideCount(f))
			}
		})
	}
}

// TestOrderOfXattrs sees that values that grow and shrink between two states that fit are no loss.
func TestOrderOfXattrs(t *testing.T) {
	f, _ := seamed(t, narrow(t))
	big, small := []byte(strings.Repeat("b", 3000)), []byte(strings.Repeat("s", 900))
	f.Must(fat(slavetest.Put("f", slavetest.Rec(1, 1), "x"), []slave.Xattr{{Name: "user.a", Value: small}, {Name: "user.b", Value: big}}))
	now := []slave.Xattr{{Name: "user.a", Value: big}, {Name: "user.b", Value: small}}
	keptWhole(f, f.Must(fat(metaOf("f", slavetest.Rec(1, 2)), now)))
	has(f, "f", now)
	if rec := f.Record("f"); rec != slavetest.Rec(1, 2) {
		t.Fatalf("on record as %v", rec)
	}
}

// TestRoomIsNotTheSlave sees that an entry that gets no xattr does not make the slave full, and that a full slave does.
func TestRoomIsNotTheSlave(t *testing.T) {
	f, s := newSeamed(t)
	s.arm(func(_ int, op, _ string) error {
		if op == "setxattr user.q" {
			return unix.EDQUOT
		}
		return nil
	})
	put := fat(slavetest.Put("f", slavetest.Rec(1, 1), "x"), []slave.Xattr{{Name: "user.q", Value: []byte("v")}})
	err := f.Apply(put)[0].Err
	if s.disarm(); !errors.Is(err, slave.ErrXattrRoom) || !errors.Is(err, unix.EDQUOT) || slave.Full(err) {
		t.Fatalf("got %v", err)
	}
	full := fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 20})
	f, s = seamed(t, full)
	s.arm(func(_ int, op, _ string) error {
		if strings.HasPrefix(op, "setxattr") {
			return unix.ENOSPC
		}
		return nil
	})
	err = f.Apply(put)[0].Err
	if s.disarm(); !slave.Full(err) {
		t.Fatalf("got %v", err)
	}
}

// TestNoRecordsBeside sees that nothing is looked up, or kept, where the records fit.
func TestNoRecordsBeside(t *testing.T) {
	fstest.Each(t, func(t *testing.T, root string) {
		f, _ := seamed(t, root)
		xattrs := []slave.Xattr{{Name: "user.a", Value: make([]byte, 3000)}}
		keptWhole(f, f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), fat(slavetest.Put("d/f", slavetest.Rec(2, 1), "x"), xattrs)))
		keptWhole(f, f.Must(fat(slavetest.Finish("d", slavetest.Rec(1, 5), 1), xattrs)))
		if n := besideCount(f); n != 0 || f.Tree.(*Tree).besides.Load() {
			t.Fatalf("%d records beside", n)
		}
	})
}
