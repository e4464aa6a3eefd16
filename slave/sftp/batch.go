package sftp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
)

// item is one operation on its way. It belongs to the goroutine that executes it; others read err
// only after ready is closed, and res after done.
type item struct {
	op   *slave.Op
	data []byte // a small content, before it is staged
	// end is what the content turned out to be: its size, and whether it changed while it was read.
	end    slave.End
	held   int64  // of stager.bytes
	staged string // path of what is staged; "" where nothing is (any more)
	size   int64  // of a staged file
	// after are the operations of the batch that have to be through before this one is published (order).
	after []*item
	// noted is the journal's note that was written ahead, if one was.
	noted noted
	dir   index.ID      // of the directory that was finished
	ready chan struct{} // published, or failed; a stamp may follow
	done  chan struct{} // res is final
	res   slave.Result
	err   error
}

// publisher carries out batches. Every operation has a goroutine of its own, since each costs a few
// round trips in which nothing else could be done; several batches may be under way at the same
// time.
type publisher struct {
	*changer
	busy    *busy
	own     *ownership
	park    *park
	links   *links
	left    *leftovers
	stager  *stager
	cleaner *cleaner
	stamps  *stamper
}

// batch is a list of operations on its way. It implements apply.Actions: each of its actions looks
// at what stands there first, so that an operation may come twice (invariant 9).
type batch struct {
	*publisher
	items []item
	// dirs remembers which directories were looked at; wait counts the operations under way.
	dirs dirs
	wait sync.WaitGroup
}

