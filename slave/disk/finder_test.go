package disk

import (
	"os"
	"testing"

	"georep/marker/xtime"
	"georep/slave/gfidindex"
	"georep/slave/slavetest"
)

// found asks where the slave has inodes: the path of each, "" where it does not know.
func found(f *slavetest.Fixture, n ...int) (paths []string) {
	f.Helper()
	var gfids []xtime.GFID
	for _, i := range n {
		gfids = append(gfids, slavetest.GFID(i))
	}
	all, err := f.Tree.Find(f.Context(), gfids)
	if err != nil {
		f.Fatal(err)
	}
	for i, a := range all {
		if a.Parked {
			a.Path = "parked"
		} else if a.Path != "" && a.Record != f.Record(a.Path) {
			f.Fatalf("%v of %d, on record %v", a, n[i], f.Record(a.Path))
		}
		paths = append(paths, a.Path)
	}
	return paths
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestEveryInodeIsFound: whatever was put, linked, moved or adopted is found, files with one name and directories too, also
// after the slave was opened again; what was damaged, or taken out of the tree by somebody else, is not.
func TestEveryInodeIsFound(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(90, 0)), slavetest.Mkdir("d/e", slavetest.Rec(91, 0)),
		slavetest.Put("d/e/f", slavetest.Rec(1, 1), "f"), slavetest.Put("g", slavetest.Rec(2, 1), "g"))
	same(t, found(f, 90, 91, 1, 2, 7), "d", "d/e", "d/e/f", "g", "")
	f.Must(slavetest.Park("d", slavetest.GFID(90)))
	same(t, found(f, 90, 91, 1, 2), "parked", "parked", "parked", "g")
	f.Must(slavetest.Unpark("moved", slavetest.Rec(90, 0)))
	same(t, found(f, 90, 91, 1, 2), "moved", "moved/e", "moved/e/f", "g")
	f.Must(slavetest.Link("h", "", slavetest.Rec(1, 1), 2))
	f.SameInode("moved/e/f", "h")
	f.Must(slavetest.Park("h", slavetest.GFID(1)))
	same(t, found(f, 1), "moved/e/f")

	if err := f.Tree.Close(); err != nil {
		t.Fatal(err)
	}
	f, _ = seamed(t, f.Root)
	same(t, found(f, 90, 91, 1, 2), "moved", "moved/e", "moved/e/f", "g")
	if err := os.Rename(f.Path("moved/e"), f.Path("moved/away")); err != nil {
		t.Fatal(err)
	}
	same(t, found(f, 90, 91, 2), "moved", "", "g")
	f.Must(slavetest.Finish("moved/away", slavetest.Rec(91, 1), 1))
	same(t, found(f, 91), "moved/away")
}

// TestWhatMovesIsFound: an inode in a directory that is parked and brought back all the time is found at every moment, or it
// would be shipped again.
func TestWhatMovesIsFound(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("a", slavetest.Rec(90, 0)), slavetest.Mkdir("a/e", slavetest.Rec(91, 0)),
		slavetest.Put("a/e/f", slavetest.Rec(1, 1), "f"))
	over, lost := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			all, err := f.Tree.Find(t.Context(), []xtime.GFID{slavetest.GFID(1)})
			if err != nil || all[0].Path == "" {
				n++
			}
			select {
			case <-over:
				lost <- n
				return
			default:
			}
		}
	}()
	names := []string{"a", "b"}
	for range 1000 {
		f.Must(slavetest.Park(names[0], slavetest.GFID(90)), slavetest.Unpark(names[1], slavetest.Rec(90, 0)))
		names[0], names[1] = names[1], names[0]
	}
	close(over)
	if n := <-lost; n > 0 {
		t.Fatalf("it was nowhere %d times", n)
	}
}

// TestDeletedInodesAreForgotten: what was cleaned away is not looked for any more.
func TestDeletedInodesAreForgotten(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Put("a", slavetest.Rec(1, 1), "a"), slavetest.Put("b", slavetest.Rec(2, 1), "b"))
	f.Must(slavetest.Park("a", slavetest.GFID(1)), slavetest.Park("b", slavetest.GFID(2)))
	f.Must(slavetest.Unpark("c", slavetest.Rec(2, 1)))
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		t.Fatal(err)
	}
	same(t, found(f, 1, 2), "", "c")
	if p, ok := f.Tree.(*Tree).finder.index.Find(gfidindex.KeyOf(slavetest.GFID(1))); ok {
		t.Errorf("a deleted inode is remembered at %v", p)
	}
}

// TestNamesGoWithTheirDirectory: the names of an inode are known after their directories were renamed, with no search.
func TestNamesGoWithTheirDirectory(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(90, 0)), slavetest.Mkdir("e", slavetest.Rec(91, 0)),
		slavetest.Linked(slavetest.Put("d/a", slavetest.Rec(1, 1), "one"), 2))
	f.Must(slavetest.Link("e/b", "d/a", slavetest.Rec(1, 1), 2))
	f.Must(slavetest.Park("d", slavetest.GFID(90)), slavetest.Park("e", slavetest.GFID(91)))
	f.Must(slavetest.Unpark("e", slavetest.Rec(90, 0)), slavetest.Unpark("d", slavetest.Rec(91, 0)))
	f.Must(slavetest.Link("e/a", "", slavetest.Rec(1, 1), 2))
	groups, err := f.Tree.Groups(f.Context(), 10)
	if err != nil || len(groups) != 0 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	tree := f.Tree.(*Tree)
	row := tree.links.rowNow(slavetest.GFID(1))
	if n := tree.finder.verified(slavetest.GFID(1), row.names, ""); len(n) != 2 {
		t.Errorf("names %q", row.names)
	}
	f.Must(slavetest.Linked(slavetest.Put("e/a", slavetest.Rec(1, 2), "two"), 2))
	f.SameInode("e/a", "d/b")
	f.Content("d/b", "two")
}
