package marker

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// found is an entry that a scan wants marked.
type found struct {
	name string
	stat beneath.Stat
	// times is what to note of it once it was marked (ctimes); 0: nothing, so that it is looked at again.
	times uint64
}

// markChain marks entries of d that are no directories, then d and every directory above it, with an xtime of their
// own: an older one would hide them where an ancestor was marked since. It holds two descriptors whatever the depth.
// Where d is not in the volume now nothing is marked, and it counts as not met. incomplete tells that something has to be
// marked again and cannot be remembered.
func (c *core) markChain(d *beneath.Dir, entries []found) (incomplete bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	inside, err := c.inside(d)
	if err == nil && inside {
		return c.markInside(d, entries)
	}
	// Whichever of those above it moved: when it comes back it has to look like one that was not met.
	lost := c.climb(d, func(_ *beneath.Dir, st *beneath.Stat) { c.cover.unmeet(st.Number(c.rootStat.Dev)) })
	return judge(err, unseen) == again || judge(lost, unseen) == again, nil
}

func (c *core) markInside(d *beneath.Dir, entries []found) (incomplete bool, err error) {
	t, err := c.clock.Next()
	if err != nil {
		return true, err
	}
	for i := range entries {
		lost := false
		if lost, entries[i].times = c.stampOwn(d, entries[i].name, &entries[i].stat, t); lost {
			incomplete = true
		}
	}
	incomplete = c.markUp(d, t) || incomplete
	c.hints.Gap() // a scan does not know what went, and under which names
	if incomplete {
		c.forget(d, entries)
	}
	return incomplete, nil
}

// forget makes the next scan find again what this chain marked: something above it may lack the mark.
func (c *core) forget(d *beneath.Dir, entries []found) {
	if st, err := d.Stat(""); err == nil {
		c.own.forget(&st)
		c.times.setSelf(st.Number(c.rootStat.Dev), 0)
	}
	for i := range entries {
		c.own.forget(&entries[i].stat)
		entries[i].times = 0
	}
}

// inside tells whether d lies below the root, or is it, now.
func (c *core) inside(d *beneath.Dir) (bool, error) {
	inside := false
	err := c.climb(d, func(_ *beneath.Dir, st *beneath.Stat) { inside = inside || c.isRoot(st) })
	return inside, err
}

// markUp marks d and every directory above it up to the root.
func (c *core) markUp(d *beneath.Dir, t xtime.Time) (incomplete bool) {
	err := c.climb(d, func(at *beneath.Dir, st *beneath.Stat) {
		lost, times := c.stampOwn(at, "", st, t)
		incomplete = incomplete || lost
		if times != 0 {
			c.times.setSelf(st.Number(c.rootStat.Dev), times)
		}
	})
	return incomplete || err != nil && judge(err, unseen) == again
}

// climb calls fn for d and each directory above it, up to the volume's root or, when d lies elsewhere, to the top of
// the mount.
func (c *core) climb(d *beneath.Dir, fn func(*beneath.Dir, *beneath.Stat)) error {
	at, last := d, inode{}
	defer func() {
		if at != d {
			at.Close()
		}
	}()
	for {
		st, err := at.Stat("")
		if err != nil {
			return err
		}
		// The root of all is its own parent.
		if last == (inode{st.Dev, st.Ino}) {
			return nil
		}
		fn(at, &st)
		if c.isRoot(&st) {
			return nil
		}
		last = inode{st.Dev, st.Ino}
		up, err := at.Parent()
		if errors.Is(err, unix.EXDEV) {
			return nil
		}
		if err != nil {
			return err
		}
		if at != d {
			at.Close()
		}
		at = up
	}
}

func (c *core) isRoot(st *beneath.Stat) bool {
	return st.Dev == c.rootStat.Dev && st.Ino == c.rootStat.Ino
}

// stampOwn marks an entry and remembers the ctime that this gives it. It tells whether the mark failed in a way that
// only another scan can make good, and what to note of the entry's times; 0 where it may have changed meanwhile.
func (c *core) stampOwn(d *beneath.Dir, name string, before *beneath.Stat, t xtime.Time) (lost bool, times uint64) {
	switch c.stamp(d, name, t) {
	case again:
		return !c.owe(d, name), 0
	case refused:
		return false, timesOf(before) // crawls go by its ctime
	case done, bumped:
		after, err := d.Stat(name)
		if err == nil && c.own.add(before, &after, time.Now()) && !tooYoung(&after, time.Unix(after.Ctime.Sec, int64(after.Ctime.Nsec))) {
			return false, timesOf(&after)
		}
	}
	return false, 0
}
