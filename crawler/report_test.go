package crawler

import (
	"georep/crawler/retry"
	"sync"
	"testing"
	"time"
)

// TestReportsUnderSmallChanges: where changes come one by one, and the slave is in step after each, the status goes on all the same.
func TestReportsUnderSmallChanges(t *testing.T) {
	reports := make(chan Progress, 100)
	f := &follower{c: &Crawler{failures: retry.New(0)}, began: time.Now(), news: make(chan struct{}, 1), stirs: make(chan struct{}, 1)}
	f.o.Events.Progress = func(p Progress) {
		select {
		case reports <- p:
		default:
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { f.report(stop) })
	deadline := time.After(20 * time.Second)
	for busy, n := false, 0; n < 3; busy = !busy {
		f.update(func(p *Progress) { p.InStep, p.Crawling = !busy, busy })
		select {
		case <-reports:
			n++
		case <-deadline:
			t.Error("nothing is reported while the slave keeps falling out of step for a moment")
			n = 3
		case <-time.After(5 * time.Millisecond):
		}
	}
	close(stop)
	wg.Wait()
}
