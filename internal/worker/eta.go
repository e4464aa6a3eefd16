package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/internal/beneath"
	"georep/status"
)

// countAfter is how long a first sync goes on before the master is counted: a short one does not pay for it.
const countAfter = 10 * time.Second

// measures is how far a first sync is, at one moment.
type measures struct {
	entries, bytes int64 // dealt with
	pending, wire  int64 // bytes of files on their way, and bytes sent over the wire since the worker began
}

// eta guesses how long a first sync still takes, from what is done and what there is: the larger of what the remaining
// entries and the remaining bytes take at the rates of the last seconds. It has no clock. For one goroutine.
type eta struct {
	entries, bytes status.Window
	last           measures
	begun          bool
	// It tells how much of what crossed since then belongs to the file that is on its way.
	settledWire int64 // what the wire had carried when a file was last done
	far         int64 // bytes dealt with, parts of files among them; never less than before
}

// add notes how far the sync is now. A large file counts as it is sent: what has gone over the wire since a file was
// last done is taken for content, as far as there is content on its way.
func (e *eta) add(now time.Time, m measures) {
	if !e.begun || m.bytes != e.last.bytes {
		e.settledWire, e.begun = m.wire, true
	}
	e.last = m
	partly := min(max(0, m.wire-e.settledWire), m.pending)
	e.far = max(e.far, m.bytes+partly)
	e.entries.Add(now, m.entries)
	e.bytes.Add(now, e.far)
}

// left is the guess; ok is false where there is none: nothing moves, or more is done than there was.
func (e *eta) left(now time.Time, entries, bytes int64) (left time.Duration, ok bool) {
	seconds := 0.0
	for _, part := range []struct{ todo, rate float64 }{
		{float64(entries - e.last.entries), e.entries.PerSecond(now)},
		{float64(bytes - e.far), e.bytes.PerSecond(now)},
	} {
		if part.todo > 0 && part.rate > 0 {
			seconds = max(seconds, part.todo/part.rate)
		}
	}
	const longest = 100 * 365 * 24 * time.Hour // which a Duration holds
	if seconds <= 0 || seconds > longest.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// estimator gives the ETA of a first sync. While that runs, and only then, one goroutine counts the
// master. All methods but stop are for one goroutine. The count runs beside the sync at the lowest
// priority, and ends with it.
type estimator struct {
	root     *beneath.Dir
	counters *crawler.Counters
	wire     *atomic.Int64
	log      zerolog.Logger
	after    time.Duration

	guess  eta
	total  total
	began  time.Time          // of the first sync; zero before
	cancel context.CancelFunc // of the count; nil before it
	tasks  sync.WaitGroup
}

// newEstimator begins nothing. root stays open until stop has returned.
func newEstimator(root *beneath.Dir, counters *crawler.Counters, wire *atomic.Int64, log zerolog.Logger) *estimator {
	return &estimator{root: root, counters: counters, wire: wire, log: log, after: countAfter}
}

// seconds is the ETA at now, 0 where it is not known. first tells whether a first sync is going on: the slave has no
// stime yet.
func (e *estimator) seconds(now time.Time, first bool) float64 {
	if !first {
		e.stop()
		return 0
	}
	if e.began.IsZero() {
		e.began = now
	}
	c := e.counters
	e.guess.add(now, measures{c.Done.Load(), c.DoneBytes.Load(), c.PendingBytes.Load(), e.wire.Load()})
	if e.cancel == nil && now.Sub(e.began) >= e.after {
		e.count()
	}
	// A first sync that was interrupted skips what it did before, and nobody knows how much that is.
	if !e.total.known.Load() || c.SkippedDirs.Load() > 0 {
		return 0
	}
	left, ok := e.guess.left(now, e.total.entries.Load(), e.total.bytes.Load())
	if !ok {
		return 0
	}
	return left.Seconds()
}

// count begins to count the master. A count that fails is logged, and no time is given.
func (e *estimator) count() {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.tasks.Go(func() {
		if err := e.total.countQuietly(ctx, e.root); err != nil && ctx.Err() == nil {
			e.log.Warn().Err(err).Msg("no time can be given for the first sync")
		}
	})
}

// stop ends the count and waits for it. The root may be closed then.
func (e *estimator) stop() {
	if e.cancel != nil {
		e.cancel()
	}
	e.tasks.Wait()
}
