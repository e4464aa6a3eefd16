package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// TestLeavesItsPlaceAtAnyMoment: what changed leaves its place, or loses it to another, just before the n-th call of a crawl on
// the master. No stamp may then claim the change while the slave has what was there before it.
func TestLeavesItsPlaceAtAnyMoment(t *testing.T) {
	step := int64(17)
	if n, err := strconv.ParseInt(os.Getenv("GEOREP_FAIL_STEP"), 10, 64); err == nil {
		step = n
	}
	for name, leave := range map[string]struct {
		do    string
		marks []string
	}{
		"replaced":            {"echo three > d/saving; mv d/saving d/s/f", []string{"d/saving", "d/s/f"}},
		"removed":             {"rm d/s/f", []string{"d/s/f"}},
		"moved":               {"mv d/s/f e/f", []string{"d/s/f", "e/f"}},
		"its directory moved": {"mv d/s e/s", []string{"d/s", "e/s"}},
		"the one above moved": {"mv d e/d", []string{"d", "e/d"}},
		"came back":           {"mv d/s e/s; mv e/s d/s", []string{"d/s", "e/s"}},
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hints %v", name, hints), func(t *testing.T) {
				for n := 1 + rand.Int64N(step); leavesItsPlace(t, n, hints, leave.do, leave.marks) >= n; n += step {
				}
			})
		}
	}
}

// leavesItsPlace does what it says before the n-th call, and tells how many there were.
func leavesItsPlace(t *testing.T, n int64, hints bool, do string, marks []string) int64 {
	w := hintedWorld(t, func(w *world) {
		w.write("d/s/f", "one\n")
		w.write("d/s/g", "x")
		w.write("e/h", "x")
	})
	w.ok(os.WriteFile(w.at("saving"), []byte("two\n"), 0o644))
	w.ok(os.Rename(w.at("saving"), w.at("d/s/f")))
	told := w.hint("saving", "d/s/f")
	if hints {
		w.hints.Hint(told)
	}
	claimed := w.now
	var calls atomic.Int64
	var mu sync.Mutex
	w.root.Hook(func(_, _ string) error {
		if calls.Add(1) != n {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		cmd := exec.Command("sh", "-c", do)
		cmd.Dir = w.master
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", do, err, out)
		}
		if later := w.hint(marks...); hints {
			w.hints.Hint(later)
		}
		return nil
	})
	w.pass()
	w.root.Hook(nil)
	made := calls.Load()
	stale := ""
	for _, path := range []string{"d/s/f", "e/f", "e/s/f", "e/d/s/f"} {
		if b, err := os.ReadFile(w.there(path)); err == nil && string(b) == "one\n" {
			stale = path
		}
	}
	for path := stale; path != ""; {
		path, _ = beneath.Split(path)
		if at := w.stamp(path); at >= claimed {
			t.Errorf("before call %d: %q is stamped %v, but %s is as it was before %v", n, path, at, stale, claimed)
		}
	}
	w.reach()
	return made
}

// TestReplacedOnItsWay: a file is replaced after it was listed, and before its content was read, in a large batch.
func TestReplacedOnItsWay(t *testing.T) {
	w := newWorld(t)
	f := &failing{}
	w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
	w.connect()
	w.write("d/f", "one")
	w.mark("")
	w.inStep()
	replaced := false
	f.fail = func(op *slave.Op) error {
		if op.Kind == slave.OpPut && !replaced {
			replaced = true
			w.write("d/f.new", "three")
			w.ok(os.Rename(w.at("d/f.new"), w.at("d/f")))
			w.mark("d/f.new", "d/f")
		}
		return nil
	}
	w.write("d/f.new", strings.Repeat("two", 1<<20))
	w.ok(os.Rename(w.at("d/f.new"), w.at("d/f")))
	w.mark("d/f")
	claimed := w.now
	out := w.pass()
	b, err := os.ReadFile(w.there("d/f"))
	w.ok(err)
	if !replaced || len(b) < 10 && string(b) != "three" && (out.Stime >= claimed || w.stamp("d") >= claimed || !out.Waiting) {
		t.Errorf("replaced: %v; the slave has %q, and the outcome is %+v", replaced, b, out)
	}
	w.inStep()
}

