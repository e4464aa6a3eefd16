package marker

import (
	"time"

	"georep/internal/beneath"
	"georep/marker/scan"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// MarkChain marks entries of d that are no directories, then d and every directory above it, with an xtime of their
// own: an older one would hide them where an ancestor was marked since. It holds two descriptors whatever the depth.
// Where d is not in the volume now nothing is marked, and it counts as not met. incomplete tells that something has to be
// marked again and cannot be remembered.
func (c *core) MarkChain(d *beneath.Dir, entries []scan.Found) (incomplete bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	inside, err := c.Inside(d)
	if err == nil && inside {
		return c.markInside(d, entries)
	}
	// Whichever of those above it moved: when it comes back it has to look like one that was not met.
	lost := c.Climb(d, func(_ *beneath.Dir, st *beneath.Stat) { c.scans.Cover.Unmeet(st.Number(c.RootStat.Dev)) })
	return tree.Judge(err, tree.Unseen) == tree.Again || tree.Judge(lost, tree.Unseen) == tree.Again, nil
}

// markInside marks a directory that is known to lie in the volume. The entries come before their
// directory (invariant 1), and each is told in entries what to note of its times. mu is held. An
// error is the clock's: no xtime, so nothing was marked.
func (c *core) markInside(d *beneath.Dir, entries []scan.Found) (incomplete bool, err error) {
	t, err := c.clock.Next()
	if err != nil {
		return true, err
	}
	for i := range entries {
		lost := false
		if lost, entries[i].Times = c.stampOwn(d, entries[i].Name, &entries[i].Stat, t); lost {
			incomplete = true
		}
	}
	incomplete = c.markUp(d, t) || incomplete
	c.telling.hints.Gap() // a scan does not know what went, and under which names
	if incomplete {
		c.forget(d, entries)
	}
	return incomplete, nil
}

// forget makes the next scan find again what this chain marked: something above it may lack the
// mark. It takes back what the chain noted as our own marks. Otherwise the next scan would see
// ctimes that it knows, pass over these entries, and the directories above would stay unmarked for
// good.
func (c *core) forget(d *beneath.Dir, entries []scan.Found) {
	if st, err := d.Stat(""); err == nil {
		c.scans.Own.Forget(&st)
		c.scans.Times.SetSelf(st.Number(c.RootStat.Dev), 0)
	}
	for i := range entries {
		c.scans.Own.Forget(&entries[i].Stat)
		entries[i].Times = 0
	}
}

// markUp marks d and every directory above it up to the root. The xtime is the same for all of
// them. incomplete tells that one of them took no mark for a reason that may pass, or that the way
// up could not be followed to its end. mu is held.
func (c *core) markUp(d *beneath.Dir, t xtime.Time) (incomplete bool) {
	err := c.Climb(d, func(at *beneath.Dir, st *beneath.Stat) {
		lost, times := c.stampOwn(at, "", st, t)
		incomplete = incomplete || lost
		if times != 0 {
			c.scans.Times.SetSelf(st.Number(c.RootStat.Dev), times)
		}
	})
	return incomplete || err != nil && tree.Judge(err, tree.Unseen) == tree.Again
}

// stampOwn marks an entry and remembers the ctime that this gives it. It tells whether the mark failed in a way that
// only another scan can make good, and what to note of the entry's times; 0 where it may have changed meanwhile.
func (c *core) stampOwn(d *beneath.Dir, name string, before *beneath.Stat, t xtime.Time) (lost bool, times uint64) {
	switch c.stamp(d, name, t) {
	case tree.Again:
		return !c.retryLater(d, name), 0
	case tree.Refused:
		return false, scan.TimesOf(before) // crawls go by its ctime
	case tree.Done, tree.Bumped:
		after, err := d.Stat(name)
		if err == nil && c.scans.Own.Add(before, &after, time.Now()) && !scan.TooYoung(&after, time.Unix(after.Ctime.Sec, int64(after.Ctime.Nsec))) {
			return false, scan.TimesOf(&after)
		}
	}
	return false, 0
}
