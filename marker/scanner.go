package marker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/inotify"
	"georep/marker/moment"
	"georep/marker/scan"
)

const (
	scanRetryFirst   = time.Second
	scanRetryLongest = time.Minute
	// blindPause is how long events without a place may wait for the scan that they ask for, or blindRatio times as long
	// as a scan takes: whoever makes such events all the time must not have the tree scanned all the time.
	blindPause = time.Minute
	blindRatio = 100
	// detachedPause is the same for detached inodes, of which the heartbeat waits.
	detachedPause = 5 * time.Second
	detachedRatio = 20
)

// scanner decides when to scan, and for what. Its methods are for one goroutine, but for wakeUp,
// beBlind and what is atomic. A scan is asked for by a loss of events, by arrivals, by detached
// inodes, by held files without a name, and by time. Requests that come while one runs are answered
// by the next.
type scanner struct {
	*core
	beats  *beats
	mounts *mounts
	// follows tells whether events tell of changes now.
	follows        func() bool
	interval, poll time.Duration // Options.ScanInterval, Options.ScanPoll
	// fresh tells that everything up to the heartbeat is as new as the volume mark, which was taken then: a scan has nothing
	// to find, and proves nothing of what changed since.
	fresh bool

	// A value says that there is something to see, not what: the scanner looks at all reasons each
	// time.
	wake     chan struct{} // capacity 1
	blind    atomic.Bool   // events came without a place
	scanning atomic.Bool
	// took is, in ns, how long the last scan took, or this process had a processor meanwhile, if that was less.
	took atomic.Int64

	retryFirst    time.Duration // scanRetryFirst, but in tests
	detachedPause time.Duration // detachedPause, but in tests
}

// newScanner makes a scanner that begins nothing by itself. beats and mounts are set before its
// first use.
func newScanner(c *core, o *Options, follows func() bool) *scanner {
	return &scanner{core: c, follows: follows, interval: o.ScanInterval, poll: o.ScanPoll, wake: make(chan struct{}, 1),
		retryFirst: scanRetryFirst, detachedPause: detachedPause}
}

// wakeUp has the scanner see what there is to do.
func (s *scanner) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// beBlind says that an event had no place.
func (s *scanner) beBlind() {
	if !s.blind.Swap(true) {
		s.wakeUp()
	}
}

// pass scans the tree once for all that is due, and says so to the heartbeat. An incomplete scan,
// in which something could not be read or marked, is no error: it moves nothing on, and the caller
// tries again later. The error is ctx's, the clock's, or that of the root itself.
func (s *scanner) pass(ctx context.Context) (*scan.Scan, error) {
	s.scanning.Store(true)
	defer s.scanning.Store(false)
	s.blind.Store(false)
	start := moment.Now()
	used, err := usedTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return nil, err
	}
	uncovered, err := s.meetUncovered(ctx)
	if err != nil {
		return nil, err
	}
	one := s.begin(false)
	one.Incomplete.Store(!uncovered)
	s.scans.Sought.Begin()
	upto, astray := s.seekDetached()
	if astray {
		s.beats.lose()
	}
	losses, missing := s.beats.losses()
	if missing || !s.follows() && !s.fresh {
		// In one run of the machine ctimes always tell.
		one.Since, _ = s.beats.since(start)
	} else if s.tree != nil {
		// Not in a scan for what was lost: new directories may not be watched yet, and each would ask for one more.
		one.Expect = s.tree.expect
	}
	if slow := s.beats.get().SlowScan; !slow.IsZero() && slow.After(start.Wall) {
		one.Slow = time.Unix(1, 0) // The clock was set back: any entry may be younger than its xtime.
	} else if !slow.IsZero() {
		one.Slow = slow.Add(-slack)
	}
	err = one.Run(ctx)
	if err == nil && s.follows() {
		err = one.MeetMovers(ctx)
	}
	if err := s.finish(one, coverage.Whole, 0, err); err != nil {
		return one, err
	}
	now, err := usedTime(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return one, err
	}
	s.took.Store(int64(min(time.Since(one.Started), now-used)))
	s.Log.Debug().Int64("entries", one.Entries.Load()).Int64("marked", one.Marked.Load()).
		Dur("took", time.Since(one.Started)).Msg("scanned")
	if one.Incomplete.Load() {
		return one, nil
	}
	s.scans.Times.Scanned(s.scans.Cover.Has)
	s.beats.scanned(losses, start.Wall, one.Entries.Load())
	s.metDetached(upto)
	s.scans.Sought.End()
	if !s.follows() && !s.fresh {
		s.beats.drained(start, s.clock.Last())
	}
	return one, nil
}

// begin prepares a scan. all: it marks everything that it meets.
func (s *scanner) begin(all bool) *scan.Scan { return s.scans.Begin(all, s.follows()) }

