package slavetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/slave"
)

func stampCases() []testCase {
	return []testCase{
		{"a finish sets meta and stamp", finish},
		{"a finish without a stamp leaves the old one", finishNoStamp},
		{"a finish is not done on another directory, or another copy", finishAnother},
		{"directories that their owner may not write or read", readOnlyDirs},
		{"a failed finish holds back those above it in its pass", heldBack},
		{"so does another failure in the batch of the finish", heldBackInBatch},
		{"also one that never left the master, or a part of the batch before", heldBackElsewhere},
		{"batches from many goroutines", manyBatches},
		{"later batches of the same name win", lastWins},
		{"close ends every call", closing},
	}
}

func finish(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/a", Rec(2, 1), "a"))
	fin := Finish("d", Rec(1, 4), 1)
	fin.Meta.Mode = 0o1755
	fin.Meta.Xattrs = []slave.Xattr{{Name: "user.dir", Value: []byte("v")}}
	f.Must(fin, Finish("", Rec(9, 5), 1))
	st := f.Stat("d")
	if st.Mode&0o7777 != 0o1755 || st.Mtim.Sec != fin.Meta.Mtime.Sec || !f.OnRecord && len(f.xattrs("d")) != 1 {
		f.Fatalf("mode %o, mtime %v, xattrs %q", st.Mode, st.Mtim, f.xattrs("d"))
	}
	if f.Record("d") != Rec(1, 4) || f.Record("") != Rec(9, 5) {
		f.Fatalf("stamps %v and %v", f.Record("d"), f.Record(""))
	}
	if got := f.Stat("").Mtim.Sec; got != fin.Meta.Mtime.Sec {
		f.Fatalf("mtime %d of the root", got)
	}
	fin.Meta.Xattrs = nil
	f.Must(fin)
	if got := f.xattrs("d"); len(got) != 0 {
		f.Fatalf("xattrs %q that the master no longer has", got)
	}
}

func finishNoStamp(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Finish("d", Rec(1, 4), 1))
	fin := Finish("d", Rec(1, 6), 2)
	fin.Stamp, fin.Meta.Mode = false, 0o700
	f.Must(fin)
	if f.Record("d") != Rec(1, 4) || f.Stat("d").Mode&0o7777 != 0o700 {
		f.Fatalf("record %v, mode %o", f.Record("d"), f.Stat("d").Mode)
	}
}

// finishAnother: a directory that has come to the place of the one that is meant is not finished in its stead, nor is
// another copy of that one. It keeps its record: with the other's, a stamp would say that all of the other is there.
func finishAnother(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/x", Rec(2, 1), "x"), Finish("d", Rec(1, 4), 1))
	for _, stamp := range []bool{true, false} {
		fin := Finish("d", Rec(9, 6), 2)
		fin.Stamp = stamp
		f.Fails(fin, slave.ErrMoved)
	}
	first, _ := f.Survey("d")
	_, above := f.Survey("")
	if first.Copy == 0 || above["d"].Copy != first.Copy {
		f.Fatalf("copy %d, and %d in the directory above", first.Copy, above["d"].Copy)
	}
	f.Must(Park("d", GFID(1)))
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/x", Rec(2, 1), "x"))
	second, _ := f.Survey("d")
	if second.Copy == 0 || second.Copy == first.Copy {
		f.Fatalf("copies %d and %d", first.Copy, second.Copy)
	}
	fin := Finish("d", Rec(1, 6), 3)
	fin.Copy = first.Copy
	f.Fails(fin, slave.ErrMoved)
	if got := f.Record("d"); got != Rec(1, 0) {
		f.Fatalf("on record as %+v", got)
	}
	fin.Copy, fin.Pass = second.Copy, 4
	f.Must(fin)
	f.Must(Mkdir("e", Rec(3, 0)), Park("d", GFID(1)))
	f.Must(Unpark("e/d", Rec(1, 6)))
	if moved, _ := f.Survey("e/d"); moved.Copy != second.Copy || moved.Record != Rec(1, 6) {
		f.Fatalf("copy %d on record as %+v after a move, want %d", moved.Copy, moved.Record, second.Copy)
	}
}

