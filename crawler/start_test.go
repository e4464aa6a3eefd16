package crawler_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"georep/crawler"
	"georep/slave"
)

// noted has the world's slave note what it is asked, in order, from the next connect on. The function gives what was
// noted so far.
func (w *world) noted() func() []string {
	var mu sync.Mutex
	var calls []string
	w.wrap = func(t slave.Tree) slave.Tree {
		return &failing{Tree: t, call: func(call string) error {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, call)
			return nil
		}}
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls)
	}
}

// TestStartSurveysTheRootOnce: what a session asks at its start is asked over a long link, one thing after the other.
func TestStartSurveysTheRootOnce(t *testing.T) {
	for name, start := range map[string]func(*world){
		"sync": func(w *world) {
			s, err := w.crawler.Look(w.t.Context())
			w.ok(err)
			out, err := w.crawler.PassAfter(w.t.Context(), &s)
			w.ok(err)
			if out.Stime == 0 {
				w.t.Error("not stamped")
			}
		},
		"follow": func(w *world) {
			ctx, cancel := context.WithCancel(w.t.Context())
			defer cancel()
			_ = w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Millisecond, Heartbeat: time.Now,
				Events: crawler.Events{Ready: func() {}, Trouble: func(err error) { w.t.Error(err) },
					Progress: func(p crawler.Progress) {
						if p.InStep {
							cancel()
						}
					}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			calls := w.noted()
			w.connect()
			for _, f := range []string{"a", "b"} {
				w.write(f, f)
			}
			w.mark("a", "b")
			start(w)
			surveys := slices.DeleteFunc(calls(), func(c string) bool { return c != "survey" })
			if len(surveys) != 1 {
				t.Errorf("asked %v: surveyed %d times, want once", calls(), len(surveys))
			}
			w.inStep()
		})
	}
}

// TestStartAsksForGroupsWhereThereAreSome: a slave that has no inodes to be checked says so when it is opened. One that has
// some, as after a session that was cut, is asked.
func TestStartAsksForGroupsWhereThereAreSome(t *testing.T) {
	w := newMaster(t, t.TempDir(), t.TempDir())
	calls := w.noted()
	w.connect()
	w.write("a", "a")
	w.mark("a")
	w.inStep()
	if slices.Contains(calls(), "groups") {
		t.Errorf("asked %v of a new slave", calls())
	}
	// Of two names one is outside the volume: the slave marks the inode, and the crawl is cut before it asks.
	w.write("b", "b")
	w.ok(os.Link(w.at("b"), filepath.Join(t.TempDir(), "b")))
	w.mark("b")
	ctx, cancel := context.WithCancel(t.Context())
	w.wrap = func(t slave.Tree) slave.Tree {
		return &failing{Tree: t, call: func(call string) error {
			if call == "groups" {
				cancel()
			}
			return ctx.Err()
		}}
	}
	w.connect()
	if _, err := w.crawler.Pass(ctx); err == nil {
		t.Fatal("the crawl was not cut")
	}
	calls = w.noted()
	w.connect()
	if w.tree.Info().LinksClean {
		t.Error("the slave calls itself settled")
	}
	if w.pass().Stime == 0 {
		t.Error("not stamped")
	}
	if !slices.Contains(calls(), "groups") {
		t.Errorf("asked %v of a slave with an inode that lacks a name", calls())
	}
}

// TestLaterPassesLookAgain: what was seen at the start serves a crawl that follows at once, and no later one.
func TestLaterPassesLookAgain(t *testing.T) {
	w := newWorld(t)
	w.write("a", "a")
	w.write("b", "b")
	w.mark("a", "b")
	w.inStep()
	w.connect()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var inStep atomic.Uint64
	followed := make(chan error, 1)
	go func() {
		followed <- w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Millisecond, Heartbeat: time.Now,
			Events: crawler.Events{Ready: func() {}, Trouble: func(err error) { t.Error(err) },
				Progress: func(p crawler.Progress) {
					if p.InStep {
						inStep.Store(uint64(p.Stime))
					}
				}}})
	}()
	reached := func() bool { return inStep.Load() == uint64(w.now) }
	w.await(reached)
	w.ok(os.Remove(w.there("b"))) // by somebody else
	w.write("a", "changed")
	w.mark("a")
	w.await(reached)
	cancel()
	<-followed
	if _, err := os.Stat(w.there("b")); err != nil {
		t.Errorf("the crawl went by what the start had seen: %v", err)
	}
	w.inStep()
}

// await waits for a condition.
func (w *world) await(met func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !met(); {
		if time.Now().After(end) {
			w.t.Fatal("waited for a minute")
		}
		<-time.After(time.Millisecond)
	}
}

// cleans notes how old what is deleted must be, in seconds.
type cleans struct {
	slave.Tree
	olderThan []int64
}

func (c *cleans) Clean(ctx context.Context, olderThan int64) error {
	c.olderThan = append(c.olderThan, olderThan)
	return c.Tree.Clean(ctx, olderThan)
}

