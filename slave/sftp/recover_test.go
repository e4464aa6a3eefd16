package sftp

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/slavetest"
)

// device is an operation that makes one, which the index alone has.
func device(path string, n int, sec uint64) slave.Op {
	return slave.Op{Kind: slave.OpNode, Entry: slave.CharDev, Path: path, Record: slavetest.Rec(n, sec), Meta: slavetest.MetaOf(0o600)}
}

func symlink(path string, n int, sec uint64) slave.Op {
	op := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: path, Record: slavetest.Rec(n, sec), Meta: slavetest.MetaOf(0o777)}
	op.Meta.Target = fmt.Sprint("target ", n)
	return op
}

// TestWhatWasDoneStaysOnRecord: a name loses its entry and gets one again, and its directory is stamped. What the slave then has on
// record there it has after the session too, however that ends, and whatever else was under way.
func TestWhatWasDoneStaysOnRecord(t *testing.T) {
	rec := slavetest.Rec
	for what, c := range map[string]struct {
		before []slave.Op
		ops    []slave.Op
		want   slave.Record
	}{
		"a directory is parked, and comes back": {
			[]slave.Op{slavetest.Mkdir("d/s", rec(2, 0)), slavetest.Put("d/s/f", rec(3, 1), "f"), slavetest.Finish("d/s", rec(2, 1), 1)},
			[]slave.Op{slavetest.Park("d/s", rec(2, 0).GFID), slavetest.Unpark("d/s", rec(2, 1))}, rec(2, 1)},
		"a directory is replaced": {
			[]slave.Op{slavetest.Mkdir("d/s", rec(2, 0)), slavetest.Finish("d/s", rec(2, 1), 1)},
			[]slave.Op{slavetest.Park("d/s", rec(2, 0).GFID), slavetest.Mkdir("d/s", rec(4, 0)), slavetest.Finish("d/s", rec(4, 2), 1)}, rec(4, 2)},
		"a file is removed, and another made": {
			[]slave.Op{slavetest.Put("d/s", rec(2, 1), "a")},
			[]slave.Op{slavetest.Park("d/s", rec(2, 1).GFID), slavetest.Put("d/s", rec(4, 2), "b")}, rec(4, 2)},
		"a file is replaced": {
			[]slave.Op{slavetest.Put("d/s", rec(2, 1), "a")}, []slave.Op{slavetest.Put("d/s", rec(4, 2), "b")}, rec(4, 2)},
		"a symlink is replaced": {
			[]slave.Op{symlink("d/s", 2, 1)}, []slave.Op{symlink("d/s", 4, 2)}, rec(4, 2)},
		"a device is replaced": {
			[]slave.Op{device("d/s", 2, 1)}, []slave.Op{device("d/s", 4, 2)}, rec(4, 2)},
		"a file is compared": {
			[]slave.Op{slavetest.Put("d/s", rec(2, 1), "a")},
			[]slave.Op{slavetest.Put("d/s", rec(2, 2), "b"), {Kind: slave.OpMeta, Entry: slave.File, Path: "d/s", Record: rec(2, 3),
				Expect: rec(2, 2).GFID, Meta: slavetest.MetaOf(0o600)}}, rec(2, 3)},
	} {
		for name, start := range map[string]server{"library": library, "bare": bare} {
			for _, cut := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, cut %v", what, name, cut), func(t *testing.T) {
					staysOnRecord(t, start, cut, c.before, c.ops, c.want)
				})
			}
		}
	}
}

func staysOnRecord(t *testing.T, start server, cut bool, before, ops []slave.Op, want slave.Record) {
	root := memory(t)
	endWithNotes(t, root, start, cut, before, nil, ops)
	checkOnRecord(t, root, start, want)
}

