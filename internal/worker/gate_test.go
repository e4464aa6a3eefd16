package worker

import (
	"context"
	"errors"
	"testing"

	"georep/monitor/report"
)

// TestLookBeginsAnew: the word to look again ends what runs, once, and a paused session stays so.
func TestLookBeginsAnew(t *testing.T) {
	g := newGate(false)
	obey := g.obey(func() { t.Error("stopped") })
	for range 3 {
		err := g.run(t.Context(), func(ctx context.Context) error {
			obey(report.Command{Verb: report.Look})
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, errPaused) {
			t.Fatal(err)
		}
	}
	if err := g.run(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Fatal("the word has effect twice: ", err)
	}
	obey(report.Command{Verb: report.Pause})
	_, change := g.state()
	obey(report.Command{Verb: report.Look})
	select {
	case <-change:
		t.Fatal("a paused session begins")
	default:
	}
}
