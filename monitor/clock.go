package monitor

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/wallclock"
	"georep/status"
)

// stepped is that the wall clock was set.
type stepped struct{ wallclock.Step }

// watchClock emits a wake as soon as the clock is set, until ctx ends. Where that cannot be, the
// loop looks every few seconds. Its goroutines are among tasks, and end with ctx.
func watchClock(ctx context.Context, tasks *sync.WaitGroup, log zerolog.Logger, emit func(event)) {
	alarm, err := wallclock.NewAlarm()
	if err != nil {
		log.Info().Err(err).Msg("the clock is looked at every few seconds")
		return
	}
	tasks.Go(func() {
		for alarm.Wait() == nil {
			emit(wake{})
		}
	})
	tasks.Go(func() {
		<-ctx.Done()
		_ = alarm.Close()
	})
}

// setBackBefore is the step that an earlier monitor's status proves: it is of a time that has not come. A step that is smaller than the
// time in which no monitor ran is not seen, but then no xtime is ahead of the clock.
func setBackBefore(old *status.Status, now time.Time) (s wallclock.Step, ok bool) {
	s = wallclock.Step{From: old.Updated.Time, To: now.Round(0)}
	return s, s.By() <= -wallclock.Least
}

// clockState is what the machine knows of the clock. It is the machine's, and has no clock of its
// own.
type clockState struct {
	since func(now, at time.Time) time.Duration // how long ago at was at now, steps of the clock left out
	last  wallclock.Step                        // the last one; zero: none
	lagAt time.Time                             // when the status' LagSeconds was true
}

// stepped notes that the clock was set. What a step back means lasts until the clock has come up to where it was, whatever comes between.
func (c *clockState) stepped(st *status.Status, s wallclock.Step) {
	c.last = s
	st.ClockSteps++
	note := &status.ClockStep{At: status.Time{Time: s.To}, BySeconds: s.By().Seconds()}
	if s.By() < 0 {
		note.Until = status.Time{Time: s.From}
	}
	if before := st.ClockStep; before != nil && before.Until.After(s.To) {
		if s.By() > 0 { // by less than it was set back
			return
		}
		if before.Until.After(s.From) {
			note.Until = before.Until
		}
	}
	st.ClockStep = note
}

// judge brings what the status says of times in line with the clock at now. LastSynced may be ahead of a clock that was set back. It is
// forgotten then, since it must not come back when the clock has come up to it. How long ago that was is still known.
func (c *clockState) judge(now time.Time, st *status.Status) {
	st.ClockMoved = 0
	ago := c.since(now, st.LastSynced.Time)
	moved := now.Round(0).Sub(st.LastSynced.Time) - ago
	switch {
	case st.LastSynced.IsZero():
	case st.LastSynced.After(now):
		if st.State != status.Active && ago.Seconds() > st.LagSeconds {
			st.LagSeconds, c.lagAt = ago.Seconds(), now
		}
		st.LastSynced = status.Time{}
	case moved.Abs() >= wallclock.Least:
		st.ClockMoved = moved.Seconds()
	}
	if !st.ClockStep.Matters(now, st.LastSynced) {
		st.ClockStep = nil
	}
}
