package slavetest

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"georep/slave"
)

func linkCases() []testCase {
	return []testCase{
		{"names are linked, not copied", linkNames},
		{"new content replaces all names", replaceAll},
		{"new content finds names that nobody told of", replaceHidden},
		{"a link takes the place of another inode", linkOver},
		{"two copies of one inode become one", joinCopies},
		{"an inode with missing names is told of until it has them", groups},
		{"a name in a parked directory is none", namesInParked},
		{"in step no parked name counts", parkedCountsNot},
		{"in step no parked name counts, in a directory that its owner may not change", leftInReadOnly},
		{"in step no replaced name counts", replacedCountsNot},
		{"in step no parked name counts, however many there were", settledCountsNot},
		{"a name that comes back with its directory is looked at", comesBack},
		{"a name that comes back with its directory is the only one", onlyOneBack},
		{"what was read earlier settles no group", staleLinks},
		{"names outside of the tree are not looked for again", namesElsewhere},
		{"new meta reaches all names", metaOfGroup},
		{"other links of special files", linkSpecial},
	}
}

func group(f *Fixture) {
	f.Helper()
	f.Must(Mkdir("d", Rec(90, 0)), Linked(Put("a", Rec(1, 1), "one"), 3))
	f.Must(Link("b", "a", Rec(1, 1), 3), Link("d/c", "", Rec(1, 1), 3))
	f.SameInode("a", "b", "d/c")
}

func linkNames(f *Fixture) {
	group(f)
	if n := f.Stat("a").Nlink; n != 3 && !f.NoLinks {
		f.Fatalf("%d names", n)
	}
	if got := f.found(1); !got.Linked || got.Record != Rec(1, 1) {
		f.Fatalf("found %+v", got)
	}
	// Another name shipped as content while the slave has just this content: it is linked too.
	before := f.Stat("a").Ino
	if r := f.Apply(Linked(Put("e", Rec(1, 1), "one"), 4)); r[0].Err != nil || f.Stat("a").Ino != before && !f.NoLinks {
		f.Fatalf("%v; the inode that was there is another now", r[0].Err)
	}
	f.SameInode("a", "e")
	f.Fails(Link("x", "a", Rec(5, 1), 2), slave.ErrNeedContent)
	f.StagingEmpty()
}

func leftInReadOnly(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Put("d/a", Rec(1, 1), "a"),
		Linked(Put("d/b", Rec(2, 1), "b"), 2), Linked(Put("b", Rec(2, 1), "b"), 2))
	finish := Finish("d", Rec(90, 5), 1)
	finish.Meta.Mode = 0o500
	f.Must(finish)
	f.Must(Link("a", "d/a", Rec(1, 1), 1), Park("d", GFID(90)))
	f.Must(Finish("", Rec(99, 7), 2))
	for _, name := range []string{"a", "b"} {
		f.Content(name, name)
		if n := f.Stat(name).Nlink; n != 1 {
			f.Errorf("%s has %d names", name, n)
		}
	}
}

func replaceAll(f *Fixture) {
	group(f)
	f.Must(Finish("d", Rec(90, 1), 1))
	before := f.Stat("d")
	f.Must(Linked(Put("b", Rec(1, 2), "two"), 3))
	f.SameInode("a", "b", "d/c")
	f.Content("d/c", "two")
	if n := f.Stat("a").Nlink; n != 3 && !f.NoLinks {
		f.Fatalf("%d names", n)
	}
	if after := f.Stat("d"); after.Mtim != before.Mtim || after.Mode != before.Mode {
		f.Fatalf("the directory of another name changed: %v, %v", before.Mtim, after.Mtim)
	}
	// The master has one name left, which says nothing of the others yet.
	f.Must(Put("a", Rec(1, 3), "three"))
	f.SameInode("a", "b", "d/c")
	f.Must(Park("b", GFID(1)), Park("d/c", GFID(1)))
	if parked, err := os.ReadDir(f.Path(".georep/parked")); err != nil || len(parked) != 1 {
		f.Fatalf("one inode is parked as %v, %v", parked, err)
	}
	f.Content("a", "three")
	f.Must(Put("a", Rec(1, 4), "four"))
	f.Content("a", "four")
	f.StagingEmpty()
}

