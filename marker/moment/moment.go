// Package moment has times that can be compared though somebody sets the clock meanwhile.
package moment

import (
	"time"

	"golang.org/x/sys/unix"
)

// Tremble is by how much the offsets of two moments may differ though nobody set the clock.
const Tremble = time.Millisecond

// Moment is a time on the wall clock, and what to add then to the time since the machine started to get it: between two
// moments of one run of the machine, the difference of the offsets is how far the wall clock was set.
type Moment struct {
	Wall   time.Time
	Offset int64 // ns
}

// Boot is the time since the machine started, in ns.
func (m Moment) Boot() int64 { return m.Wall.UnixNano() - m.Offset }

// Now is this moment.
func Now() Moment {
	var m Moment
	// On a busy machine this may be interrupted between two looks at clocks, and the offset be wrong by that.
	for range 10 {
		before, wall, after := SinceStart(), time.Now().Round(0), SinceStart()
		if m = (Moment{wall, wall.UnixNano() - before}); after-before < int64(Tremble)/2 {
			break
		}
	}
	return m
}

// SinceStart is the time since the machine started, in ns.
func SinceStart() int64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists, and so does ts.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}
