package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/integration/harness/compare"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
)

// terse is a slave whose answers have room for next to nothing: two directories, three entries, one inode. What it says is all as
// slave.Tree wants it, so everything must come out as with any other, but later.
type terse struct {
	slave.Tree
	halved atomic.Int64
}

func (t *terse) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	return t.survey(ctx, t.Tree, queries)
}

func (t *terse) survey(ctx context.Context, there slave.Reader, queries []slave.Query) ([]slave.DirState, error) {
	states, err := there.Survey(ctx, queries[:min(len(queries), 2)])
	for i := range states {
		if len(states[i].Entries) > 3 {
			t.halved.Add(1)
			states[i].Entries, states[i].Truncated = nil, true
		}
	}
	return states, err
}

func (t *terse) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	return t.Tree.Find(ctx, gfids[:min(len(gfids), 1)])
}

// settled does passes until the slave has all, and compares.
func (w *world) settled() {
	w.t.Helper()
	for range 20 {
		out := w.pass()
		s, err := w.crawler.Look(w.t.Context())
		w.ok(err)
		if out.Stime != 0 && s.InStep() {
			compare.MustEqual(w.t, w.master, w.slave, compare.Replica())
			return
		}
	}
	list, total := w.crawler.Failures(10)
	w.t.Fatalf("not in step after 20 passes; %d failures: %v", total, list)
}

// TestTerseSlave: whatever moves, is linked or removed, by crawls and by hints, is right in the end, and verified, however little
// goes into an answer.
func TestTerseSlave(t *testing.T) {
	for name, mark := range map[string]func(*world, ...string){"crawls": (*world).mark, "hints": (*world).tell} {
		t.Run(name, func(t *testing.T) {
			make := movable
			if name == "hints" {
				make = movableByHints
			}
			for seed := range seeds(t, 2) {
				w := make(t)
				all := &terse{}
				w.wrap = func(t slave.Tree) slave.Tree { all.Tree = t; return all }
				w.maxDelete = 100
				w.connect()
				w.crawler.GroupsAtOnce(1)
				w.randomWork(rand.New(rand.NewPCG(seed, 12)), mark)
				if all.halved.Load() == 0 {
					t.Error("everything went into one answer")
				}
			}
		})
	}
}

func (w *world) randomWork(rnd *rand.Rand, mark func(*world, ...string)) {
	for k := range 6 {
		for range rnd.IntN(8) + 1 {
			marks, _ := w.randomMove(rnd)
			mark(w, marks...)
		}
		for i := range rnd.IntN(6) {
			dir, name := fmt.Sprint("of links ", k), fmt.Sprint("l", k, "-", i)
			w.write(dir+"/"+name, "content")
			w.ok(os.Link(w.at(dir, name), w.at(dir, name+"x")))
			mark(w, dir+"/"+name, dir+"/"+name+"x")
		}
		w.settled()
		w.ok(w.crawler.Clean(w.t.Context(), 0))
	}
	there, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test"})
	w.ok(err)
	defer there.Close()
	v, err := w.crawler.Verify(w.t.Context(), &terseAside{Inspector: there}, func(d crawler.Difference) { w.t.Error(d) })
	if err != nil || v.Entries == 0 {
		w.t.Errorf("verify: %+v, %v", v, err)
	}
}

// terseAside is a terse slave that can be verified.
type terseAside struct {
	*disk.Inspector
	terse terse
}

func (t *terseAside) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	return t.terse.survey(ctx, t.Inspector, queries)
}

// longLinks makes n links with the longest of targets.
func longLinks(w *world, dir string, n int) (paths []string) {
	w.ok(os.MkdirAll(dir, 0o755))
	for i := range n {
		name := fmt.Sprint("link", i)
		w.ok(os.Symlink(strings.Repeat("t", unix.PathMax-2), dir+"/"+name))
		paths = append(paths, name)
	}
	return paths
}

