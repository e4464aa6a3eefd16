package slavetest

import (
	"os"

	"georep/marker/xtime"
	"georep/slave"
)

func parkCases() []testCase {
	return []testCase{
		{"what is stale is parked before it is deleted", parkFirst},
		{"a parked inode comes back under another name", unparkElsewhere},
		{"of several copies of a directory the newest comes back", unparkNewest},
		{"swapped names end right", swap},
		{"one batch moves a directory away and makes another", moveAndMake},
		{"a replaced file of another GFID is parked", replacedIsParked},
		{"clean deletes whole trees and leaves what is young", cleanTrees},
		{"entries without a record are parked too", parkNoRecord},
		{"what is meant for a directory goes into no other", intoAnother},
		{"what lies in a parked directory is found and brought back", unparkWithin},
		{"a parked directory that something was taken out of is complete no more", unparkLessWithin},
	}
}

// intoAnother has two directories change places between the look at one and the operation.
func intoAnother(f *Fixture) {
	f.Must(Mkdir("a", Rec(1, 0)), Put("a/x", Rec(3, 1), "x"), Mkdir("b", Rec(2, 0)), Put("parked", Rec(5, 1), "p"))
	f.Must(Finish("a", Rec(1, 2), 1), Finish("b", Rec(2, 2), 1))
	f.Must(Park("parked", GFID(5)))
	for _, r := range f.Apply(Park("a", GFID(1)), Park("b", GFID(2)), Unpark("b", Rec(1, 2)), Unpark("a", Rec(2, 2))) {
		if r.Err != nil {
			f.Fatal(r.Err)
		}
	}
	in := func(op slave.Op, dir int) slave.Op { op.In = GFID(dir); return op }
	link := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "a/s", Record: Rec(7, 1), Meta: MetaOf(0o777)}
	link.Meta.Target = "to"
	for _, op := range []slave.Op{Put("a/new", Rec(6, 1), "n"), Mkdir("a/d", Rec(8, 0)), link, Unpark("a/back", Rec(5, 1)),
		Link("a/l", "b/x", Rec(3, 1), 2)} {
		f.Fails(in(op, 1), slave.ErrMoved)
		f.Gone(op.Path)
		f.Must(in(op, 2))
	}
	// One that is made anew, or gets its GFID, with its first entries.
	f.Must(Mkdir("c", Rec(20, 0)), in(Put("c/f", Rec(21, 1), "f"), 20), in(Put("top", Rec(22, 1), "t"), 99))
	anew := Mkdir("c", Rec(23, 0))
	anew.Expect = GFID(20)
	for _, r := range f.Apply(in(Put("c/e", Rec(25, 1), "e"), 20), anew, in(Put("c/g", Rec(24, 1), "g"), 23)) {
		if r.Err != nil {
			f.Fatal(r.Err)
		}
	}
}

// found asks about one inode.
func (f *Fixture) found(n int) slave.Found {
	f.Helper()
	all, err := f.Tree.Find(f.Context(), []xtime.GFID{GFID(n)})
	if err != nil || len(all) != 1 {
		f.Fatalf("find: %v, %d answers", err, len(all))
	}
	return all[0]
}

func parkFirst(f *Fixture) {
	f.Must(Put("a", Rec(1, 3), "stale"))
	if res := f.Must(Park("a", GFID(1))); !res[0].Parked {
		f.Fatal("the result does not say so")
	}
	f.Gone("a")
	if got := f.found(1); !got.Parked || got.Record != Rec(1, 3) {
		f.Fatalf("found %+v", got)
	}
	if got := f.found(2); got != (slave.Found{}) {
		f.Fatalf("found %+v of an inode that never was", got)
	}
	f.Must(Park("never/was", GFID(5)))
	if err := f.Tree.Clean(f.Context(), 3600); err != nil {
		f.Fatal(err)
	}
	if !f.found(1).Parked {
		f.Fatal("deleted too early")
	}
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	if f.found(1).Parked {
		f.Fatal("still parked")
	}
	f.areaEmpty("parked")
}

