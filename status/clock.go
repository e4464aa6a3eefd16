package status

import (
	"fmt"
	"time"
)

// Clock is what a status says of the clock of the master's host.
type Clock struct {
	ClockSteps int64      `json:"clock_steps,omitempty"`         // how often it was set while the monitor ran, or just before that
	ClockStep  *ClockStep `json:"clock_step,omitempty"`          // the last time, while that matters
	ClockMoved float64    `json:"clock_moved_seconds,omitempty"` // by how much it was set since it showed LastSynced
}

// ClockStep is that the clock of the master's host was set, for as long as that matters.
type ClockStep struct {
	At        Time    `json:"at"`         // when it was noticed, by the clock as it is since
	BySeconds float64 `json:"by_seconds"` // below zero: it was set back
	// Until is what a clock that was set back has to reach. Until then xtimes run ahead of it. It is zero after a step forward.
	Until Time `json:"until,omitzero"`
}

// Matters tells whether that is still to be known. A step back matters until the clock shows again what it was set back from. A step
// forward matters until the slave has all that the master had since.
func (c *ClockStep) Matters(now time.Time, lastSynced Time) bool {
	if c == nil {
		return false
	}
	if c.BySeconds < 0 {
		return c.Until.After(now)
	}
	return !lastSynced.IsZero() && lastSynced.Before(c.At.Time)
}

// String says what happened and what it means, without the session's name.
func (c *ClockStep) String() string {
	by := time.Duration(c.BySeconds * float64(time.Second)).Round(time.Second)
	if by < 0 {
		return fmt.Sprintf("the clock of this host was set back by %s at %s: until %s xtimes run ahead of it, and LAST_SYNCED goes by "+
			"the clock as it is now", -by, when(c.At), when(c.Until))
	}
	return fmt.Sprintf("the clock of this host was set forward by %s at %s: LAST_SYNCED is a time of before, and the lag leaves the step "+
		"out", by, when(c.At))
}
