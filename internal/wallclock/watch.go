package wallclock

import (
	"sync"
	"time"

	"georep/marker/moment"
)

const (
	// Least is the smallest step that is one. Leap seconds, and what a clock loses while its host sleeps, are smaller.
	Least = 2 * time.Second
	// translated is how much earlier than a step back a time may be that was told in terms of the new clock, such as the marker's last
	// heartbeat: by as much as that was old.
	translated = time.Minute
	// kept bounds the steps that Since knows of.
	kept = 16
)

// Reading is what both clocks show at one moment.
type Reading struct {
	Wall time.Time     // without Go's monotonic reading
	Boot time.Duration // since the host was started, sleep included
}

// Step is one setting of the clock.
type Step struct {
	From, To time.Time // what the clock would have shown when the step was noticed, and what it showed
}

// By is how far the clock was set: above zero for a step forward.
func (s Step) By() time.Duration { return s.To.Sub(s.From) }

// after tells whether the step came after the clock had shown t. It shows now at the end of what followed the step.
func (s Step) after(t, now time.Time) bool {
	if s.By() > 0 {
		return t.Before(s.To)
	}
	return t.Before(s.To.Add(-translated)) || t.After(now)
}

// Watch looks at the clocks when it is asked to. It is safe for concurrent use.
type Watch struct {
	read func() (Reading, bool)

	mu     sync.Mutex
	last   Reading // zero: none yet
	steps  []Step  // the newest, oldest first
	untold []Step
}

// New watches the clocks of this host.
func New() *Watch { return Of(read) }

// Of watches other clocks. Where read cannot tell it says so.
func Of(read func() (Reading, bool)) *Watch {
	w := &Watch{read: read}
	w.look()
	return w
}

// Next looks at the clocks, and gives the oldest step that it has not given yet.
func (w *Watch) Next() (s Step, stepped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	if len(w.untold) == 0 {
		return Step{}, false
	}
	s, w.untold = w.untold[0], w.untold[1:]
	return s, true
}

// Since is how long ago the wall clock showed t, steps left out. A time that it has shown twice, or nearly so, counts as the later
// one: what has passed is then at least the result. A time that is still to come has 0.
func (w *Watch) Since(t time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look()
	now := w.last.Wall
	if now.IsZero() {
		return max(0, time.Since(t))
	}
	passed, wall := time.Duration(0), t.Round(0)
	for i := len(w.steps) - 1; i >= 0; i-- {
		s := w.steps[i]
		if !s.after(wall, now) {
			break
		}
		passed, now = passed+now.Sub(s.To), s.From
		if s.By() > 0 && wall.After(now) { // a time that the clock never showed
			wall = now
		}
	}
	return max(0, passed+now.Sub(wall))
}

// look notes a step where there was one. A small difference is none, and does not add up.
func (w *Watch) look() {
	now, ok := w.read()
	if !ok {
		return
	}
	before := w.last
	w.last = now
	if before.Wall.IsZero() {
		return
	}
	s := Step{From: before.Wall.Add(now.Boot - before.Boot), To: now.Wall}
	if s.By().Abs() < Least {
		return
	}
	w.steps, w.untold = newest(append(w.steps, s)), newest(append(w.untold, s))
}

func newest(list []Step) []Step { return append([]Step(nil), list[max(0, len(list)-kept):]...) }

// read looks at both clocks at once.
func read() (Reading, bool) {
	m, sure := moment.Read()
	return Reading{Wall: m.Wall, Boot: time.Duration(m.Boot())}, sure
}