func readOnlyDirs(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/a", Rec(2, 1), "a"), Linked(Put("d/l", Rec(3, 1), "l"), 2))
	closed := func(mode uint32, sec uint64) slave.Op {
		fin := Finish("d", Rec(1, sec), uint32(sec))
		fin.Meta.Mode = mode
		return fin
	}
	ro := Put("d/a", Rec(2, 2), "read only")
	ro.Meta.Mode, ro.Meta.Xattrs = 0o400, []slave.Xattr{{Name: "user.x", Value: []byte("1")}}
	f.Must(closed(0o555, 2))
	f.Must(ro, Put("d/b", Rec(4, 2), "b"), Link("m", "d/l", Rec(3, 1), 2), closed(0o555, 3))
	f.Content("d/b", "b")
	before := f.Stat("d")
	f.Must(Linked(Put("m", Rec(3, 4), "new"), 2))
	f.SameInode("m", "d/l")
	if st := f.Stat("d"); st.Mode&0o7777 != 0o555 || st.Mtim != before.Mtim || f.Record("d") != Rec(1, 3) {
		f.Fatalf("mode %o, mtime %v, record %v", st.Mode, st.Mtim, f.Record("d"))
	}
	meta := slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "d/a", Record: Rec(2, 5), Expect: GFID(2), Meta: MetaOf(0o440)}
	f.Must(meta, Park("d/b", GFID(4)), closed(0o300, 5))
	for _, mode := range []uint32{0, 0o200} {
		ro.Path, ro.Record, ro.Meta.Mode = "none", Rec(9, uint64(mode)+1), mode
		f.Must(ro)
		if got := f.Record("none"); got != ro.Record || f.Stat("none").Mode&0o7777 != mode {
			f.Fatalf("record %v of a file that its owner may not read", got)
		}
	}
	if _, entries := f.Survey("d"); len(entries) != 2 || entries["a"].Mode != 0o440 || entries["a"].Record != Rec(2, 5) {
		f.Fatalf("%+v", entries)
	}
	f.Must(closed(0o555, 6))
	f.Must(Park("d", GFID(1)))
	f.Must(Unpark("e", Rec(1, 6)))
	if st := f.Stat("e"); st.Mode&0o7777 != 0o555 || f.Record("e") != Rec(1, 6) {
		f.Fatalf("mode %o, record %v", st.Mode, f.Record("e"))
	}
	f.Must(Park("e", GFID(1)))
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	f.areaEmpty("trash")
}

func heldBack(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/e", Rec(2, 0)), Mkdir("d/ok", Rec(3, 0)), Mkdir("dd", Rec(4, 0)))
	pass := func(n uint32) []slave.Op {
		return []slave.Op{
			Finish("d/e/gone", Rec(5, 5), n), Finish("d/ok", Rec(3, 5), n), Finish("d/e", Rec(2, 5), n),
			Finish("d", Rec(1, 5), n), Finish("dd", Rec(4, 5), n), Finish("", Rec(6, 5), n),
		}
	}
	want := []error{fs.ErrNotExist, nil, slave.ErrHeldBack, slave.ErrHeldBack, nil, slave.ErrHeldBack}
	for i, r := range f.Apply(pass(1)...) {
		if !errors.Is(r.Err, want[i]) {
			f.Errorf("finish %d: got %v, want %v", i, r.Err, want[i])
		}
	}
	stamps := map[string]bool{"d/ok": true, "d/e": false, "d": false, "dd": true, "": false}
	for path, set := range stamps {
		if got := f.Record(path).Xtime != 0; got != set {
			f.Errorf("stamp of %q: %v", path, got)
		}
	}
	// Still so for a later batch of the pass, and over in the next.
	f.Fails(Finish("d", Rec(1, 5), 1), slave.ErrHeldBack)
	f.Must(pass(2)[1:]...)
	if f.Record("") != Rec(6, 5) {
		f.Fatalf("record %v of the root", f.Record(""))
	}
}

// heldBackInBatch: an OpFinish may be sent behind what it finishes, without waiting for the results.
func heldBackInBatch(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/e", Rec(2, 0)), Mkdir("dd", Rec(4, 0)))
	batch := func(bad string, pass uint32) []slave.Op {
		return []slave.Op{Put(bad, Rec(7, 5), "x"), Put("dd/f", Rec(8, 5), "x"), Finish("d/e", Rec(2, 5), pass),
			Finish("d", Rec(1, 5), pass), Finish("dd", Rec(4, 5), pass), Finish("", Rec(6, 5), pass)}
	}
	want := []error{fs.ErrNotExist, nil, slave.ErrHeldBack, slave.ErrHeldBack, nil, slave.ErrHeldBack}
	for i, r := range f.Apply(batch("d/e/gone/f", 1)...) {
		if !errors.Is(r.Err, want[i]) {
			f.Errorf("operation %d: got %v, want %v", i, r.Err, want[i])
		}
	}
	for path, set := range map[string]bool{"d/e": false, "d": false, "dd": true, "": false} {
		if got := f.Record(path).Xtime != 0; got != set {
			f.Errorf("stamp of %q: %v", path, got)
		}
	}
	// Over in the next batch, of the same pass too.
	f.Must(batch("d/e/f", 1)...)
	if f.Record("") != Rec(6, 5) || f.Record("d/e") != Rec(2, 5) {
		f.Fatalf("record %v of the root, %v of d/e", f.Record(""), f.Record("d/e"))
	}
}

