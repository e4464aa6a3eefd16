package marker

import (
	"context"
	"time"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// This file is about directories that take no mark: other xattrs fill the inode's room, or its owner is over quota. A crawl
// goes by the ctime of a directory that carries no xtime, but a change further down does not alter that. So the marker alters
// it instead, which needs no room: a chown that changes neither owner nor group. The kernel raises no event for that.

const (
	// The kernel takes minus one for "leave it"; the calls here take an unsigned number.
	unchanged = 1<<32 - 1 // an owner, or a group, that chown leaves as it is
	bumpTries = 4
	bumpPause = 5 * time.Millisecond // two ticks of most kernels' clock for file times
)

// bump gives a directory that carries no xtime, and did not take t, a later ctime than it had: a
// crawl that read the old one comes again. It tells whether it could. It is called with mu held. A
// file is never bumped: the chown would take its setuid bits, and a file without an xtime is
// compared by its ctime, which the write itself has changed. False means that nothing was done, or
// that the ctime did not come to lie after the one before; the caller then treats the mark as
// failed.
func (c *core) bump(d *beneath.Dir, name string, t xtime.Time) bool {
	if name != "" {
		pin, err := d.Pin(name)
		if err != nil {
			return false
		}
		defer pin.Close()
		d = pin
	}
	st, err := d.Stat("")
	if err != nil || !st.IsDir() {
		return false // of a file the chown would take its setuid bits
	}
	if x, err := d.Xtime("", &c.Names); err != nil || x != 0 {
		return false
	}
	before := max(ctimeOf(&st), c.Mark)
	for range bumpTries {
		if d.Chown("", unchanged, unchanged) != nil {
			return false
		}
		if st, err = d.Stat(""); err != nil {
			return false
		}
		if ctimeOf(&st) > before && ctimeOf(&st) >= t {
			break // as an xtime would be, it is not older than any below it
		}
		_ = pause(context.Background(), bumpPause)
	}
	if ctimeOf(&st) <= before {
		return false
	}
	c.scans.Cover.Bumped.Add(st.Number(c.RootStat.Dev))
	return true
}

// ctimeOf is an inode's ctime in the resolution of xtimes, which is microseconds: it is rounded
// down, so it is never newer than the change.
func ctimeOf(st *beneath.Stat) xtime.Time {
	return xtime.FromTime(time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)))
}
