package worker

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/internal/wallclock"
	"georep/marker"
	"georep/monitor/report"
)

// unset watches a clock that nobody sets, also in a bubble of synctest.
func unset() *wallclock.Watch {
	began := time.Now()
	return wallclock.Of(func() (wallclock.Reading, bool) {
		now := time.Now()
		return wallclock.Reading{Wall: now.Round(0), Boot: now.Sub(began)}, true
	})
}

// TestMonitorIsToldWhatItDoesNotKnow: an idle session's monitor is told nothing but that its worker is alive. It is told all
// again after what makes it forget, and whatever is new.
func TestMonitorIsToldWhatItDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &told{}
		tl := &teller{reports: report.NewWriter(out), counters: &crawler.Counters{}, wire: new(atomic.Int64), clock: unset(), log: zerolog.Nop(),
			marker: marker.NewStatusReader(filepath.Join(t.TempDir(), "none")), eta: &estimator{}, pending: &approvals{}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tl.reports.Run(ctx) }()
		at := time.Now()
		p := crawler.Progress{Stime: 1, LastSynced: at, InStep: true, Following: true}
		told := func(what string, want report.Kind, change func(), more int) {
			t.Helper()
			change()
			_, before := out.last(t)
			for range 4 {
				tl.progress(p)
				time.Sleep(240 * time.Millisecond)
			}
			if r, n := out.last(t); r.Kind != want || n-before != more {
				t.Errorf("%s: %d reports, the last of kind %s, want %d, %s", what, n-before, r.Kind, more, want)
			}
		}
		told("the first", report.KindProgress, func() {}, 1)
		told("the same again", report.Alive, func() {}, 1)
		told("something new", report.KindProgress, func() { p.LastSynced = at.Add(time.Second) }, 1)
		told("the same again", report.Alive, func() {}, 1)
		told("after Ready", report.KindProgress, tl.ready, 1)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestLagLeavesStepsOut: the age of a change is the time that has passed since, however the clock was set meanwhile.
func TestLagLeavesStepsOut(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		now := wallclock.Reading{Wall: time.Unix(1_000_000, 0)}
		clock := wallclock.Of(func() (wallclock.Reading, bool) { return now, true })
		p := crawler.Progress{Behind: now.Wall.Add(-2 * time.Hour)}
		now.Wall, now.Boot = now.Wall.Add(step+time.Second), time.Second
		out := Progress(p, &crawler.Counters{}, nil, new(atomic.Int64), clock)
		if want := 2*time.Hour + time.Second; out.LagSeconds != want.Seconds() {
			t.Errorf("after a step by %v: a lag of %v s, want %v", step, out.LagSeconds, want)
		}
	}
}
