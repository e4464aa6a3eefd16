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
	m, _ := Read()
	return m
}

// Read is this moment, too. sure is false where it was interrupted between two looks at clocks again and again, as may be on a
// busy machine: the offset is wrong by as much.
func Read() (m Moment, sure bool) {
	for range 10 {
		before, wall, after := SinceStart(), time.Now().Round(0), SinceStart()
		if m = (Moment{wall, wall.UnixNano() - before}); after-before < int64(Tremble)/2 {
			return m, true
		}
	}
	return m, false
}

// SinceStart is the time since the machine started, in ns.
func SinceStart() int64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists, and so does ts.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}
