package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/crawler/source"
	"georep/integration/harness/compare"
	"georep/internal/beneath"
	"georep/marker/hint"
	"georep/marker/xtime"
	"georep/slave"
)

// hintedWorld is a world whose crawler takes hints, in step with what fill made.
func hintedWorld(t *testing.T, fill func(w *world)) *world {
	t.Helper()
	w := inMemory(t, true)
	fill(w)
	w.mark("")
	w.inStep()
	w.forget()
	return w
}

// forget sets the counts to zero.
func (w *world) forget() {
	w.counters.Visited.Store(0)
	w.counters.Hinted.Store(0)
	w.counters.Entries.Store(0)
	w.counters.Surveyed.Store(0)
	w.counters.Bytes.Store(0)
	w.counters.Files.Store(0)
}

// hint marks as mark does, and gives the hint that the marker would. A path that is a directory counts as changed
// itself.
func (w *world) hint(paths ...string) *hint.Hint {
	w.t.Helper()
	names := map[string]map[string]bool{"": {}}
	for _, p := range paths {
		if d, err := w.root.OpenPath(p); err == nil {
			d.Close()
			if names[p] == nil {
				names[p] = map[string]bool{}
			}
		}
		for p != "" {
			dir, name := beneath.Split(p)
			if names[dir] == nil {
				names[dir] = map[string]bool{}
			}
			names[dir][name] = true
			p = dir
		}
	}
	var dirs []string
	for dir := range names {
		dirs = append(dirs, dir)
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	h := &hint.Hint{}
	for _, dir := range dirs {
		d, err := w.root.OpenPath(dir)
		if err != nil {
			continue // gone with its directory
		}
		one := hint.Dir{}
		one.Before, err = d.Xtime("", &w.names)
		w.ok(err)
		one.GFID, err = d.GFID("")
		w.ok(err)
		for name := range names[dir] {
			n := hint.Name{Name: name}
			if names[beneath.Join(dir, name)] != nil {
				n.Dir, _ = d.GFID(name)
			}
			one.Names = append(one.Names, n)
		}
		d.Close()
		h.Dirs = append(h.Dirs, one)
	}
	w.mark(paths...)
	w.seq++
	h.Seq, h.Xtime = w.seq, w.now
	return h
}

// tell marks and hands the hint over.
func (w *world) tell(paths ...string) { w.t.Helper(); w.hints.Hint(w.hint(paths...)) }

// byHints does a pass that must succeed, without one listing, and compares.
func (w *world) byHints(dirs int64) {
	w.t.Helper()
	w.inStep()
	w.onlyHinted(dirs)
}

func (w *world) onlyHinted(dirs int64) {
	w.t.Helper()
	if v, h := w.counters.Visited.Load(), w.counters.Hinted.Load(); v != 0 || h != dirs {
		w.t.Errorf("%d directories were listed and %d visited by hints, want 0 and %d", v, h, dirs)
	}
}

// TestHintSparesTheListing: one change in a large directory costs a look at it and at those above, on either side.
func TestHintSparesTheListing(t *testing.T) {
	w := hintedWorld(t, func(w *world) {
		w.ok(os.MkdirAll(w.at("a/d"), 0o755))
		for i := range slave.MaxEntries + 500 {
			w.ok(syscall.Mknod(w.at("a/d", fmt.Sprint("fifo", i)), syscall.S_IFIFO|0o600, 0))
		}
		w.write("other/f", "x")
	})
	for i, change := range []func() []string{
		func() []string { w.write("a/d/new", "y"); return []string{"a/d/new"} },
		func() []string { w.write("a/d/new", "changed"); return []string{"a/d/new"} },
		func() []string { w.ok(os.Remove(w.at("a/d/fifo7"))); return []string{"a/d/fifo7"} },
		func() []string {
			w.ok(os.Rename(w.at("a/d/new"), w.at("a/d/newer")))
			return []string{"a/d/new", "a/d/newer"}
		},
		func() []string { w.ok(os.Chmod(w.at("a/d"), 0o700)); return []string{"a/d"} },
	} {
		w.forget()
		w.tell(change()...)
		w.pass() // all is compared further down
		w.onlyHinted(3)
		if n := w.counters.Entries.Load(); n > 4 {
			t.Errorf("change %d: %d entries were looked at", i, n)
		}
		if n := w.counters.Surveyed.Load(); n > 4 { // one again for the move
			t.Errorf("change %d: %d directories were surveyed", i, n)
		}
	}
	// Several marks are one pass, and what is new is crawled as ever.
	w.forget()
	w.tell("other")
	w.write("a/d/n/m/f", "deep")
	w.tell("a/d/n/m/f")
	w.ok(os.Remove(w.at("a/d/fifo8")))
	w.tell("a/d/fifo8")
	w.inStep()
	if v, h := w.counters.Visited.Load(), w.counters.Hinted.Load(); v != 2 || h != 4 {
		t.Errorf("%d directories were listed and %d visited by hints, want n and m, and root, other, a, d", v, h)
	}
	// A new worker goes on where the one before ended.
	w.connect()
	w.forget()
	w.write("a/d/more", "z")
	w.tell("a/d/more")
	w.byHints(3)
}

func TestManyNamesOfOneDirectory(t *testing.T) {
	w := hintedWorld(t, func(w *world) { w.write("d/f", "x") })
	var paths []string
	for i := range 2*slave.MaxNames + 10 {
		w.ok(syscall.Mknod(w.at("d", fmt.Sprint("fifo", i)), syscall.S_IFIFO|0o600, 0))
		paths = append(paths, fmt.Sprint("d/fifo", i))
	}
	w.tell(paths...)
	w.inStep()
	if n := w.counters.Visited.Load(); n != 0 {
		t.Errorf("%d directories were listed", n)
	}
	for _, p := range paths[5:] {
		w.ok(os.Remove(w.at(p)))
	}
	w.maxDelete = 100
	w.connect()
	w.tell(paths...)
	w.inStep()
}

// TestMovesByHints: whatever moves is moved on the slave, whichever directory comes first.
func TestMovesByHints(t *testing.T) {
	w := hintedWorld(t, func(w *world) {
		for _, d := range []string{"a", "b", "z"} {
			w.write(d+"/f-"+d, strings.Repeat(d, 1<<16))
			w.write(d+"/dir-"+d+"/sub/g", strings.Repeat(d, 1<<16))
		}
	})
	w.ok(os.Rename(w.at("z/f-z"), w.at("a/f-z")))
	w.ok(os.Rename(w.at("a/f-a"), w.at("z/f-a")))
	w.ok(os.Rename(w.at("b/dir-b"), w.at("dir-b")))
	w.ok(os.Rename(w.at("a/dir-a"), w.at("dir-b/sub/dir-a")))
	w.tell("z/f-z", "a/f-z", "a/f-a", "z/f-a", "b/dir-b", "dir-b", "a/dir-a", "dir-b/sub/dir-a")
	w.inStep()
	if n := w.counters.Bytes.Load(); n != 0 {
		t.Errorf("%d bytes were sent for moves", n)
	}
	if n := w.counters.Visited.Load(); n != 0 {
		t.Errorf("%d directories were listed", n)
	}
}

// TestHintsThatDoNotJoin: the directory is listed where hints were lost, came twice, or do not fit.
func TestHintsThatDoNotJoin(t *testing.T) {
	for name, deliver := range map[string]func(w *world, h []*hint.Hint){
		"the first is lost":      func(w *world, h []*hint.Hint) { w.hints.Hint(h[1]); w.hints.Hint(h[2]) },
		"one between is lost":    func(w *world, h []*hint.Hint) { w.hints.Hint(h[0]); w.hints.Hint(h[2]) },
		"the last is lost":       func(w *world, h []*hint.Hint) { w.hints.Hint(h[0]); w.hints.Hint(h[1]) },
		"one is late":            func(w *world, h []*hint.Hint) { w.hints.Hint(h[1]); w.hints.Hint(h[0]); w.hints.Hint(h[2]) },
		"one is doubled":         func(w *world, h []*hint.Hint) { w.hints.Hint(h[0]); w.hints.Hint(h[1]); w.hints.Hint(h[0]) },
		"a gap":                  func(w *world, h []*hint.Hint) { w.hints.Hint(h[0]); w.hints.Gap(); w.hints.Hint(h[2]) },
		"the connection is lost": func(w *world, h []*hint.Hint) { w.hints.Hint(h[0]); w.hints.Down(); w.hints.Up() },
		"names unknown": func(w *world, h []*hint.Hint) {
			for _, one := range h {
				for i := range one.Dirs {
					one.Dirs[i].Names, one.Dirs[i].Whole = nil, true
				}
				w.hints.Hint(one)
			}
		},
		"another clock's": func(w *world, h []*hint.Hint) {
			for i, one := range h {
				one.Xtime += 1 << 40
				for j := range one.Dirs {
					if i > 0 && one.Dirs[j].Before >= h[0].Xtime-1<<40 { // of these, so that they join
						one.Dirs[j].Before += 1 << 40
					}
				}
				w.hints.Hint(one)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := hintedWorld(t, func(w *world) { w.write("a/b/f", "x"); w.write("a/c/f", "x"); w.write("d/f", "x") })
			var all []*hint.Hint
			for i, p := range []string{"a/b/f", "a/c/f", "a/b/g"} {
				w.write(p, fmt.Sprint("changed", i))
				all = append(all, w.hint(p))
			}
			deliver(w, all)
			w.pass()
			w.checkStamps()
			w.inStep()
			if w.counters.Visited.Load() == 0 {
				t.Error("nothing was listed")
			}
		})
	}
}

// TestChildOfAListedDirectory: a directory that hints tell of lies in one that is listed, and was marked again since. It
// must not be taken for complete by the stamp of the listed one.
func TestChildOfAListedDirectory(t *testing.T) {
	w := hintedWorld(t, func(w *world) { w.write("a/b/f", "x"); w.write("a/b/g", "x") })
	w.write("a/b/f", "changed")
	first := w.hint("a/b/f")
	w.write("a/b/g", "changed too")
	w.hint("a/b/g") // lost
	// Of the root and a nothing is known, of b something.
	for i := range first.Dirs[1:] {
		first.Dirs[i+1].Whole = true
	}
	w.hints.Hint(first)
	w.pass()
	w.checkStamps()
	w.inStep()
}

// TestFailureIsNotPassedOver: what failed holds back what is above it, while hints bring the rest; and no hint stamps
// what was held back.
func TestFailureIsNotPassedOver(t *testing.T) {
	w, f := failingWorld(t)
	w.write("a/b/bad", "x")
	w.write("a/b/good", "x")
	w.write("c/f", "x")
	w.mark("")
	w.inStep()
	f.fail = func(op *slave.Op) error {
		if op.Path == "a/b/bad" && op.Kind != slave.OpPark {
			return unix.EIO
		}
		return nil
	}
	w.write("a/b/bad", "changed")
	w.tell("a/b/bad")
	if out := w.pass(); out.Stime != 0 {
		t.Fatal("stamped over a failure")
	}
	for i := range 5 {
		w.write("a/b/good", fmt.Sprint("changed", i))
		w.write("c/f", fmt.Sprint("changed", i))
		w.tell("a/b/good", "c/f")
		w.forget()
		if out := w.pass(); out.Stime != 0 {
			t.Fatal("stamped over a failure")
		}
		w.checkStamps()
		if w.counters.Hinted.Load() != 1 {
			t.Errorf("%d directories were visited by hints, want c", w.counters.Hinted.Load())
		}
		for _, p := range []string{"a/b/good", "c/f"} {
			if b, err := os.ReadFile(w.there(p)); err != nil || string(b) != fmt.Sprint("changed", i) {
				t.Errorf("%s is held back: %q, %v", p, b, err)
			}
		}
		if _, n := w.crawler.Failures(10); n != 1 {
			t.Errorf("%d failures", n)
		}
	}
	f.fail = nil
	waitFor(t, w.crawler.NextRetry())
	w.inStep()
	w.forget()
	w.write("a/b/bad", "once more")
	w.tell("a/b/bad")
	w.byHints(3)
}

func TestEmptiedByHints(t *testing.T) {
	w := hintedWorld(t, func(w *world) { w.write("f", "precious"); w.write("d/g", "precious") })
	w.ok(os.RemoveAll(w.at("d")))
	w.ok(os.Remove(w.at("f")))
	w.tell("d", "f")
	for range 2 {
		if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, source.ErrNotMaster) {
			t.Fatalf("an emptied master: %v", err)
		}
	}
	if _, err := os.Stat(w.there("d/g")); err != nil {
		t.Fatal(err)
	}
}