// endWithNotes plays a session which ends, or is cut, with notes in both logs of its journal.
// What is done first is in the older one.
func endWithNotes(t *testing.T, root string, start server, cut bool, before, first, ops []slave.Op) {
	t.Helper()
	tree, err := open(t.Context(), options(t, root, start, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	f.Must(append([]slave.Op{slavetest.Mkdir("d", slavetest.Rec(1, 0))}, before...)...)
	f.Must(slavetest.Finish("d", slavetest.Rec(1, 1), 1))
	// Something is under way for as long as that: the notes in one log of the journal stay.
	done, err := tree.changes.journal.Note([]index.Intent{{Dir: index.Root, Name: "elsewhere", Gone: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range first {
		f.Must(op)
	}
	if err := tree.changes.flush(); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		f.Must(op)
	}
	f.Must(slavetest.Finish("d", slavetest.Rec(1, 2), 2))
	done()
	if cut {
		tree.hangUp()
		<-tree.Done()
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}

func checkOnRecord(t *testing.T, root string, start server, want slave.Record) {
	t.Helper()
	again, err := open(t.Context(), options(t, root, start, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	f := &slavetest.Fixture{T: t, Tree: again, Root: root}
	state, entries := f.Survey("d")
	if state.Record != slavetest.Rec(1, 2) {
		t.Fatalf("d is on record as %v", state.Record)
	}
	if got := entries["s"].Record; got != want {
		t.Errorf("on record as %v, want %v, below a stamp", got, want)
	}
}

// TestJournalIsEmptiedInOrder: a session that is cut while it opens, between the two logs of the one before it, leaves nothing by which
// the next one would drop what is on record below a stamp.
func TestJournalIsEmptiedInOrder(t *testing.T) {
	rec := slavetest.Rec
	ops := []slave.Op{slavetest.Park("d/s", rec(2, 1).GFID), slavetest.Put("d/s", rec(4, 2), "b")}
	for range 2 { // they went in any order
		root := memory(t)
		endWithNotes(t, root, library, true, []slave.Op{slavetest.Put("d/s", rec(3, 1), "a")}, []slave.Op{slavetest.Put("d/s", rec(2, 1), "b")}, ops)
		openCutBetween(t, root)
		checkOnRecord(t, root, library, rec(4, 2))
	}
}

// openCutBetween opens a slave until one of the two logs is empty, and a further file is to be opened.
func openCutBetween(t *testing.T, root string) {
	t.Helper()
	const typeOpen = 3
	oneIsEmpty := func() bool {
		for i := range 50 {
			left := 0
			for _, name := range logNames {
				if st, err := os.Stat(filepath.Join(root, name)); err == nil && st.Size() > 0 {
					left++
				}
			}
			if left < len(logNames) {
				return true
			}
			if i > 0 {
				time.Sleep(time.Millisecond) // what was asked before may be under way
			}
		}
		return false
	}
	o := options(t, root, func(t testing.TB) (io.ReadWriteCloser, error) {
		inner, err := library(t)
		if err != nil {
			return nil, err
		}
		return newOdd(inner, false, func(kind byte) (bool, bool) { return false, kind == typeOpen && oneIsEmpty() }), nil
	}, 1)
	if tree, err := open(t.Context(), o, quickLease); err == nil {
		tree.Close()
		t.Fatal("it was not cut")
	}
}

// TestStampOfTheOneBefore: a directory that becomes another inode's loses its stamp before anything in it changes, also where the
// connection is cut.
func TestStampOfTheOneBefore(t *testing.T) {
	root := memory(t)
	tree, err := open(t.Context(), options(t, root, library, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("d/f", slavetest.Rec(2, 1), "f"), slavetest.Finish("d", slavetest.Rec(1, 1), 1))
	becomes := slavetest.Mkdir("d", slavetest.Rec(3, 0))
	becomes.Expect = slavetest.GFID(1)
	f.Must(becomes, slavetest.Park("d/f", slavetest.GFID(2)))
	tree.hangUp()
	<-tree.Done()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := open(t.Context(), options(t, root, library, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	f.Tree = again
	if state, entries := f.Survey("d"); state.Record.Xtime != 0 && len(entries) == 0 {
		t.Errorf("on record as %v, with nothing in it", state.Record)
	}
}

// TestJournalAfterTheClockWasSetBack: what a session notes is newer than what the one before did, of which one log alone may come back
// after a power cut, also where the clock says otherwise.
func TestJournalAfterTheClockWasSetBack(t *testing.T) {
	for _, only := range []int{0, 1} {
		root := memory(t)
		tree, err := open(t.Context(), options(t, root, library, 1), quickLease)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
		l := &oneLog{}
		ahead := uint64(time.Now().Add(24 * time.Hour).UnixMicro())
		if _, err := index.NewJournal(l, nil, ahead).Note([]index.Intent{{Dir: index.Root, Name: "x", Gone: true}}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, logNames[only]), l.text, 0o600); err != nil {
			t.Fatal(err)
		}
		tree, err = open(t.Context(), options(t, root, library, 1), quickLease)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if _, err := tree.changes.journal.Note([]index.Intent{{Dir: index.Root, Name: "x", Gone: true}}); err != nil {
			t.Fatal(err)
		}
		turn := uint64(0)
		for _, name := range logNames {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			turn = max(turn, index.TurnOf(text))
		}
		if turn <= ahead {
			t.Errorf("log %d was begun in turn %d, and the next one in turn %d", only, ahead+1, turn)
		}
	}
}

// oneLog is a log in memory.
type oneLog struct{ text []byte }

func (l *oneLog) Append(text []byte) error { l.text = append(l.text, text...); return nil }
func (l *oneLog) Clear() error             { l.text = nil; return nil }
