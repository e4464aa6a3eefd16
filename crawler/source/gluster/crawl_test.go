package gluster_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/crawler/source"
	"georep/integration/harness/compare"
	harness "georep/integration/harness/gluster"
	"georep/integration/harness/mutate"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
)

// window is enough where all bricks have one clock: what is behind then are marks that climb at the same time, and a busy machine's.
const window = time.Second

// session is a volume that is crawled to a slave.
type session struct {
	*world
	master, slave string
	crawler       *crawler.Crawler
	counters      crawler.Counters
	// What happens once, before a directory is listed, and once it was.
	atList, listed atomic.Pointer[func()]
}

// hook is asked before each call on the master.
func (s *session) hook(op, _ string) error {
	at := &s.listed
	if op == "list" {
		at = &s.atList
	}
	if do := at.Swap(nil); do != nil {
		(*do)()
	}
	return nil
}

// copies are the paths of all that the slave has, but of what is georep's own.
func (s *session) copies(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(s.slave, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Name() == slave.Reserved {
			return filepath.SkipDir
		}
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// newSession has its master in a directory of the volume, as its users see it by a mount that shows all.
func newSession(t *testing.T, w *world, name string) *session {
	t.Helper()
	s := &session{world: w, slave: t.TempDir(), master: filepath.Join(w.volume.Mount(t, harness.All()...), name)}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(os.Mkdir(s.master, 0o755))
	root, err := w.mount.Open(name)
	ok(err)
	t.Cleanup(func() { root.Close() })
	root.Hook(s.hook)
	id, err := root.Identity()
	ok(err)
	d, err := disk.Open(disk.Options{Path: s.slave, Master: w.mount.ID, Session: xtime.NewUUID(), Version: "test"})
	ok(err)
	t.Cleanup(func() { d.Close() })
	s.crawler = crawler.New(crawler.Options{Root: root, Path: filepath.Join(w.mount.Path, name), Names: w.names, Identity: id, Tree: d,
		VolumeMark: func() xtime.Time { return w.mount.Mark }, Logger: zerolog.Nop(), Counters: &s.counters, MaxDelete: 100,
		RetryMax: time.Millisecond, Source: crawler.SourceOptions{Open: w.mount.Opener(window)}})
	return s
}

// equal compares all but the times that GlusterFS shows a mount that shows all.
func (s *session) equal() error {
	o := compare.Replica()
	o.IgnoreXattr = func(name string) bool { return compare.OwnXattr(name) || name == "trusted.glusterfs.mdata" }
	return compare.Equal(s.master, s.slave, o)
}

// converge makes passes until the slave is in step and nothing differs. A pass that finds the volume not whole is made again, as a worker
// does.
func (s *session) converge(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		out, err := s.crawler.Pass(t.Context())
		if err != nil && !errors.Is(err, source.ErrNotMaster) {
			t.Fatal(err)
		}
		if err == nil && out.Stime != 0 {
			if at, lerr := s.crawler.Look(t.Context()); lerr == nil && at.InStep() && s.equal() == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			list, total := s.crawler.Failures(10)
			t.Fatalf("the last pass: %+v, %v; %d failures: %v\n%v", out, err, total, list, s.equal())
		}
	}
}

// misses waits until the mount knows that a pair is away.
func (s *session) misses(t *testing.T) {
	layer := filepath.Join(s.mount.Path, ".meta/graphs/active", s.volume.Name+"-dht/private")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(layer)
		if err == nil && regexp.MustCompile(`subvolume_status\[\d\] = 0`).Match(text) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("no pair is away: %s, %v", text, err)
			return
		}
	}
}

// steps makes random changes.
func steps(t *testing.T, m *mutate.Mutator, n int) {
	t.Helper()
	for range n {
		if _, err := m.Step(); err != nil && !errors.Is(err, mutate.ErrIdle) {
			t.Fatalf("%v\n%v", err, m)
		}
	}
}

// weights leave out the flags of renameat2(2), which a mount of GlusterFS refuses.
func weights() map[string]int {
	all := map[string]int{}
	for _, op := range mutate.Operations() {
		all[op] = 2
	}
	all["create"], all["mkdir"] = 12, 5
	for _, op := range []string{"noreplace", "whiteout", "whiteoutover", "exchange", "exchangedirs", "exchangefiledir"} {
		delete(all, op)
	}
	return all
}

// seed is 1, or GEOREP_SEED.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := cmp.Or(os.Getenv("GEOREP_SEED"), "1")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCrawl: random changes arrive, with all bricks, while one of a pair is away, and after it came back. While a pair is away nothing is
// removed, and what the slave lacks arrives afterwards.
func TestCrawl(t *testing.T) {
	w := newWorld(t)
	s := newSession(t, w, "tree")
	m, err := mutate.New(s.master, seed(t), mutate.Options{MaxEntries: 200, MaxFile: 64 << 10, Weights: weights()})
	if err != nil {
		t.Fatal(err)
	}
	steps(t, m, 150)
	s.converge(t)
	steps(t, m, 60)
	s.converge(t)

	w.volume.Kill(1)
	steps(t, m, 60)
	s.converge(t)
	w.volume.Restart()
	w.whole(t)
	steps(t, m, 60)
	s.converge(t)

	s.losesNothing(t)
	s.converge(t)
}

// losesNothing takes a pair away under a pass that has begun, and under those that begin then; or for as long as one directory is listed.
// Each says that the master is not there, and removes nothing.
func (s *session) losesNothing(t *testing.T) {
	t.Helper()
	for i := range 16 { // some for either pair
		if err := os.WriteFile(filepath.Join(s.master, fmt.Sprintf("spread-%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pair := range []int{0, 2} {
		s.converge(t)
		before, removed := s.copies(t), s.counters.Purges.Load()
		if err := os.WriteFile(filepath.Join(s.master, "more"), []byte{byte(pair)}, 0o644); err != nil {
			t.Fatal(err)
		}
		// The first pass has read the xtime of the root when they go, and lists what is left; the next ones begin without them.
		away := func() {
			s.volume.Kill(pair)
			s.volume.Kill(pair + 1)
			s.misses(t)
		}
		passes := 3
		if back := func() { s.volume.Restart(); s.whole(t) }; pair != 0 {
			passes = 1
			gone := away
			away = func() { gone(); s.listed.Store(&back) }
		}
		again := func() { s.atList.Store(&away) } // the first list is none of the crawl's: what the root is like is found out
		s.atList.Store(&again)
		for range passes {
			if out, err := s.crawler.Pass(t.Context()); !errors.Is(err, source.ErrNotMaster) {
				t.Errorf("with the pair of brick %d away: %+v, %v", pair, out, err)
			}
		}
		if after := s.copies(t); !slices.Equal(after, before) || s.counters.Purges.Load() != removed {
			t.Errorf("with the pair of brick %d away %d entries became %d", pair, len(before), len(after))
		}
		s.volume.Restart()
		s.whole(t)
	}
}