func TestMaxDeleteByHints(t *testing.T) {
	w := inMemory(t, true)
	w.write("keep", "x")
	for i := range 1500 {
		w.write(fmt.Sprint("d/", i), "")
	}
	w.mark("")
	w.inStep()
	w.ok(os.RemoveAll(w.at("d")))
	w.tell("d")
	for range 2 {
		if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
			t.Fatalf("1,500 of 1,501 files: %v", err)
		}
	}
	if _, err := os.Stat(w.there("d/7")); err != nil {
		t.Fatal(err)
	}
}

// TestNoHintCrossesTheVolumeMark: when it is raised everything is compared.
func TestNoHintCrossesTheVolumeMark(t *testing.T) {
	w := hintedWorld(t, func(w *world) { w.write("d/f", "abc"); w.write("e/f", "x") })
	w.ok(os.WriteFile(w.there("d/f"), []byte("xyz"), 0o644)) // behind our back
	w.now = w.now.Next()
	w.volume = w.now
	w.write("e/f", "changed")
	w.tell("e/f")
	w.inStep()
}

// TestDirectoryThatRefusesMarks is listed, hints or not.
func TestDirectoryThatRefusesMarks(t *testing.T) {
	w := newWorld(t)
	w.hints = &crawler.Hints{}
	w.hints.Up()
	w.connect()
	w.now = xtime.FromTime(w.now.Time().Add(-2 * 3600e9))
	w.volume = w.now
	w.write("d/e/log", "one\n")
	w.mark("d/e/log")
	w.inStep()
	chattr(t, w.at("d/e"), immutable)
	w.write("d/e/log", "two\n")
	h := w.hintAround("d/e/log")
	w.hints.Hint(h)
	w.forget()
	w.inStep()
	if w.counters.Visited.Load() == 0 {
		t.Error("nothing was listed")
	}
}