// heldBackElsewhere: it does not matter where an operation of the batch failed. One may be such that the wire cannot carry
// it; and a batch may be too large to travel as one.
func heldBackElsewhere(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)))
	link := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "d/l", Record: Rec(3, 1), Meta: MetaOf(0o777)}
	link.Meta.Target = strings.Repeat("t", 5000)
	bulky := func(path string, rec slave.Record) slave.Op {
		op := Put(path, rec, "x")
		for i := range 40 {
			op.Meta.Xattrs = append(op.Meta.Xattrs, slave.Xattr{Name: fmt.Sprintf("user.x%d", i), Value: make([]byte, 60_000)})
		}
		return op
	}
	for name, ops := range map[string][]slave.Op{
		"never left": {link},
		"in a part":  {bulky("gone/f", Rec(7, 5)), bulky("d/f", Rec(8, 5))},
	} {
		results := f.Apply(append(ops, Put("d/g", Rec(4, 2), "g"), Finish("", Rec(9, 5), 1))...)
		if results[0].Err == nil || results[len(ops)].Err != nil || !errors.Is(results[len(ops)+1].Err, slave.ErrHeldBack) {
			f.Errorf("%s: %+v", name, results)
		}
		if f.Record("").Xtime != 0 {
			f.Fatalf("%s: stamped all the same", name)
		}
	}
}

func manyBatches(f *Fixture) {
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			dir := fmt.Sprint("w", w)
			for i := range 20 {
				n := 10_000 + 1000*w + 10*i
				ops := []slave.Op{
					Mkdir(dir, Rec(n/1000, 0)), Put(fmt.Sprint(dir, "/f", i), Rec(n+1, 1), fmt.Sprint(i)),
					Finish(dir, Rec(n/1000, uint64(i+1)), uint32(1)),
				}
				res, err := f.Tree.Apply(context.Background(), &slave.Batch{Ops: ops})
				if err != nil {
					f.Errorf("apply: %v", err)
					return
				}
				for k, r := range res {
					if r.Err != nil {
						f.Errorf("%s %q: %v", ops[k].Kind, ops[k].Path, r.Err)
					}
				}
			}
		})
	}
	all.Wait()
	for w := range 8 {
		state, entries := f.Survey(fmt.Sprint("w", w))
		if len(entries) != 20 || state.Record.Xtime != Rec(0, 20).Xtime {
			f.Fatalf("w%d: %d entries, record %v", w, len(entries), state.Record)
		}
	}
	f.StagingEmpty()
}

func lastWins(f *Fixture) {
	var ops []slave.Op
	for i := range 50 {
		ops = append(ops, Put("a", Rec(1, uint64(i+1)), fmt.Sprint(i)), Put("b", Rec(i+10, 1), fmt.Sprint(i)))
	}
	f.Must(ops...)
	f.Content("a", "49")
	f.Content("b", "49")
}

func closing(f *Fixture) {
	if err := f.Tree.Close(); err != nil {
		f.Fatal(err)
	}
	if err := f.Tree.Close(); err != nil {
		f.Fatal(err)
	}
	_, err := f.Tree.Apply(f.Context(), &slave.Batch{Ops: []slave.Op{Put("a", Rec(1, 1), "a")}})
	if err == nil {
		f.Error("apply after close succeeded")
	}
	if _, err := f.Tree.Survey(f.Context(), []slave.Query{{}}); err == nil {
		f.Error("survey after close succeeded")
	}
	if _, err := f.Tree.Find(f.Context(), nil); err == nil {
		f.Error("find after close succeeded")
	}
	if _, err := f.Tree.Hash(f.Context(), nil); err == nil {
		f.Error("hash after close succeeded")
	}
	if _, err := f.Tree.Groups(f.Context(), 1); err == nil {
		f.Error("groups after close succeeded")
	}
	if err := f.Tree.Clean(f.Context(), 0); err == nil {
		f.Error("clean after close succeeded")
	}
	if _, err := os.Lstat(f.Path("a")); !errors.Is(err, unix.ENOENT) {
		f.Errorf("a was made after close: %v", err)
	}
}
