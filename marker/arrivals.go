package marker

import (
	"cmp"
	"slices"
	"sync/atomic"

	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/moment"
	"georep/marker/scan"
	"georep/marker/tree"
)

// This file is about directories that leave the volume and come into it. What went on in one while it lay outside, no event
// told, and the slave may know it from before: all that is in it is marked when it comes back. This is fanotify's part.
// Inotify lists every directory that it did not watch before.

// dirMove is an event of a directory that moved.
type dirMove struct {
	// from and to are the directories that it lay in before and after; "" for one that is not
	// known.
	dir, from, to beneath.HandleKey
	met           bool // a scan will mark all that lies in it
}

// recent are the moves that were judged when not all was read yet that had happened before. They
// are used with core.mu held. A later move may show that an earlier one was judged by what was true
// no more: the directory from which it came may itself have lain outside then. So a judgement is
// kept until everything has been read that happened before it was made.
type recent []judged

// judged is a directory that moved.
type judged struct {
	dir   beneath.HandleKey
	at    int64         // it was judged; moment.SinceStart
	after moment.Moment // it moved
}

// forget drops what was judged before a moment up to which all is read.
func (r *recent) forget(upTo moment.Moment) {
	i, _ := slices.BinarySearchFunc(*r, upTo.Boot(), func(one judged, t int64) int { return cmp.Compare(one.at, t) })
	*r = slices.Delete(*r, 0, i)
}

// arrivals are the directories that came from outside of the volume, in which everything is yet to
// be marked. It is used with the core's mu held. An arrival is open until a scan has met everything
// in it. Until then the heartbeat stands before the moment at which it came: the slave must not be
// called in step while something in there is unmarked. Arrivals are numbered in the order in which
// they were met. A scan ends those up to the number it began with, and leaves those that came while
// it ran.
type arrivals struct {
	vol    *tree.Volume
	cover  *coverage.Coverage
	upTo   *scan.Progress // of the events
	wanted func()         // asks for a scan of what arrived

	open     map[beneath.HandleKey]arrival
	last     int // the number of the last one
	recent   recent
	earliest atomic.Pointer[moment.Moment] // before the first of open; nil: there is none. It may be read from any goroutine.
}

// moves sees to the directories of a batch that moved out of the volume or into it, given those that lie in the volume now.
func (a *arrivals) moves(in directories, b *batch, depth map[beneath.HandleKey]int) {
	if len(b.moves) == 0 {
		return
	}
	read := a.upTo.Reached()
	a.recent.forget(read)
	awaited, came := len(a.open) > 0, false
	for _, one := range b.moves {
		from, to := a.wasInside(b, one.from, depth), a.wasInside(b, one.to, depth)
		if !from || !to {
			a.leaves(one.dir)
		}
		// It may come out of what came from outside before a scan marks what is in that.
		if !from || awaited && !one.met {
			inside := a.arrive(in, one.dir, read)
			came = came || !from && (inside || to) // also where it is gone again
		}
		a.recent = append(a.recent, judged{one.dir, moment.SinceStart(), read})
	}
	// Where these came from may have been outside still when they moved.
	for _, one := range a.recent {
		if came {
			a.arrive(in, one.dir, one.after)
		}
	}
}

// wasInside tells whether a directory of a batch lies in the volume, or did until it was removed.
func (a *arrivals) wasInside(b *batch, k beneath.HandleKey, depth map[beneath.HandleKey]int) bool {
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
func (a *arrivals) begins(b *batch, k beneath.HandleKey, d *beneath.Dir) {
	_, came := a.open[k]
	if came || slices.ContainsFunc(b.moves, func(one dirMove) bool { return one.dir == k }) {
		return
	}
	if st, err := d.Stat(""); err == nil {
		a.cover.Add(st.Number(a.vol.RootStat.Dev))
	}
}

// leaves takes a directory out of the coverage.
func (a *arrivals) leaves(k beneath.HandleKey) {
	d, err := a.vol.Root.PinKey(k)
	if err == nil {
		defer d.Close()
		var st beneath.Stat
		if st, err = d.Stat(""); err == nil {
			a.cover.Leave(st.Number(a.vol.RootStat.Dev))
			return
		}
	}
	if tree.Judge(err, tree.Unseen) != tree.Gone {
		a.cover.LeaveAll()
	}
}

// arrive has all marked that lies in a directory that came after a moment, and tells whether it
// lies in the volume. Beyond maxRetries of them they become one, the root itself: everything is
// then marked once, and memory stays bounded.
func (a *arrivals) arrive(in directories, k beneath.HandleKey, after moment.Moment) bool {
	chain, err := in.chain(k)
	if v := tree.Judge(err, tree.Unseen); v != tree.Again && chain == nil {
		return false
	}
	if _, have := a.open[k]; !have && len(a.open) >= maxRetries {
		clear(a.open)
		k, after = in.top(), *a.earliest.Load()
	}
	a.leaves(k)
	a.last++
	a.open[k] = arrival{a.last, after}
	a.earliest.Store(earlier(a.earliest.Load(), a.open[k]))
	a.wanted()
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

// met ends a scan: it met all that had come up to a number, or nothing where all is false.
func (a *arrivals) met(all bool, upTo int) {
	var first *moment.Moment
	for k, one := range a.open {
		if all && one.n <= upTo {
			delete(a.open, k)
		} else {
			a.leaves(k)
			first = earlier(first, one)
		}
	}
	a.earliest.Store(first) // at once: the heartbeat must not meet one that forgets those that wait
}

// forget is for when nothing tells of arrivals any more: scans find them. It is called when the
// marker goes over from events to scans. Their directories are not in the coverage, so the next
// scan marks everything in them.
func (a *arrivals) forget() {
	clear(a.open)
	a.earliest.Store(nil)
}
