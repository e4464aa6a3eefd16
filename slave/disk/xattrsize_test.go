package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/policy"
	"georep/slave/slavetest"
)

// withXattrs has so many xattrs of 12,000 bytes.
func withXattrs(op slave.Op, n int) slave.Op {
	for i := range n {
		op.Meta.Xattrs = append(op.Meta.Xattrs, slave.Xattr{Name: fmt.Sprint("user.x", i), Value: []byte(strings.Repeat("x", 12_000))})
	}
	return op
}

// TestXattrsCount for max-bytes, on whichever file system: those of files that are new, and of changed ones; and those that go make
// room.
func TestXattrsCount(t *testing.T) {
	for _, kind := range []string{fstest.Btrfs, fstest.XFS, fstest.Tmpfs} {
		t.Run(kind, func(t *testing.T) {
			root := filepath.Join(fstest.Mount(t, kind, fstest.Options{Size: 512 << 20}), "slave")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			f := limited(t, root, policy.Policy{MaxBytes: limitBytes})
			var puts, meta, parks []slave.Op
			for i := range 100 {
				name, rec := fmt.Sprint("f", i), slavetest.Rec(i+1, 1)
				puts = append(puts, withXattrs(slavetest.Put(name, rec, "x"), 5))
				parks = append(parks, slavetest.Park(name, rec.GFID))
			}
			if n := refusals(f, "max-bytes 4M", puts...); n < 25 || n > 60 {
				t.Errorf("%d of 100 files with 60,000 bytes of xattrs were refused", n)
			}
			if held := xattrsThere(t, root); held > limitBytes {
				t.Errorf("it holds %d bytes of xattrs alone", held)
			}
			tree := f.Tree.(*Tree)
			counted := func() (now, anew int64) {
				sum, err := tree.census.tally(tree.sys.used, 0, func() error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				tree.sys.used.mu.Lock()
				defer tree.sys.used.mu.Unlock()
				return tree.sys.used.held.bytes, sum.bytes
			}
			if now, anew := counted(); now < anew || now > anew+anew/4 {
				t.Errorf("%d bytes are counted, and %d there", now, anew)
			}
			f.Apply(parks...)
			if err := tree.Clean(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if now, _ := counted(); now > limitBytes/4 {
				t.Errorf("%d bytes are counted when all is gone", now)
			}
			for i := range 60 {
				meta = append(meta, slavetest.Put(fmt.Sprint("m", i), slavetest.Rec(200+i, 1), "x"))
			}
			if n := refusals(f, "", meta...); n > 0 {
				t.Errorf("%d of 60 files were refused", n)
			}
			for i := range meta {
				op := &meta[i]
				op.Kind, op.Expect, op.Open, op.Record.Xtime = slave.OpMeta, op.Record.GFID, nil, op.Record.Xtime+1
				*op = withXattrs(*op, 5)
			}
			// Twice: what an entry has already is not counted again.
			first := refusals(f, "max-bytes 4M", meta[:50]...)
			if again := refusals(f, "max-bytes 4M", meta[:50]...); first != 0 || again != 0 {
				t.Errorf("%d, and again %d of 50 changes were refused", first, again)
			}
		})
	}
}

// TestXattrsOfOneEntry: what is more than max-bytes can see of an entry is that entry's trouble, and not the slave's.
func TestXattrsOfOneEntry(t *testing.T) {
	for limit, refused := range map[int64]bool{0: false, 1 << 30: true} {
		root := filepath.Join(fstest.Mount(t, fstest.XFS, fstest.Options{}), "slave")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		f := limited(t, root, policy.Policy{MaxBytes: limit})
		r := f.Apply(withXattrs(slavetest.Put("f", slavetest.Rec(1, 1), "x"), 6), withXattrs(slavetest.Put("g", slavetest.Rec(2, 1), "x"), 5))
		if (r[0].Err != nil) != refused || refused && (!errors.Is(r[0].Err, slave.ErrXattrRoom) || slave.Full(r[0].Err)) || r[1].Err != nil {
			t.Errorf("limit %d: %v, %v", limit, r[0].Err, r[1].Err)
		}
	}
}

// xattrsThere sums the user's xattrs of all entries.
func xattrsThere(t *testing.T, root string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		n, err := unix.Llistxattr(path, buf)
		if err != nil {
			return err
		}
		for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
			if strings.HasPrefix(name, "user.x") {
				size, err := unix.Lgetxattr(path, name, nil)
				if err != nil {
					return err
				}
				sum += int64(size)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
