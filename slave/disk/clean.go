package disk

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// cleaner deletes what was parked: when Clean says so, and before its time where the slave is full.
// mu comes before cleanMu, and that before the locks of the park and of the uploads. It has no
// goroutine: it works in the calls of Clean, and in whatever operation found the slave full.
type cleaner struct {
	*store
	park    *park
	bin     *bin
	finder  *finder
	uploads *uploads
	age     time.Duration // evictAge, but in tests

	mu sync.Mutex // guards what follows
	// queue was listed once and may be out of date; each entry is looked at again before it goes.
	queue []parkedEntry // that may go, the oldest first
	again time.Time     // not before then
	steps atomic.Uint64 // how often something went

	cleanMu sync.Mutex // Clean, or an eviction: one at a time
}

// newCleaner takes the parts that it deletes from. It owns none of them.
func newCleaner(k *park, b *bin, f *finder, us *uploads) *cleaner {
	return &cleaner{store: k.store, park: k, bin: b, finder: f, uploads: us, age: evictAge}
}

// maxForgotten bounds the inodes that one Clean forgets the places of; the others are forgotten when they are met.
const maxForgotten = 100_000

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged
// and left. The error is ctx's, or the end of the session. park.mu is taken for one entry at a
// time, so operations go on meanwhile. Two calls run one after the other.
func (c *cleaner) Clean(ctx context.Context, olderThan int64) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	c.cleanMu.Lock()
	defer c.cleanMu.Unlock()
	c.park.cleans.Add(1)
	defer c.park.cleans.Add(1)
	limit := time.Now().Unix() - olderThan
	var gone []xtime.GFID
	dirs := map[string]bool{} // that are deleted
	err := eachName(c.parked, func(name string) error {
		if err := c.live(ctx); err != nil {
			return err
		}
		kind, err := c.park.discard(name, limit)
		if kind == slave.Dir {
			dirs[name] = true
		}
		if err != nil {
			c.log.Warn().Str("name", name).Err(err).Msg("cannot delete a parked entry")
		} else if g, err := xtime.ParseGFID(name); err == nil && kind != slave.Unknown && len(gone) < maxForgotten {
			gone = append(gone, g)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.finder.forget(gone)
	c.park.index.forget(dirs)
	c.park.lookForDirs()
	if err := c.uploads.clean(ctx, limit); err != nil {
		return err
	}
	return c.bin.empty(ctx)
}
