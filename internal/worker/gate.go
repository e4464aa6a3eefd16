package worker

import (
	"context"
	"errors"
	"sync"

	"georep/monitor/report"
)

// errPaused ends a run that the operator paused.
var errPaused = errors.New("paused")

// gate holds a worker back while the session is paused. It is safe for concurrent use.
type gate struct {
	mu     sync.Mutex
	paused bool
	change chan struct{} // closed at the next change
}

// newGate is open, or closed where the session is paused already.
func newGate(paused bool) *gate { return &gate{paused: paused, change: make(chan struct{})} }

// set opens or closes it, and ends what runs where that makes a difference.
func (g *gate) set(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused != paused {
		g.paused = paused
		close(g.change)
		g.change = make(chan struct{})
	}
}

// again ends what runs, so that it begins anew: with a look at the slave's root, whose stamp may have been taken off.
func (g *gate) again() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.paused {
		close(g.change)
		g.change = make(chan struct{})
	}
}

// state gives how it stands, and a channel that is closed when that changes.
func (g *gate) state() (paused bool, change <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused, g.change
}

// obey returns what carries out the monitor's commands. Commands that it does not know are for
// other parts.
func (g *gate) obey(stop func()) func(report.Command) {
	return func(c report.Command) {
		switch c.Verb {
		case report.Pause:
			g.set(true)
		case report.Resume:
			g.set(false)
		case report.Look:
			g.again()
		case report.Stop:
			stop()
		}
	}
}

// run waits while the session is paused, then runs work until it ends, or the session is paused or
// to begin anew; then the error is errPaused. It returns when work has really ended, so the next
// one finds nothing of it.
func (g *gate) run(ctx context.Context, work func(context.Context) error) error {
	paused, change := g.state()
	if paused {
		select {
		case <-ctx.Done():
		case <-change:
		}
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	select {
	case err := <-done:
		return err
	case <-change:
		cancel(errPaused)
		<-done
		return errPaused
	}
}
