package sftp

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"georep/slave"
	"georep/slave/sftp/wire"
	"georep/slave/slavetest"
)

// counting opens a slave whose requests are counted by kind.
func counting(t *testing.T) (*slavetest.Fixture, *[256]atomic.Int64) {
	t.Helper()
	asked := new([256]atomic.Int64)
	root := memory(t)
	start := func(t testing.TB) (io.ReadWriteCloser, error) {
		inner, err := program(t)
		if err != nil {
			return nil, err
		}
		return newOdd(inner, false, func(kind byte) (bool, bool) { asked[kind].Add(1); return false, false }), nil
	}
	tree, err := Open(t.Context(), options(t, root, start, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return &slavetest.Fixture{T: t, Tree: tree, Root: root}, asked
}

// TestListedOnce: what a listing tells of entries is not asked for again.
func TestListedOnce(t *testing.T) {
	const files = 300
	f, asked := counting(t)
	ops := []slave.Op{slavetest.Mkdir("d", slavetest.Rec(1000, 1))}
	for i := range files {
		ops = append(ops, slavetest.Put(fmt.Sprintf("d/%d", i), slavetest.Rec(i, 1), "content"))
	}
	f.Must(ops...)
	dirs, looks := asked[typeOpendir].Load(), asked[typeLstat].Load()
	if _, entries := f.Survey("d"); len(entries) != files {
		t.Errorf("%d entries", len(entries))
	}
	dirs, looks = asked[typeOpendir].Load()-dirs, asked[typeLstat].Load()-looks
	if dirs != 1 || looks > 2 { // of the directory, and those above it
		t.Errorf("listed %d times, %d entries looked at", dirs, looks)
	}
}

// TestLargeListedOnce: all parts of a large directory come from one listing, with what this session changed meanwhile. A part
// that is asked for again is listed again.
func TestLargeListedOnce(t *testing.T) {
	const parts = 3
	f, asked := counting(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)))
	of := map[uint32][]string{} // names by part, of a few of each
	for i := range slave.MaxEntries + 1 {
		name := fmt.Sprint(i)
		if err := os.WriteFile(f.Path("d/"+name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if part := slave.PartOf(name, parts); len(of[part]) < 4 {
			of[part] = append(of[part], name)
		}
	}
	survey := func(part, parts uint32) slave.DirState {
		t.Helper()
		states, err := f.Tree.Survey(t.Context(), []slave.Query{{Path: "d", Part: part, Parts: parts}})
		if err != nil || states[0].Err != nil {
			t.Fatal(err, states)
		}
		return states[0]
	}
	before := asked[typeOpendir].Load()
	if s := survey(0, 0); !s.Truncated {
		t.Fatalf("%d entries, of which %d came", s.Total, len(s.Entries))
	}
	seen := map[string]slave.EntryState{}
	for part := range uint32(parts) {
		for _, e := range survey(part, parts).Entries {
			seen[e.Name] = e
		}
		// Each time entries of all parts change: new ones, other contents, a removal, a move.
		for other, names := range of {
			path := "d/" + names[part]
			f.Must(slavetest.Put(path, slavetest.Rec(100+int(10*part+other), 1), "content"))
			if part == 0 {
				gone := names[3]
				f.Must(slavetest.Put("d/"+gone, slavetest.Rec(200+int(other), 1), "x"))
				f.Must(slavetest.Park("d/"+gone, slavetest.GFID(200+int(other))))
			}
		}
	}
	if n := asked[typeOpendir].Load() - before; n != 1 {
		t.Errorf("listed %d times", n)
	}
	list, err := os.ReadDir(f.Path("d"))
	if err != nil {
		t.Fatal(err)
	}
	// Of part 0 what it was before anything changed; of the others what it was when they were asked for.
	if want := len(list) + 1; len(seen) != want {
		t.Errorf("%d entries, want %d", len(seen), want)
	}
	for other, names := range of {
		for at, name := range names {
			e, ok := seen[name]
			changed := other > uint32(at) && at < 3
			if gone := at == 3 && other > 0; ok == gone || !gone && (e.Size != 0) != changed || changed != (e.Record.Xtime != 0) {
				t.Errorf("%d of part %d: %v, %+v", at, other, ok, e)
			}
		}
	}
	if list := survey(1, parts); len(list.Entries) == 0 || asked[typeOpendir].Load()-before != 2 {
		t.Errorf("%d entries, listed %d times", len(list.Entries), asked[typeOpendir].Load()-before)
	}
}

// TestListingsTogether: whatever is listed at the same time, what is kept of it has a bound in sum, which is given back.
func TestListingsTogether(t *testing.T) {
	var l listings
	var all []*listing
	for i := range 8 {
		one := l.begin(fmt.Sprint("d", i), slave.Record{})
		for k := range 100_000 {
			one.add(wire.Name{Name: fmt.Sprintf("%040d", k)})
		}
		all = append(all, one)
		if sum := l.sum.Load(); sum > maxListings {
			t.Fatalf("%d bytes are kept of %d listings", sum, i+1)
		}
	}
	if l.sum.Load() < maxListings/2 {
		t.Fatalf("only %d bytes are kept: the test tests nothing", l.sum.Load())
	}
	for i, one := range all {
		l.end(one, i == 0)
	}
	if text := int64(cap(all[0].text)); l.sum.Load() != text || text == 0 {
		t.Errorf("%d bytes count, of a listing of %d", l.sum.Load(), text)
	}
	l.changing("d0") // the directory itself
	if l.sum.Load() != 0 {
		t.Errorf("%d bytes count of nothing", l.sum.Load())
	}
}

// TestManyLargeDirectories: more of them are asked for at once than are read at once. All are answered, in as many answers as it
// takes, and each gives its place back.
func TestManyLargeDirectories(t *testing.T) {
	f, _ := counting(t)
	const dirs, each = 3 * largeAtOnce, 1600
	var todo []slave.Query
	for i := range dirs {
		dir := filepath.Join(f.Root, fmt.Sprint("d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for k := range each {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", k)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		todo = append(todo, slave.Query{Path: fmt.Sprint("d", i)})
	}
	for len(todo) > 0 {
		states, err := f.Tree.Survey(t.Context(), todo)
		if err != nil || len(states) == 0 {
			t.Fatalf("%d answers: %v", len(states), err)
		}
		for i := range states {
			if n := len(states[i].Entries); states[i].Err != nil || n != each {
				t.Fatalf("%s: %d entries, %v", todo[i].Path, n, states[i].Err)
			}
		}
		todo = todo[len(states):]
	}
	if left := len(f.Tree.(*Tree).largeListings); left != 0 {
		t.Errorf("%d places were not given back", left)
	}
}