// hintAround is a hint whose mark the directory of path refused.
func (w *world) hintAround(path string) *hint.Hint {
	w.t.Helper()
	dir, name := beneath.Split(path)
	d, err := w.root.OpenPath(dir)
	w.ok(err)
	defer d.Close()
	g, err := d.GFID("")
	w.ok(err)
	up, base := beneath.Split(dir)
	h := w.hint(up)
	h.Dirs[0].Names = append(h.Dirs[0].Names, hint.Name{Name: base, Dir: g})
	h.Dirs = slices.Insert(h.Dirs, 0, hint.Dir{GFID: g, Names: []hint.Name{{Name: name}}})
	w.ok(d.SetXtime(name, &w.names, w.now))
	return h
}

func TestHardLinksByHints(t *testing.T) {
	w := hintedWorld(t, func(w *world) {
		w.write("a/f", strings.Repeat("content ", 40<<10))
		w.write("rootfile", "x")
		w.ok(os.Mkdir(w.at("b"), 0o755))
	})
	w.ok(os.Link(w.at("a/f"), w.at("b/g")))
	w.tell("b/g")
	w.inStep()
	w.ok(os.Link(w.at("b/g"), w.at("h")))
	w.tell("h")
	w.inStep()
	w.write("h", "through one name")
	w.tell("h")
	w.inStep()
	// What was changed through a name that is gone shows under the others, in the root too.
	w.ok(os.Link(w.at("rootfile"), w.at("b/other")))
	w.tell("b/other")
	w.inStep()
	w.write("b/other", "changed")
	w.write("b/g", "changed")
	w.tell("b/other", "b/g")
	w.ok(os.Remove(w.at("b/other")))
	w.ok(os.Remove(w.at("b/g")))
	w.tell("b/other", "b/g")
	for range 3 {
		if out := w.pass(); out.Stime != 0 {
			break
		}
	}
	w.inStep()
}

