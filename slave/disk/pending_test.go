package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/disk/dirty"
	"georep/slave/slavetest"
)

// tornTables ends the session and leaves of its link table, journal and places what a power cut may: files whose names are there and whose contents
// are not, since nobody synced them, and no index of GFIDs.
func tornTables(t *testing.T, f *slavetest.Fixture) *slavetest.Fixture {
	t.Helper()
	f.Tree.Close()
	for _, area := range []string{"links", "pending", "places"} {
		err := filepath.WalkDir(f.Path(".georep/"+area), func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				err = os.Truncate(path, 0)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	f, _ = seamed(t, f.Root)
	return f
}

func groupsOf(f *slavetest.Fixture) []slave.Group {
	f.Helper()
	all, err := f.Tree.Groups(f.Context(), 100)
	if err != nil {
		f.Fatal(err)
	}
	return all
}

// TestCutBetweenTwoCopies cuts the power while names of one inode are two inodes on the slave: it must know that still,
// though its table of their names is lost, or nothing would ever make them one.
func TestCutBetweenTwoCopies(t *testing.T) {
	f, _ := newSeamed(t)
	before(f)
	f.Must(slavetest.Put("d/y", slavetest.Rec(50, 1), "s"))
	f = tornTables(t, f) // so that nobody knows d/y when e/z comes
	f.Must(slavetest.Linked(slavetest.Put("e/z", slavetest.Rec(50, 1), "s"), 2))
	if f.Stat("d/y").Ino == f.Stat("e/z").Ino {
		t.Fatal("the slave found the other name: this tests nothing")
	}
	f = tornTables(t, f)
	got := groupsOf(f)
	if len(got) != 1 || got[0].GFID != slavetest.GFID(50) || got[0].Ino != 77 || !got[0].MissingNames {
		t.Fatalf("groups %+v", got)
	}
	for _, path := range []string{"d/y", "e/z"} {
		op := slavetest.Linked(slavetest.Link(path, "", slavetest.Rec(50, 1), 2), 2)
		op.LinksFinal = true
		f.Must(op)
	}
	f.SameInode("d/y", "e/z")
	if got := groupsOf(f); len(got) != 0 {
		t.Fatalf("settled, and still %+v", got)
	}
}

// TestCutAfterANameWent cuts the power behind the removal of a name: what was changed through it is yet to be looked for
// under the others.
func TestCutAfterANameWent(t *testing.T) {
	for _, dir := range []bool{false, true} {
		f, _ := newSeamed(t)
		before(f)
		park := slavetest.Park("d/l1", slavetest.GFID(2))
		if dir {
			park = slavetest.Park("d", slavetest.GFID(10))
		}
		f.Must(park)
		f = tornTables(t, f)
		got := groupsOf(f)
		if len(got) != 1 || got[0].GFID != slavetest.GFID(2) || len(got[0].Names) != 1 || got[0].Names[0] != "e/l2" {
			t.Fatalf("directory %v: groups %+v", dir, got)
		}
	}
}

// TestMarksOfAnEarlierSession sees that nobody is asked about a vanished inode for ever.
func TestMarksOfAnEarlierSession(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 1), "x"), 2))
	f.Tree.Close()
	if err := os.Remove(f.Path("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("no mark at all", f.Path(".georep/pending/"+slavetest.GFID(2).String())); err != nil {
		t.Fatal(err)
	}
	f, _ = seamed(t, f.Root)
	for round := range dirty.MaxTold + 1 {
		if got := groupsOf(f); len(got) != 1 != (round == dirty.MaxTold) || len(got) == 1 && got[0].GFID != slavetest.GFID(1) {
			t.Fatalf("round %d: %+v", round, got)
		}
	}
	f.Must(slavetest.Finish("", slavetest.Rec(12, 1), 1))
	if left, err := os.ReadDir(f.Path(".georep/pending")); err != nil || len(left) != 0 {
		t.Fatalf("left in pending/: %v, %v", left, err)
	}
}

// TestEarlierMarkIsToldOfFirst: what changes the inode in this session does not settle the mark that an earlier one left. A
// cut may have left the times of a directory wrong where that session led a name elsewhere, and only the look at all names,
// which the mark asks for, puts them right.
func TestEarlierMarkIsToldOfFirst(t *testing.T) {
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 1)))
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 1), "x"), 2))
	f.Tree.Close()
	f, _ = seamed(t, f.Root)
	f.Must(slavetest.Linked(slavetest.Link("d/b", "a", slavetest.Rec(1, 1), 2), 2))
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 2), "y"), 2))
	f.Must(slavetest.Finish("", slavetest.Rec(12, 1), 1))
	if got := groupsOf(f); len(got) != 1 || !got[0].MissingNames || len(got[0].Names) != 2 {
		t.Fatalf("the mark of the earlier session is told of as %+v", got)
	}
	f.Must(slavetest.Linked(slavetest.Link("d/b", "", slavetest.Rec(1, 2), 2), 2))
	f.Must(slavetest.Finish("", slavetest.Rec(12, 2), 1))
	if got := groupsOf(f); len(got) != 0 {
		t.Fatalf("settled, but told of as %+v", got)
	}
}

