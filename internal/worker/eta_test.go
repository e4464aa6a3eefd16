package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/integration/harness/tree"
	"georep/internal/beneath"
	"georep/status"
	"georep/volume"
)

func TestETA(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	type point struct {
		at float64 // seconds
		m  measures
	}
	const gib = 1 << 30
	for name, c := range map[string]struct {
		points         []point
		entries, bytes int64
		want           time.Duration // 0: not known
	}{
		"nothing known":       {nil, 100, 100, 0},
		"nothing moves":       {[]point{{0, measures{}}, {5, measures{}}}, 100, 100, 0},
		"entries decide":      {[]point{{0, measures{}}, {5, measures{entries: 10, bytes: 50}}}, 110, 60, 50 * time.Second},
		"bytes decide":        {[]point{{0, measures{}}, {5, measures{entries: 10, bytes: 50}}}, 12, 1050, 100 * time.Second},
		"only entries move":   {[]point{{0, measures{}}, {5, measures{entries: 10}}}, 20, 1050, 5 * time.Second},
		"done":                {[]point{{0, measures{}}, {5, measures{entries: 10, bytes: 50}}}, 10, 50, 0},
		"more than there was": {[]point{{0, measures{}}, {5, measures{entries: 10, bytes: 50}}}, 5, 40, 0},
		"a large file on its way": {[]point{{0, measures{entries: 5, bytes: 10}},
			{10, measures{entries: 5, bytes: 10, pending: gib, wire: gib / 4}}}, 6, 10 + gib, 30 * time.Second},
		"no more than is pending": {[]point{{0, measures{bytes: 0}},
			{10, measures{bytes: 0, pending: 100, wire: 1e9}}}, 0, 200, 10 * time.Second},
		"what was sent of a file counts once": {[]point{{0, measures{}},
			{1, measures{pending: 1000, wire: 500}}, {2, measures{bytes: 1000, wire: 1000}}}, 0, 2000, 2 * time.Second},
		"longer than a Duration": {[]point{{0, measures{}}, {9, measures{bytes: 1}}}, 0, 1 << 62, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var e eta
			now := start
			for _, p := range c.points {
				now = start.Add(time.Duration(p.at * float64(time.Second)))
				e.add(now, p.m)
			}
			got, ok := e.left(now, c.entries, c.bytes)
			if ok != (c.want != 0) || got.Round(time.Millisecond) != c.want {
				t.Errorf("%v, %v; want %v", got, ok, c.want)
			}
		})
	}
}

func openRoot(t *testing.T, path string) *beneath.Dir {
	t.Helper()
	root, err := beneath.OpenRoot(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// fill makes a tree with all that a count has to be right about, and returns what it holds.
func fill(t *testing.T, top string) (entries, bytes int64) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(tree.Many(top, 2500, 1000, 3))
	must(os.MkdirAll(filepath.Join(top, "a", "b", "c"), 0o755))
	must(os.WriteFile(filepath.Join(top, "a", "b", "c", "large"), make([]byte, 100_000), 0o600))
	must(os.Link(filepath.Join(top, "a", "b", "c", "large"), filepath.Join(top, "a", "second name")))
	must(os.Symlink("large", filepath.Join(top, "a", "symlink")))
	must(unix.Mkfifo(filepath.Join(top, "a", "fifo"), 0o600))
	must(os.Mkdir(filepath.Join(top, ".georep"), 0o755)) // not replicated
	must(os.WriteFile(filepath.Join(top, ".georep", "x"), make([]byte, 77), 0o600))
	return 2500 + 3 + 3 + 4, 2500*3 + 100_000
}

func TestCount(t *testing.T) {
	top := t.TempDir()
	entries, bytes := fill(t, top)
	var got total
	if err := got.countQuietly(t.Context(), openRoot(t, top)); err != nil {
		t.Fatal(err)
	}
	if got.entries.Load() != entries || got.bytes.Load() != bytes || !got.known.Load() {
		t.Errorf("%d entries, %d bytes, known %v; want %d, %d", got.entries.Load(), got.bytes.Load(), got.known.Load(),
			entries, bytes)
	}
}

// TestCountManyDirectories: more directories in one than are kept at a time.
func TestCountManyDirectories(t *testing.T) {
	top := t.TempDir()
	const dirs = 2*dirChunk + 3
	for i := range dirs {
		if err := os.MkdirAll(filepath.Join(top, fmt.Sprint(i), "below"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var got total
	if err := got.count(t.Context(), openRoot(t, top)); err != nil || got.entries.Load() != 2*dirs {
		t.Errorf("%d entries, %v; want %d", got.entries.Load(), err, 2*dirs)
	}
}

// TestHoldsMuch: by what lies deep in the tree, without a look at more than is needed to know.
func TestHoldsMuch(t *testing.T) {
	for name, c := range map[string]struct {
		large int64 // a file, two levels down
		many  int   // empty ones
		want  bool
	}{
		"nothing": {0, 0, false}, "little": {muchBytes - 1, 10, false}, "much": {muchBytes, 10, true},
		"many that are empty": {0, muchEntries + 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			err := errors.Join(os.MkdirAll(filepath.Join(top, "a", "b"), 0o755), tree.Many(top, c.many, 1000, 0),
				os.WriteFile(filepath.Join(top, "a", "b", "large"), nil, 0o600), os.Truncate(filepath.Join(top, "a", "b", "large"), c.large))
			if err != nil {
				t.Fatal(err)
			}
			root, before := openRoot(t, top), descriptors(t)
			if got := holdsMuch(t.Context(), root); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
			count := &total{enough: muchBytes}
			if err := count.count(t.Context(), root); (err != nil) != (c.want || c.many > muchEntries) || count.known.Load() != (err == nil) {
				t.Errorf("%v, known: %v", err, count.known.Load())
			}
			if n := count.entries.Load(); n > muchEntries {
				t.Errorf("%d entries were looked at", n)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors, before %d", after, before)
			}
		})
	}
}

// TestMuchIsAskedOfAFirstSyncOnly: a slave that was in step once is sent what changed.
func TestMuchIsAskedOfAFirstSyncOnly(t *testing.T) {
	store, err := volume.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	to, err := volume.ParseSlave("host:/slave")
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Store: store, Session: volume.Session{Master: "data", Slave: to}}
	m := &master{Dir: openRoot(t, t.TempDir())}
	if much := m.much(c); much == nil || much(t.Context()) {
		t.Error("a first sync of nothing")
	}
	st, path := status.New("data", to.String()), store.Files("data", to).Status
	for _, at := range []time.Time{{}, time.Now()} {
		st.LastSynced = status.Time{Time: at}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), status.Write(path, st)); err != nil {
			t.Fatal(err)
		}
		if (m.much(c) != nil) != at.IsZero() {
			t.Errorf("last in step at %v: asked %v", at, m.much(c) != nil)
		}
	}
}