// TestFollowIsWokenByHints: no look at the master's root comes by itself in the time of this test.
func TestFollowIsWokenByHints(t *testing.T) {
	w := hintedWorld(t, func(w *world) { w.write("a/f", "x") })
	ctx, cancel := context.WithCancel(t.Context())
	progress := make(chan crawler.Progress)
	ended := make(chan error, 1)
	go func() {
		ended <- w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Hour, SlowPoll: 2 * time.Hour,
			Heartbeat: time.Now, Events: crawler.Events{Ready: func() {}, Trouble: func(error) {},
				Progress: func(p crawler.Progress) {
					select {
					case progress <- p:
					case <-ctx.Done():
					}
				}}})
	}()
	wait := func(what string, ok func(p crawler.Progress) bool) {
		t.Helper()
		for end := time.After(time.Minute); ; {
			select {
			case p := <-progress:
				if ok(p) {
					return
				}
			case <-end:
				t.Fatal("never came: " + what)
			}
		}
	}
	for i := range 3 {
		w.write("a/f", fmt.Sprint("changed", i))
		w.tell("a/f")
		wait("the change, by hints", func(p crawler.Progress) bool {
			return p.InStep && p.Stime == w.now && p.Following && w.counters.Hinted.Load() == int64(2*(i+1))
		})
	}
	// A mark of which no hint tells, and a gap instead: it is compared. Then hints are followed again.
	w.write("a/f", "unhinted")
	w.mark("a/f")
	w.hints.Gap()
	wait("the change, by a crawl", func(p crawler.Progress) bool { return p.InStep && p.Stime == w.now })
	if w.counters.Visited.Load() != 2 {
		t.Errorf("%d directories were listed", w.counters.Visited.Load())
	}
	w.hints.Down()
	w.hints.Up()
	wait("hints are followed", func(p crawler.Progress) bool { return p.Following })
	w.hints.Down()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	compare.MustEqual(t, w.master, w.slave, compare.Replica())
}

