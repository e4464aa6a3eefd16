package disk

import (
	"context"
	"slices"
	"time"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// What the master removed makes no room for what it has now, since it is parked. So when the slave's file system takes nothing
// more, what is parked goes, the oldest first, as far as it has to and the slave's policy lets it. What a crawl of now may
// still claim for a move is the youngest there; where it is gone its content is sent again.

// How much goes at a time, unless it is a directory, which goes as a whole.
const (
	evictBytes = 16 << 20
	evictNames = 1024
	// evictKnown bounds the parked entries whose order is known; the others are younger.
	evictKnown = 1 << 16
	// evictAge is how long what was parked stays whatever happens: the crawl that parked it may still find where it moved to.
	evictAge = 5 * time.Second
	// evictRest is how long a park in which nothing may go is not looked at again.
	evictRest = 2 * time.Second
	// uploadRest is how long a content that was received in part has to lie untouched.
	uploadRest = 10 * time.Minute
)

// parkedEntry is a name in parked/ and when it came there. since is its ctime, which the move to
// the park set.
type parkedEntry struct {
	name  string
	since beneath.Time
}

// inRoom runs call, and again as long as that finds the slave full and something that was parked
// could go. evicted tells that something went. The caller holds none of park.mu, cleanMu and
// uploads.mu. It ends when the call succeeds, fails for another reason, or nothing more may go.
// call runs at least once, and must be such that it can run again.
func (c *cleaner) inRoom(call func() error) (evicted bool, err error) {
	for {
		seen := c.steps.Load()
		err = call()
		if !slave.OutOfRoom(err) || c.live(context.Background()) != nil || !c.makeRoomSince(seen) {
			return evicted, err
		}
		evicted = true
	}
}

// evicting is inRoom for an operation.
func (c *cleaner) evicting(it *item, call func() error) error {
	evicted, err := c.inRoom(call)
	it.res.Evicted = it.res.Evicted || evicted
	return err
}

// makeRoomSince has something go, unless something went since the caller looked at the number of
// steps. It tells whether it is worth another try. Several callers may find the slave full at once.
// Only one of them makes room; the others try again with what it made.
func (c *cleaner) makeRoomSince(seen uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.steps.Load() != seen {
		return true
	}
	if c.policy.AppendOnly || time.Now().Before(c.again) {
		return false
	}
	c.cleanMu.Lock()
	defer c.cleanMu.Unlock()
	defer c.park.cleans.Add(2)
	n, bytes := c.evictParked()
	if n == 0 {
		n, bytes = c.uploads.evict()
	}
	if n == 0 {
		c.again = time.Now().Add(evictRest)
		return false
	}
	c.steps.Add(1)
	c.log.Warn().Str("slave", c.info.Path).Int("entries", n).Int64("bytes", bytes).
		Msg("the slave is full: removed entries that it still keeps are deleted early")
	return true
}

// evictParked deletes the oldest of what is parked, and tells how many entries and how much at least. room.mu and cleanMu are
// held.
func (c *cleaner) evictParked() (n int, bytes int64) {
	if len(c.queue) == 0 {
		c.queue = c.oldestParked()
	}
	var gone []xtime.GFID
	dirs := map[string]bool{}
	for len(c.queue) > 0 && len(dirs) == 0 && bytes < evictBytes && n < evictNames {
		e := c.queue[0]
		c.queue = c.queue[1:]
		kind, size, err := c.park.evict(e)
		if err != nil {
			c.log.Warn().Str("name", e.name).Err(err).Msg("cannot delete a parked entry")
		}
		if kind == slave.Unknown {
			continue
		}
		n, bytes = n+1, bytes+size
		if kind == slave.Dir {
			dirs[e.name] = true
		}
		if g, err := xtime.ParseGFID(e.name); err == nil {
			gone = append(gone, g)
		}
	}
	c.finder.forget(gone)
	c.park.index.forget(dirs)
	if len(dirs) > 0 {
		c.park.lookForDirs()
		_ = c.bin.empty(context.Background()) // which says itself what it cannot delete
	}
	return n, bytes
}

// oldestParked lists what is parked and may go, by age. It looks at every parked entry, and keeps
// the evictKnown oldest in memory. What is parked later is younger than those, so the list is good
// until it is used up.
func (c *cleaner) oldestParked() []parkedEntry {
	var all []parkedEntry
	sortOut := func() {
		slices.SortFunc(all, func(a, b parkedEntry) int {
			if a.since.Sec != b.since.Sec {
				return int(max(min(a.since.Sec-b.since.Sec, 1), -1))
			}
			return int(a.since.Nsec) - int(b.since.Nsec)
		})
		all = all[:min(len(all), evictKnown)]
	}
	before := time.Now().Add(-max(c.policy.KeepDeleted, c.age)).UnixNano()
	err := eachName(c.parked, func(name string) error {
		st, err := c.parked.Stat(name)
		if err == nil && st.Ctime.Sec*int64(time.Second)+int64(st.Ctime.Nsec) < before {
			all = append(all, parkedEntry{name, st.Ctime})
		}
		if len(all) == 2*evictKnown {
			sortOut()
		}
		return nil
	})
	if err != nil {
		c.log.Warn().Err(err).Msg("cannot list the parked entries")
	}
	sortOut()
	return all
}
