package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/slave"
	"georep/slave/policy"
	"georep/slave/slavetest"
)

// limited opens a slave with a policy on a root in memory.
func limited(t *testing.T, root string, p policy.Policy) *slavetest.Fixture {
	t.Helper()
	o := testOptions(t, root)
	o.Policy = p
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxBytes < 1<<30 {
		tree.cleaner.age = 0
	}
	t.Cleanup(func() { tree.Close() })
	return &slavetest.Fixture{T: t, Tree: tree, Root: root}
}

func memory(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "georep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return root
}

// heldThere counts what a root has of the master, in blocks and names.
func heldThere(t *testing.T, root string) (r room) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || rel == "." || rel == slave.Reserved:
			return err
		case strings.HasPrefix(rel, slave.Reserved+"/"):
			switch strings.Split(rel, "/")[1] {
			case "parked", "trash", "staging", "partial", "links", "pending", "records":
				if strings.Count(rel, "/") == 1 {
					return nil
				}
			default:
				return nil
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if r.entries++; !seen[st.Ino] {
			seen[st.Ino] = true
			r.bytes += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refusals applies operations and gives the errors, each of which has to say that the slave is full by its policy.
func refusals(f *slavetest.Fixture, key string, ops ...slave.Op) (n int) {
	f.Helper()
	for _, r := range f.Apply(ops...) {
		if r.Err == nil {
			continue
		}
		n++
		if !slave.Full(r.Err) || !errors.Is(r.Err, slave.ErrLimit) || !strings.Contains(r.Err.Error(), key) {
			f.Errorf("refused with %v", r.Err)
		}
	}
	return n
}

const limitBytes = 4 << 20

// TestLimits: whatever a master sends, the slave's host holds no more than its policy says, and what was removed makes room.
func TestLimits(t *testing.T) {
	puts := func(first, n, size int) (ops []slave.Op) {
		for i := range n {
			ops = append(ops, slavetest.Put(fmt.Sprint("f", first+i), slavetest.Rec(first+i, 1), strings.Repeat("x", size)))
		}
		return ops
	}
	for name, c := range map[string]struct {
		policy  policy.Policy
		key     string
		ops     []slave.Op
		refused bool
	}{
		"files":             {policy.Policy{MaxBytes: limitBytes}, "max-bytes 4M", puts(0, 10, 1<<20), true},
		"small files":       {policy.Policy{MaxBytes: 64 << 10}, "max-bytes 64K", puts(0, 100, 10), true},
		"one large file":    {policy.Policy{MaxBytes: limitBytes}, "max-bytes 4M", puts(0, 1, 5<<20), true},
		"as much as fits":   {policy.Policy{MaxBytes: limitBytes}, "", puts(0, 4, 1<<20), false},
		"names":             {policy.Policy{MaxEntries: 50}, "max-entries 50", puts(0, 60, 0), true},
		"as many as may be": {policy.Policy{MaxEntries: 50}, "", puts(0, 50, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			f := limited(t, root, c.policy)
			if n := refusals(f, c.key, c.ops...); (n > 0) != c.refused {
				t.Errorf("%d of %d were refused", n, len(c.ops))
			}
			got := heldThere(t, root)
			if b := c.policy.MaxBytes; b > 0 && got.bytes > b {
				t.Errorf("it holds %d bytes, which is over %d", got.bytes, b)
			}
			if e := c.policy.MaxEntries; e > 0 && got.entries > e {
				t.Errorf("it holds %d entries, which is over %d", got.entries, e)
			}
		})
	}
}

// TestLimitsOfOtherKinds: directories, links, devices and further names count, too, and holes do not.
func TestLimitsOfOtherKinds(t *testing.T) {
	root := memory(t)
	f := limited(t, root, policy.Policy{MaxBytes: 1 << 20, MaxEntries: 40})
	sparse := slavetest.Put("sparse", slavetest.Rec(1, 1), "x")
	sparse.Open = func() (slave.Content, error) {
		return &slavetest.Memory{Pieces: []slave.Piece{{Off: 1 << 29, Data: []byte("x")}}, Ends: slave.End{Size: 1 << 30}}, nil
	}
	if n := refusals(f, "", sparse); n > 0 {
		t.Error("a sparse file does not fit")
	}
	var ops []slave.Op
	for i := range 30 {
		ops = append(ops, slavetest.Link(fmt.Sprint("l", i), "sparse", slavetest.Rec(1, 1), 31))
	}
	if n := refusals(f, "", ops...); n > 0 {
		t.Errorf("%d names of one inode were refused", n)
	}
	f.Tree.(*Tree).links.flush() // the book comes behind the answer
	ops = nil
	for i := range 10 {
		link := slave.Op{Kind: slave.OpSymlink, Path: fmt.Sprint("s", i), Record: slavetest.Rec(100+i, 1), Meta: slavetest.MetaOf(0o777)}
		link.Meta.Target = "somewhere"
		fifo := slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: fmt.Sprint("p", i), Record: slavetest.Rec(200+i, 1), Meta: slavetest.MetaOf(0o600)}
		ops = append(ops, slavetest.Mkdir(fmt.Sprint("d", i), slavetest.Rec(300+i, 0)), link, fifo)
	}
	// The book of the inode with its names has a file, and a directory.
	if n := refusals(f, "max-entries 40", ops...); n != 23 {
		t.Errorf("%d of 30 were refused, want 23", n)
	}
	if got := heldThere(t, root); got.entries != 40 {
		t.Errorf("it holds %d entries", got.entries)
	}
}

// TestLimitMakesRoom: what was removed goes where the policy does not keep it, and no further than it has to.
func TestLimitMakesRoom(t *testing.T) {
	for name, c := range map[string]struct {
		policy policy.Policy
		goes   bool
	}{
		"evicted":     {policy.Policy{MaxBytes: limitBytes}, true},
		"append-only": {policy.Policy{MaxBytes: limitBytes, AppendOnly: true}, false},
		"entries":     {policy.Policy{MaxEntries: 6}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			f := limited(t, root, c.policy)
			size := 500 << 10 // each is applied twice
			for i := range 5 {
				f.Must(slavetest.Put(fmt.Sprint("f", i), slavetest.Rec(i+1, 1), strings.Repeat("x", size)))
			}
			for i := range 5 {
				f.Must(slavetest.Park(fmt.Sprint("f", i), slavetest.GFID(i+1)))
			}
			var ops []slave.Op
			for i := range 5 {
				ops = append(ops, slavetest.Put(fmt.Sprint("n", i), slavetest.Rec(i+11, 1), strings.Repeat("y", size)))
			}
			if n := refusals(f, "max-", ops...); (n == 0) != c.goes {
				t.Errorf("%d of %d were refused", n, len(ops))
			}
			if got := heldThere(t, root); c.policy.MaxBytes > 0 && got.bytes > limitBytes {
				t.Errorf("it holds %d bytes", got.bytes)
			}
		})
	}
}

