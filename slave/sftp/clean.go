package sftp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// cleaner deletes what was parked: by age, or for want of room.
type cleaner struct {
	*changer
	park      *park
	uploads   *uploads
	roomMaker roomMaker
}

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error is
// ctx's, or the end of the session.
func (cl *cleaner) Clean(ctx context.Context, olderThan int64) error {
	if err := cl.enter(); err != nil {
		return err
	}
	defer cl.leave()
	limit := time.Now().Unix() - olderThan
	if err := cl.discardAll(ctx, limit); err != nil {
		return cl.ended(ctx, err)
	}
	if err := cl.park.reindex(); err != nil {
		return cl.ended(ctx, err)
	}
	if err := cl.uploads.cleanUploads(ctx, limit); err != nil {
		return cl.ended(ctx, err)
	}
	return cl.ended(ctx, cl.emptyTrash(ctx))
}

// ended gives an error that ends the session, and logs any other.
func (cl *cleaner) ended(ctx context.Context, err error) error {
	if live := cl.live(ctx); live != nil {
		return live
	}
	if err != nil {
		cl.log.Warn().Err(err).Msg("cannot delete all that was parked")
	}
	return nil
}

// discardAll moves what was parked at limit or before to trash/.
func (cl *cleaner) discardAll(ctx context.Context, limit int64) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	err := cl.list(parkedDir, func(n wire.Name) error {
		g.Go(func() error { return cl.discard(gctx, n.Name, limit) })
		return gctx.Err()
	})
	virtual := []string{}
	eerr := cl.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Virtual && e.Since <= limit {
			virtual = append(virtual, name)
		}
		return true
	})
	for _, name := range virtual {
		eerr = errors.Join(eerr, cl.idx.Delete(index.Parked, name))
	}
	return errors.Join(err, eerr, g.Wait())
}

// discard moves one entry out of the park: half of a directory must not be unparked.
func (cl *cleaner) discard(ctx context.Context, name string, limit int64) error {
	cl.park.mu.Lock()
	defer cl.park.mu.Unlock()
	if err := cl.live(ctx); err != nil {
		return err
	}
	e, ok, err := cl.idx.Get(index.Parked, name)
	if err != nil || ok && e.Since > limit {
		return err
	}
	// One rename takes it out of the park as a whole; taking it apart may take long and be cut short.
	if err := cl.rename(parkedDir+"/"+name, trashDir+"/"+cl.unique()); err != nil {
		return ignoreAbsent(err)
	}
	if !ok {
		cl.park.leftover.Delete(name)
		return nil
	}
	if err := cl.idx.Delete(index.Parked, name); err != nil || e.Kind != slave.Dir {
		return err
	}
	return cl.dropShards(e.ID)
}

// dropShards removes the shards of a directory and of those below it.
func (cl *cleaner) dropShards(id index.ID) error {
	todo := []index.ID{id}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id == 0 {
			continue
		}
		err := cl.idx.Each(id, func(_ string, e index.Entry) bool {
			if e.Kind == slave.Dir {
				todo = append(todo, e.ID)
			}
			return true
		})
		if err == nil {
			err = cl.idx.Drop(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyTrash deletes what is in trash/.
func (cl *cleaner) emptyTrash(ctx context.Context) error {
	return cl.scrap(ctx, trashDir, new(atomic.Int64), false)
}

// scrap deletes what is in a directory, files at the same time, directories one after the other, and itself. text counts the names of
// directories that are still to be deleted: where there are too many the directory is listed once more after these.
func (cl *cleaner) scrap(ctx context.Context, dir string, text *atomic.Int64, itself bool) error {
	for range maxScrapRounds {
		more, err := cl.scrapPart(ctx, dir, text)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if !itself {
			return nil
		}
		return cl.any().Rmdir(cl.abs(dir))
	}
	return fmt.Errorf("delete %q: the server lists ever more directories in it: %w", dir, unix.E2BIG)
}

// scrapPart deletes what is in a directory. more tells that there is more.
func (cl *cleaner) scrapPart(ctx context.Context, dir string, text *atomic.Int64) (more bool, err error) {
	var dirs nameList
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	each := func(n wire.Name) error {
		if kindOf(n.Attrs) != slave.Dir {
			g.Go(func() error { return cl.scrapOne(dir + "/" + n.Name) })
			return gctx.Err()
		}
		if dirs.add(text, n.Name) > maxScrapText && dirs.some() {
			return errEnough
		}
		return nil
	}
	err = cl.list(dir, each)
	// A directory with the master's mode may shut out its own owner.
	if errors.Is(err, unix.EACCES) && cl.any().Setstat(cl.abs(dir), wire.Attrs{Flags: wire.HasMode, Mode: 0o700}) == nil {
		err = cl.list(dir, each)
	}
	if more = errors.Is(err, errEnough); more {
		err = nil
	}
	err = errors.Join(err, g.Wait())
	if err != nil {
		dirs.each(text, func(string) bool { return false })
		return false, err
	}
	dirs.each(text, func(name string) bool {
		if failed := cl.scrap(ctx, dir+"/"+name, text, true); err == nil {
			err = failed // the first tells enough
		}
		return cl.live(ctx) == nil
	})
	if lost := cl.live(ctx); lost != nil {
		return false, lost
	}
	return more, err
}

// scrapOne removes a file, or a directory of which the listing did not say so.
func (cl *cleaner) scrapOne(path string) error {
	err := ignoreAbsent(cl.any().Remove(cl.abs(path)))
	if err == nil || !errors.Is(err, unix.EACCES) {
		return err
	}
	dir, _ := beneath.Split(path)
	if cl.any().Setstat(cl.abs(dir), wire.Attrs{Flags: wire.HasMode, Mode: 0o700}) != nil {
		return err
	}
	return ignoreAbsent(cl.any().Remove(cl.abs(path)))
}
