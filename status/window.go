package status

import "time"

// Bounds of a Window.
const (
	windowSpan = 10 * time.Second
	// windowStep is the least time between two samples that are kept, so that a window holds few of them.
	windowStep = 250 * time.Millisecond
)

// Window gives the rate of a counter over the last ten seconds. It has no clock: the caller says when each value was
// read. The zero value is ready; it is for one goroutine at a time.
type Window struct {
	samples []sample // oldest first, at most windowSpan/windowStep and two more
}

// sample is what a counter was at a moment.
type sample struct {
	at    time.Time
	value int64
}

// Add notes that the counter was at value now. What falls out of the window is forgotten, but for the last value before
// it, which the rate begins from. A clock or a counter that went back begins anew.
func (w *Window) Add(now time.Time, value int64) {
	if n := len(w.samples); n > 0 {
		last := &w.samples[n-1]
		if now.Before(last.at) || value < last.value {
			w.samples = w.samples[:0]
		} else if n > 1 && last.at.Sub(w.samples[n-2].at) < windowStep {
			*last = sample{now, value}
			return
		}
	}
	old := 0
	for old+1 < len(w.samples) && now.Sub(w.samples[old+1].at) >= windowSpan {
		old++
	}
	w.samples = append(w.samples[:0], w.samples[old:]...)
	w.samples = append(w.samples, sample{now, value})
}

// PerSecond is the rate up to now: what was counted since the window began, over that time. While nothing is added the
// rate falls, and once the last value is older than the window it is 0. It is 0 also before there are two values.
func (w *Window) PerSecond(now time.Time) float64 {
	n := len(w.samples)
	if n < 2 || now.Sub(w.samples[n-1].at) >= windowSpan {
		return 0
	}
	// The value at the window's begin: the sample at or before it, on the straight line to the one that follows.
	begin := now.Add(-windowSpan)
	i := 0
	for i+2 < n && !w.samples[i+1].at.After(begin) {
		i++
	}
	first, value := w.samples[i], float64(w.samples[i].value)
	if first.at.Before(begin) {
		next := w.samples[i+1]
		part := float64(begin.Sub(first.at)) / float64(next.at.Sub(first.at))
		value += part * float64(next.value-first.value)
		first.at = begin
	}
	seconds := now.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return (float64(w.samples[n-1].value) - value) / seconds
}