// TestLimitOfUploads: contents that are sent ahead count while they arrive.
func TestLimitOfUploads(t *testing.T) {
	root := memory(t)
	f := limited(t, root, policy.Policy{MaxBytes: limitBytes})
	u := &slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: 8 << 20}
	if s, err := f.Tree.Begin(context.Background(), u); err != nil || s.Err != nil {
		t.Fatal(err, s.Err)
	}
	var full error
	for off := int64(0); off < u.Size && full == nil; off += 1 << 20 {
		s := &slave.Segment{GFID: u.GFID, Version: u.Version, Range: slave.Range{Off: off, End: off + 1<<20}}
		s.Parts = []slave.Part{{Off: off, Data: make([]byte, 1<<20)}}
		res, err := f.Tree.Write(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		full = res.Err
	}
	if !errors.Is(full, slave.ErrLimit) || !slave.Full(full) {
		t.Errorf("it ended with %v", full)
	}
	if got := heldThere(t, root); got.bytes > limitBytes || got.bytes < limitBytes-1<<20 {
		t.Errorf("it holds %d bytes", got.bytes)
	}
}

// TestLimitOfBooks: what makes georep keep records about nothing is bounded, too, and removing goes on at the limit.
func TestLimitOfBooks(t *testing.T) {
	for name, c := range map[string]struct {
		policy policy.Policy
		op     func(f *slavetest.Fixture, i int) error
	}{
		"inodes of several names": {policy.Policy{MaxBytes: 1 << 20}, func(f *slavetest.Fixture, i int) error {
			op := slavetest.Linked(slavetest.Put("f", slavetest.Rec(i+1, 1), "x"), 2)
			return f.Apply(op)[0].Err
		}},
		"journals of uploads": {policy.Policy{MaxEntries: 20}, func(f *slavetest.Fixture, i int) error {
			s, err := f.Tree.Begin(context.Background(), &slave.Upload{GFID: slavetest.GFID(i + 1), Version: slave.Version{1}, Size: 8})
			if err != nil {
				f.Fatal(err)
			}
			return s.Err
		}},
		"a journal that grows": {policy.Policy{MaxBytes: 64 << 10}, func(f *slavetest.Fixture, i int) error {
			u := &slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: 8}
			if _, err := f.Tree.Begin(context.Background(), u); err != nil {
				f.Fatal(err)
			}
			s := &slave.Segment{GFID: u.GFID, Version: u.Version, Range: slave.Range{End: 1}, Parts: []slave.Part{{Data: []byte("x")}}}
			var r slave.Result
			var err error
			for range 50 {
				if r, err = f.Tree.Write(context.Background(), s); err != nil {
					f.Fatal(err)
				}
			}
			return r.Err
		}},
		"xattrs of links": {policy.Policy{MaxBytes: 256 << 10}, func(f *slavetest.Fixture, i int) error {
			op := slave.Op{Kind: slave.OpSymlink, Path: fmt.Sprint("l", i), Record: slavetest.Rec(i+1, 1), Meta: slavetest.MetaOf(0o777)}
			op.Meta.Target, op.Meta.Xattrs = "x", []slave.Xattr{{Name: "trusted.x", Value: make([]byte, 3000)}}
			return f.Apply(op)[0].Err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			f := limited(t, root, c.policy)
			f.Must(slavetest.Put("first", slavetest.Rec(100_000, 1), "x"))
			n, full := 0, error(nil)
			for ; n < 1000 && full == nil; n++ {
				full = c.op(f, n)
			}
			if !errors.Is(full, slave.ErrLimit) {
				t.Fatalf("after %d: %v", n, full)
			}
			got, most := heldThere(t, root), c.policy.MaxBytes+c.policy.MaxBytes/marginShare+marginBytes
			if c.policy.MaxBytes > 0 && got.bytes > most || c.policy.MaxEntries > 0 && got.entries > c.policy.MaxEntries+marginEntries {
				t.Errorf("after %d it holds %+v", n, got)
			}
			f.Must(slavetest.Park("first", slavetest.GFID(100_000)))
		})
	}
}