// Apply carries out a batch: each operation as soon as those before it that it depends on are
// through, all others at the same time. Trouble with one operation is in its result; an error is
// the end of ctx or of the session, after which it is not known what was done.
func (pub *publisher) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	if err := pub.enter(); err != nil {
		return nil, err
	}
	done := make(chan []slave.Result, 1)
	lost := make(chan error, 1)
	go func() {
		defer pub.leave()
		results, err := pub.run(b)
		if err != nil {
			lost <- err
			return
		}
		done <- results
	}()
	// Whoever gives up the wait does not end the batch: what was begun is carried out, and the next call finds it
	// done.
	select {
	case results := <-done:
		return results, nil
	case err := <-lost:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run is Apply without a way to give up the wait. It returns once every operation has its result,
// or the session was lost.
func (pub *publisher) run(sb *slave.Batch) ([]slave.Result, error) {
	b := &batch{publisher: pub, items: make([]item, len(sb.Ops)), dirs: dirs{r: pub.records, known: map[string]*dirState{}}}
	order := newOrder()
	for i := range sb.Ops {
		it := &b.items[i]
		it.op, it.ready, it.done = &sb.Ops[i], make(chan struct{}), make(chan struct{})
		order.add(it)
		// Contents are read here, one after the other, since they come over one stream; all else is done beside it.
		b.read(it)
		b.wait.Go(func() { b.execute(it) })
	}
	b.wait.Wait()
	if err := pub.live(context.Background()); err != nil && pub.first().Err() != nil {
		return nil, err
	}
	if err := pub.Err(); err != nil {
		return nil, err
	}
	if pub.idx.Dirty() > flushAt {
		if err := pub.flush(); err != nil {
			pub.log.Warn().Err(err).Msg("write the index")
		}
	}
	results := make([]slave.Result, len(b.items))
	for i := range b.items {
		results[i] = b.items[i].res
	}
	return results, nil
}

// flushAt is how many changes of the index wait for a stamp at most.
const flushAt = 20_000

// read takes the content of an operation from the caller, in the order of the operations. A content
// is read to its end even where the operation has failed already, unless its source fails: the next
// one follows it over the same stream.
func (b *batch) read(it *item) {
	op := it.op
	if !op.Valid() {
		it.err = slave.ErrInvalid
	}
	if op.Kind != slave.OpPut || op.Uploaded {
		return
	}
	if op.Open == nil {
		it.err = slave.ErrInvalid
		return
	}
	if it.err == nil {
		it.err = b.check.refused()
	}
	content, err := op.Open()
	if err != nil {
		it.err = slave.SourceError(err)
		return
	}
	if it.err == nil {
		it.err = b.stager.take(it, content)
	}
	if err := content.Close(); err != nil && it.err == nil {
		it.err = slave.SourceError(err)
	}
}

// execute stages and publishes one operation, and has its result. It waits for those that the
// operation depends on in between: contents are staged meanwhile. ready is closed once the tree has
// what the operation makes, done once its stamp is durable as well.
func (b *batch) execute(it *item) {
	defer close(it.done)
	began, evicted := time.Now(), false
	if it.err == nil {
		b.dirs.ask(it.op)
		it.noteAhead(b.changer)
		again := false
		evicted, it.err = b.cleaner.inRoom(func() error {
			if again && !it.op.Uploaded {
				b.stager.unstage(it)
			}
			again = true
			return b.stager.stage(it)
		})
	}
	if it.held > 0 {
		it.data = nil
		b.stager.bytes.Release(it.held)
	}
	for _, before := range it.after {
		if !it.finishesAbove(before) {
			<-before.ready
		}
	}
	if it.err == nil && it.heldBack() {
		it.err = slave.ErrHeldBack
	}
	// Announced before it is done and booked after: a round of stamps that begins in between waits for this one.
	b.stamps.publishing(it)
	switch {
	case it.err == nil:
		it.err = b.publish(it)
	case errors.Is(it.err, errPublished):
		it.err = nil
	}
	it.noted.end(b.publisher)
	it.err = b.reason(it.err)
	b.cleaner.uploads.endUpload(it)
	if !it.op.Uploaded {
		b.stager.unstage(it)
	}
	if slave.OutOfRoom(it.err) { // the content was read already: what goes now is for the next try
		evicted = b.cleaner.makeRoomSince(began) || evicted
	}
	stamped := b.stamps.finished(it)
	close(it.ready)
	if stamped != nil {
		it.err = <-stamped
	}
	if it.err != nil {
		it.res = slave.Result{Err: trouble(it.op.Kind.String(), it.op.Path, it.err)}
	}
	it.res.Evicted = evicted
}

// finishesAbove tells whether both finish directories, of which the other lies below this one: that
// one has to be counted first, but may be under way at the same time.
func (it *item) finishesAbove(before *item) bool {
	return it.op.Kind == slave.OpFinish && before.op.Kind == slave.OpFinish && it.op.Path != before.op.Path
}

// heldBack tells whether a directory may not be finished because of an operation of the batch
// (invariant 6). Those that finish others are known to apply.Holds, and may be under way: only of what HoldsBack tells, which is
// ready, the error may be read.
func (it *item) heldBack() bool {
	return slices.ContainsFunc(it.after, func(before *item) bool { return apply.HoldsBack(before.op, it.op) && before.err != nil })
}

// publish does one operation whose content is staged. It keeps Clean from what the operation relies
// on (park.mu), and other operations from the same inode (busy).
func (b *batch) publish(it *item) error {
	// A directory moves while nothing else is at work, so that it is the one that an operation looked at for as long as that
	// takes.
	if k := it.op.Kind; it.op.Entry == slave.Dir && (k == slave.OpPark || k == slave.OpUnpark) {
		b.park.mu.Lock()
		defer b.park.mu.Unlock()
	} else {
		b.park.mu.RLock()
		defer b.park.mu.RUnlock()
	}
	if err := b.inPlace(it.op); err != nil {
		return err
	}
	defer b.busy.lockInode(apply.Inode(it.op))()
	return apply.Do(it.op.Kind, b, it)
}

// Filter puts the session's filter on record.
func (b *batch) Filter(it *item) error { return b.own.filterOp(it.op) }
