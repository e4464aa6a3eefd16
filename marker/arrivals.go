package marker

import (
	"cmp"
	"context"
	"slices"

	"georep/internal/beneath"
	"georep/marker/moment"
)

// This file is about directories that leave the volume and come into it. What went on in one while it lay outside, no event
// told, and the slave may know it from before: all that is in it is marked when it comes back. This is fanotify's part.
// Inotify lists every directory that it did not watch before.

// dirMove is an event of a directory that moved.
type dirMove struct {
	dir, from, to beneath.HandleKey
	met           bool // a scan will mark all that lies in it
}

// recent are the moves that were judged when not all was read yet that had happened before. They are used with core.mu held.
type recent []judged

// judged is a directory that moved.
type judged struct {
	dir   beneath.HandleKey
	at    int64         // it was judged; sinceStart
	after moment.Moment // it moved
}

// forget drops what was judged before a moment up to which all is read.
func (r *recent) forget(upTo moment.Moment) {
	i, _ := slices.BinarySearchFunc(*r, upTo.Boot(), func(one judged, t int64) int { return cmp.Compare(one.at, t) })
	*r = slices.Delete(*r, 0, i)
}

// moves sees to the directories of a batch that moved out of the volume or into it. It is called with mu held, with the
// directories of the batch that lie in the volume now.
func (c *core) moves(b *batch, depth map[beneath.HandleKey]int) {
	if len(b.moves) == 0 {
		return
	}
	read := c.upTo.reached()
	c.recent.forget(read)
	awaited, came := len(c.arrivals) > 0, false
	for _, one := range b.moves {
		from, to := c.wasInside(b, one.from, depth), c.wasInside(b, one.to, depth)
		if !from || !to {
			c.leaves(one.dir)
		}
		// It may come out of what came from outside before a scan marks what is in that.
		if !from || awaited && !one.met {
			inside := c.arrive(one.dir, read)
			came = came || !from && (inside || to) // also where it is gone again
		}
		c.recent = append(c.recent, judged{one.dir, moment.SinceStart(), read})
	}
	// Where these came from may have been outside still when they moved.
	for _, one := range c.recent {
		if came {
			c.arrive(one.dir, one.after)
		}
	}
}

// wasInside tells whether a directory of a batch lies in the volume, or did until it was removed.
func (c *core) wasInside(b *batch, k beneath.HandleKey, depth map[beneath.HandleKey]int) bool {
	for range len(b.removed) + 1 {
		if _, inside := depth[k]; inside {
			return true
		}
		up, removed := b.removed[k]
		if !removed {
			return false
		}
		k = up
	}
	return false
}

// begins takes a directory into the coverage that was made since the last mark.
func (c *core) begins(b *batch, k beneath.HandleKey, d *beneath.Dir) {
	_, came := c.arrivals[k]
	if came || slices.ContainsFunc(b.moves, func(one dirMove) bool { return one.dir == k }) {
		return
	}
	if st, err := d.Stat(""); err == nil {
		c.cover.add(st.Number(c.rootStat.Dev))
	}
}

// leaves takes a directory out of the coverage.
func (c *core) leaves(k beneath.HandleKey) {
	d, err := c.root.PinKey(k)
	if err == nil {
		defer d.Close()
		var st beneath.Stat
		if st, err = d.Stat(""); err == nil {
			c.cover.leave(st.Number(c.rootStat.Dev))
			return
		}
	}
	if judge(err, unseen) != gone {
		c.cover.leaveAll()
	}
}

// arrive has all marked that lies in a directory that came after a moment, and tells whether it lies in the volume. It is
// called with mu held.
func (c *core) arrive(k beneath.HandleKey, after moment.Moment) bool {
	chain, err := c.tree.chain(k)
	if v := judge(err, unseen); v != again && chain == nil {
		return false
	}
	if _, have := c.arrivals[k]; !have && len(c.arrivals) >= maxOwed {
		clear(c.arrivals)
		k, after = c.tree.top(), *c.earliest.Load()
	}
	c.leaves(k)
	c.arrived++
	c.arrivals[k] = arrival{c.arrived, after}
	c.earliest.Store(earlier(c.earliest.Load(), c.arrivals[k]))
	c.stray()
	return true
}

// arrival is a directory that came from outside.
type arrival struct {
	n     int
	after moment.Moment // it came after that
}

// earlier is the moment before the first of those that first is of, and a.
func earlier(first *moment.Moment, a arrival) *moment.Moment {
	if first == nil || a.after.Boot() < first.Boot() {
		return &a.after
	}
	return first
}

// awaited tells whether there is anything for meetArrivals, and the number of the last one.
func (c *core) awaited() (upTo int, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arrived, len(c.arrivals) > 0
}

// meetArrivals marks all that lies in directories that came from outside, and tells whether it could.
func (m *marker) meetArrivals(ctx context.Context) (bool, error) {
	upTo, any := m.awaited()
	if !any {
		return true, nil
	}
	s := m.beginScan(true)
	m.core.mu.Lock()
	for k := range m.arrivals {
		s.moved[k] = struct{}{}
	}
	m.core.mu.Unlock()
	left, err := s.runIn(ctx, s.moved)
	m.moving.back(left)
	if err == nil {
		err = m.meetMovers(ctx, s)
	}
	err = m.endScan(s, parts, upTo, err)
	return !s.incomplete.Load(), err
}
