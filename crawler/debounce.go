package crawler

import (
	"sync"
	"time"

	"georep/marker/xtime"
)

// How often in a row a file may change right after it was shipped, and be shipped again at once. A larger one has to
// settle from the first time.
const (
	hotAfter = 2
	hotSize  = 1 << 20
)

// debounce decides when a file that keeps changing is shipped: once it has been quiet for quietPeriod, and never later than max
// after its first change that was not. All others are shipped at once. It goes by places, so that a file that is replaced
// all the time counts as one. What it forgets is shipped once more than need be. It is safe for concurrent use.
type debounce struct {
	quietPeriod, max time.Duration // a period of 0: nothing ever waits
	now              func() time.Time

	mu         sync.Mutex
	young, old map[place]*heat // those of the last period, and of the one before
	turned     time.Time
}

// place is a name in a directory.
type place struct {
	dir  xtime.GFID
	name string
}

// heat is what is known of one place.
type heat struct {
	shipped time.Time  // when its last state was let go
	xtime   xtime.Time // of that state
	quick   int        // how often in a row it has changed soon after
	seen    xtime.Time // of the newest state that waits
	changed time.Time  // when that came about
	since   time.Time  // the first change that waits; zero where none does
}

// wait is what a file waits for.
type wait struct {
	due   time.Time
	since time.Time // the first change that waits
}

// ship tells whether the state x of a file of so many bytes may be shipped now, and else what it waits for.
func (h *debounce) ship(p place, x xtime.Time, size int64) (w wait, ok bool) {
	if h.quietPeriod == 0 {
		return wait{}, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	e := h.get(p, now)
	switch {
	case e == nil:
		h.young[p] = &heat{shipped: now, xtime: x}
		return wait{}, true
	case e.xtime == x:
		return wait{}, true // it is tried again, or met twice
	case e.since.IsZero():
		if now.Sub(e.shipped) >= h.quietPeriod {
			e.quick = 0
		}
		if e.quick++; e.quick <= hotAfter && (size < hotSize || e.quick == 1 && now.Sub(e.shipped) >= h.quietPeriod) {
			e.shipped, e.xtime = now, x
			return wait{}, true
		}
		e.since, e.changed, e.seen = earlier(x.Time(), now), earlier(x.Time(), now), x
	case e.seen != x:
		e.changed, e.seen = later(e.changed, earlier(x.Time(), now)), x
	}
	if due := e.due(h); now.Before(due) {
		return wait{due, e.since}, false
	}
	e.shipped, e.xtime, e.since = now, x, time.Time{}
	return wait{}, true
}

// due is when a file that waits is to be shipped.
func (e *heat) due(h *debounce) time.Time {
	return earlier(e.changed.Add(h.quietPeriod), e.since.Add(h.max))
}

// touch notes that a file that waits has got the state x, and tells when it is due now.
func (h *debounce) touch(p place, x xtime.Time) (w wait, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	e := h.get(p, now)
	if e == nil || e.since.IsZero() {
		return wait{}, false
	}
	e.changed, e.seen = later(e.changed, earlier(x.Time(), now)), x
	return wait{e.due(h), e.since}, true
}

// get finds a place and keeps it young. What was not asked for during a whole settle is forgotten, unless it waits.
func (h *debounce) get(p place, now time.Time) *heat {
	if h.young == nil || now.Sub(h.turned) >= h.quietPeriod {
		young := map[place]*heat{}
		for _, m := range []map[place]*heat{h.old, h.young} {
			for q, e := range m {
				if !e.since.IsZero() && now.Sub(e.since) < 2*(h.max+h.quietPeriod) {
					young[q] = e
				}
			}
		}
		h.young, h.old, h.turned = young, h.young, now
	}
	e := h.young[p]
	if e == nil {
		if e = h.old[p]; e != nil {
			h.young[p] = e
		}
	}
	return e
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