// TestAtTheLimit: what needs no more room goes on: directories that are there, modes, xattrs of the same size, and removing.
func TestAtTheLimit(t *testing.T) {
	f := limited(t, memory(t), policy.Policy{MaxBytes: 20 << 10, MaxEntries: 3})
	file := slavetest.Put("d/f", slavetest.Rec(2, 1), "x")
	file.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: make([]byte, 3000)}}
	for _, op := range []slave.Op{slavetest.Mkdir("d", slavetest.Rec(1, 0)), file, slavetest.Put("g", slavetest.Rec(3, 1), "")} {
		if n := refusals(f, "", op); n != 0 {
			t.Fatalf("%s is refused", op.Path)
		}
	}
	if n := refusals(f, "max-entries 3", slavetest.Put("h", slavetest.Rec(4, 1), "")); n != 1 {
		t.Fatal("there is room left")
	}
	dir := slavetest.Mkdir("d", slavetest.Rec(1, 0))
	dir.Meta.Mode = 0o700
	meta := slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "d/f", Record: slavetest.Rec(2, 2), Expect: slavetest.GFID(2), Meta: file.Meta}
	meta.Meta.Mode = 0o600
	f.Must(dir, meta, slavetest.Finish("d", slavetest.Rec(1, 2), 1), slavetest.Park("g", slavetest.GFID(3)))
	if st := f.Stat("d/f"); st.Mode&0o7777 != 0o600 {
		t.Errorf("the file is %o", st.Mode)
	}
}