// TestLongTargetsGoInShares: links that are on the slave already, without records, are surveyed with their targets, which are more
// than one answer may hold.
func TestLongTargetsGoInShares(t *testing.T) {
	const whole = slave.MaxSurvey / unix.PathMax // links that go into one answer
	for name, hints := range map[string]bool{"crawl": false, "hints": true} {
		t.Run(name, func(t *testing.T) {
			w, n := inMemory(t, hints), 5*whole/2
			if hints {
				n = 5 * whole / 4
			}
			w.write("d/f", "x")
			w.mark("d/f")
			w.inStep()
			paths := longLinks(w, w.at("d"), n)
			longLinks(w, w.there("d"), n)
			for i := range paths {
				paths[i] = "d/" + paths[i]
			}
			w.forget()
			if hints {
				w.tell(paths...)
			} else {
				w.mark(paths...)
			}
			w.inStep()
			if surveyed := w.counters.Surveyed.Load(); surveyed < 5 {
				t.Errorf("%d surveys were enough", surveyed)
			}
			if found, v, err := w.verify(nil); err != nil || len(found) > 0 || v.Entries < int64(n) {
				t.Errorf("%.3q, %+v, %v", found, v, err)
			}
		})
	}
}

// mute is a slave of which a directory is too large for every answer.
type mute struct{ slave.Tree }

func (m *mute) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	states, err := m.Tree.Survey(ctx, queries)
	for i := range states {
		if queries[i].Path == "d" {
			states[i].Entries, states[i].Truncated, states[i].Total = nil, true, 1<<62
		}
	}
	return states, err
}

// TestNoShareIsSmallEnough: that ends soon, as a failure of this directory, and the others are brought over.
func TestNoShareIsSmallEnough(t *testing.T) {
	w := newWorld(t)
	w.write("d/f", "x")
	w.mark("d/f")
	w.inStep()
	w.wrap = func(t slave.Tree) slave.Tree { return &mute{t} }
	w.connect()
	w.write("d/f", "changed")
	w.write("e/f", "y")
	w.mark("d/f", "e/f")
	if out := w.pass(); out.Stime != 0 {
		t.Error("the root was stamped")
	}
	if list, n := w.crawler.Failures(10); n != 1 || !errors.Is(list[0].Err, unix.E2BIG) || list[0].Path != "d" {
		t.Errorf("%d failures: %v", n, list)
	}
	if n := w.counters.Surveyed.Load(); n > 50 {
		t.Errorf("%d surveys", n)
	}
	if _, err := os.Stat(w.there("e/f")); err != nil {
		t.Error(err)
	}
}

// forgetful is a slave that says again and again that an inode lacks names.
type forgetful struct {
	slave.Tree
	lacks slave.Group
}

func (t *forgetful) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	groups, err := t.Tree.Groups(ctx, most)
	if !t.lacks.GFID.IsZero() {
		groups = append(groups, t.lacks)
	}
	return groups, err
}

// TestWhatLacksNamesAgain: an inode that lacks names once more after they were settled is not in step, and so the root is not
// stamped (invariants 2 and 14).
func TestWhatLacksNamesAgain(t *testing.T) {
	w := movable(t)
	slow := &forgetful{}
	w.wrap = func(t slave.Tree) slave.Tree { slow.Tree = t; return slow }
	w.connect()
	w.write("d/f", "content")
	w.ok(os.Link(w.at("d/f"), w.at("d/g")))
	w.mark("d/f")
	w.settled()
	root, err := beneath.OpenRoot(w.master, true)
	w.ok(err)
	defer root.Close()
	d, err := root.OpenDir("d")
	w.ok(err)
	defer d.Close()
	gfid, err := d.GFID("f")
	w.ok(err)
	st, err := d.Stat("f")
	w.ok(err)
	slow.lacks = slave.Group{GFID: gfid, Ino: st.Ino, MissingNames: true, Names: []string{"d/f", "d/g"}}
	w.write("d/new", "x") // with a further name, for names are not asked for else
	w.ok(os.Link(w.at("d/new"), w.at("d/newer")))
	w.mark("d/new")
	for range 3 {
		if out := w.pass(); out.Stime != 0 {
			t.Fatal("the root was stamped")
		}
	}
	slow.lacks = slave.Group{}
	w.settled()
}