// TestCallsFailByHints ends the session at the first, second, third ... call of a pass by hints.
func TestCallsFailByHints(t *testing.T) {
	for n := 0; ; n++ {
		w := newWorld(t)
		f := &failing{}
		w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
		w.hints = &crawler.Hints{}
		w.hints.Up()
		w.connect()
		w.write("a/b/f", "x")
		w.write("a/gone", "x")
		w.write("c/moves/g", "x")
		w.mark("")
		w.inStep()
		w.write("a/b/f", "changed")
		w.ok(os.Remove(w.at("a/gone")))
		w.ok(os.Rename(w.at("c/moves"), w.at("a/b/moved")))
		w.write("new/f", "new")
		w.tell("a/b/f", "a/gone", "c/moves", "a/b/moved", "new/f", "new")
		var count atomic.Int64
		f.call = func(string) error {
			if count.Add(1) > int64(n) {
				return errCut
			}
			return nil
		}
		_, err := w.crawler.Pass(t.Context())
		if err != nil && !errors.Is(err, errCut) {
			t.Fatalf("call %d: %v", n, err)
		}
		f.call = nil
		w.checkStamps()
		w.write("a/b/f", "changed again")
		w.tell("a/b/f")
		w.connect()
		w.inStep()
		if err == nil {
			if n < 4 {
				t.Fatalf("only %d calls", n)
			}
			return
		}
	}
}

// checkStamps proves invariant 5 on the slave as it is: no directory that is in step by its record has a difference at
// or below it.
func (w *world) checkStamps() {
	w.t.Helper()
	if stamp := w.stamp(""); stamp > max(w.now, w.volume) {
		w.t.Fatalf("the slave's root is stamped %v, and the master's is of %v", stamp, w.now)
	}
	found, err := compare.Trees(w.master, w.slave, compare.Replica())
	w.ok(err)
	for _, d := range found {
		path := strings.TrimPrefix(strings.TrimPrefix(d.Path, "."), "/")
		if several(w.at(path)) || several(w.there(path)) {
			continue // no mark leads to what changed through another name
		}
		for {
			if w.saysInStep(path) {
				w.t.Fatalf("%q is on record as in step, but: %v", path, d)
			}
			if path == "" {
				break
			}
			path, _ = beneath.Split(path)
		}
		w.checkHonest(strings.TrimPrefix(strings.TrimPrefix(d.Path, "."), "/"), d)
	}
}

// checkHonest proves of one difference that no directory above it is stamped up to its mark.
func (w *world) checkHonest(path string, d compare.Difference) {
	w.t.Helper()
	newest := xtime.Time(0)
	for path != "" {
		dir, name := beneath.Split(path)
		p, err := w.root.OpenPath(dir)
		if err != nil {
			return
		}
		x, err := p.Xtime(name, &w.names)
		p.Close()
		if err != nil {
			return // gone on the master: its removal marked the directory alone
		}
		newest = max(newest, x, w.volume)
		path = dir
		if stamp, same := w.stamped(path); same && stamp >= newest {
			w.t.Fatalf("%q is stamped %v, but %v, of %v", path, stamp, d, newest)
		}
	}
}

// stamped gives the slave's stamp of a directory, if that is on record as the master's.
func (w *world) stamped(path string) (stamp xtime.Time, same bool) {
	m, err := w.root.OpenPath(path)
	if err != nil {
		return 0, false
	}
	defer m.Close()
	s, err := beneath.OpenRoot(filepath.Join(w.slave, path), false)
	if err != nil {
		return 0, false
	}
	defer s.Close()
	g, err := m.GFID("")
	w.ok(err)
	recorded, err := s.RecordedGFID("", &w.names)
	w.ok(err)
	stamp, err = s.Xtime("", &w.names)
	w.ok(err)
	return stamp, g == recorded
}

func several(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && !st.IsDir() && st.Sys().(*syscall.Stat_t).Nlink > 1
}

