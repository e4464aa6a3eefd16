package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/slave"
)

// TestRemovalThatFailsCountsOnce: what the slave cannot remove is tried again and again, and has not gone. Only its directory
// is held back.
func TestRemovalThatFailsCountsOnce(t *testing.T) {
	for name, refuses := range map[string]func(op *slave.Op) bool{
		"an immutable directory": func(op *slave.Op) bool { return op.Kind == slave.OpPark && strings.HasPrefix(op.Path, "k/") },
		"a read-only slave":      func(*slave.Op) bool { return true },
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hints %v", name, hints), func(t *testing.T) {
				w := shares(t, hints)
				var off atomic.Bool
				w.wrap = func(t slave.Tree) slave.Tree {
					return &failing{Tree: t, fail: func(op *slave.Op) error {
						if !off.Load() && refuses(op) {
							return unix.EROFS
						}
						return nil
					}}
				}
				w.connect()
				list, err := os.ReadDir(w.at("k"))
				w.ok(err)
				var marks []string
				for _, e := range list {
					w.ok(os.RemoveAll(w.at("k", e.Name())))
					marks = append(marks, "k/"+e.Name())
				}
				for i := range 6 {
					w.write(fmt.Sprint("b/new", i), "x")
					w.after(hints, append(marks, fmt.Sprint("b/new", i)))
					out := w.pass()
					if _, n := w.crawler.Failures(1); out.Stime != 0 || n == 0 {
						t.Fatalf("pass %d: %+v, %d failures", i, out, n)
					}
					if _, err := os.Stat(w.there("b", fmt.Sprint("new", i))); err != nil && !strings.Contains(name, "read-only") {
						t.Error(err)
					}
					pauseFor(t, 3*time.Millisecond) // retries are due after 2 ms
				}
				off.Store(true)
				pauseFor(t, 3*time.Millisecond)
				w.inStep()
				w.ok(os.RemoveAll(w.at("d"))) // what failed has not made room for this
				w.after(hints, []string{"d"})
				if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
					t.Errorf("170 of 180: %v", err)
				}
			})
		}
	}
}

func pauseFor(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// unpack makes a young tree of 265 entries in dir, with an inode of two names and a file that is saved anew, and gives what
// to mark.
func (w *world) unpack(hints bool, dir string) {
	w.t.Helper()
	w.ok(os.MkdirAll(w.at(dir, "sub/sub"), 0o755))
	var marks []string
	for i := range 260 {
		name := fmt.Sprint(dir, "/", []string{"", "sub/", "sub/sub/"}[i%3], "f", i)
		if i%2 == 0 {
			w.ok(syscall.Mknod(w.at(name), syscall.S_IFIFO|0o600, 0))
		} else {
			w.ok(os.Symlink("nowhere", w.at(name)))
		}
		marks = append(marks, name)
	}
	w.write(dir+"/file", "x")
	w.ok(os.Link(w.at(dir, "file"), w.at(dir, "sub/too")))
	w.after(hints, append(marks, dir, dir+"/sub", dir+"/sub/sub", dir+"/file", dir+"/sub/too"))
	w.inStep()
	w.write(dir+"/saving", "new content")
	w.rename(dir+"/saving", dir+"/f0")
	w.after(hints, []string{dir + "/f0", dir + "/saving"})
	w.inStep()
}

// TestYoungEntriesMayGo: what was unpacked a moment ago is no loss when it is removed, whole or bit by bit, wherever it has moved
// meanwhile. What the slave had before is one, also where it was moved there.
func TestYoungEntriesMayGo(t *testing.T) {
	for name, remove := range map[string]func(w *world, hints bool){
		"whole": func(w *world, hints bool) {
			w.ok(os.RemoveAll(w.at("y")))
			w.after(hints, []string{"y"})
		},
		"bit by bit": func(w *world, hints bool) {
			for _, dir := range []string{"y/sub/sub", "y/sub", "y"} {
				list, err := os.ReadDir(w.at(dir))
				w.ok(err)
				var marks []string
				for _, e := range list {
					w.ok(os.RemoveAll(w.at(dir, e.Name())))
					marks = append(marks, dir+"/"+e.Name())
				}
				w.after(hints, append(marks, dir))
				w.inStep()
			}
		},
		"after a move": func(w *world, hints bool) {
			w.rename("y", "b/y")
			w.after(hints, []string{"y", "b/y"})
			w.inStep()
			w.rename("b/y/sub", "k/sub/z")
			w.after(hints, []string{"b/y/sub", "k/sub/z"})
			w.inStep()
			w.ok(os.RemoveAll(w.at("b/y")))
			w.ok(os.RemoveAll(w.at("k/sub")))
			w.after(hints, []string{"b/y", "k/sub"})
		},
		"a move seen by half": func(w *world, hints bool) {
			w.rename("y", "b/y")
			w.after(hints, []string{"y"})
			w.pass()
			w.after(hints, []string{"b/y"})
			w.inStep()
			w.ok(os.RemoveAll(w.at("b/y")))
			w.after(hints, []string{"b/y"})
		},
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hints %v", name, hints), func(t *testing.T) {
				w := shares(t, hints)
				w.unpack(hints, "y")
				remove(w, hints)
				w.inStep()
				w.unpack(hints, "y")
				w.rename("d", "y/sub/d")
				w.after(hints, []string{"d", "y/sub/d"})
				w.inStep()
				w.ok(os.RemoveAll(w.at("y")))
				w.after(hints, []string{"y"})
				_, err := w.crawler.Pass(t.Context())
				if !errors.Is(err, limit.ErrMaxDelete) {
					t.Fatalf("110 of 180 that had moved to a young directory: %v", err)
				}
				for _, says := range []string{" 11", " of about 19", "within a minute", "more than five minutes"} {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("%q is not in: %v", says, err)
					}
				}
			})
		}
	}
}

