package sftp

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
)

// stamper collects the stamps of finished directories, and writes them after what they vouch for.
type stamper struct {
	*changer
	own *ownership

	// mu guards all below it.
	mu sync.Mutex
	// stamps are those of finished directories, with whoever waits for them.
	stamps []stamp
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

func newStamper(ch *changer, own *ownership) *stamper {
	return &stamper{changer: ch, own: own, wake: make(chan struct{}, 1), under: map[*item]struct{}{}}
}

// publishing notes that an OpFinish is about to be done: a round that begins meanwhile takes its stamp along.
func (sm *stamper) publishing(it *item) {
	if it.op.Kind != slave.OpFinish {
		return
	}
	sm.mu.Lock()
	defer sm.mu.Unlock()
	sm.under[it] = struct{}{}
}

// gathered gives the stamps that wait, once the finishes that are under way are booked.
func (sm *stamper) gathered() []stamp {
	sm.mu.Lock()
	under := slices.Collect(maps.Keys(sm.under))
	sm.mu.Unlock()
	for _, it := range under {
		<-it.ready
	}
	sm.mu.Lock()
	defer sm.mu.Unlock()
	stamps := sm.stamps
	sm.stamps = nil
	return stamps
}

// finished books the outcome of an OpFinish, after those of all below it in the batch, and gives a channel where its stamp is
// still to be written.
func (sm *stamper) finished(it *item) chan error {
	op := it.op
	if op.Kind != slave.OpFinish {
		return nil
	}
	for _, before := range it.after {
		<-before.ready
	}
	sm.mu.Lock()
	defer sm.mu.Unlock()
	delete(sm.under, it)
	if it.err != nil {
		if !errors.Is(it.err, slave.ErrHeldBack) {
			sm.holds.Failed(op.Pass, op.Path)
		}
		return nil
	}
	if sm.holds.Held(op.Pass, op.Path) {
		it.err = slave.ErrHeldBack
		return nil
	}
	if !op.Stamp || op.Record.Xtime == 0 {
		return nil
	}
	done := make(chan error, 1)
	sm.stamps = append(sm.stamps, stamp{op, it.dir, done})
	select {
	case sm.wake <- struct{}{}:
	default:
	}
	return done
}

// loop writes stamps until the Tree is closed; those that come while it is at work wait for the next round.
func (sm *stamper) loop() {
	for {
		select {
		case <-sm.wake:
		case <-sm.closing:
			sm.abandon(ErrClosed)
			return
		case <-sm.done:
			sm.abandon(sm.Err())
			return
		}
		if stamps := sm.gathered(); len(stamps) > 0 {
			sm.round(stamps)
		}
	}
}

// abandon ends the waits for stamps that nobody will write, now and later.
func (sm *stamper) abandon(why error) {
	for {
		sm.mu.Lock()
		stamps := sm.stamps
		sm.stamps = nil
		sm.mu.Unlock()
		for _, st := range stamps {
			st.done <- why
		}
		select {
		case <-sm.wake:
		case <-sm.done:
			return
		}
	}
}

// round makes durable what was done before, then writes the stamps, and makes those durable.
func (sm *stamper) round(stamps []stamp) {
	sm.flushMu.Lock()
	defer sm.flushMu.Unlock()
	results := make([]error, len(stamps))
	gone := make(chan error, 1)
	go func() { gone <- sm.own.stands() }()
	flushed, err := sm.write()
	if lost := <-gone; lost != nil {
		sm.fail(lost)
		err = lost
	}
	if err != nil {
		sm.log.Error().Err(err).Str("slave", sm.name()).Msg("write the index")
		sm.mu.Lock()
		sm.holds.Unsynced(stamps[len(stamps)-1].op.Pass)
		sm.mu.Unlock()
	} else {
		cleared := make(chan error, 1)
		go func() { cleared <- flushed() }() // a journal with more in it than is needed does no harm
		for i, st := range stamps {
			// Into the index in memory; they reach the slave with the flush below, after all that they vouch for
			// (invariant 5).
			results[i] = sm.writeStamp(st)
		}
		err = sm.idx.Flush(sm.syncTouched)
		if err := <-cleared; err != nil {
			sm.log.Warn().Err(err).Msg("clear the journal")
		}
	}
	for i, st := range stamps {
		st.done <- errors.Join(results[i], err)
	}
}

// writeStamp puts the xtime on a directory, if it still is the one that was finished.
func (sm *stamper) writeStamp(st stamp) error {
	op := st.op
	sm.mu.Lock()
	held := sm.holds.Held(op.Pass, op.Path)
	sm.mu.Unlock()
	if held {
		return slave.ErrHeldBack
	}
	err, found := slave.ErrMoved, false
	uerr := sm.updateDir(op.Path, func(e *index.Entry) {
		found = true
		same := op.Path == "" || e.ID == st.dir
		if g := op.Record.GFID; same && (g.IsZero() || e.Record.GFID == g) {
			e.Record.Xtime, err = op.Record.Xtime, nil
		}
	})
	if err = errors.Join(uerr, err); err != nil || !found {
		sm.mu.Lock()
		sm.holds.Failed(op.Pass, op.Path)
		sm.mu.Unlock()
	}
	return err
}
