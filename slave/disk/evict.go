package disk

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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

// roomMaker knows what may go.
type roomMaker struct {
	mu    sync.Mutex
	queue []parkedEntry // oldest first
	again time.Time     // not before then
	steps atomic.Uint64 // how often something went
	age   time.Duration // evictAge, but in tests
}

// parkedEntry is a name in parked/ and when it came there.
type parkedEntry struct {
	name  string
	since beneath.Time
}

// outOfRoom tells whether the slave's file system, or a quota there, takes nothing more.
func outOfRoom(err error) bool {
	return err != nil && slave.Full(err) && slave.Errno(err) != unix.EROFS && !errors.Is(err, slave.ErrSource)
}

// inRoom runs call, and again as long as that finds the slave full and something that was parked could go. evicted tells
// that something went. The caller holds none of park.mu, cleanMu and uploads.mu.
func (t *Tree) inRoom(call func() error) (evicted bool, err error) {
	for {
		seen := t.room.steps.Load()
		err = call()
		if !outOfRoom(err) || t.live(context.Background()) != nil || !t.makeRoomSince(seen) {
			return evicted, err
		}
		evicted = true
	}
}

// evicting is inRoom for an operation.
func (t *Tree) evicting(it *item, call func() error) error {
	evicted, err := t.inRoom(call)
	it.res.Evicted = it.res.Evicted || evicted
	return err
}

// makeRoomSince has something go, unless something went since the caller looked at the number of steps. It tells whether it is
// worth another try.
func (t *Tree) makeRoomSince(seen uint64) bool {
	r := &t.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps.Load() != seen {
		return true
	}
	if t.policy.AppendOnly || time.Now().Before(r.again) {
		return false
	}
	t.cleanMu.Lock()
	defer t.cleanMu.Unlock()
	defer t.park.cleans.Add(2)
	n, bytes := t.evictParked()
	if n == 0 {
		n, bytes = t.evictUploads()
	}
	if n == 0 {
		r.again = time.Now().Add(evictRest)
		return false
	}
	r.steps.Add(1)
	t.log.Warn().Str("slave", t.info.Path).Int("entries", n).Int64("bytes", bytes).
		Msg("the slave is full: what was removed is deleted before its time")
	return true
}

// evictParked deletes the oldest of what is parked, and tells how many entries and how much at least. room.mu and cleanMu are
// held.
func (t *Tree) evictParked() (n int, bytes int64) {
	if len(t.room.queue) == 0 {
		t.room.queue = t.oldestParked()
	}
	var gone []xtime.GFID
	dirs := map[string]bool{}
	for len(t.room.queue) > 0 && len(dirs) == 0 && bytes < evictBytes && n < evictNames {
		e := t.room.queue[0]
		t.room.queue = t.room.queue[1:]
		kind, size, err := t.park.evict(e)
		if err != nil {
			t.log.Warn().Str("name", e.name).Err(err).Msg("cannot delete what was parked")
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
	t.finder.forget(gone)
	t.park.within.forget(dirs)
	if len(dirs) > 0 {
		t.park.lookForDirs()
		_ = t.bin.empty(context.Background()) // which says itself what it cannot delete
	}
	return n, bytes
}

// oldestParked lists what is parked and may go, by age.
func (t *Tree) oldestParked() []parkedEntry {
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
	before := time.Now().Add(-max(t.policy.KeepDeleted, t.room.age)).UnixNano()
	err := eachName(t.parked, func(name string) error {
		st, err := t.parked.Stat(name)
		if err == nil && st.Ctime.Sec*int64(time.Second)+int64(st.Ctime.Nsec) < before {
			all = append(all, parkedEntry{name, st.Ctime})
		}
		if len(all) == 2*evictKnown {
			sortOut()
		}
		return nil
	})
	if err != nil {
		t.log.Warn().Err(err).Msg("cannot list what was parked")
	}
	sortOut()
	return all
}

// evictUploads deletes what was received of contents that nobody has gone on to send for a while. The next try begins anew.
func (t *Tree) evictUploads() (n int, bytes int64) {
	t.uploads.mu.Lock()
	defer t.uploads.mu.Unlock()
	before := time.Now().Add(-uploadRest).Unix()
	_ = eachName(t.partial, func(name string) error { // a name that cannot be listed stays
		st, err := t.partial.Stat(name)
		if err != nil || st.Ctime.Sec > before || t.uploadInUse(name) || t.sys.unlink(place{t.partial, name}) != nil {
			return nil
		}
		n, bytes = n+1, bytes+int64(st.Blocks)*512
		return nil
	})
	return n, bytes
}
