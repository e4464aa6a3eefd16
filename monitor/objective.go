package monitor

import (
	"time"

	"georep/status"
)

// heldAtMost bounds how long the lag has to stay within the objective before that counts as met again.
const heldAtMost = 5 * time.Minute

// objective is a session's max-lag, and how the session stands to it. It has no clock, and is for one goroutine.
//
// It is missed as soon as the lag is over the limit. It is met again once the lag has stayed within the limit for as long as the
// limit itself, or for five minutes where that is less: a session that swings about its limit is told once.
type objective struct {
	limit time.Duration // 0: none
	// from is what the lag is counted from while the slave never was in step: when the session was made.
	from   time.Time
	missed bool
	since  time.Time // zero: not judged yet
	// good is since when the lag is within the limit although it is missed; zero: it is not. It has a monotonic reading, so that no step
	// of the clock makes that time shorter.
	good time.Time
}

// newObjective goes on where the last monitor's status stood. Another limit than that of the status
// is judged anew.
func newObjective(limit time.Duration, from time.Time, old *status.Status) objective {
	o := objective{limit: limit, from: from}
	if old.ObjectiveSeconds == limit.Seconds() {
		o.missed, o.since = old.Objective == status.ObjectiveMissed, old.ObjectiveSince.Time
	}
	return o
}

// set takes another limit, which is judged anew.
func (o *objective) set(limit time.Duration) {
	if limit != o.limit {
		*o = objective{limit: limit, from: o.from}
	}
}

// judge fills in what the status says of the objective. While the operator has the session paused
// or stopped nothing is judged. since leaves out steps of the clock, so a clock that is set forward
// misses no objective.
func (o *objective) judge(now time.Time, st *status.Status, since func(now, at time.Time) time.Duration) {
	st.ObjectiveSeconds, st.Objective, st.ObjectiveSince = o.limit.Seconds(), "", status.Time{}
	if o.limit == 0 {
		return
	}
	if st.State == status.Paused || st.State == status.Stopped {
		o.good = time.Time{}
		return
	}
	o.move(now, o.lag(now, st, since))
	st.Objective = status.ObjectiveMet
	if o.missed {
		st.Objective = status.ObjectiveMissed
	}
	st.ObjectiveSince = status.Time{Time: o.since}
}

// move goes from met to missed and back.
func (o *objective) move(now time.Time, lag time.Duration) {
	switch {
	case lag > o.limit:
		if o.good = (time.Time{}); !o.missed || o.since.IsZero() {
			o.missed, o.since = true, now.Round(0)
		}
	case o.since.IsZero():
		o.since = now.Round(0)
	case o.missed && (o.good.IsZero() || o.good.After(now)):
		o.good = now
	case o.missed && now.Sub(o.good) >= min(o.limit, heldAtMost):
		*o = objective{limit: o.limit, from: o.from, since: now.Round(0)}
	}
}

// lag is how far the slave is behind. A session that does not replicate lags by all the time since the slave was in step.
func (o *objective) lag(now time.Time, st *status.Status, since func(now, at time.Time) time.Duration) time.Duration {
	switch {
	case st.LastSynced.IsZero() && st.Stime == 0:
		return since(now, o.from)
	case st.State == status.Active || st.LastSynced.IsZero(): // which was in step by a clock that was set back since
		return time.Duration(st.LagSeconds * float64(time.Second))
	}
	return max(since(now, st.LastSynced.Time), time.Duration(st.LagSeconds*float64(time.Second)))
}
