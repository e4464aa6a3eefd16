package disk

import (
	"context"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// maxForgotten bounds the inodes that one Clean forgets the places of; the others are forgotten when they are met.
const maxForgotten = 100_000

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error
// is ctx's, or the end of the session.
func (t *Tree) Clean(ctx context.Context, olderThan int64) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	t.cleanMu.Lock()
	defer t.cleanMu.Unlock()
	t.park.cleans.Add(1)
	defer t.park.cleans.Add(1)
	limit := time.Now().Unix() - olderThan
	var gone []xtime.GFID
	dirs := map[string]bool{} // that are deleted
	err := eachName(t.parked, func(name string) error {
		if err := t.live(ctx); err != nil {
			return err
		}
		kind, err := t.park.discard(name, limit)
		if kind == slave.Dir {
			dirs[name] = true
		}
		if err != nil {
			t.log.Warn().Str("name", name).Err(err).Msg("cannot delete what was parked")
		} else if g, err := xtime.ParseGFID(name); err == nil && kind != slave.Unknown && len(gone) < maxForgotten {
			gone = append(gone, g)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.finder.forget(gone)
	t.park.within.forget(dirs)
	t.park.lookForDirs()
	if err := t.cleanUploads(ctx, limit); err != nil {
		return err
	}
	return t.bin.empty(ctx)
}
