package disk

import (
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

// TestNamesLeftBehind: when the root is finished, no inode that moved has a name among the parked, whichever way its old name
// went; a directory that such a name was taken out of is complete no more. What has several names on the master keeps them.
func TestNamesLeftBehind(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(90, 0)), slavetest.Mkdir("d/e", slavetest.Rec(91, 0)),
		slavetest.Put("d/e/a", slavetest.Rec(1, 1), "a"),
		slavetest.Put("d/b", slavetest.Rec(2, 1), "b"),
		slavetest.Put("d/e/c", slavetest.Rec(3, 1), "c"),
		slavetest.Put("d/e/kept", slavetest.Rec(4, 1), "kept"),
		slavetest.Linked(slavetest.Put("d/e/l", slavetest.Rec(5, 1), "l"), 2), slavetest.Mkdir("to", slavetest.Rec(92, 0)))
	f.Must(slavetest.Finish("d/e", slavetest.Rec(91, 5), 1), slavetest.Finish("d", slavetest.Rec(90, 5), 1))
	f.Must(slavetest.Link("to/a", "d/e/a", slavetest.Rec(1, 1), 0), slavetest.Link("to/b", "d/b", slavetest.Rec(2, 1), 0),
		slavetest.Link("to/c", "d/e/c", slavetest.Rec(3, 1), 1),
		slavetest.Link("to/l", "d/e/l", slavetest.Rec(5, 1), 2))
	f.Must(slavetest.Park("d/b", slavetest.GFID(2)), slavetest.Put("d/e/c", slavetest.Rec(6, 1), "another"))
	nlinks := func(want ...uint64) {
		t.Helper()
		for i, name := range []string{"to/a", "to/b", "to/c", "to/l"} {
			if n := f.Stat(name).Nlink; uint64(n) != want[i] {
				t.Errorf("%s has %d names, want %d", name, n, want[i])
			}
		}
	}
	nlinks(2, 2, 1, 2)
	f.Must(slavetest.Finish("", slavetest.Rec(99, 6), 1))
	nlinks(2, 1, 1, 2) // in the tree a name stays until it is visited
	f.Must(slavetest.Park("d", slavetest.GFID(90)))
	f.Must(slavetest.Finish("", slavetest.Rec(99, 7), 2))
	nlinks(1, 1, 1, 1) // the root's stamp says that each inode has its names: what is parked beyond them goes
	f.Must(slavetest.Unpark("back", slavetest.Rec(90, 5)))
	f.Content("back/e/kept", "kept")
	f.Gone("back/e/a")
	for _, path := range []string{"back", "back/e"} {
		if x := f.Record(path).Xtime; x != 0 {
			t.Errorf("%s lacks a name and has the stamp %v", path, x)
		}
	}
	f.Content("to/a", "a")
	if got := f.Record("to/a"); got != (slave.Record{GFID: slavetest.GFID(1), Xtime: slavetest.Rec(1, 1).Xtime}) {
		t.Errorf("on record is %v", got)
	}
}