// saysInStep tells whether path is a directory on both sides, and the slave's record is that of the master.
func (w *world) saysInStep(path string) bool {
	w.t.Helper()
	m, err := w.root.OpenPath(path)
	if err != nil {
		return false
	}
	defer m.Close()
	s, err := beneath.OpenRoot(filepath.Join(w.slave, path), false)
	if err != nil {
		return false
	}
	defer s.Close()
	g, err := m.GFID("")
	w.ok(err)
	x, err := m.Xtime("", &w.names)
	w.ok(err)
	recorded, err := s.RecordedGFID("", &w.names)
	w.ok(err)
	stamp, err := s.Xtime("", &w.names)
	w.ok(err)
	return g == recorded && stamp == max(x, w.volume)
}

// TestWhatWaitsGoesWithItsDirectory: nothing is said to wait that is gone.
func TestWhatWaitsGoesWithItsDirectory(t *testing.T) {
	now := time.Now()
	w := hintedWorld(t, func(w *world) { w.write("a/b/f", "0") })
	w.maxDelete = 100
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	w.connect()
	w.inStep()
	for i := range 5 {
		w.write("a/b/f", fmt.Sprint(i))
		w.tell("a/b/f")
		w.pass()
	}
	if _, n, _ := w.crawler.Waiting(1); n != 1 {
		t.Fatalf("%d files wait", n)
	}
	w.ok(os.RemoveAll(w.at("a")))
	w.tell("a")
	if out := w.pass(); out.Stime != 0 || out.Waiting {
		t.Errorf("%+v: what waits in a directory that is met nowhere may be where the crawl has been before", out)
	}
	w.inStep()
	if list, _, _ := w.crawler.Waiting(1); len(list) > 0 || !w.crawler.NextRetry().IsZero() {
		t.Errorf("there wait %v", list)
	}
}

// TestRandomHints does anything on the master, before each pass and while it goes on, delivers the hints in every wrong way,
// and checks after each pass that no directory is taken for complete that is not.
func TestRandomHints(t *testing.T) {
	seeds := 9
	if n, err := strconv.Atoi(os.Getenv("GEOREP_SEEDS")); err == nil {
		seeds = n
	}
	waited, absorbed := 0, 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			waits := seed%3 != 0 // files that keep changing have to wait
			now := time.Now()
			w := hintedWorld(t, func(w *world) {
				for _, d := range []string{"a", "a/b", "a/b/c", "d", "d/e"} {
					w.write(d+"/f", d)
					w.write(d+"/g", d)
				}
			})
			w.maxDelete = 100
			if waits {
				w.settle, w.delay, w.clock = 30*time.Millisecond, 90*time.Millisecond, func() time.Time { return now }
			}
			r := &randomly{w: w, rnd: rand.New(rand.NewPCG(seed, 11))}
			r.changesWhileItCrawls()
			end := func() {}
			connect := func() {
				end()
				w.connect()
				if seed%2 == 0 { // all files are worked on beside the crawls
					w.crawler.Heavy(1)
					end = w.crawler.Beside(t.Context())
				}
			}
			connect()
			defer func() { end() }()
			if waits {
				r.hot = []string{"a/b/f", "a/b/g", "d/e/f"}
			}
			hinted := int64(0)
			for range 50 {
				now = now.Add(time.Duration(r.rnd.IntN(20)) * time.Millisecond)
				for range 1 + r.rnd.IntN(4) {
					if paths := r.change(); len(paths) > 0 {
						r.deliver(w.hint(paths...))
					}
				}
				if waits && w.crawler.Absorb() {
					absorbed++
					w.checkStamps()
				}
				w.counters.Hinted.Store(0)
				r.may(max(0, r.rnd.IntN(12)-7))
				if _, err := w.crawler.Pass(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.may(0)
				hinted += w.counters.Hinted.Load()
				w.checkStamps()
				_, n, _ := w.crawler.Waiting(0)
				waited += n
				if r.rnd.IntN(10) == 0 {
					connect()
				}
			}
			for range 6 {
				now = now.Add(time.Second)
				w.pass()
				w.await(w.crawler.AllReady)
				w.checkStamps()
			}
			w.ok(w.crawler.Clean(t.Context(), 0)) // what is parked counts as a name of its inode
			w.inStep()
			if hinted == 0 {
				t.Error("no directory was visited by hints")
			}
		})
	}
	if waited == 0 || absorbed == 0 {
		t.Errorf("%d times a file had to wait, %d times hints were absorbed", waited, absorbed)
	}
}

