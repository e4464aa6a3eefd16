package crawler

import (
	"slices"
	"time"

	"georep/marker/xtime"
)

// claim is what a stamp will allow to say: once the slave has everything up to xtime, it has all that the master had at
// time.
type claim struct {
	xtime xtime.Time
	time  time.Time
}

// claims are what was seen of the master while the slave was behind, oldest first. LastSynced then goes as far as the
// stamps do. With one claim at a time it would stand still for up to twice as long as a change takes.
type claims []claim

// maxClaims bounds them. Beyond that every other one is forgotten, which makes LastSynced coarser.
const maxClaims = 256

// note adds what a look at the master saw.
func (c *claims) note(one claim) {
	list := *c
	if k := len(list) - 1; k >= 0 && list[k].xtime >= one.xtime {
		if list[k].xtime == one.xtime {
			list[k].time = later(list[k].time, one.time)
		}
		return
	}
	if len(list) == maxClaims {
		kept := list[:0]
		for i := 0; i < len(list); i += 2 {
			kept = append(kept, list[i])
		}
		list = kept
	}
	*c = append(list, one)
}

// proven is the time of the last claim that a stamp makes good, which is not kept any more; zero where there is none.
func (c *claims) proven(stime xtime.Time) time.Time {
	n := 0
	for n < len(*c) && (*c)[n].xtime <= stime {
		n++
	}
	if n == 0 {
		return time.Time{}
	}
	at := (*c)[n-1].time
	*c = slices.Delete(*c, 0, n)
	return at
}