// TestMarksAreDurable sees that an inode's mark is durable before a name of it changes, and is removed only after a sync of
// all that came before.
func TestMarksAreDurable(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	g2 := slavetest.GFID(2).String()
	durable, settled, steps, removed := false, false, 0, 0
	s.arm(func(_ int, op, name string) error {
		from, to, _ := strings.Cut(name, " to ")
		mark := filepath.Join(f.Root, ".georep/pending", g2)
		switch {
		case op == "fsync" && name == "pending" || op == "syncfs":
			_, err := os.Lstat(mark)
			durable, settled = err == nil, op == "syncfs"
		case op == "unlink" && name == g2:
			removed++
			if !settled {
				t.Error("a mark is removed before a sync of the tree")
			}
			durable = false
		case op == "rename" && (to == "l1" || to == "l2" || to == "l3" || from == "l1" || from == "d"), op == "unlink" && name == "l2":
			steps++
			settled = false
			if !durable {
				t.Errorf("%s %s without a durable mark", op, name)
			}
		}
		return nil
	})
	stamp := func(sec uint64) { f.Apply(slavetest.Finish("", slavetest.Rec(12, sec), uint32(sec))) }
	for sec, ops := range [][]slave.Op{
		{slavetest.Linked(slavetest.Put("d/l1", slavetest.Rec(2, 2), "new"), 2)},
		{slavetest.Linked(slavetest.Link("e/l3", "d/l1", slavetest.Rec(2, 2), 3), 3)},
		{slavetest.Park("e/l3", slavetest.GFID(2)), slavetest.Linked(slavetest.Link("e/l2", "", slavetest.Rec(2, 3), 2), 2)},
		{slavetest.Linked(slavetest.Link("e/l3", "d/l1", slavetest.Rec(2, 3), 3), 3)},
		{slavetest.Put("e/l3", slavetest.Rec(60, 1), "another in its place")},
		{slavetest.Park("d", slavetest.GFID(10))},
	} {
		for i, r := range f.Apply(ops...) {
			if r.Err != nil {
				t.Fatalf("%s: %v", ops[i].Path, r.Err)
			}
		}
		stamp(uint64(sec) + 5)
	}
	s.disarm()
	if steps < 6 || removed < 2 {
		t.Fatalf("only %d changes of names and %d removals of marks were seen", steps, removed)
	}
}

// cutTables plays a power cut at the n-th change: nothing is done any more from there on, the tree is as far as it came, and
// the link table and the journal are as old as they may be: links/ of the last sync of all, pending/ of the last sync of its own.
type cutTables struct {
	f    *slavetest.Fixture
	kept string
	cut  int
}

func (c *cutTables) keep(areas ...string) {
	for _, area := range areas {
		to := filepath.Join(c.kept, area)
		if err := errors.Join(os.RemoveAll(to), copyTables(c.f.Path(".georep/"+area), to)); err != nil {
			c.f.Error(err)
		}
	}
}

func copyTables(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := to + strings.TrimPrefix(path, from)
		if e.IsDir() {
			return os.Mkdir(at, 0o700)
		}
		if e.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(target, at))
		}
		b, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(at, b, 0o600))
	})
}

func (c *cutTables) hook(n int, op, name string) error {
	switch {
	case n >= c.cut:
		return unix.EIO
	case op == "syncfs":
		c.keep("links", "pending")
	case op == "fsync" && name == "pending":
		c.keep("pending")
	}
	return nil
}

// restart opens what the cut left.
func (c *cutTables) restart(t *testing.T) *slavetest.Fixture {
	t.Helper()
	c.f.Tree.Close()
	for _, area := range []string{"links", "pending", "places"} {
		at := c.f.Path(".georep/" + area)
		err := os.RemoveAll(at)
		if area != "places" {
			err = errors.Join(err, copyTables(filepath.Join(c.kept, area), at))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, _ := seamed(t, c.f.Root)
	return f
}

// TestCutWithOldTables cuts the power at every change of a scenario with links, with a link table and a journal that are older than the tree. A
// crawl that sends what is not stamped yet, and looks at the inodes that the slave tells of, makes every name right.
func TestCutWithOldTables(t *testing.T) {
	for n := 0; ; n++ {
		f, s := newSeamed(t)
		before(f)
		c := &cutTables{f: f, kept: t.TempDir(), cut: n}
		c.keep("links", "pending")
		s.arm(c.hook)
		play(f, 2)
		calls := s.disarm()
		f = c.restart(t)
		if play(f, 3) < batches && play(f, 4) < batches {
			t.Fatalf("cut at %d (%s): the replay fails", n, calls[min(n, len(calls)-1)])
		}
		names := map[string][]string{slavetest.GFID(2).String(): {"d/l1", "e/l2"}, slavetest.GFID(5).String(): {"d/n", "e/q"}}
		for _, g := range groupsOf(f) {
			for _, path := range names[g.GFID.String()] {
				rec := slave.Record{GFID: g.GFID, Xtime: slavetest.Rec(0, 2).Xtime}
				op := slavetest.Linked(slavetest.Link(path, "", rec, 2), 2)
				op.LinksFinal = true
				f.Must(op)
			}
		}
		if play(f, 5) < batches {
			t.Fatalf("cut at %d: the last replay fails", n)
		}
		after(f)
		f.Tree.Close()
		os.RemoveAll(f.Root)
		if n >= len(calls) {
			return
		}
	}
}

// TestCountingNamesMovesNothing: to count the names of an inode changes nothing in the park, where another inode of its GFID
// waits for an OpUnpark. Groups counts too, while the committer parks.
func TestCountingNamesMovesNothing(t *testing.T) {
	f, _ := newSeamed(t)
	rec := slavetest.Rec(50, 1)
	f.Must(slavetest.Put("old", rec, "parked"))
	f.Must(slavetest.Park("old", rec.GFID))
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(50, 2), "made anew"), 3))
	if got := groupsOf(f); len(got) != 1 || !got[0].MissingNames {
		t.Fatalf("groups %+v", got)
	}
	f.Content(".georep/parked/"+rec.GFID.String(), "parked")
}