// TestUsageIsKept: what is held is what is there, in the session that made it, in the next one, and after one that ended without
// a word. A slave without limits keeps nothing that would be out of date.
func TestUsageIsKept(t *testing.T) {
	root := memory(t)
	p := policy.Policy{MaxBytes: 1 << 30, MaxEntries: 1 << 20}
	f := limited(t, root, p)
	tree := func() *Tree { return f.Tree.(*Tree) }
	check := func(what string) {
		t.Helper()
		want, err := tree().census.tally(tree().sys.used, 0, func() error { return nil })
		u := tree().sys.used
		u.mu.Lock()
		defer u.mu.Unlock()
		if err != nil || u.held != want || u.blind {
			t.Errorf("%s: %+v is held, %+v is there, %v", what, u.held, want, err)
		}
	}
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Put("d/a", slavetest.Rec(2, 1), strings.Repeat("x", 100_000)),
		slavetest.Put("d/b", slavetest.Rec(3, 1), "b"))
	check("made")
	f.Must(slavetest.Link("d/a2", "d/a", slavetest.Rec(2, 1), 2), slavetest.Put("d/b", slavetest.Rec(4, 2), "another inode"), slavetest.Put("d/a", slavetest.Rec(2, 3), strings.Repeat("y", 300_000)))
	check("replaced")
	f.Must(slavetest.Park("d/b", slavetest.GFID(4)), slavetest.Park("d/a", slavetest.GFID(2)))
	check("parked")
	if err := f.Tree.Clean(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	check("cleaned")
	held := tree().sys.used.held
	if err := f.Tree.Close(); err != nil {
		t.Fatal(err)
	}
	// Nothing is counted where the record is good.
	if err := os.WriteFile(f.Path("planted"), []byte("by somebody"), 0o644); err != nil {
		t.Fatal(err)
	}
	f = limited(t, root, p)
	if now := tree().sys.used.held; now != held {
		t.Errorf("%+v is on record, want %+v", now, held)
	}
	text, err := os.ReadFile(f.Path(".georep/usage"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Tree.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path(".georep/usage"), text, 0o600); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	f = limited(t, root, p)
	u := tree().sys.used
	for end := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		if !u.due(time.Now()) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not counted anew")
		}
	}
	check("after a kill")
	if err := f.Tree.Close(); err != nil {
		t.Fatal(err)
	}
	f = limited(t, root, policy.Policy{})
	if _, err := os.Stat(f.Path(".georep/usage")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without limits: %v", err)
	}
}

