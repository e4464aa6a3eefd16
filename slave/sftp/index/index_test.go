package index

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"georep/slave"
)

// memory is a store whose n-th operation that changes something fails; with cut, so does every one after it.
type memory struct {
	mu    sync.Mutex
	nodes map[string][]byte
	ops   atomic.Int64
	fail  int64
	cut   bool
	aside atomic.Int64 // staged and neither committed nor dropped
}

var errStore = errors.New("the store fails")

func newMemory() *memory { return &memory{nodes: map[string][]byte{}} }

func (m *memory) op() error {
	if n := m.ops.Add(1); m.fail > 0 && (n == m.fail || m.cut && n > m.fail) {
		return errStore
	}
	return nil
}

func (m *memory) Load(name string, room func(int64)) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.nodes[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if len(text) > SmallText {
		room(int64(len(text)))
	}
	return text, nil
}

func (m *memory) Remove(name string) error {
	if err := m.op(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nodes, name)
	return nil
}

func (m *memory) Stage(name string, text []byte) (Staged, error) {
	if err := m.op(); err != nil {
		return nil, err
	}
	m.aside.Add(1)
	return &held{m, name, text}, nil
}

type held struct {
	m    *memory
	name string
	text []byte
}

func (h *held) Commit() error {
	if err := h.m.op(); err != nil {
		return err
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.m.nodes[h.name] = h.text
	h.m.aside.Add(-1)
	return nil
}

func (h *held) Drop() { h.m.aside.Add(-1) }

// all reads a shard as a new session would.
func all(t *testing.T, m *memory, dir ID) map[string]Entry {
	t.Helper()
	out := map[string]Entry{}
	err := New(m).Each(dir, func(name string, e Entry) bool {
		if _, twice := out[name]; twice {
			t.Errorf("%q is there twice", name)
		}
		out[name] = e
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func version(i int, v int64) Entry { return Entry{Kind: slave.File, ID: ID(100 + i), Size: v} }

func name(i int) string { return fmt.Sprintf("n%05d", i) }

// growing is an index with a shard that is whole in the store, and changes in memory that split it.
func growing(t *testing.T, m *memory) (x *Index, before, after map[string]Entry) {
	t.Helper()
	x, before = New(m), map[string]Entry{}
	set := func(dir ID, i int, v int64) {
		if err := x.Set(dir, name(i), version(i, v)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxNode - 10 {
		set(Root, i, 1)
		before[name(i)] = version(i, 1)
	}
	if err := x.Flush(nil); err != nil {
		t.Fatal(err)
	}
	after = maps.Clone(before)
	for i := range maxNode + 400 {
		switch {
		case i%7 == 0:
			if err := x.Delete(Root, name(i)); err != nil {
				t.Fatal(err)
			}
			delete(after, name(i))
		case i%7 < 4 || i >= maxNode-10:
			set(Root, i, 2)
			after[name(i)] = version(i, 2)
		}
	}
	set(Parked, 1, 1)
	return x, before, after
}

// TestFlushCut ends everything at the n-th change of the store, for every n: each name has its old entry or its new one.
func TestFlushCut(t *testing.T) {
	for n := int64(1); ; n++ {
		m := newMemory()
		x, before, after := growing(t, m)
		m.ops.Store(0)
		m.fail, m.cut = n, true
		err := x.Flush(nil)
		found := all(t, m, Root)
		if err == nil {
			if !maps.EqualFunc(found, after, same) {
				t.Errorf("the whole flush left %d entries, want %d", len(found), len(after))
			}
			t.Logf("%d changes of the store", n-1)
			return
		}
		for i := range maxNode + 400 {
			e, ok := found[name(i)]
			old, was := before[name(i)]
			now, is := after[name(i)]
			if !(ok == was && same(e, old)) && !(ok == is && same(e, now)) {
				t.Fatalf("cut at %d: %s is %v %+v, was %v %+v, was to be %v %+v", n, name(i), ok, e, was, old, is, now)
			}
		}
		if m.aside.Load() != 0 {
			t.Fatalf("cut at %d: %d nodes are left aside", n, m.aside.Load())
		}
	}
}

func same(a, b Entry) bool { return a.ID == b.ID && a.Size == b.Size }

// TestFlushFails: what a failure left unwritten is written by the next flush.
func TestFlushFails(t *testing.T) {
	for n := int64(1); ; n++ {
		m := newMemory()
		x, _, after := growing(t, m)
		m.ops.Store(0)
		m.fail = n
		err := x.Flush(nil)
		if err != nil && (!errors.Is(err, errStore) || x.Dirty() == 0) {
			t.Fatalf("%d: %v with %d changes to write", n, err, x.Dirty())
		}
		if err := x.Flush(nil); err != nil || x.Dirty() != 0 {
			t.Fatalf("%d: %v with %d changes to write", n, err, x.Dirty())
		}
		if found := all(t, m, Root); !maps.EqualFunc(found, after, same) {
			t.Fatalf("%d: %d entries, want %d", n, len(found), len(after))
		}
		if err == nil {
			return
		}
	}
}

// TestFlushSyncs: nothing is in its place before what the entries are about is durable; a failure there keeps all of it.
func TestFlushSyncs(t *testing.T) {
	m := newMemory()
	x := New(m)
	if err := x.Set(Root, "a", version(1, 1)); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	sync := func() error {
		if len(m.nodes) != 0 {
			t.Error("an entry is written before the sync")
		}
		if calls.Add(1) == 2 {
			return errStore
		}
		return nil
	}
	if err := x.Flush(sync); !errors.Is(err, errStore) || x.Dirty() != 1 || len(m.nodes) != 0 || m.aside.Load() != 0 {
		t.Fatalf("%v, %d to write, %d written", err, x.Dirty(), len(m.nodes))
	}
	if err := x.Flush(sync); err != nil || calls.Load() != 4 || len(m.nodes) != 1 {
		t.Fatalf("%v, %d calls, %d nodes", err, calls.Load(), len(m.nodes))
	}
}

// TestAsAMap compares an index that is flushed, dropped and opened again at random, by several at once, with maps.
func TestAsAMap(t *testing.T) {
	m := newMemory()
	x := New(m)
	var group sync.WaitGroup
	want := make([]map[string]Entry, 4)
	for w := range want {
		want[w] = map[string]Entry{}
		group.Go(func() {
			rnd, dir := rand.New(rand.NewPCG(1, uint64(w))), ID(100+w)
			for range 9000 {
				i := rnd.IntN(3 * maxNode)
				var err error
				switch k := rnd.IntN(1000); {
				case k == 0:
					err = x.Flush(nil)
				case k == 1 && len(want[w]) > 1000:
					err = x.Drop(dir)
					want[w] = map[string]Entry{}
				case k < 200:
					err = x.Delete(dir, name(i))
					delete(want[w], name(i))
				default:
					e := version(i, rnd.Int64())
					err = x.Set(dir, name(i), e)
					want[w][name(i)] = e
				}
				if got, ok, gerr := x.Get(dir, name(i)); err != nil || gerr != nil || ok != has(want[w], name(i)) || ok && !same(got, want[w][name(i)]) {
					t.Errorf("%s: %v %+v, %v", name(i), ok, got, errors.Join(err, gerr))
					return
				}
			}
		})
	}
	group.Wait()
	if err := x.Flush(nil); err != nil || x.Dirty() != 0 {
		t.Fatal(err, x.Dirty())
	}
	for w := range want {
		if found := all(t, m, ID(100+w)); !maps.EqualFunc(found, want[w], same) {
			t.Errorf("shard %d has %d entries, want %d", w, len(found), len(want[w]))
		}
	}
}

func has(m map[string]Entry, k string) bool { _, ok := m[k]; return ok }

// logs are the two files of a journal.
type logs struct {
	texts [2][]byte
	err   error
}

type logOf struct {
	l *logs
	n int
}

func (o logOf) Append(text []byte) error {
	if o.l.err == nil {
		o.l.texts[o.n] = append(o.l.texts[o.n], text...)
	}
	return o.l.err
}

func (o logOf) Clear() error {
	o.l.texts[o.n] = nil
	return o.l.err
}

func (l *logs) names() (out []string) {
	for _, text := range l.texts {
		for _, in := range decodeIntents(text) {
			if in.Dir != 0 { // else it says in which turn the log is
				out = append(out, in.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestJournal: a note stays until a flush that came after its change.
func TestJournal(t *testing.T) {
	l := &logs{}
	j := NewJournal(logOf{l, 0}, logOf{l, 1}, 0)
	note := func(name string) func() {
		done, err := j.Note([]Intent{{Dir: Root, Name: name}})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	check := func(want ...string) {
		t.Helper()
		if got := l.names(); !slices.Equal(got, want) {
			t.Fatalf("the journal has %v, want %v", got, want)
		}
	}
	turn := func(between func()) {
		t.Helper()
		flushed := j.Turn()
		between()
		if err := flushed(); err != nil {
			t.Fatal(err)
		}
	}
	note("a")()
	b := note("b")
	turn(func() { note("c")() })
	check("a", "b", "c") // b is under way
	b()
	turn(func() { note("d")() })
	check("c", "d")
	turn(func() {})
	turn(func() {})
	check()
	l.err = errStore
	if _, err := j.Note([]Intent{{Name: "e"}}); !errors.Is(err, errStore) {
		t.Fatal(err)
	}
	l.err = nil
	turn(func() {})
	note("f")()
	check("f")
}

// TestRecover: an entry that is not what it was to become is dropped, by the last note about it.
func TestRecover(t *testing.T) {
	m := newMemory()
	x := New(m)
	e := version(1, 1)
	e.Record = full().Record
	for _, n := range []string{"became", "not", "gone", "later", "other"} {
		if err := x.Set(Root, n, e); err != nil {
			t.Fatal(err)
		}
	}
	is, was := Intent{Dir: Root, Record: e.Record, ID: e.ID}, Intent{Dir: Root, Record: e.Record, ID: 1}
	named := func(in Intent, name string) []byte { in.Name = name; return encodeIntents([]Intent{in}) }
	text := slices.Concat(named(is, "became"), named(is, "not"), named(was, "not"), named(was, "later"), named(is, "later"),
		named(Intent{Dir: Root, Gone: true}, "gone"), named(was, "absent"))
	if n, err := x.Recover(text); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if err := x.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if left := slices.Sorted(maps.Keys(all(t, m, Root))); !slices.Equal(left, []string{"became", "later", "other"}) {
		t.Errorf("left: %v", left)
	}
}

// TestRecoverByBothLogs: whichever log is the older, the last note about a name counts, and what takes no note, as a stamp, is no
// reason to drop what has it.
func TestRecoverByBothLogs(t *testing.T) {
	for _, first := range []int{0, 1} {
		l := &logs{}
		j := NewJournal(logOf{l, 0}, logOf{l, 1}, 0)
		if first == 1 {
			j.now = 1
		}
		note := func(in Intent) func() {
			done, err := j.Note([]Intent{in})
			if err != nil {
				t.Fatal(err)
			}
			return done
		}
		old, e := version(1, 1), version(2, 2)
		is := func(name string, e *Entry) Intent { return Intent{Dir: Root, Name: name, Record: e.Record, ID: e.ID} }
		note(is("made", &old))()
		note(is("undone", &e))()
		note(Intent{Dir: Root, Name: "elsewhere"}) // its change stays under way
		j.Turn()
		note(Intent{Dir: Root, Name: "made", Gone: true})()
		note(is("made", &e))()
		note(is("undone", &old))()
		x := New(newMemory())
		e.Record.Xtime++
		for _, name := range []string{"made", "undone"} {
			if err := x.Set(Root, name, e); err != nil {
				t.Fatal(err)
			}
		}
		if !j.Has(Root, "made") || j.Has(Root, "never") {
			t.Error("it does not know what it is about")
		}
		if n, err := x.Recover(l.texts[:]...); err != nil || n != 1 {
			t.Errorf("log %d first: %d dropped, %v", first, n, err)
		}
		if _, ok, err := x.Get(Root, "made"); !ok || err != nil {
			t.Errorf("log %d first: what was made is dropped, %v", first, err)
		}
	}
}
