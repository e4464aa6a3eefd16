package marker

import (
	"context"
	"time"

	"georep/marker/moment"
)

const (
	scanRetryFirst   = time.Second
	scanRetryLongest = time.Minute
	// blindPause is how long events without a place may wait for the scan that they ask for, or blindRatio times as long
	// as a scan takes: whoever makes such events all the time must not have the tree scanned all the time.
	blindPause = time.Minute
	blindRatio = 100
	// strayPause is the same for inodes that went astray, of which the heartbeat waits.
	strayPause = 5 * time.Second
	strayRatio = 20
)

// pass scans the tree once for all that is due, and says so to the heartbeat.
func (m *marker) pass(ctx context.Context) (*scan, error) {
	m.scanning.Store(true)
	defer m.scanning.Store(false)
	m.blind.Store(false)
	start := moment.Now()
	uncovered, err := m.meetUncovered(ctx)
	if err != nil {
		return nil, err
	}
	s := m.beginScan(false)
	s.incomplete.Store(!uncovered)
	m.nameless.begin()
	upto, astray := m.seekStrays()
	if astray {
		m.beats.lose()
	}
	losses, missing := m.beats.losses()
	if missing || !m.follows() && !m.fresh {
		// In one run of the machine ctimes always tell.
		s.since, _ = m.beats.since(start)
	} else if m.live != nil {
		// Not in a scan for what was lost: new directories may not be watched yet, and each would ask for one more.
		s.expect = m.tree.expect
	}
	if slow := m.beats.get().SlowScan; !slow.IsZero() && slow.After(start.Wall) {
		s.slow = time.Unix(1, 0) // The clock was set back: any entry may be younger than its xtime.
	} else if !slow.IsZero() {
		s.slow = slow.Add(-slack)
	}
	err = s.run(ctx)
	if err == nil && m.follows() {
		err = m.meetMovers(ctx, s)
	}
	if err := m.endScan(s, whole, 0, err); err != nil {
		return s, err
	}
	m.scanTook.Store(int64(time.Since(s.started)))
	m.log.Debug().Int64("entries", s.entries.Load()).Int64("marked", s.marked.Load()).
		Dur("took", time.Since(s.started)).Msg("scanned")
	if s.incomplete.Load() {
		return s, nil
	}
	m.times.scanned(m.cover.has)
	m.beats.scanned(losses, start.Wall, s.entries.Load())
	m.metStrays(upto)
	m.nameless.end()
	if !m.follows() && !m.fresh {
		m.beats.drained(start, m.clock.Last())
	}
	return s, nil
}

// scanNow scans at the start, after a loss of events, and slowly for what events never tell.
func (m *marker) scanNow(ctx context.Context) error {
	retry := m.scanRetry
	for {
		s, err := m.pass(ctx)
		if err != nil {
			return err
		}
		wait := m.o.ScanInterval
		if s.incomplete.Load() {
			wait, retry = retry, min(2*retry, scanRetryLongest)
		} else {
			retry = m.scanRetry
		}
		if err := m.untilDue(ctx, wait); err != nil {
			return err
		}
	}
}

// untilDue waits for the next scan: at most d, and not at all once events were lost. Meanwhile it sees to what comes from
// outside.
func (m *marker) untilDue(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-m.wake:
		}
		if err := m.awaitArrivals(ctx); err != nil {
			return err
		}
		if err := m.awaitUncovered(ctx); err != nil {
			return err
		}
		if _, missing := m.beats.losses(); missing {
			return nil
		}
		took := time.Duration(m.scanTook.Load())
		if _, astray := m.seekStrays(); astray || m.nameless.any() {
			timer.Reset(min(d, max(m.strayPause, strayRatio*took)))
		} else if m.blind.Load() {
			timer.Reset(min(d, max(blindPause, blindRatio*took)))
		}
	}
}

// awaitArrivals returns when all is marked that came from outside, or when events were lost.
func (m *marker) awaitArrivals(ctx context.Context) error {
	wait := m.scanRetry
	for {
		met, err := m.meetArrivals(ctx)
		if err != nil {
			return err
		}
		_, any := m.awaited()
		if _, missing := m.beats.losses(); missing || !any {
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

// scanAlways is what a marker does where there are no events.
func (m *marker) scanAlways(ctx context.Context) error {
	for {
		s, err := m.pass(ctx)
		if err != nil {
			return err
		}
		// A large tree is not scanned more than half of the time.
		wait := max(m.o.ScanPoll, time.Since(s.started))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}