func replaceHidden(f *Fixture) {
	if f.OnRecord {
		return // without inode numbers nothing but its books can tell the slave of other names
	}
	group(f)
	f.loseLinks()
	f.Must(Linked(Put("b", Rec(1, 2), "two"), 3))
	f.SameInode("a", "b", "d/c")
	f.Content("d/c", "two")
	// A name that moved with its directory is found as well.
	f.Must(Park("d", GFID(90)))
	f.Must(Unpark("moved", Rec(90, 0)))
	f.Must(Linked(Put("a", Rec(1, 3), "three"), 3))
	f.SameInode("a", "b", "moved/c")
	f.Content("moved/c", "three")
}

// loseLinks empties the slave's knowledge of links, as a crash might.
func (f *Fixture) loseLinks() {
	f.Helper()
	dirs, err := os.ReadDir(f.Path(".georep/links"))
	if err != nil {
		f.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.RemoveAll(f.Path(".georep/links/" + d.Name())); err != nil {
			f.Fatal(err)
		}
	}
}

func linkOver(f *Fixture) {
	group(f)
	f.Must(Put("e", Rec(2, 1), "other"))
	if res := f.Must(Link("e", "a", Rec(1, 1), 4)); !res[0].Parked {
		f.Fatal("the result does not say that the other was parked")
	}
	f.SameInode("a", "e")
	f.Must(Unpark("f", Rec(2, 1)))
	f.Content("f", "other")
	// Parked names of a group are not counted as names, and unparking one brings the inode back.
	f.Must(Park("e", GFID(1)))
	f.Must(Unpark("g", Rec(1, 1)))
	f.SameInode("a", "g")
	f.StagingEmpty()
}

func joinCopies(f *Fixture) {
	f.Must(Put("a", Rec(1, 1), "same"), Put("b", Rec(1, 1), "same"))
	if f.Stat("a").Ino == f.Stat("b").Ino {
		f.Fatal("nobody said that they are one")
	}
	f.Must(Link("b", "a", Rec(1, 1), 2))
	f.SameInode("a", "b")
	f.areaEmpty("parked")
	f.Must(Put("c", Rec(2, 1), "x"), Put("d", Rec(2, 1), "x"))
	f.Must(Linked(Put("c", Rec(2, 2), "y"), 2), Linked(Put("d", Rec(2, 2), "y"), 2))
	f.SameInode("c", "d")
	f.Content("d", "y")
}

func (f *Fixture) groups() []slave.Group {
	f.Helper()
	all, err := f.Tree.Groups(f.Context(), 10)
	if err != nil {
		f.Fatal(err)
	}
	return all
}

func groups(f *Fixture) {
	f.Must(Linked(Put("a", Rec(1, 1), "one"), 3), Linked(Put("z", Rec(2, 1), "two"), 2))
	if got := f.groups(); len(got) != 2 || got[0].Ino != 77 {
		f.Fatalf("groups %v", got)
	}
	f.Must(Link("b", "a", Rec(1, 1), 3), Link("y", "z", Rec(2, 1), 2))
	if got := f.groups(); len(got) != 1 || got[0].GFID != GFID(1) || got[0].Ino != 77 || !got[0].MissingNames {
		f.Fatalf("groups %v", got)
	}
	// The master took the third name away.
	meta := Link("a", "", Rec(1, 2), 2)
	meta.Kind, meta.Expect = slave.OpMeta, GFID(1)
	f.Must(meta)
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("groups %v", got)
	}
	// A parked name is none.
	f.Must(Park("b", GFID(1)))
	f.Must(meta)
	if got := f.groups(); len(got) != 1 {
		f.Fatalf("groups %v", got)
	}
	f.Must(Linked(Put("a", Rec(1, 3), "new"), 2))
	if got := f.groups(); len(got) != 1 {
		f.Fatalf("groups %v", got)
	}
	// The inode is gone from the tree altogether.
	f.Must(Park("a", GFID(1)))
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("groups %v", got)
	}
}