// TestRefusedRemovalHoldsUpNothing: where more is gone than may be removed, because it moved and its new place has yet to be told of
// or for good, everything else arrives, what was parked on its way comes back, and nothing is sent again.
func TestRefusedRemovalHoldsUpNothing(t *testing.T) {
	for _, hints := range []bool{false, true} {
		t.Run(fmt.Sprint("hints ", hints), func(t *testing.T) {
			w := shares(t, hints)
			w.write("stays", "x")
			w.after(hints, []string{"stays"})
			w.inStep()
			w.rename("k", "b/k")
			w.after(hints, []string{"k"})
			w.pass() // sees half of it, and parks it
			w.rename("d", "z")
			w.write("b/new", "x")
			w.after(hints, []string{"b/k", "b/new", "d"})
			_, first := w.crawler.Pass(t.Context())
			if !hints && first == nil {
				w.inStep() // the crawl has met it in its new place
				return
			}
			if !errors.Is(first, limit.ErrMaxDelete) || limit.Repeats(first, nil) {
				t.Fatalf("more than allowed: %v", first)
			}
			for _, path := range []string{"b/new", "b/k/f0", "d/f0"} {
				if _, err := os.Lstat(w.there(path)); err != nil {
					t.Error(err)
				}
			}
			w.after(hints, []string{"z"})
			w.counters.Bytes.Store(0)
			w.inStep()
			if n := w.counters.Bytes.Load(); n != 0 {
				t.Errorf("%d bytes were sent", n)
			}
			w.ok(os.RemoveAll(w.at("b"))) // 75 of 180: what moved does not count by now
			w.after(hints, []string{"b"})
			w.inStep()
			w.ok(os.RemoveAll(w.at("z")))
			w.after(hints, []string{"z"})
			_, first = w.crawler.Pass(t.Context())
			_, second := w.crawler.Pass(t.Context())
			if !limit.Repeats(second, first) {
				t.Errorf("removed for good: %v, then %v", first, second)
			}
		})
	}
}

// TestMoveSeenByHalfIsNoTrouble: the session is not called Faulty before a crawl that has every mark is refused the same.
func TestMoveSeenByHalfIsNoTrouble(t *testing.T) {
	w := shares(t, true)
	var beat, trouble atomic.Int64
	var inStep atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	followed := make(chan error, 1)
	go func() {
		followed <- w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Millisecond,
			Heartbeat: func() time.Time { return time.UnixMicro(beat.Load()) },
			Events: crawler.Events{Ready: func() {}, Trouble: func(error) { trouble.Add(1) },
				Progress: func(p crawler.Progress) {
					if p.InStep {
						inStep.Store(uint64(p.Stime))
					}
				}}})
	}()
	now := func() { beat.Store(time.Now().UnixMicro()) }
	now()
	w.await(func() bool { return inStep.Load() == uint64(w.now) })
	w.rename("d", "z")
	w.write("b/new", "x")
	w.tell("d", "b/new")
	w.await(func() bool { _, err := os.Lstat(w.there("b/new")); return err == nil })
	pauseFor(t, 50*time.Millisecond) // for some crawls
	w.tell("z")
	now()
	w.await(func() bool { return inStep.Load() == uint64(w.now) })
	if n := trouble.Load(); n != 0 {
		t.Errorf("a move was told of as trouble %d times", n)
	}
	w.ok(os.RemoveAll(w.at("z")))
	w.tell("z")
	w.await(func() bool { now(); return trouble.Load() > 0 })
	cancel()
	<-followed
	if _, err := os.Lstat(w.there("z/f0")); err != nil {
		t.Error(err)
	}
}