func unparkElsewhere(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/e", Rec(2, 0)), Put("d/e/a", Rec(3, 1), "a"), Put("b", Rec(4, 1), "b"))
	f.Must(Finish("d/e", Rec(2, 5), 1), Finish("d", Rec(1, 5), 1))
	before := f.Stat("d/e/a").Ino
	// One batch, and its answer lost: so the two must be two batches to be replayed.
	f.Must(Park("d/e", GFID(2)), Park("b", GFID(4)))
	f.Must(Unpark("e2", Rec(2, 5)), Unpark("d/b2", Rec(4, 1)))
	f.Content("e2/a", "a")
	f.Content("d/b2", "b")
	if f.Stat("e2/a").Ino != before || f.Record("e2") != Rec(2, 5) || f.Record("e2/a") != Rec(3, 1) {
		f.Fatalf("the directory came back with record %v", f.Record("e2"))
	}
	f.areaEmpty("parked")
}

// unparkNewest: a directory was made anew twice while older copies of it were parked.
func unparkNewest(f *Fixture) {
	for i, name := range []string{"a", "b", "c"} {
		f.Must(Mkdir(name, Rec(1, 0)), Mkdir(name+"/in", Rec(2, 0)), Put(name+"/in/"+name, Rec(3+i, 1), name))
		f.Must(Park(name, GFID(1)))
	}
	older := f.found(4)
	if !older.Parked || older.Path == "" {
		f.Fatalf("what lies in an older copy is found as %+v", older)
	}
	f.Must(Unpark("back", Rec(1, 0)))
	f.Content("back/in/c", "c")
	op := Unpark("saved", Rec(4, 1))
	op.From = older.Path
	f.Must(op)
	f.Content("saved", "b")
	if got := f.found(3); !got.Parked || got.Path == "" {
		f.Fatalf("what lies in the oldest copy is found as %+v", got)
	}
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	f.areaEmpty("parked")
	f.Content("back/in/c", "c")
}

func swap(f *Fixture) {
	f.Must(Put("a", Rec(1, 1), "one"), Put("b", Rec(2, 1), "two"), Mkdir("d", Rec(3, 0)), Put("d/x", Rec(4, 1), "x"))
	batch := []slave.Op{
		Park("a", GFID(1)), Park("b", GFID(2)), Park("d", GFID(3)),
		Unpark("a", Rec(2, 1)), Unpark("b", Rec(1, 1)), Unpark("d2", Rec(3, 0)),
	}
	for i, r := range f.Apply(batch...) {
		if r.Err != nil {
			f.Fatalf("%s: %v", batch[i].Path, r.Err)
		}
	}
	// The answer was lost: the parks meet other inodes now, and refuse.
	for i, r := range f.Apply(batch...) {
		if r.Err != nil && batch[i].Kind != slave.OpPark {
			f.Fatalf("again %s: %v", batch[i].Path, r.Err)
		}
	}
	f.Content("a", "two")
	f.Content("b", "one")
	f.Content("d2/x", "x")
	f.Gone("d")
}

func moveAndMake(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/a", Rec(2, 1), "a"))
	for i, r := range f.Apply(
		Put("d/b", Rec(3, 1), "b"), Park("d", GFID(1)), Mkdir("d", Rec(4, 0)), Put("d/c", Rec(5, 1), "c"),
		Unpark("d2", Rec(1, 0)), Put("d2/e", Rec(6, 1), "e"), Park("d2", GFID(1)), Unpark("d3", Rec(1, 0)),
		Mkdir("d2", Rec(7, 0)), Put("d2/g", Rec(8, 1), "g"),
	) {
		if r.Err != nil {
			f.Fatalf("operation %d: %v", i, r.Err)
		}
	}
	for path, text := range map[string]string{"d3/a": "a", "d3/b": "b", "d/c": "c", "d3/e": "e", "d2/g": "g"} {
		f.Content(path, text)
	}
}

func replacedIsParked(f *Fixture) {
	f.Must(Put("a", Rec(1, 1), "first"))
	if res := f.Must(Put("a", Rec(2, 2), "second")); !res[0].Parked {
		f.Fatal("the result does not say so")
	}
	f.Content("a", "second")
	f.Must(Unpark("b", Rec(1, 1)))
	f.Content("b", "first")
	// Unparked over another inode: that one is parked.
	f.Must(Park("b", GFID(1)))
	f.Must(Unpark("a", Rec(1, 1)))
	f.Content("a", "first")
	if !f.found(2).Parked {
		f.Fatal("what was unparked over is lost")
	}
	// A directory takes the place of a file.
	f.Must(Mkdir("d", Rec(3, 0)))
	f.Must(Park("d", GFID(3)))
	f.Must(Unpark("a", Rec(3, 0)))
	if f.Record("a") != Rec(3, 0) || !f.found(1).Parked {
		f.Fatalf("record %v", f.Record("a"))
	}
	// A second inode parked under the same GFID loses neither.
	f.Must(Put("x", Rec(1, 9), "newer"))
	f.Must(Park("x", GFID(1)))
	if names, err := os.ReadDir(f.Path(".georep/parked")); err != nil || len(names) != 3 {
		f.Fatalf("parked: %v, %v", names, err)
	}
}

