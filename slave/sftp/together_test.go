package sftp

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

// TestTwoNamesParkedAtOnce: one name of an inode is replaced by another inode while another of its names is removed. To park
// both is to give the inode the same name in the park, and a rename to a further name of the same inode does nothing.
func TestTwoNamesParkedAtOnce(t *testing.T) {
	const inodes = 100
	for name, start := range map[string]server{"OpenSSH": program, "library": library} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			tree, err := Open(t.Context(), options(t, root, start, 3))
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
			var ops, parks []slave.Op
			for i := range inodes {
				a, b, rec := fmt.Sprint("a", i), fmt.Sprint("b", i), slavetest.Rec(1+i, 1)
				ops = append(ops, slavetest.Linked(slavetest.Put(a, rec, "old"), 2), slavetest.Link(b, a, rec, 2))
				parks = append(parks, slavetest.Put(a, slavetest.Rec(1000+i, 1), "new"), slavetest.Park(b, rec.GFID))
			}
			f.Must(ops...)
			for _, r := range f.Apply(parks...) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			}
			for i := range inodes {
				f.Gone(fmt.Sprint("b", i))
				f.Content(fmt.Sprint("a", i), "new")
			}
		})
	}
}

// TestLinkLeftInThePark: a cut left a further name of a file where nothing on record tells of it, and a rename to that does
// nothing. Neither the name that is parked stays, nor the one that comes back from there.
func TestLinkLeftInThePark(t *testing.T) {
	rec, parked := slavetest.Rec(1, 1), parkedDir+"/"+slavetest.GFID(1).String()
	for name, start := range map[string]server{"OpenSSH": program, "library": library} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			f := &slavetest.Fixture{T: t, Root: root}
			anew := func() {
				tree, err := open(t.Context(), options(t, root, start, 1), quickLease)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { tree.Close() })
				f.Tree = tree
			}
			anew()
			f.Must(slavetest.Put("a", rec, "a"), slavetest.Finish("", slavetest.Rec(99, 1), 1))
			if err := errors.Join(f.Tree.Close(), os.Link(f.Path("a"), f.Path(parked))); err != nil {
				t.Fatal(err)
			}
			anew()
			f.Must(slavetest.Park("a", rec.GFID))
			f.Gone("a")
			if err := f.Tree.Clean(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			f.Must(slavetest.Put("b", rec, "b"))
			f.Must(slavetest.Park("b", rec.GFID))
			if err := os.Link(f.Path(parked), f.Path("c")); err != nil {
				t.Fatal(err)
			}
			f.Must(slavetest.Unpark("c", rec))
			f.Content("c", "b")
			f.Gone(parked)
		})
	}
}