// randomly changes a world's master.
type randomly struct {
	w    *world
	rnd  *rand.Rand
	kept []*hint.Hint
	n    int
	hot  []string // these are written more often than others

	mu   sync.Mutex // guards all while a pass goes on
	left int        // so many changes are still to be made in the midst of the pass
}

// changesWhileItCrawls has the master changed in the midst of a pass, when the slave is called.
func (r *randomly) changesWhileItCrawls() {
	f := &failing{}
	r.w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
	f.call = func(string) error { r.meanwhile(); return nil }
	f.fail = func(*slave.Op) error { r.meanwhile(); return nil }
}

// may allows so many changes in the midst of a pass.
func (r *randomly) may(changes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = changes
}

func (r *randomly) meanwhile() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 || r.rnd.IntN(6) > 0 {
		return
	}
	r.left--
	var paths []string
	if r.rnd.IntN(2) == 0 {
		paths = r.chmod(r.pick(true)) // of a directory, whatever lies in it stays in step
	} else {
		paths = r.change()
	}
	if len(paths) > 0 {
		r.deliver(r.w.hint(paths...))
	}
}

// deliver hands a hint over: mostly as it is, but now and then not at all, later, twice, or with a gap.
func (r *randomly) deliver(h *hint.Hint) {
	switch r.rnd.IntN(16) {
	case 0: // lost
	case 1:
		r.kept = append(r.kept, h)
	case 2:
		r.w.hints.Hint(h)
		r.w.hints.Hint(h)
	case 3:
		r.w.hints.Gap()
		r.w.hints.Hint(h)
	case 4:
		i := len(h.Dirs) - 1 - r.rnd.IntN(len(h.Dirs))*r.rnd.IntN(2) // the root as often as not
		h.Dirs[i].Names, h.Dirs[i].Whole = nil, true
		r.w.hints.Hint(h)
	case 5:
		r.w.hints.Hint(h)
		for _, k := range r.kept {
			r.w.hints.Hint(k)
		}
		r.kept = nil
	case 6:
		r.w.hints.Down()
		r.w.hints.Up()
	default:
		r.w.hints.Hint(h)
	}
}

// pick gives the path of any directory or of any other entry.
func (r *randomly) pick(dir bool) string {
	var all []string
	r.w.ok(filepath.WalkDir(r.w.master, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(r.w.master, path); err == nil && d.IsDir() == dir {
			all = append(all, strings.TrimPrefix(rel, "."))
		}
		return err
	}))
	if len(all) == 0 {
		return ""
	}
	return all[r.rnd.IntN(len(all))]
}

func (r *randomly) fresh() string {
	r.n++
	return beneath.Join(r.pick(true), fmt.Sprint("n", r.n%25))
}

func (r *randomly) chmod(path string) []string {
	if os.Chmod(r.w.at(path), os.FileMode(0o700+r.rnd.IntN(64))) != nil {
		return nil
	}
	return []string{path}
}

// change does one thing and returns what the marker would be told of: nothing if it could not be done.
func (r *randomly) change() []string {
	w, p, q := r.w, r.pick(false), r.fresh()
	var err error
	var paths []string
	if len(r.hot) > 0 && r.rnd.IntN(3) > 0 {
		p = r.hot[r.rnd.IntN(len(r.hot))]
		if f, err := os.OpenFile(w.at(p), os.O_WRONLY|os.O_TRUNC|os.O_CREATE, 0o644); err == nil {
			fmt.Fprint(f, "content ", r.rnd.IntN(1000))
			f.Close()
			return []string{p}
		}
	}
	switch r.rnd.IntN(11) {
	case 10:
		return r.chmod(r.pick(r.rnd.IntN(2) == 0))
	case 0, 1, 2:
		if p == "" {
			return nil
		}
		err, paths = os.WriteFile(w.at(p), []byte(fmt.Sprint("content ", r.rnd.IntN(1000))), 0o644), []string{p}
	case 3:
		err, paths = os.WriteFile(w.at(q), []byte(q), 0o644), []string{q}
	case 4:
		err, paths = os.Mkdir(w.at(q), 0o755), []string{q}
	case 5:
		if p == "" {
			return nil
		}
		err, paths = os.Rename(w.at(p), w.at(q)), []string{p, q}
	case 6:
		p = r.pick(true)
		err, paths = os.Rename(w.at(p), w.at(q)), []string{p, q}
	case 7:
		if p == "" {
			return nil
		}
		err, paths = os.Remove(w.at(p)), []string{p}
	case 8:
		if p == "" {
			return nil
		}
		err, paths = os.Link(w.at(p), w.at(q)), []string{q}
	case 9:
		if q = r.pick(r.rnd.IntN(2) == 0); p == "" || q == "" {
			return nil
		}
		err = unix.Renameat2(unix.AT_FDCWD, w.at(p), unix.AT_FDCWD, w.at(q), unix.RENAME_EXCHANGE)
		paths = []string{p, q}
	}
	if err != nil {
		return nil
	}
	return paths
}

