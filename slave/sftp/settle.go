package sftp

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// settler collects the stamps that wait, and the directories that were changed since the last were written.
type settler struct {
	// mu guards all below it.
	mu sync.Mutex
	// stamps are those of finished directories, with whoever waits for them; dirs are to be synced before any is
	// written.
	stamps []stamp
	dirs   map[string]struct{}
	holds  apply.Holds
	under  map[*item]struct{} // finishes under way, of which nothing but their own request is still to come
	wake   chan struct{}
}

// stamp is the xtime of a finished directory. done gets the outcome, once; it has room for it, so nobody is waited
// for.
type stamp struct {
	op   *slave.Op
	dir  index.ID
	done chan error
}

// init makes it ready, before anybody uses it.
func (s *settler) init() {
	s.wake = make(chan struct{}, 1)
	s.dirs = map[string]struct{}{}
	s.under = map[*item]struct{}{}
}

// publishing notes that an OpFinish is about to be done: a round that begins meanwhile takes its stamp along.
func (s *settler) publishing(it *item) {
	if it.op.Kind != slave.OpFinish {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under[it] = struct{}{}
}

// gathered gives the stamps that wait, once the finishes that are under way are booked.
func (s *settler) gathered() []stamp {
	s.mu.Lock()
	under := slices.Collect(maps.Keys(s.under))
	s.mu.Unlock()
	for _, it := range under {
		<-it.ready
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stamps := s.stamps
	s.stamps = nil
	return stamps
}

// touched notes that the directory that path lies in was changed.
func (t *Tree) touched(path string) {
	t.listings.changing(path)
	dir, _ := beneath.Split(path)
	t.settler.mu.Lock()
	defer t.settler.mu.Unlock()
	t.settler.dirs[dir] = struct{}{}
}

// finished books the outcome of an OpFinish, after those of all below it in the batch, and gives a channel where its stamp is
// still to be written.
func (s *settler) finished(it *item) chan error {
	op := it.op
	if op.Kind != slave.OpFinish {
		return nil
	}
	for _, before := range it.after {
		<-before.ready
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.under, it)
	if it.err != nil {
		if !errors.Is(it.err, slave.ErrHeldBack) {
			s.holds.Failed(op.Pass, op.Path)
		}
		return nil
	}
	if s.holds.Held(op.Pass, op.Path) {
		it.err = slave.ErrHeldBack
		return nil
	}
	if !op.Stamp || op.Record.Xtime == 0 {
		return nil
	}
	done := make(chan error, 1)
	s.stamps = append(s.stamps, stamp{op, it.dir, done})
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return done
}

// settle writes stamps until the Tree is closed; those that come while it is at work wait for the next round.
func (t *Tree) settle() {
	s := &t.settler
	for {
		select {
		case <-s.wake:
		case <-t.closing:
			t.abandon(ErrClosed)
			return
		case <-t.done:
			t.abandon(t.Err())
			return
		}
		if stamps := s.gathered(); len(stamps) > 0 {
			t.round(stamps)
		}
	}
}

// abandon ends the waits for stamps that nobody will write, now and later.
func (t *Tree) abandon(why error) {
	for {
		t.settler.mu.Lock()
		stamps := t.settler.stamps
		t.settler.stamps = nil
		t.settler.mu.Unlock()
		for _, st := range stamps {
			st.done <- why
		}
		select {
		case <-t.settler.wake:
		case <-t.done:
			return
		}
	}
}

// round makes durable what was done before, then writes the stamps, and makes those durable.
func (t *Tree) round(stamps []stamp) {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	results := make([]error, len(stamps))
	gone := make(chan error, 1)
	go func() { gone <- t.stands() }()
	flushed, err := t.write()
	if lost := <-gone; lost != nil {
		t.fail(lost)
		err = lost
	}
	if err != nil {
		t.log.Error().Err(err).Str("slave", t.name()).Msg("write the index")
		t.settler.mu.Lock()
		t.settler.holds.Unsynced(stamps[len(stamps)-1].op.Pass)
		t.settler.mu.Unlock()
	} else {
		cleared := make(chan error, 1)
		go func() { cleared <- flushed() }() // a journal with more in it than is needed does no harm
		for i, st := range stamps {
			// Into the index in memory; they reach the slave with the flush below, after all that they vouch for
			// (invariant 5).
			results[i] = t.writeStamp(st)
		}
		err = t.idx.Flush(t.syncTouched)
		if err := <-cleared; err != nil {
			t.log.Warn().Err(err).Msg("clear the journal")
		}
	}
	for i, st := range stamps {
		st.done <- errors.Join(results[i], err)
	}
}

// writeStamp puts the xtime on a directory, if it still is the one that was finished.
func (t *Tree) writeStamp(st stamp) error {
	op := st.op
	t.settler.mu.Lock()
	held := t.settler.holds.Held(op.Pass, op.Path)
	t.settler.mu.Unlock()
	if held {
		return slave.ErrHeldBack
	}
	err, found := slave.ErrMoved, false
	uerr := t.ofDir(op.Path, func(e *index.Entry) {
		found = true
		same := op.Path == "" || e.ID == st.dir
		if g := op.Record.GFID; same && (g.IsZero() || e.Record.GFID == g) {
			e.Record.Xtime, err = op.Record.Xtime, nil
		}
	})
	if err = errors.Join(uerr, err); err != nil || !found {
		t.settler.mu.Lock()
		t.settler.holds.Failed(op.Pass, op.Path)
		t.settler.mu.Unlock()
	}
	return err
}

// flush writes the index, after the directories that were changed are durable where the server can make them so, and
// clears the journal of what needs no note any more. One goes on at a time: another would find nothing left to sync while
// this one is still at it, and could clear notes that were made since.
func (t *Tree) flush() error {
	t.flushMu.Lock()
	defer t.flushMu.Unlock()
	flushed, err := t.write()
	if err != nil {
		return err
	}
	return flushed()
}

// write is flush but for the journal, which flushed clears; t.flushMu is held until then. A change is noted as touched
// before its entry is in the index, so that what is staged of the index is of directories that one of the two calls of
// syncTouched has seen.
func (t *Tree) write() (flushed func() error, err error) {
	flushed = t.journal.Turn()
	return flushed, t.idx.Flush(t.syncTouched)
}

// syncTouched makes the directories durable that were changed since the last time.
func (t *Tree) syncTouched() error {
	t.settler.mu.Lock()
	dirs := t.settler.dirs
	t.settler.dirs = map[string]struct{}{}
	t.settler.mu.Unlock()
	err := t.syncDirs(dirs)
	if err != nil {
		t.settler.mu.Lock()
		defer t.settler.mu.Unlock()
		maps.Copy(t.settler.dirs, dirs) // they are still to be synced
	}
	return err
}

// syncDirs makes names durable. A server that cannot open a directory as a file leaves that to its file system.
func (t *Tree) syncDirs(dirs map[string]struct{}) error {
	if !t.first().CanSync() {
		return nil
	}
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	for dir := range dirs {
		g.Go(func() error {
			f, err := t.any().Open(t.abs(dir), wire.OpenRead, wire.Attrs{})
			if err != nil {
				return t.first().Err() // gone, or moved meanwhile: then its new place is synced
			}
			defer f.Release()
			if err := f.Fsync(); err != nil {
				t.log.Debug().Err(err).Str("dir", dir).Msg("not synced")
			}
			return t.first().Err()
		})
	}
	return g.Wait()
}