// namesInParked: the link count of the inode that stays still has the name that went with its directory.
func namesInParked(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Mkdir("d/e", Rec(91, 0)), Linked(Put("d/e/a", Rec(1, 1), "one"), 2))
	f.Must(Link("b", "d/e/a", Rec(1, 1), 2))
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("groups %v", got)
	}
	f.Must(Park("d", GFID(90)))
	for range 2 {
		if got := f.groups(); len(got) != 1 || !got[0].MissingNames {
			f.Fatalf("one of two names is parked with its directory: groups %v", got)
		}
		f.Must(Link("b", "", Rec(1, 1), 2))
	}
	f.Must(Link("c", "b", Rec(1, 1), 2))
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("both names are there: groups %v", got)
	}
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	f.Must(Linked(Put("b", Rec(1, 2), "two"), 2))
	f.SameInode("b", "c")
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("after cleaning: groups %v", got)
	}
}

// replacedCountsNot: other inodes have come to names of an inode that it had beside others.
func replacedCountsNot(f *Fixture) {
	f.Must(Linked(Put("a", Rec(1, 1), "one"), 4), Put("p", Rec(5, 1), "five"))
	f.Must(Link("b", "a", Rec(1, 1), 4), Link("c", "a", Rec(1, 1), 4), Link("d", "a", Rec(1, 1), 4))
	f.Must(Finish("", Rec(99, 1), 1))
	f.Must(Linked(Put("x", Rec(3, 1), "three"), 2), Park("p", GFID(5)))
	f.Must(Put("b", Rec(2, 1), "two"), Link("c", "x", Rec(3, 1), 2), Unpark("d", Rec(5, 1)))
	f.Content("b", "two")
	f.Content("c", "three")
	f.Content("d", "five")
	f.Must(Finish("", Rec(99, 2), 2))
	f.Content("a", "one")
	if n := f.Stat("a").Nlink; n != 1 {
		f.Errorf("%d names once the root is stamped", n)
	}
}

// parkedCountsNot: an inode that is in the tree has the names of the master once the root is stamped, whatever is parked. What
// else lies in a parked directory is still found, and the directory does not claim to be complete.
func parkedCountsNot(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Mkdir("d/e", Rec(91, 0)), Put("d/e/x", Rec(2, 1), "x"), Linked(Put("a", Rec(1, 1), "one"), 4))
	f.Must(Link("b", "a", Rec(1, 1), 4), Link("d/c", "a", Rec(1, 1), 4), Link("d/e/c", "a", Rec(1, 1), 4))
	f.Must(Linked(Put("d/y", Rec(3, 1), "y"), 2), Link("d/z", "d/y", Rec(3, 1), 2))
	f.Must(Finish("d/e", Rec(91, 5), 1), Finish("d", Rec(90, 5), 1), Finish("", Rec(99, 5), 1))
	f.Must(Park("b", GFID(1)), Park("d", GFID(90)))
	if !f.NoLinks && f.Stat("a").Nlink != 4 {
		f.Fatalf("%d names, of which three are parked", f.Stat("a").Nlink)
	}
	held := Finish("", Rec(99, 6), 2)
	held.Stamp = false
	f.Must(held)
	meta := Link("a", "", Rec(1, 2), 1)
	meta.Kind, meta.Expect = slave.OpMeta, GFID(1)
	f.Must(meta) // the crawl has compared it
	f.Must(Finish("", Rec(99, 7), 3))
	if n := f.Stat("a").Nlink; n != 1 {
		f.Errorf("%d names once the root is stamped", n)
	}
	if f.NoLinks {
		return // what is parked is a copy
	}
	f.Content("a", "one")
	if _, err := os.Lstat(f.Path(".georep/parked/" + GFID(90).String() + "/e/x")); err != nil {
		f.Error(err)
	}
	f.Must(Unpark("moved", Rec(90, 0)))
	f.Content("moved/e/x", "x")
	f.SameInode("moved/y", "moved/z")
	for _, dir := range []string{"moved", "moved/e"} {
		if got := f.Record(dir); got.Xtime != 0 {
			f.Errorf("%s lacks a name, and is stamped %v", dir, got.Xtime)
		}
	}
}

