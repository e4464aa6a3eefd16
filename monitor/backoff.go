package monitor

import (
	"time"
)

// retryMin is the pause after the first try that went wrong, and the least of all pauses. The greatest is the
// session's retry-max.
const retryMin = time.Second

// backoff doubles from retryMin to max with the number of tries that went wrong in a row, and takes off again up to half
// of what is above retryMin, so that many sessions do not come back in step. random is in [0, 1).
func backoff(tries int, max time.Duration, random float64) time.Duration {
	d := max
	// Beyond that the shift would overflow.
	if tries < 32 {
		d = min(max, retryMin<<tries)
	}
	return d - time.Duration(random*float64(d-retryMin)/2)
}
