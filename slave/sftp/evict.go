package sftp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"georep/slave"
	"georep/slave/sftp/index"
)

// How much of what is parked goes at a time when the account has no room left, unless it is a directory, which goes as a
// whole; and how long a park in which nothing may go is not looked at again.
const (
	evictBytes = 16 << 20
	evictNames = 1024
	evictRest  = 2 * time.Second
	// evictAge is how long what was parked stays whatever happens: the crawl that parked it may still find where it moved to.
	evictAge = 5 * time.Second
)

// roomMaker has one at a time make room.
type roomMaker struct {
	mu    sync.Mutex
	at    time.Time     // when something went last
	again time.Time     // not before then
	age   time.Duration // evictAge, but in tests
}

// inRoom runs call, and again as long as the server turns out to have no room and something that was parked could go, the
// oldest first: what the master removed would make none otherwise. evicted tells that something went. Its error says why
// there is no room.
func (cl *cleaner) inRoom(call func() error) (evicted bool, err error) {
	for {
		began := time.Now()
		err = cl.reason(call())
		if !slave.OutOfRoom(err) || !cl.makeRoomSince(began) {
			return evicted, err
		}
		evicted = true
	}
}

// makeRoomSince has something go, unless something went since then. It tells whether it is worth another try.
func (cl *cleaner) makeRoomSince(began time.Time) bool {
	r := &cl.roomMaker
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.After(began) {
		return true
	}
	if time.Now().Before(r.again) || cl.live(context.Background()) != nil {
		return false
	}
	n, bytes := cl.evict()
	if n == 0 {
		r.again = time.Now().Add(evictRest)
		return false
	}
	r.at = time.Now()
	cl.check.forget()
	cl.log.Warn().Str("slave", cl.name()).Int("entries", n).Int64("bytes", bytes).
		Msg("the slave is full: what was removed is deleted before its time")
	return true
}

// evict deletes the oldest of what is parked, and tells how many entries and how much at least.
func (cl *cleaner) evict() (n int, bytes int64) {
	type parked struct {
		name string
		index.Entry
	}
	var all []parked
	before := time.Now().Add(-cl.roomMaker.age).Unix()
	err := cl.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if !e.Virtual && e.Since <= before { // one that is virtual takes none
			all = append(all, parked{name, e})
		}
		return true
	})
	slices.SortFunc(all, func(a, b parked) int { return int(max(min(a.Since-b.Since, 1), -1)) })
	for _, p := range all {
		if n >= evictNames || bytes >= evictBytes {
			break
		}
		went, failed := cl.evictOne(p.name, p.Entry)
		if failed != nil {
			cl.log.Warn().Str("name", p.name).Err(failed).Msg("cannot delete what was parked")
		}
		if !went {
			continue
		}
		n, bytes = n+1, bytes+p.Size
		if p.Kind == slave.Dir {
			err = cl.emptyTrash(context.Background())
			break
		}
	}
	if err != nil {
		cl.log.Warn().Err(err).Msg("cannot delete all that was parked")
	}
	return n, bytes
}

// evictOne deletes an entry, if it still is the one that was seen; a directory goes to trash/.
func (cl *cleaner) evictOne(name string, e index.Entry) (bool, error) {
	if e.Kind == slave.Dir {
		err := cl.discard(context.Background(), name, e.Since)
		_, there, gerr := cl.idx.Get(index.Parked, name)
		return !there && err == nil && gerr == nil, errors.Join(err, gerr)
	}
	cl.park.mu.Lock()
	defer cl.park.mu.Unlock()
	now, ok, err := cl.idx.Get(index.Parked, name)
	if err != nil || !ok || now.Since != e.Since {
		return false, err
	}
	if err := ignoreAbsent(cl.any().Remove(cl.abs(parkedDir + "/" + name))); err != nil {
		return false, err
	}
	return true, cl.idx.Delete(index.Parked, name)
}

// forget has the room be looked at anew, since some was made.
func (v *spaceCheck) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.at, v.found = time.Time{}, nil
}