// comesBack: an inode is changed through one of its names, which then is another inode's, while the directory of the other one is
// on its way to another place. No mark leads to that one, so it is told of as soon as it is back. If somebody asked meanwhile, when
// there was nothing to tell of, its directories have lost their stamps.
func comesBack(f *Fixture) {
	for i, asked := range []bool{false, true} {
		n := 10 * (i + 1)
		hot, dir := fmt.Sprint("hot", i), fmt.Sprint("d", i)
		f.Must(Mkdir(dir, Rec(n, 0)), Mkdir(dir+"/e", Rec(n+1, 0)), Linked(Put(dir+"/e/c", Rec(n+2, 1), "one"), 2))
		f.Must(Link(hot, dir+"/e/c", Rec(n+2, 1), 2))
		f.Must(Finish(dir+"/e", Rec(n+1, 5), 1), Finish(dir, Rec(n, 5), 1))
		f.Must(Park(dir, GFID(n)))
		f.Must(Put(hot, Rec(n+3, 6), "another"))
		if asked {
			if got := f.groups(); len(got) != 0 {
				f.Fatalf("no name of it is in the tree: groups %v", got)
			}
		}
		f.Must(Unpark(dir+"-moved", Rec(n, 5)))
		if asked {
			if a, b := f.Record(dir+"-moved"), f.Record(dir+"-moved/e"); a.Xtime != 0 || b.Xtime != 0 {
				f.Errorf("nobody compares it, and its directories are stamped %v and %v", a.Xtime, b.Xtime)
			}
			continue
		}
		got := f.groups()
		if len(got) != 1 || got[0].GFID != GFID(n+2) || !slices.Equal(got[0].Names, []string{dir + "-moved/e/c"}) {
			f.Fatalf("groups %v", got)
		}
		meta := Link(dir+"-moved/e/c", "", Rec(n+2, 6), 1)
		meta.Kind, meta.Expect = slave.OpMeta, GFID(n+2)
		f.Must(meta, Link(meta.Path, "", meta.Record, 1)) // the crawl has compared it
		if got := f.groups(); len(got) != 0 {
			f.Fatalf("after that: groups %v", got)
		}
	}
}

// settledCountsNot: a search found two names, and one of them was removed since, which leaves no mark on the inode.
func settledCountsNot(f *Fixture) {
	f.Must(Linked(Put("a", Rec(1, 1), "one"), 2), Link("b", "a", Rec(1, 1), 2))
	settled := Link("a", "", Rec(1, 1), 2)
	settled.LinksFinal = true
	f.Must(settled, Finish("", Rec(99, 5), 1))
	f.Must(Park("b", GFID(1)), Link("a", "", Rec(1, 1), 1))
	f.Must(Finish("", Rec(99, 6), 2))
	f.Content("a", "one")
	if n := f.Stat("a").Nlink; n != 1 {
		f.Errorf("%d names once the root is stamped", n)
	}
}

// onlyOneBack: one name of an inode is parked, and the directory of the other one moves. In step the inode has one.
func onlyOneBack(f *Fixture) {
	f.Must(Mkdir("d", Rec(90, 0)), Linked(Put("d/c", Rec(1, 1), "one"), 2), Mkdir("e", Rec(91, 0)))
	f.Must(Link("e/b", "d/c", Rec(1, 1), 2)) // here it was seen last
	f.Must(Finish("d", Rec(90, 5), 1), Finish("e", Rec(91, 5), 1), Finish("", Rec(99, 5), 1))
	f.Must(Park("e/b", GFID(1)), Park("d", GFID(90)))
	f.groups()
	f.Must(Finish("", Rec(99, 6), 2)) // that the directory is elsewhere is yet to be seen
	f.Must(Unpark("moved", Rec(90, 5)))
	f.Must(Finish("", Rec(99, 7), 3))
	f.Content("moved/c", "one")
	if n := f.Stat("moved/c").Nlink; n != 1 {
		f.Errorf("%d names once the root is stamped", n)
	}
	if got := f.found(1); !got.Linked && !f.OnRecord {
		f.Errorf("found %+v", got)
	}
}

