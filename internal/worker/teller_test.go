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
	"georep/marker"
	"georep/monitor/report"
)

// TestMonitorIsToldWhatItDoesNotKnow: an idle session's monitor is told nothing but that its worker is alive. It is told all
// again after what makes it forget, and whatever is new.
func TestMonitorIsToldWhatItDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &told{}
		tl := &teller{reports: report.NewWriter(out), counters: &crawler.Counters{}, wire: new(atomic.Int64), log: zerolog.Nop(),
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