// TestReplacedNameIsNeverMissed: a file moved, in the way of a further name, and another took its old name. The slave never
// lacks that name: it has had it all the time on the master.
func TestReplacedNameIsNeverMissed(t *testing.T) {
	for _, hints := range []bool{false, true} {
		t.Run(fmt.Sprint("hints ", hints), func(t *testing.T) {
			w, f := failingWorld(t)
			w.write("d/f", "moves")
			w.write("e/x", "x")
			w.mark("")
			w.inStep()
			var missed atomic.Int64
			f.fail = func(*slave.Op) error {
				if _, err := os.Lstat(w.there("d/f")); err != nil {
					missed.Add(1)
				}
				return nil
			}
			f.call = func(string) error { return f.fail(nil) }
			w.ok(os.Link(w.at("d/f"), w.at("e/g")))
			w.write("d/new", "another")
			w.ok(os.Rename(w.at("d/new"), w.at("d/f")))
			if h := w.hint("e/g", "d/new", "d/f"); hints {
				w.hints.Hint(h)
			}
			w.forget()
			w.inStep()
			if n := missed.Load(); n > 0 {
				t.Errorf("the name was missed at %d calls", n)
			}
			if n := w.counters.Bytes.Load(); n != int64(len("another")) {
				t.Errorf("%d bytes were sent, want those of the new file", n)
			}
		})
	}
}

// TestReplacedNameOfADirectoryThatMoved: the same, and the name's directory has moved as well, or was removed. As long as its
// stamp is there it has the name, or the master has removed it; and in step no inode has more names than there.
func TestReplacedNameOfADirectoryThatMoved(t *testing.T) {
	ways := map[string]struct {
		kept   bool // the directory has had the name all the time
		change func(w *world) []string
	}{
		"moved": {true, func(w *world) []string {
			w.ok(os.Rename(w.at("p/d"), w.at("q/d")))
			w.write("q/d/new", "another")
			w.ok(os.Rename(w.at("q/d/new"), w.at("q/d/f")))
			return []string{"p/d", "q/d", "q/d/f"}
		}},
		"another in its place": {true, func(w *world) []string {
			w.ok(os.Rename(w.at("p/d"), w.at("q/d")))
			w.write("q/d/new", "another")
			w.ok(os.Rename(w.at("q/d/new"), w.at("q/d/f")))
			w.ok(os.Mkdir(w.at("p/d"), 0o755))
			return []string{"p/d", "q/d", "q/d/f"}
		}},
		"removed": {false, func(w *world) []string {
			w.ok(os.RemoveAll(w.at("p/d")))
			return []string{"p/d"}
		}},
		"moved without it": {false, func(w *world) []string {
			w.ok(os.Remove(w.at("p/d/f")))
			w.ok(os.Rename(w.at("p/d"), w.at("q/d")))
			return []string{"p/d", "q/d", "q/d/f"}
		}},
	}
	for _, hints := range []bool{false, true} {
		for name, way := range ways {
			for _, to := range []string{"a/g", "z/g"} {
				t.Run(fmt.Sprint(name, ", to ", to, ", hints ", hints), func(t *testing.T) {
					w, f := failingWorld(t)
					for _, one := range []string{"p/d/f", "a/x", "q/x", "z/x"} {
						w.write(one, one)
					}
					w.mark("")
					w.inStep()
					there, err := beneath.OpenRoot(w.slave, false)
					w.ok(err)
					defer there.Close()
					stamp, id, err := recordOf(there, "p/d", &w.names)
					w.ok(err)
					w.ok(os.Link(w.at("p/d/f"), w.at(to)))
					changed := append(way.change(w), to)
					var missed atomic.Int64
					f.fail = func(*slave.Op) error {
						for _, dir := range []string{"p/d", "q/d"} {
							if way.kept && lacks(there, dir, "f", id, stamp, &w.names) {
								missed.Add(1)
							}
						}
						return nil
					}
					f.call = func(string) error { return f.fail(nil) }
					if h := w.hint(changed...); hints {
						w.hints.Hint(h)
					}
					w.forget()
					w.inStep()
					if n := missed.Load(); n > 0 {
						t.Errorf("the name was missed at %d calls", n)
					}
					if n := w.counters.Bytes.Load(); n > int64(len("another")) || !way.kept && n > 0 {
						t.Errorf("%d bytes were sent, want no more than those of a new file", n)
					}
					for _, path := range []string{to, "q/d/f"} {
						st, err := os.Stat(w.there(path))
						if err == nil && st.Sys().(*syscall.Stat_t).Nlink != 1 {
							t.Errorf("%s has %d names", path, st.Sys().(*syscall.Stat_t).Nlink)
						}
					}
				})
			}
		}
	}
}