// staleLinks: a third name came while an operation that knows of two was on its way.
func staleLinks(f *Fixture) {
	f.Must(Linked(Put("a", Rec(1, 1), "one"), 2))
	f.Must(Link("b", "a", Rec(1, 1), 2))
	f.Must(Linked(Put("a", Rec(1, 2), "two"), 3))
	for _, links := range []uint32{0, 2} {
		stale := Link("b", "", Rec(1, 1), links)
		stale.Kind, stale.Expect = slave.OpMeta, GFID(1)
		f.Must(stale)
		if got := f.groups(); len(got) != 1 || !got[0].MissingNames {
			f.Fatalf("%d names at an earlier xtime: groups %v", links, got)
		}
		stale.Record = Rec(1, 2)
		f.Must(stale)
		if got := f.groups(); len(got) != 1 || !got[0].MissingNames {
			f.Fatalf("%d names at the same xtime: groups %v", links, got)
		}
	}
	stale := Link("b", "", Rec(1, 3), 2)
	stale.Kind, stale.Expect = slave.OpMeta, GFID(1)
	f.Must(stale)
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("two names at a later xtime: groups %v", got)
	}
}

// namesElsewhere: the inode has two names on the master, of which a search of the volume found one.
func namesElsewhere(f *Fixture) {
	f.Must(Linked(Put("a", Rec(1, 1), "one"), 2))
	settle := Link("a", "", Rec(1, 1), 1)
	settle.LinksFinal = true
	f.Must(settle)
	f.Must(Link("a", "", Rec(1, 1), 2))
	if got := f.groups(); len(got) != 0 {
		f.Fatalf("groups %v", got)
	}
	f.Must(Link("a", "", Rec(1, 2), 2))
	if got := f.groups(); len(got) != 1 {
		f.Fatalf("after a change of the inode: groups %v", got)
	}
}

func metaOfGroup(f *Fixture) {
	group(f)
	meta := Link("a", "", Rec(1, 2), 3)
	meta.Kind, meta.Expect, meta.Meta.Mode = slave.OpMeta, GFID(1), 0o600
	f.Must(meta)
	f.SameInode("a", "b", "d/c")
	if f.Record("d/c") != Rec(1, 2) || f.Stat("b").Mode&0o7777 != 0o600 {
		f.Fatalf("record %v", f.Record("d/c"))
	}
}

func linkSpecial(f *Fixture) {
	if f.OnRecord {
		f.linkOnRecord()
		return
	}
	if !slave.Symlink.CarriesRecord(f.Tree.Info().Namespace) {
		f.Fails(linkTo("l2", "l", slave.Symlink), slave.ErrNeedContent)
		return
	}
	l := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "l", Record: Rec(1, 1), Meta: MetaOf(0o777)}
	l.Meta.Target = "old"
	p := slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: "p", Record: Rec(2, 1), Meta: MetaOf(0o600)}
	f.Must(Linked(l, 2), Linked(p, 2))
	p2 := linkTo("p2", "p", slave.Fifo)
	p2.Record = Rec(2, 1)
	f.Must(linkTo("l2", "l", slave.Symlink), p2)
	f.SameInode("l", "l2")
	f.SameInode("p", "p2")
	l.Meta.Target, l.Record = "new", Rec(1, 2)
	f.Must(Linked(l, 2))
	f.SameInode("l", "l2")
	if target, err := os.Readlink(f.Path("l2")); err != nil || target != "new" {
		f.Fatalf("link to %q, %v", target, err)
	}
	if st := f.Stat("p2"); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		f.Fatalf("mode %o", st.Mode)
	}
}

// linkOnRecord: both names are known, and follow each other.
func (f *Fixture) linkOnRecord() {
	p := slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: "p", Record: Rec(2, 1), Meta: MetaOf(0o600)}
	p2 := linkTo("p2", "p", slave.Fifo)
	p2.Record = Rec(2, 1)
	f.Must(Linked(p, 2))
	f.Must(p2)
	p.Record = Rec(2, 2)
	f.Must(Linked(p, 2))
	if _, entries := f.Survey(""); entries["p2"].Record != Rec(2, 2) || entries["p2"].Kind != slave.Fifo {
		f.Fatalf("%+v", entries)
	}
}

func linkTo(path, from string, kind slave.Kind) slave.Op {
	op := Link(path, from, Rec(1, 1), 2)
	op.Entry = kind
	return op
}