func cleanTrees(f *Fixture) {
	ops := []slave.Op{Mkdir("d", Rec(1, 0))}
	for i := range 40 {
		name := "d/" + string(rune('A'+i))
		ops = append(ops, Mkdir(name, Rec(1000+i, 0)), Mkdir(name+"/in", Rec(2000+i, 0)), Put(name+"/in/f", Rec(3000+i, 1), "f"))
	}
	ops = append(ops, Put("keep", Rec(2, 1), "kept"))
	f.Must(ops...)
	if err := os.Chmod(f.Path("d/A"), 0); err != nil {
		f.Fatal(err)
	}
	f.Must(Park("d", GFID(1)))
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	f.areaEmpty("parked")
	f.areaEmpty("trash")
	f.Content("keep", "kept")
}

func parkNoRecord(f *Fixture) {
	for _, name := range []string{"x", "y"} {
		if err := os.MkdirAll(f.Path(name+"/sub"), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	f.Must(Park("x", xtime.GFID{}), Park("y", xtime.GFID{}))
	f.Gone("x")
	f.Gone("y")
	if names, err := os.ReadDir(f.Path(".georep/parked")); err != nil || len(names) != 2 {
		f.Fatalf("parked: %v, %v", names, err)
	}
}

// unparkWithin: what was moved out of a directory before that was removed is found in the parked directory.
func unparkWithin(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Mkdir("d/e", Rec(91, 0)), Put("d/e/f", Rec(1, 1), "inside"), Put("d/g", Rec(2, 1), "too"),
		Mkdir("d/e/h", Rec(92, 0)), Put("d/e/h/i", Rec(3, 1), "deep"))
	if got := f.found(1); got.Parked || got.Linked && (got.Path != "d/e/f" || got.Record != Rec(1, 1)) {
		f.Fatalf("found %+v in the tree", got)
	}
	f.Must(Park("d", GFID(90)))
	within := func(n int) slave.Op {
		got := f.found(n)
		if !got.Parked || got.Path == "" {
			f.Fatalf("%d is found as %+v", n, got)
		}
		op := Unpark("new"+got.Path[len(got.Path)-1:], slave.Record{GFID: GFID(n), Xtime: got.Record.Xtime})
		op.From = got.Path
		return op
	}
	f.Must(within(1))
	f.Content("newf", "inside")
	f.Must(within(92))
	f.Content("newh/i", "deep")
	op := within(2)
	f.Must(Unpark("back", Rec(90, 0)))
	f.Fails(op, slave.ErrNeedContent)
	f.Content("back/g", "too")
	for _, from := range []string{"../owner", "/etc", "no/such", "x\x00y"} {
		op := Unpark("stolen", Rec(2, 1))
		op.From = from
		if r := f.Apply(op); r[0].Err == nil {
			f.Errorf("unparked from %q", from)
		}
	}
	f.Gone("stolen")
	if got := f.found(2); got.Parked {
		f.Fatalf("found %+v, which is back", got)
	}
}

// unparkLessWithin: the stamps of the directories that an entry was taken out of said that it was there.
func unparkLessWithin(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Mkdir("d/e", Rec(91, 0)), Mkdir("d/e/h", Rec(92, 0)), Put("d/e/h/i", Rec(3, 1), "deep"),
		Mkdir("d/o", Rec(93, 0)))
	f.Must(Finish("d/e/h", Rec(92, 5), 1), Finish("d/e", Rec(91, 5), 1), Finish("d/o", Rec(93, 5), 1), Finish("d", Rec(90, 5), 1))
	f.Must(Park("d", GFID(90)))
	got := f.found(92)
	if !got.Parked || got.Path == "" {
		f.Fatalf("found %+v", got)
	}
	op := Unpark("h", Rec(92, 5))
	op.From = got.Path
	f.Must(op, op)
	f.Must(Unpark("d", Rec(90, 5)))
	for path, want := range map[string]slave.Record{"d": Rec(90, 0), "d/e": Rec(91, 0), "d/o": Rec(93, 5), "h": Rec(92, 5)} {
		if got := f.Record(path); got != want {
			f.Errorf("%s is on record as %+v, want %+v", path, got, want)
		}
	}
	f.Content("h/i", "deep")
}