// lacks tells whether a directory has lost a name although it is on record as id with this stamp.
func lacks(there *beneath.Dir, dir, name string, id xtime.GFID, stamp xtime.Time, names *xtime.Names) bool {
	d, err := there.OpenPath(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	if _, err := d.Stat(name); err == nil {
		return false
	}
	g, err := d.RecordedGFID("", names)
	x, stampErr := d.Xtime("", names)
	return err == nil && stampErr == nil && g == id && x == stamp
}

// TestMissedAgainAndAgain: a name that is listed and never can be opened is looked at after pauses, not without end.
func TestMissedAgainAndAgain(t *testing.T) {
	now := time.Now()
	w := newWorld(t)
	w.clock = func() time.Time { return now }
	w.connect()
	w.write("d/f", "one")
	w.write("d/g", "one")
	w.mark("")
	w.inStep()
	w.root.Hook(func(op, name string) error {
		if strings.HasPrefix(op, "open") && name == "f" {
			return unix.ENOENT
		}
		return nil
	})
	w.write("d/f", "changed")
	w.write("d/g", "changed")
	w.mark("d/f", "d/g")
	began := now
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 30 * time.Millisecond, 3 * time.Second, time.Minute} {
		now = began.Add(after)
		if out := w.pass(); !out.Waiting || out.Stime >= w.now {
			t.Fatalf("after %v: %+v", after, out)
		}
		if got, want := w.crawler.NextRetry().Sub(now), min(after, time.Second); got != want {
			t.Errorf("missed for %v, the next look is %v away, want %v", after, got, want)
		}
	}
	if b, err := os.ReadFile(w.there("d/g")); err != nil || string(b) != "changed" {
		t.Errorf("the file beside it is %q, %v", b, err)
	}
	w.root.Hook(nil)
	now = now.Add(time.Second)
	w.pass()
	w.inStep()
}

// blindTo is a slave that knows what it has parked, and not where the rest is, as one by SFTP.
type blindTo struct{ slave.Tree }

func (b blindTo) Info() slave.Info {
	info := b.Tree.Info()
	info.NoPlaces = true
	return info
}

func (b blindTo) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	all, err := b.Tree.Find(ctx, gfids)
	for i := range all {
		if !all[i].Parked {
			all[i] = slave.Found{}
		}
	}
	return all, err
}

// TestMovesAtAnyMoment: a file, or a directory with one, moves to a directory that came just before, in the middle of a crawl
// that was not told of it. No content is sent, whether the slave knows where its files are or not, and however young they are.
func TestMovesAtAnyMoment(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for _, young := range []bool{false, true} {
			for _, what := range []string{"file", "directory"} {
				t.Run(fmt.Sprintf("%s, blind %v, young %v", what, blind, young), func(t *testing.T) {
					t.Parallel()
					for _, late := range []bool{false, true} {
						for n := int64(1); movesAtCall(t, n, what, blind, young, late) >= n; n++ {
						}
					}
				})
			}
		}
	}
}

// movesAtCall moves it before the n-th call of the crawl, and tells how many there were. The mark comes at once, or late: after
// the crawl.
func movesAtCall(t *testing.T, n int64, what string, blind, young, late bool) int64 {
	w := blindWorld(t, blind)
	w.write("file", "what nobody wants to send again")
	w.write("directory/file", "nor this")
	if young { // by more than a tick older than their mark, which is as much older than what comes after it
		time.Sleep(20 * time.Millisecond)
		w.now = xtime.FromTime(time.Now())
		w.volume = w.now
		time.Sleep(20 * time.Millisecond)
		w.mark("file", "directory/file")
	}
	w.mark("")
	w.inStep()
	w.forget()
	w.ok(os.Mkdir(w.at("d"), 0o755))
	w.tell("d")
	var calls atomic.Int64
	mark := func() { w.hints.Hint(w.hint(what, "d/moved")) }
	w.root.Hook(func(_, _ string) error {
		if calls.Add(1) == n {
			if err := os.Rename(w.at(what), w.at("d/moved")); err != nil {
				t.Error(err)
			}
			if !late {
				mark()
			}
		}
		return nil
	})
	w.pass()
	w.root.Hook(nil)
	if late && calls.Load() >= n {
		mark()
	}
	w.reach()
	if sent := w.counters.Bytes.Load(); sent > 0 {
		t.Errorf("moved before call %d, late %v: %d bytes were sent", n, late, sent)
	}
	return calls.Load()
}

