package crawler

import (
	"time"

	"georep/marker/xtime"
)

// This file has the pauses between crawls.

// pause is the time to the next look, unless a hint comes before. Where a crawl gave way the next one follows at once.
func (f *follower) pause() time.Duration {
	p := f.progress()
	if f.c.deferrals.anyLeft() && !time.Now().Before(f.again) {
		return time.Millisecond // not less: it may wait for a hint
	}
	caught := p.LastSynced.After(f.began) && time.Since(p.LastSynced) < catchUp
	if f.o.SlowPoll > f.o.Poll && f.c.opts.Hints.flowing() && p.InStep && caught {
		return f.o.SlowPoll
	}
	return f.o.Poll
}

// rest lets a crawl that left something undone, without a failure that would say when to try again, be followed by
// another one soon, but not at once for ever. So it does with one that has come to none of the names that were left, and to nothing new.
func (f *follower) rest(tried xtime.Time, out Outcome) {
	if f.c.deferrals.stuck() && tried == f.tried {
		f.undone = min(max(2*f.undone, restFirst), missedPause)
		f.again = time.Now().Add(f.undone)
		return
	}
	if out.Stime != 0 || out.Waiting || tried != f.tried || !f.c.NextRetry().IsZero() {
		f.undone = 0
		return
	}
	f.undone = min(max(2*f.undone, restFirst), restLongest)
	f.again = time.Now().Add(f.undone)
}
