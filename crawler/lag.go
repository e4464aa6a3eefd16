package crawler

import (
	"time"

	"georep/marker/xtime"
)

// staleBeat is how old a heartbeat may be before what is unmarked counts: a marker that keeps up says more often that it
// does.
const staleBeat = 10 * time.Second

// lag knows since when the slave lacks something. It has no clock, and is for one goroutine.
type lag struct {
	level time.Time  // the last look that found the slave in step
	stime xtime.Time // the slave's stamp for which since holds
	since time.Time  // zero where it is not known yet
}

// inStep notes that the slave was in step at a look at now, with a heartbeat hb. It gives the time of the oldest change
// that it may lack all the same, zero where there is none: the marker has to keep up.
func (l *lag) inStep(now, hb time.Time) time.Time {
	*l = lag{level: notBefore(now, hb)}
	if l.level.Equal(now) {
		return time.Time{}
	}
	return l.level
}

// notBefore is the time before which no change is unmarked, given the time of a look.
func notBefore(now, hb time.Time) time.Time {
	if hb.IsZero() || now.Sub(hb) < staleBeat {
		return now
	}
	return hb
}

// behind gives the time of the oldest change that the slave, which is stamped stime, lacks: no later than it was made, but
// for what a mark takes. next is the first mark after stime, 0 where that is not known.
func (l *lag) behind(now time.Time, stime, next xtime.Time) time.Time {
	if l.since.IsZero() || l.stime != stime {
		// Whatever the slave lacks was marked after its stamp, and after a look that found none.
		l.stime, l.since = stime, later(stime.Time(), l.level)
		if next != 0 {
			l.since = later(l.since, next.Time())
		}
		if l.since.After(now) {
			l.since = now // the clock was set back
		}
	}
	return l.since
}