// TestBusyCleanKeepsWhatMayBeClaimed: what was parked after the time up to which the slave has everything may have moved to a
// place that the crawl has yet to come to (invariant 15), and keep-deleted holds, too.
func TestBusyCleanKeepsWhatMayBeClaimed(t *testing.T) {
	w := newWorld(t)
	c := &cleans{}
	w.wrap = func(t slave.Tree) slave.Tree { c.Tree = t; return c }
	w.connect()
	w.write("a", "a")
	w.write("b", "b")
	w.mark("a", "b")
	w.inStep()
	w.ok(os.Remove(w.at("b")))
	w.mark("b")
	w.inStep()
	for _, keep := range []time.Duration{0, 3 * time.Hour} {
		ago := time.Hour
		w.ok(crawler.CleanWhileBusy(t.Context(), w.crawler, crawler.FollowOptions{KeepDeleted: keep}, time.Now().Add(-ago)))
		least := int64(max(ago+time.Second, keep) / time.Second)
		if n := len(c.olderThan); n == 0 || c.olderThan[n-1] < least || c.olderThan[n-1] > least+60 {
			t.Errorf("keep-deleted %v: deleted what is older than %v s, want %d", keep, c.olderThan, least)
		}
	}
	if list, err := os.ReadDir(w.there(slave.Reserved, "parked")); err != nil || len(list) != 1 {
		t.Errorf("parked are %v, %v", list, err)
	}
}

// TestCleanKeepsWhatHasYetToBeMarked: in step with all marks, a slave may have parked what moved a moment ago, to a place of
// which no mark tells yet (invariant 15).
func TestCleanKeepsWhatHasYetToBeMarked(t *testing.T) {
	w := newWorld(t)
	w.write("a/f", "moves")
	w.write("b/g", "x")
	w.mark("a/f", "b/g")
	w.inStep()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var steps atomic.Int64
	var inStep atomic.Uint64
	var beat atomic.Pointer[time.Time]
	now := time.Now()
	beat.Store(&now)
	heartbeat := func() time.Time { steps.Add(1); return *beat.Load() }
	followed := make(chan error, 1)
	go func() {
		followed <- w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Millisecond, Heartbeat: heartbeat,
			Events: crawler.Events{Ready: func() {}, Trouble: func(err error) { t.Error(err) },
				Progress: func(p crawler.Progress) {
					if p.InStep {
						inStep.Store(uint64(p.Stime))
					}
				}}})
	}()
	reached := func() bool { return inStep.Load() == uint64(w.now) }
	someSteps := func() {
		from := steps.Load()
		w.await(func() bool { return steps.Load() > from+3 })
	}
	w.await(reached)
	w.rename("a/f", "b/f")
	w.mark("a")
	w.await(reached)
	someSteps()
	sent := w.counters.Bytes.Load()
	w.mark("b/f")
	w.await(reached)
	if n := w.counters.Bytes.Load(); n != sent {
		t.Errorf("%d bytes were sent", n-sent)
	}
	w.ok(os.Remove(w.at("b/g")))
	w.mark("b/g")
	w.await(reached)
	later := time.Now()
	beat.Store(&later)
	w.await(func() bool {
		list, err := os.ReadDir(w.there(slave.Reserved, "parked"))
		w.ok(err)
		return len(list) == 0
	})
	cancel()
	<-followed
	w.inStep()
}

// TestCaughtUpIsToldOfAtOnce: a session that starts with nothing changed waits for the marker to have looked. That it has is told
// apart from what is told anyway, and looked for often although hints would tell of changes; also where the session before
// ended a moment ago.
func TestCaughtUpIsToldOfAtOnce(t *testing.T) {
	for _, before := range []time.Duration{time.Hour, time.Millisecond} {
		w := newWorld(t)
		w.hints = &crawler.Hints{}
		w.hints.Up()
		w.connect()
		w.write("a", "a")
		w.mark("a")
		w.inStep()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var looks atomic.Int64
		began := time.Now()
		var told []crawler.Progress
		err := w.crawler.Follow(ctx, crawler.FollowOptions{Poll: time.Millisecond, SlowPoll: time.Hour,
			Heartbeat: func() time.Time {
				if looks.Add(1) < 10 {
					return began.Add(-before)
				}
				return time.Now()
			},
			Events: crawler.Events{Ready: func() {}, Trouble: func(err error) { t.Error(err) },
				Progress: func(p crawler.Progress) {
					if told = append(told, p); p.LastSynced.After(began) {
						cancel()
					}
				}}})
		i := slices.IndexFunc(told, func(p crawler.Progress) bool { return p.LastSynced.After(began) })
		if !errors.Is(err, context.Canceled) || i < 0 || !told[i].CaughtUp {
			t.Errorf("%v before: %v, told %+v", before, err, told)
		}
	}
}
