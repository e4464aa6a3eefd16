package crawler

import (
	"fmt"
	"testing"

	"georep/crawler/plan"
	"georep/marker/xtime"
	"georep/slave"
)

// TestNamesOfManyStates: an inode that gets names all the time is marked with each, so each may be listed in another state. The
// newest of those that wait is shipped, and all others become links: two turns, whatever their number.
func TestNamesOfManyStates(t *testing.T) {
	var l links
	turns, linked := 0, 0
	rec := func(x int) slave.Record { return slave.Record{GFID: xtime.GFID{1}, Xtime: xtime.Time(x)} }
	var holds []slave.Record
	for i := range 1000 {
		x := waiter{record: rec(1 + i*7919%1000)}
		x.turn = func(shipped inode) {
			if x.linksTo(shipped) {
				linked++
				return
			}
			turns++
			holds = append(holds, x.record)
		}
		l.acquire(x)
	}
	for len(holds) > 0 {
		op := slave.Op{Path: "f", Record: holds[0]}
		holds = holds[1:]
		l.release(&op, true, false)
	}
	if turns != 2 || linked != 998 {
		t.Errorf("%d turns, %d links", turns, linked)
	}
}

// TestFurtherNamesGoWithTheirOwnState: what is known of the content under one name says nothing of names that the slave has in another
// state, as that of one whose content is of no one moment.
func TestFurtherNamesGoWithTheirOwnState(t *testing.T) {
	g := xtime.GFID{1}
	item := func(name string, there xtime.Time) plan.Item {
		it := plan.Item{State: &slave.EntryState{Name: name, Kind: slave.File, Record: slave.Record{GFID: g, Xtime: there}}}
		it.Entry.Name, it.Entry.Kind, it.Entry.Record = name, slave.File, slave.Record{GFID: g, Xtime: 9}
		it.Entry.Stat.Nlink = 5
		return it
	}
	first, more := firstNames([]plan.Item{item("torn", 0), item("a", 5), item("b", 5), item("c", 3), item("d", 5)})
	c := &compared{more: more}
	got := map[string]int{}
	for i := range first {
		got[first[i].Entry.Name] = len(c.furtherOf(&first[i]))
	}
	if len(got) != 3 || got["torn"] != 0 || got["a"] != 2 || got["c"] != 0 {
		t.Errorf("further names of each: %v", got)
	}
}

// TestNamesOfATornFileAreLinked: while an inode changes each of its names would be sent torn, one after the other. They become links to
// the first one instead, and the record says that it is in no state that is known.
func TestNamesOfATornFileAreLinked(t *testing.T) {
	var l links
	g := xtime.GFID{1}
	ships, became := 0, map[string]inode{}
	name := func(path string, x xtime.Time) {
		w := waiter{record: slave.Record{GFID: g, Xtime: x}}
		w.turn = func(shipped inode) {
			if w.linksTo(shipped) {
				became[path] = shipped
				return
			}
			ships++
		}
		l.acquire(w)
	}
	for i := range 500 {
		name(fmt.Sprint("n", i), 7)
	}
	op := slave.Op{Kind: slave.OpPut, Path: "n0", Record: slave.Record{GFID: g, Xtime: 7}}
	l.release(&op, true, true)
	name("later", 7)
	name("newer", 8)
	if len(became) != 500 || ships != 2 {
		t.Errorf("%d names became links, and %d were shipped", len(became), ships)
	}
	for path, shipped := range became {
		if shipped.record.Xtime != 0 || shipped.record.GFID != g || shipped.path != "n0" {
			t.Fatalf("%s is a link to %+v", path, shipped)
		}
	}
}