// finish ends a scan, given what it was, how many arrivals there were before it met them, and how
// it went. What was marked because a directory had not been covered is on the device before it
// counts as that: no ctime would tell of it. coverage.Whole is for a scan of the whole tree, Parts
// for one of arrivals. It is called once for each scan that was begun, also after an error.
func (s *scanner) finish(one *scan.Scan, e coverage.Extent, upTo int, err error) error {
	err = one.Sync(err)
	complete := err == nil && !one.Incomplete.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans.Moving.End()
	if !complete {
		e = coverage.Nothing
	}
	if first := s.arrivals.earliest.Load(); !complete && one.All && first != nil {
		for k := range one.Moved {
			if _, waits := s.arrivals.open[k]; !waits { // it may come out of one that does
				s.arrivals.arrive(s.tree, k, *first)
			}
		}
	}
	s.arrivals.met(e == coverage.Parts, upTo)
	s.scans.Cover.End(e)
	s.counts.retrying.Store(s.retries())
	return err
}

// scanNow scans at the start, after a loss of events, and slowly for what events never tell. It
// runs beside the goroutine of the events. Incomplete scans are repeated after a pause that doubles
// up to a minute, and complete ones after Options.ScanInterval, if nothing asks earlier.
func (s *scanner) scanNow(ctx context.Context) error {
	retry := s.retryFirst
	for {
		one, err := s.pass(ctx)
		if err != nil {
			return err
		}
		wait := s.interval
		if one.Incomplete.Load() {
			wait, retry = retry, min(2*retry, scanRetryLongest)
		} else {
			retry = s.retryFirst
		}
		if err := s.untilDue(ctx, wait); err != nil {
			return err
		}
	}
}

// untilDue waits for the next scan: at most d, and not at all once events were lost. Meanwhile it sees to what comes from
// outside.
func (s *scanner) untilDue(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-s.wake:
		}
		if err := s.awaitArrivals(ctx); err != nil {
			return err
		}
		if err := s.awaitUncovered(ctx); err != nil {
			return err
		}
		if _, missing := s.beats.losses(); missing {
			return nil
		}
		took := time.Duration(s.took.Load())
		if _, astray := s.seekDetached(); astray || s.scans.Sought.Any() {
			timer.Reset(min(d, max(s.detachedPause, detachedRatio*took)))
		} else if s.blind.Load() {
			timer.Reset(min(d, max(blindPause, blindRatio*took)))
		}
	}
}

// awaitArrivals returns when all is marked that came from outside, or when events were lost.
func (s *scanner) awaitArrivals(ctx context.Context) error {
	wait := s.retryFirst
	for {
		met, err := s.meetArrivals(ctx)
		if err != nil {
			return err
		}
		_, any := s.awaited()
		if _, missing := s.beats.losses(); missing || !any {
			return nil
		}
		if met { // but more came
			continue
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, scanRetryLongest)
	}
}

// awaited tells whether there is anything for meetArrivals, and the number of the last one.
func (s *scanner) awaited() (upTo int, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrivals.last, len(s.arrivals.open) > 0
}

// meetArrivals marks all that lies in directories that came from outside, and tells whether it could.
func (s *scanner) meetArrivals(ctx context.Context) (bool, error) {
	upTo, any := s.awaited()
	if !any {
		return true, nil
	}
	one := s.begin(true)
	s.mu.Lock()
	for k := range s.arrivals.open {
		one.Moved[k] = struct{}{}
	}
	s.mu.Unlock()
	left, err := one.RunIn(ctx, one.Moved)
	s.scans.Moving.Back(left)
	if err == nil {
		err = one.MeetMovers(ctx)
	}
	err = s.finish(one, coverage.Parts, upTo, err)
	return !one.Incomplete.Load(), err
}

// scanAlways is what a marker does where there are no events. Here the heartbeat moves with
// complete scans only, to the moment at which each began.
func (s *scanner) scanAlways(ctx context.Context) error {
	for {
		one, err := s.pass(ctx)
		if err != nil {
			return err
		}
		// A large tree is not scanned more than half of the time.
		wait := max(s.poll, time.Since(one.Started))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// scanMarker is what scans mark by.
type scanMarker struct{ *core }

// Say puts what a scan could not do into the log and the status. It implements scan.Marker, as the
// others here do.
func (m scanMarker) Say(path string, err error, what string) { m.troubles.say(path, err, what) }

// Unread names a directory that could not be read; it is in the status until a scan reads it.
func (m scanMarker) Unread(path string, err error) { m.troubles.unread(path, err) }

// Reopen opens a directory by its key. scan.ErrStale says that it moved and an event will tell
// where; the scan meets it then.
func (m scanMarker) Reopen(k beneath.HandleKey) (*beneath.Dir, error) {
	d, err := m.tree.reopen(k)
	if errors.Is(err, inotify.ErrStale) {
		err = fmt.Errorf("%w: %w", scan.ErrStale, err)
	}
	return d, err
}

// Number is the inode number, where the source of events knows it without a look.
func (m scanMarker) Number(k beneath.HandleKey) (uint64, bool) { return m.tree.number(k) }
