package sftp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// content is what the file on record as rec holds. All are of one size, and all have one mtime: nothing but the index tells
// them apart.
func content(rec slave.Record) string {
	return fmt.Sprintf("%s %d", rec.GFID, uint64(rec.Xtime>>32))
}

func file(path string, n int, sec uint64) slave.Op {
	rec := slavetest.Rec(n, sec)
	return slavetest.Put(path, rec, content(rec))
}

// script is a session's life: each list is a batch, applied when the one before it is through.
func script() [][]slave.Op {
	rec, root := slavetest.Rec, slavetest.Rec(99, 1)
	return [][]slave.Op{
		{slavetest.Mkdir("d", rec(50, 0)), file("d/a", 1, 1), file("d/b", 2, 1), slavetest.Mkdir("d/in", rec(51, 0)), file("d/in/x", 3, 1)},
		{slavetest.Finish("d/in", rec(51, 1), 1), slavetest.Finish("d", rec(50, 1), 1), slavetest.Finish("", root, 1)},
		{file("d/a", 1, 2), file("d/b", 4, 1), file("d/in/x", 3, 2)},
		{slavetest.Finish("d/in", rec(51, 2), 2), slavetest.Finish("d", rec(50, 2), 2), slavetest.Finish("", rec(99, 2), 2)},
		{slavetest.Park("d/in", xtime.GFID(rec(51, 0).GFID)), slavetest.Park("d/a", rec(1, 0).GFID)},
		{slavetest.Mkdir("d/in", rec(52, 0)), file("d/in/x", 5, 1), slavetest.Unpark("d/moved", rec(51, 2)), file("d/a", 6, 1)},
		{slavetest.Finish("d/in", rec(52, 3), 3), slavetest.Finish("d", rec(50, 3), 3), slavetest.Finish("", rec(99, 3), 3)},
		{slavetest.Linked(file("d/l1", 7, 1), 2)},
		{slavetest.Link("d/l2", "d/l1", rec(7, 1), 2)},
		{slavetest.Linked(file("d/l2", 7, 2), 2)},
		{slavetest.Park("d", rec(50, 0).GFID), slavetest.Mkdir("d", rec(53, 0)), file("d/a", 8, 1)},
		{slavetest.Finish("d", rec(53, 4), 4), slavetest.Finish("", rec(99, 4), 4)},
	}
}

// stamped is what a directory holds by its stamp.
var stamped = map[slave.Record][]string{
	slavetest.Rec(51, 1): {"x"}, slavetest.Rec(51, 2): {"x"}, slavetest.Rec(52, 3): {"x"}, slavetest.Rec(53, 4): {"a"},
}

// TestCut cuts the connection at each request of a session's life. Whatever the slave then says to have on record must be
// what is there, although sizes and times never tell.
func TestCut(t *testing.T) {
	for name, start := range map[string]server{"OpenSSH": program, "bare": bare} {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); ; n += cutStep(t) {
				root := memory(t)
				if whole := cutAt(t, root, start, n); whole {
					t.Logf("%d requests", n)
					break
				}
				vouched(t, root, n, name == "OpenSSH")
				if t.Failed() {
					break
				}
			}
		})
	}
}

// cutAt plays the script until the n-th request that is no read. It tells whether the script ended before.
func cutAt(t *testing.T, root string, start server, n int64) (whole bool) {
	t.Helper()
	var count atomic.Int64
	o := options(t, root, func(t testing.TB) (io.ReadWriteCloser, error) {
		inner, err := start(t)
		if err != nil {
			return nil, err
		}
		return newOdd(inner, false, func(kind byte) (bool, bool) { return false, kind != typeRead && count.Add(1) >= n }), nil
	}, 1)
	tree, err := open(t.Context(), o, quickLease)
	if err != nil {
		if count.Load() < n {
			t.Fatal(err)
		}
		return false
	}
	defer tree.Close()
	for i, ops := range script() {
		results, err := tree.Apply(t.Context(), &slave.Batch{Ops: ops})
		if count.Load() >= n {
			return false
		}
		for k, r := range results {
			if err = errors.Join(err, r.Err); err != nil {
				t.Fatalf("batch %d, operation %d: %v", i, k, err)
			}
		}
	}
	return true
}

// cutStep is from one cut to the next: CI has no time for all of them. GEOREP_CUT_STEP=1 does them all.
func cutStep(t *testing.T) int64 {
	text := os.Getenv("GEOREP_CUT_STEP")
	if text == "" {
		return 5
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("GEOREP_CUT_STEP is %q", text)
	}
	return n
}

// vouched opens the slave again and compares all that it has on record with what is there.
func vouched(t *testing.T, root string, n int64, links bool) {
	t.Helper()
	tree, err := open(t.Context(), options(t, root, program, 2), quickLease)
	if err != nil {
		t.Fatalf("cut at %d: open again: %v", n, err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	for todo := []string{""}; len(todo) > 0; todo = todo[1:] {
		dir := todo[0]
		state, entries := f.Survey(dir)
		if want, ok := stamped[state.Record]; ok {
			for _, name := range want {
				// It may be without a record by then: what was cut off was to bring a newer one.
				if _, ok := entries[name]; !ok && links {
					t.Errorf("cut at %d: %q is stamped %v without %q", n, dir, state.Record, name)
				}
			}
		}
		for name, e := range entries {
			path := strings.TrimPrefix(dir+"/"+name, "/")
			switch {
			case e.Kind == slave.Dir:
				todo = append(todo, path)
			case e.Record.Xtime != 0:
				got, err := os.ReadFile(filepath.Join(root, path))
				if err != nil || string(got) != content(e.Record) {
					t.Errorf("cut at %d: %q is on record as %v and holds %q, %v", n, path, e.Record, got, err)
				}
			}
		}
	}
	for i := range 9 {
		checkFound(t, f, root, i, n)
	}
}

// checkFound: what is parked on record as an inode holds that inode's content.
func checkFound(t *testing.T, f *slavetest.Fixture, root string, i int, n int64) {
	t.Helper()
	all, err := f.Tree.Find(t.Context(), []xtime.GFID{slavetest.GFID(i)})
	if err != nil {
		t.Fatalf("cut at %d: %v", n, err)
	}
	if !all[0].Parked {
		return
	}
	path := all[0].Path
	if path == "" {
		path = slavetest.GFID(i).String()
	}
	got, err := os.ReadFile(filepath.Join(root, parkedDir, path))
	if err != nil || string(got) != content(all[0].Record) {
		t.Errorf("cut at %d: %d is parked as %v and holds %q, %v", n, i, all[0].Record, got, err)
	}
}