// ending is a context that ends after some looks at it.
type ending struct {
	context.Context
	looks atomic.Int64
}

func (e *ending) Err() error {
	if e.looks.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestCountEnds: wherever it is told to end it does, with nothing left open and without claiming to know.
func TestCountEnds(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"a/b", "c/d/e"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := openRoot(t, top)
	before := descriptors(t)
	for looks := range int64(100) {
		ctx := &ending{Context: t.Context()}
		ctx.looks.Store(looks)
		var got total
		err := got.count(ctx, root)
		if after := descriptors(t); after != before {
			t.Fatalf("ended after %d looks: %d descriptors, before %d", looks, after, before)
		}
		if err == nil {
			if got.entries.Load() != 5 || looks == 0 {
				t.Errorf("%d entries after %d looks", got.entries.Load(), looks)
			}
			return
		}
		if !errors.Is(err, context.Canceled) || got.known.Load() {
			t.Fatalf("ended after %d looks: %v, known %v", looks, err, got.known.Load())
		}
	}
	t.Error("the count does not end by itself")
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestCountWithoutRoot(t *testing.T) {
	root := openRoot(t, t.TempDir())
	root.Close()
	var got total
	if err := got.count(t.Context(), root); !errors.Is(err, unix.EBADF) || got.known.Load() {
		t.Errorf("%v, known %v", err, got.known.Load())
	}
}

// TestEstimator takes a first sync through its life with times of its own.
func TestEstimator(t *testing.T) {
	top := t.TempDir()
	entries, bytes := fill(t, top)
	counters, wire := &crawler.Counters{}, new(atomic.Int64)
	e := newEstimator(openRoot(t, top), counters, wire, zerolog.New(zerolog.NewTestWriter(t)))
	defer e.stop()
	now := time.Unix(1_000_000, 0)
	if got := e.seconds(now, true); got != 0 || e.cancel != nil {
		t.Fatalf("%v s at the begin, counting %v", got, e.cancel != nil)
	}
	now = now.Add(countAfter)
	counters.Done.Store(entries / 4)
	counters.DoneBytes.Store(bytes / 2)
	e.seconds(now, true) // starts the count
	e.tasks.Wait()
	if got, want := e.seconds(now, true), 3*countAfter.Seconds(); got < want*0.99 || got > want*1.01 {
		t.Errorf("%v s left after a quarter of the entries in %v, want %v s", got, countAfter, want)
	}
	counters.SkippedDirs.Store(1)
	if got := e.seconds(now, true); got != 0 {
		t.Errorf("%v s, though much was done before", got)
	}
	counters.SkippedDirs.Store(0)
	if got := e.seconds(now, false); got != 0 {
		t.Errorf("%v s when the first sync is over", got)
	}
}

// TestEstimatorStops: the count is told to end when the first sync is over.
func TestEstimatorStops(t *testing.T) {
	ended := false
	e := &estimator{cancel: func() { ended = true }}
	if e.seconds(time.Unix(1, 0), false); !ended {
		t.Error("the count goes on")
	}
}
