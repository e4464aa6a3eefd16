package sftp

import (
	"maps"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/slave/sftp/wire"
)

// touched notes that the directory that path lies in was changed: it is synced before the index is
// written. It comes before the change is in the index (write).
func (ch *changer) touched(path string) {
	ch.listings.changing(path)
	dir, _ := beneath.Split(path)
	ch.changedMu.Lock()
	defer ch.changedMu.Unlock()
	ch.changed[dir] = struct{}{}
}

// flush writes the index, after the directories that were changed are durable where the server can
// make them so, and clears the journal of what needs no note any more. One goes on at a time:
// another would find nothing left to sync while this one is still at it, and could clear notes that
// were made since. After an error nothing is lost: the notes stay, and the next flush does all of
// it again.
func (ch *changer) flush() error {
	ch.flushMu.Lock()
	defer ch.flushMu.Unlock()
	flushed, err := ch.write()
	if err != nil {
		return err
	}
	return flushed()
}

// write is flush but for the journal, which flushed clears; flushMu is held until then. A change is noted as touched
// before its entry is in the index, so that what is staged of the index is of directories that one of the two calls of
// syncTouched has seen.
func (ch *changer) write() (flushed func() error, err error) {
	flushed = ch.journal.Turn()
	return flushed, ch.idx.Flush(ch.syncTouched)
}

// syncTouched makes the directories durable that were changed since the last time. After an error
// they are still to be synced.
func (ch *changer) syncTouched() error {
	ch.changedMu.Lock()
	dirs := ch.changed
	ch.changed = map[string]struct{}{}
	ch.changedMu.Unlock()
	err := ch.syncDirs(dirs)
	if err != nil {
		ch.changedMu.Lock()
		defer ch.changedMu.Unlock()
		maps.Copy(ch.changed, dirs) // they are still to be synced
	}
	return err
}

// syncDirs makes names durable, many directories at the same time. A server that cannot open a
// directory as a file leaves that to its file system, and one that cannot sync at all is not asked.
// The only error is the end of the session.
func (ch *changer) syncDirs(dirs map[string]struct{}) error {
	if !ch.first().CanSync() {
		return nil
	}
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	for dir := range dirs {
		g.Go(func() error {
			f, err := ch.any().Open(ch.abs(dir), wire.OpenRead, wire.Attrs{})
			if err != nil {
				return ch.first().Err() // gone, or moved meanwhile: then its new place is synced
			}
			defer f.Release()
			if err := f.Fsync(); err != nil {
				ch.log.Debug().Err(err).Str("dir", dir).Msg("not synced")
			}
			return ch.first().Err()
		})
	}
	return g.Wait()
}