// blindWorld is a world with hints, whose slave knows where its files are unless it is blind.
func blindWorld(t *testing.T, blind bool) *world {
	return hintedOver(t, func(t slave.Tree) slave.Tree {
		if blind {
			return blindTo{t}
		}
		return t
	})
}

// reach passes until the slave has what the master has: what was missed has a pass of its own.
func (w *world) reach() {
	w.t.Helper()
	for tries := 0; w.stamp("") < w.now && tries < 3; tries++ {
		w.pass()
	}
	w.inStep()
}

// TestComesFromElsewhere: what looks as if it had been moved, and comes from outside, gets to a slave that does not know where
// its files are, one crawl later.
func TestComesFromElsewhere(t *testing.T) {
	w := blindWorld(t, true)
	w.write("d/x", "x")
	w.write("g", "old")
	outside := t.TempDir()
	w.ok(os.MkdirAll(filepath.Join(outside, "e/e"), 0o755))
	w.ok(os.WriteFile(filepath.Join(outside, "e/e/f"), []byte("inside"), 0o644))
	w.ok(os.WriteFile(filepath.Join(outside, "g"), []byte("another"), 0o644))
	w.mark("")
	w.inStep()
	w.ok(os.Rename(filepath.Join(outside, "e"), w.at("d/e")))
	w.ok(os.Rename(filepath.Join(outside, "g"), w.at("g")))
	w.tell("d/e", "g", "d/e/e", "d/e/e/f")
	if out := w.pass(); !out.Waiting {
		t.Errorf("nothing waits for the next crawl: %+v", out)
	}
	w.inStep()
}

// TestDirectoryMovesUnderAnOperation: while a new file is on its way, its directory moves on both sides, and another takes its
// place. The file does not get into that one, whose stamp knows nothing of it.
func TestDirectoryMovesUnderAnOperation(t *testing.T) {
	for what, make := range map[string]func(w *world, path string) error{
		"file":      func(w *world, path string) error { return os.WriteFile(w.at(path), []byte("new"), 0o644) },
		"symlink":   func(w *world, path string) error { return os.Symlink("new", w.at(path)) },
		"fifo":      func(w *world, path string) error { return syscall.Mkfifo(w.at(path), 0o644) },
		"directory": func(w *world, path string) error { return os.Mkdir(w.at(path), 0o755) },
		"link":      func(w *world, path string) error { return os.Link(w.at("f"), w.at(path)) },
		"moved":     func(w *world, path string) error { return os.Rename(w.at("f"), w.at(path)) },
	} {
		for _, stays := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, stays %v", what, stays), func(t *testing.T) { directoryMovesUnder(t, stays, make) })
		}
	}
}

func directoryMovesUnder(t *testing.T, stays bool, make func(w *world, path string) error) {
	w, f := failingWorld(t)
	w.write("f", "f")
	w.write("p/x", "x")
	w.write("b/y", "y")
	w.mark("")
	w.inStep()
	state, _ := f.Tree.Survey(t.Context(), []slave.Query{{Path: "p"}, {Path: "b"}})
	moved := false
	f.fail = func(op *slave.Op) error {
		if op.Path != "p/k" || moved {
			return nil
		}
		moved = true
		w.rename("p", "q")
		w.rename("b", "p")
		if !stays {
			w.ok(os.Remove(w.at("q/k")))
		}
		w.hints.Hint(w.hint("p", "q", "b", "q/k"))
		// As the same crawl does it, which comes to their new places.
		a, b := state[0].Record, state[1].Record
		results, err := f.Tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{
			{Kind: slave.OpPark, Entry: slave.Dir, Path: "p", Expect: a.GFID},
			{Kind: slave.OpUnpark, Entry: slave.Dir, Path: "q", Record: a},
			{Kind: slave.OpPark, Entry: slave.Dir, Path: "b", Expect: b.GFID},
			{Kind: slave.OpUnpark, Entry: slave.Dir, Path: "p", Record: b},
		}})
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	}
	w.ok(make(w, "p/k"))
	w.hints.Hint(w.hint("f", "p/k"))
	w.pass()
	if !moved {
		t.Fatal("nothing was sent")
	}
	w.reach()
	if list, total := w.crawler.Failures(1); total > 0 {
		t.Errorf("it counts as a failure: %v", list)
	}
}
