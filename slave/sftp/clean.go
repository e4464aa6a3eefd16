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

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error is
// ctx's, or the end of the session.
func (t *Tree) Clean(ctx context.Context, olderThan int64) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	limit := time.Now().Unix() - olderThan
	if err := t.discardAll(ctx, limit); err != nil {
		return t.ended(ctx, err)
	}
	if err := t.lookWithinAgain(); err != nil {
		return t.ended(ctx, err)
	}
	if err := t.cleanUploads(ctx, limit); err != nil {
		return t.ended(ctx, err)
	}
	return t.ended(ctx, t.emptyTrash(ctx))
}

// lookWithinAgain forgets what was remembered of parked directories, of which some are gone now, and has the others searched
// again when somebody asks.
func (t *Tree) lookWithinAgain() error {
	t.within.forget()
	dirs := map[string]index.ID{} // whoever searches holds on to within while it waits for the index
	err := t.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Kind == slave.Dir {
			dirs[name] = e.ID
		}
		return true
	})
	for name, id := range dirs {
		t.within.add(name, id)
	}
	return err
}

// ended gives an error that ends the session, and logs any other.
func (t *Tree) ended(ctx context.Context, err error) error {
	if live := t.live(ctx); live != nil {
		return live
	}
	if err != nil {
		t.log.Warn().Err(err).Msg("cannot delete all that was parked")
	}
	return nil
}

// discardAll moves what was parked at limit or before to trash/.
func (t *Tree) discardAll(ctx context.Context, limit int64) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	err := t.list(parkedDir, func(n wire.Name) error {
		g.Go(func() error { return t.discard(gctx, n.Name, limit) })
		return gctx.Err()
	})
	virtual := []string{}
	eerr := t.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Virtual && e.Since <= limit {
			virtual = append(virtual, name)
		}
		return true
	})
	for _, name := range virtual {
		eerr = errors.Join(eerr, t.idx.Delete(index.Parked, name))
	}
	return errors.Join(err, eerr, g.Wait())
}

// discard moves one entry out of the park: half of a directory must not be unparked.
func (t *Tree) discard(ctx context.Context, name string, limit int64) error {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	if err := t.live(ctx); err != nil {
		return err
	}
	e, ok, err := t.idx.Get(index.Parked, name)
	if err != nil || ok && e.Since > limit {
		return err
	}
	// One rename takes it out of the park as a whole; taking it apart may take long and be cut short.
	if err := t.rename(parkedDir+"/"+name, trashDir+"/"+t.unique()); err != nil {
		return ignoreAbsent(err)
	}
	if !ok {
		t.leftover.Delete(name)
		return nil
	}
	if err := t.idx.Delete(index.Parked, name); err != nil || e.Kind != slave.Dir {
		return err
	}
	return t.dropShards(e.ID)
}

// dropShards removes the shards of a directory and of those below it.
func (t *Tree) dropShards(id index.ID) error {
	todo := []index.ID{id}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id == 0 {
			continue
		}
		err := t.idx.Each(id, func(_ string, e index.Entry) bool {
			if e.Kind == slave.Dir {
				todo = append(todo, e.ID)
			}
			return true
		})
		if err == nil {
			err = t.idx.Drop(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyTrash deletes what is in trash/.
func (t *Tree) emptyTrash(ctx context.Context) error {
	return t.scrap(ctx, trashDir, new(atomic.Int64), false)
}

// scrap deletes what is in a directory, files at the same time, directories one after the other, and itself. text counts the names of
// directories that are still to be deleted: where there are too many the directory is listed once more after these.
func (t *Tree) scrap(ctx context.Context, dir string, text *atomic.Int64, itself bool) error {
	for range maxScrapRounds {
		more, err := scrapSome(ctx, t, dir, text)
		if err != nil {
			return err
		}
		if more {
			continue
		}
		if !itself {
			return nil
		}
		return t.any().Rmdir(t.abs(dir))
	}
	return fmt.Errorf("delete %q: the server lists ever more directories in it: %w", dir, unix.E2BIG)
}

// scrapSome deletes what is in a directory. more tells that there is more.
func scrapSome(ctx context.Context, t *Tree, dir string, text *atomic.Int64) (more bool, err error) {
	var dirs nameList
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	each := func(n wire.Name) error {
		if kindOf(n.Attrs) != slave.Dir {
			g.Go(func() error { return t.scrapOne(dir + "/" + n.Name) })
			return gctx.Err()
		}
		if dirs.add(text, n.Name) > maxScrapText && dirs.some() {
			return errEnough
		}
		return nil
	}
	err = t.list(dir, each)
	// A directory with the master's mode may shut out its own owner.
	if errors.Is(err, unix.EACCES) && t.any().Setstat(t.abs(dir), wire.Attrs{Flags: wire.HasMode, Mode: 0o700}) == nil {
		err = t.list(dir, each)
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
		if failed := t.scrap(ctx, dir+"/"+name, text, true); err == nil {
			err = failed // the first tells enough
		}
		return t.live(ctx) == nil
	})
	if lost := t.live(ctx); lost != nil {
		return false, lost
	}
	return more, err
}

// scrapOne removes a file, or a directory of which the listing did not say so.
func (t *Tree) scrapOne(path string) error {
	err := ignoreAbsent(t.any().Remove(t.abs(path)))
	if err == nil || !errors.Is(err, unix.EACCES) {
		return err
	}
	dir, _ := beneath.Split(path)
	if t.any().Setstat(t.abs(dir), wire.Attrs{Flags: wire.HasMode, Mode: 0o700}) != nil {
		return err
	}
	return ignoreAbsent(t.any().Remove(t.abs(path)))
}
