package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"georep/crawler"
	"georep/internal/timetable"
	"georep/marker/xtime"
)

// TestInWindow: work runs within the windows alone, and what waits is told until when; what fails is passed on.
func TestInWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		clock := func(d time.Duration) string { return began.Add(d).Format("15:04") }
		w, err := timetable.ParseWindows(fmt.Sprintf("%s-%s %s-%s", clock(time.Hour), clock(2*time.Hour), clock(4*time.Hour), clock(5*time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		var log []string
		say := func(what string) { log = append(log, fmt.Sprint(what, " ", time.Since(began).Round(time.Minute))) }
		broken := errors.New("broken")
		ctx, cancel := context.WithCancel(t.Context())
		run := func(fail bool) error {
			return inWindow(ctx, w, func(ctx context.Context) error {
				say("works")
				if fail {
					return broken
				}
				<-ctx.Done()
				say("ends")
				return context.Cause(ctx)
			}, func(ctx context.Context, until time.Time) error {
				say(fmt.Sprint("waits until ", until.Sub(began), ","))
				<-ctx.Done()
				return context.Cause(ctx)
			})
		}
		for range 3 {
			if err := run(false); err != nil {
				t.Fatal(err)
			}
		}
		if err := run(true); !errors.Is(err, broken) {
			t.Errorf("what failed: %v", err)
		}
		want := []string{"waits until 1h0m0s, 0s", "works 1h0m0s", "ends 2h0m0s", "waits until 4h0m0s, 2h0m0s", "works 4h0m0s"}
		if fmt.Sprint(log) != fmt.Sprint(want) {
			t.Errorf("%q, want %q", log, want)
		}
		cancel()
		if err := run(false); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestLagWhileItWaits: the slave is as far behind as the oldest change that it lacks, and goes on being in step where there is none.
func TestLagWhileItWaits(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	mark := func(seconds int) xtime.Time { return xtime.FromTime(at(seconds)) }
	w := waiting{at: crawler.Progress{Stime: mark(-100), LastSynced: at(-50), InStep: true}}
	if p := w.look(at(0), mark(-100), at(-1)); !p.InStep || !p.LastSynced.Equal(at(-1)) || !p.Behind.IsZero() {
		t.Errorf("nothing has changed: %+v", p)
	}
	for _, root := range []int{2, 9} {
		if p := w.look(at(10), mark(root), at(9)); p.InStep || !p.LastSynced.Equal(at(-1)) || !p.Behind.Equal(at(2)) {
			t.Errorf("changed at 2, and the root is marked %d: %+v", root, p)
		}
	}
	later := waiting{at: crawler.Progress{Stime: mark(-100), LastSynced: at(-50)}} // it changed while nobody looked
	if p := later.look(at(0), mark(-10), at(0)); !p.Behind.Equal(at(-50)) {
		t.Errorf("changed before it began to wait: %+v", p)
	}
	back := waiting{at: crawler.Progress{Stime: mark(-100), LastSynced: at(3600), InStep: true}} // the clock was set back since
	if p := back.look(at(0), mark(-100), at(-1)); !p.LastSynced.Equal(at(-1)) {
		t.Errorf("in step by a clock that was ahead: %+v", p)
	}
	back = waiting{at: crawler.Progress{Stime: mark(-100), LastSynced: at(3600), InStep: true}}
	back.look(at(0), mark(-10), at(-1))
	if p := back.look(at(3601), mark(-10), at(3601)); p.LastSynced.Equal(at(3600)) {
		t.Errorf("the clock has come up to what it was before: %+v", p)
	}
	if p := (&waiting{}).look(at(0), mark(-10), at(0)); !p.Behind.Equal(at(-10)) || !p.LastSynced.IsZero() {
		t.Errorf("never synced: %+v", p)
	}
}