// TestUsageOfRandomOperations: the sums are those of a count, whatever was made, linked, replaced, parked, brought back and deleted.
func TestUsageOfRandomOperations(t *testing.T) {
	for seed := range uint64(3) {
		f := limited(t, memory(t), policy.Policy{MaxBytes: 1 << 40, MaxEntries: 1 << 30})
		r := rand.New(rand.NewPCG(seed, 1))
		f.Must(slavetest.Mkdir("a", slavetest.Rec(1000, 0)), slavetest.Mkdir("b", slavetest.Rec(1001, 0)))
		for n := range 300 {
			g := 1 + r.IntN(30)
			path, rec := fmt.Sprint([]string{"a/", "b/", ""}[r.IntN(3)], "f", r.IntN(20)), slavetest.Rec(g, uint64(n+1))
			put := slavetest.Put(path, rec, strings.Repeat("x", []int{0, 10, 5000, 300_000}[r.IntN(4)]))
			if r.IntN(4) == 0 {
				put.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: make([]byte, r.IntN(4000))}}
			}
			ops := []slave.Op{put, slavetest.Linked(put, 2), slavetest.Link(path, "", rec, 3), slavetest.Park(path, rec.GFID), slavetest.Unpark(path, rec),
				{Kind: slave.OpMeta, Entry: slave.File, Path: path, Record: rec, Expect: rec.GFID, Meta: put.Meta},
				{Kind: slave.OpSymlink, Path: path, Record: rec, Meta: slave.Meta{Target: "x"}}, slavetest.Mkdir(path+"d", slavetest.Rec(100+g, 0)),
				slavetest.Park(path+"d", slavetest.GFID(100+g))}
			f.Apply(ops[r.IntN(len(ops))]) // many are refused, as they should be
			if r.IntN(40) == 0 {
				if err := f.Tree.Clean(context.Background(), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		tree := f.Tree.(*Tree)
		there, err := tree.census.tally(tree.sys.used, 0, func() error { return nil })
		tree.sys.used.mu.Lock()
		held := tree.sys.used.held
		tree.sys.used.mu.Unlock()
		if over := held.minus(there); err != nil || over.entries != 0 || over.bytes < -50 || over.bytes > 16<<10 { // shares of several names are rounded up
			t.Errorf("seed %d: %+v is held, %+v is there, %v", seed, held, there, err)
		}
	}
}

// TestUncounted: a slave that was filled before it had a limit takes nothing before it was counted.
func TestUncounted(t *testing.T) {
	u := &usage{allowance: allowance{limit: room{bytes: 1 << 20}}, recounts: recounts{blind: true}}
	if err := u.take(room{bytes: 1}); !errors.Is(err, slave.ErrLimit) || !strings.Contains(err.Error(), "counted") {
		t.Errorf("before it is counted: %v", err)
	}
	root := memory(t)
	for i := range 30 {
		if err := os.WriteFile(filepath.Join(root, fmt.Sprint("f", i)), make([]byte, 100_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions(t, root)
	o.Force, o.Policy = true, policy.Policy{MaxBytes: 3 << 20}
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	if n := refusals(f, "max-bytes 3M", slavetest.Put("one", slavetest.Rec(1, 1), strings.Repeat("x", 200_000))); n != 1 {
		t.Error("what was there does not count")
	}
	bounded, err := tree.census.tally(tree.sys.used, 10, func() error { return nil })
	if !errors.Is(err, errMany) || bounded.entries > 100 {
		t.Errorf("a bounded count: %+v, %v", bounded, err)
	}
}

// TestLimitIsRaised: a limit that is raised counts at once where it is reached.
func TestLimitIsRaised(t *testing.T) {
	root, limit := memory(t), int64(1<<20)
	o := testOptions(t, root)
	o.Policy.MaxBytes = limit
	refused := 0
	o.PolicyNow, o.Refused = func() policy.Policy { return policy.Policy{MaxBytes: limit} }, func(error) { refused++ }
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	put := slavetest.Put("f", slavetest.Rec(1, 1), strings.Repeat("x", 2<<20))
	for range 2 {
		if n := refusals(f, "max-bytes 1M", put); n != 1 {
			t.Fatal("it is not refused")
		}
	}
	if refused != 1 {
		t.Errorf("%d refusals were told", refused)
	}
	limit = 4 << 20
	tree.sys.used.mu.Lock()
	tree.sys.used.asked = time.Time{}
	tree.sys.used.mu.Unlock()
	if n := refusals(f, "", put); n != 0 {
		t.Error("it is still refused")
	}
}