// TestDirectoriesSwapBeforeTheirNamesAreLinked: an inode got a further name, and its other names are searched. The directory
// of one swaps places with another meanwhile, which has no such name and must not get one on the slave: nothing would ever
// lead to it there.
func TestDirectoriesSwapBeforeTheirNamesAreLinked(t *testing.T) {
	w := hintedWorld(t, func(w *world) {
		w.write("p/one", "content")
		w.write("q/deep/f", "x")
		w.ok(os.Mkdir(w.at("other"), 0o755))
	})
	w.forgetPlaces()
	swapped := false
	w.crawler.OnScan(func(dir string) {
		if dir == "" && !swapped {
			swapped = true
			w.exchange("p", "q/deep")
		}
	})
	w.ok(os.Link(w.at("p/one"), w.at("other/two")))
	w.tell("other/two")
	out := w.pass()
	if !swapped {
		t.Fatal("nothing was searched")
	}
	if out.Stime != 0 {
		t.Error("the root was stamped although a name has yet to be linked")
	}
	if _, err := os.Lstat(w.there("q/deep/one")); err == nil {
		t.Error("a name was made in another directory than the one that has it")
	}
	w.tell("p", "q/deep")
	w.inStep()
}

// TestDirectoryMovesBeforeItsTimesAreRestored: a name is linked in a directory that nothing changed on the master. What gives
// its times back meets it elsewhere, because one above it moved just then, which marks neither of them.
func TestDirectoryMovesBeforeItsTimesAreRestored(t *testing.T) {
	w := newWorld(t)
	f := &failing{}
	w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
	w.connect()
	w.write("r/p/one", "content")
	w.ok(os.Mkdir(w.at("other"), 0o755))
	w.ok(os.Chtimes(w.at("r/p"), time.Unix(1, 0), time.Unix(1, 0)))
	w.mark("")
	w.inStep()
	w.forgetPlaces()
	searched, moved := false, false
	w.crawler.OnScan(func(string) { searched = true })
	f.call = func(name string) error {
		if name == "survey" && searched && !moved { // the last before the links
			moved = true
			w.ok(os.Rename(w.at("r"), w.at("r2")))
		}
		return nil
	}
	w.ok(os.Link(w.at("r/p/one"), w.at("other/two")))
	w.mark("other/two")
	w.pass()
	if !moved {
		t.Fatal("nothing was linked")
	}
	w.ok(os.Rename(w.at("r2"), w.at("r")))
	w.mark("r", "r2")
	w.pass()
	w.inStep()
}

// TestChildChangesBeforeTheSecondVisit: a directory by hints waits for a second visit, because of what may have moved there.
// Meanwhile one below it, which is through, changes again; and the directory above has been marked beyond the hints, so that
// they are no longer enough. The second visit must not stamp what it did not look at.
func TestChildChangesBeforeTheSecondVisit(t *testing.T) {
	w, f := failingWorld(t)
	w.write("s/k/f", "x")
	w.write("o", "moves")
	w.write("r", "x")
	w.mark("")
	w.inStep()
	changed := false
	f.fail = func(op *slave.Op) error {
		if op.Kind == slave.OpFinish && op.Path == "s/k" && !changed {
			changed = true
			w.ok(unix.Removexattr(w.at("s/k"), "user.a"))
			w.hint("s/k") // comes too late
		}
		return nil
	}
	w.ok(unix.Setxattr(w.at("s/k"), "user.a", []byte("1"), 0))
	w.ok(os.Rename(w.at("o"), w.at("s/o")))
	h := w.hint("s/k", "s/o", "o")
	h.Dirs[len(h.Dirs)-1].Whole = true // so the root is listed
	w.hints.Hint(h)
	w.write("r", "changed")
	w.hint("r")
	w.pass()
	if !changed {
		t.Fatal("nothing changed meanwhile")
	}
	w.checkStamps()
	w.inStep()
}
