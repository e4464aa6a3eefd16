package sftp

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
)

// item is one operation on its way.
type item struct {
	op   *slave.Op
	data []byte // a small content, before it is staged
	// end is what the content turned out to be: its size, and whether it changed while it was read.
	end    slave.End
	held   int64  // of Tree.bytes
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

// batch is a list of operations on its way.
type batch struct {
	t     *Tree
	items []item
	// dirs remembers which directories were looked at; wait counts the operations under way.
	dirs dirs
	wait sync.WaitGroup
}

// Apply carries out a batch: each operation as soon as those before it that it depends on are through, all others at the
// same time.
func (t *Tree) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	done := make(chan []slave.Result, 1)
	lost := make(chan error, 1)
	go func() {
		defer t.leave()
		results, err := t.run(b)
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

// run is Apply without a way to give up the wait.
func (t *Tree) run(sb *slave.Batch) ([]slave.Result, error) {
	b := &batch{t: t, items: make([]item, len(sb.Ops)), dirs: dirs{t: t, known: map[string]*dirState{}}}
	order := newOrder()
	for i := range sb.Ops {
		it := &b.items[i]
		it.op, it.ready, it.done = &sb.Ops[i], make(chan struct{}), make(chan struct{})
		order.add(it)
		// Contents are read here, one after the other, since they come over one stream; all else is done beside it.
		b.read(it)
		b.wait.Go(func() { b.carryOut(it) })
	}
	b.wait.Wait()
	if err := t.live(context.Background()); err != nil && t.first().Err() != nil {
		return nil, err
	}
	if err := t.Err(); err != nil {
		return nil, err
	}
	if t.idx.Dirty() > flushAt {
		if err := t.flush(); err != nil {
			t.log.Warn().Err(err).Msg("write the index")
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

// read takes the content of an operation from the caller, in the order of the operations.
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
		it.err = b.t.verdict.refused()
	}
	content, err := op.Open()
	if err != nil {
		it.err = slave.SourceError(err)
		return
	}
	if it.err == nil {
		it.err = b.t.take(it, content)
	}
	if err := content.Close(); err != nil && it.err == nil {
		it.err = slave.SourceError(err)
	}
}

// take reads a small content into memory, and stages a large one at once.
func (t *Tree) take(it *item, content slave.Content) error {
	// At least 4 KiB even for an empty file, which bounds the number of operations in memory too.
	it.held = min(max(it.op.Meta.Size, 4096), smallBytes)
	if err := t.bytes.Acquire(context.Background(), it.held); err != nil {
		return err
	}
	var up *stagedFile
	size := int64(0)
	for {
		piece, err := content.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			err = slave.SourceError(err)
		} else if piece.Off < size {
			err = slave.ErrInvalid
		} else if up == nil && piece.Off+int64(len(piece.Data)) > smallBytes {
			up, err = t.stageLarge(it)
		}
		if err == nil {
			size = piece.Off + int64(len(piece.Data))
			err = t.keep(it, up, piece)
		}
		if err == nil {
			err = t.live(context.Background())
		}
		if err != nil {
			return errors.Join(err, up.drop())
		}
	}
	it.end = content.End()
	if it.end.Size < size {
		return errors.Join(slave.ErrInvalid, up.drop())
	}
	return up.finish(it)
}

// keep puts a piece where it belongs: in memory, or in the staged file.
func (t *Tree) keep(it *item, up *stagedFile, p slave.Piece) error {
	if up != nil {
		return up.write(p.Data, p.Off)
	}
	if gap := p.Off - int64(len(it.data)); gap > 0 {
		it.data = append(it.data, make([]byte, gap)...)
	}
	it.data = append(it.data, p.Data...)
	return nil
}

// carryOut stages and publishes one operation, and books its result.
func (b *batch) carryOut(it *item) {
	t := b.t
	defer close(it.done)
	began, evicted := time.Now(), false
	if it.err == nil {
		b.dirs.ask(it.op)
		it.foresee(t)
		again := false
		evicted, it.err = t.inRoom(func() error {
			if again && !it.op.Uploaded {
				t.unstage(it)
			}
			again = true
			return t.stage(it)
		})
	}
	if it.held > 0 {
		it.data = nil
		t.bytes.Release(it.held)
	}
	for _, before := range it.after {
		if !it.above(before) {
			<-before.ready
		}
	}
	if it.err == nil && it.failedBelow() {
		it.err = slave.ErrHeldBack
	}
	// Announced before it is done and booked after: a round of stamps that begins in between waits for this one.
	t.settler.publishing(it)
	switch {
	case it.err == nil:
		it.err = b.publish(it)
	case errors.Is(it.err, errPublished):
		it.err = nil
	}
	it.noted.over(t)
	it.err = t.reason(it.err)
	t.endUpload(it)
	if !it.op.Uploaded {
		t.unstage(it)
	}
	if slave.OutOfRoom(it.err) { // the content was read already: what goes now is for the next try
		evicted = t.makeRoomSince(began) || evicted
	}
	stamped := t.settler.finished(it)
	close(it.ready)
	if stamped != nil {
		it.err = <-stamped
	}
	if it.err != nil {
		it.res = slave.Result{Err: trouble(it.op.Kind.String(), it.op.Path, it.err)}
	}
	it.res.Evicted = evicted
}

// unstage removes what is staged; what cannot be removed now is cleared when the next session begins.
func (t *Tree) unstage(it *item) {
	if it.staged != "" && t.first().Err() == nil {
		_ = t.any().Remove(t.abs(it.staged))
		it.staged = ""
	}
}

// above tells whether both finish directories, of which the other lies below this one: that one has to be booked first, but
// may be under way at the same time.
func (it *item) above(before *item) bool {
	return it.op.Kind == slave.OpFinish && before.op.Kind == slave.OpFinish && it.op.Path != before.op.Path
}

// failedBelow tells whether a directory may not be finished because of an operation below it in the batch. Those that
// finish others are known to apply.Holds.
func (it *item) failedBelow() bool {
	return it.op.Kind == slave.OpFinish && slices.ContainsFunc(it.after, func(before *item) bool {
		return before.op.Kind != slave.OpFinish && before.err != nil
	})
}

// publish does one operation whose content is staged.
func (b *batch) publish(it *item) error {
	// A directory moves while nothing else is at work, so that it is the one that an operation looked at for as long as that
	// takes.
	if k := it.op.Kind; it.op.Entry == slave.Dir && (k == slave.OpPark || k == slave.OpUnpark) {
		b.t.parkMu.Lock()
		defer b.t.parkMu.Unlock()
	} else {
		b.t.parkMu.RLock()
		defer b.t.parkMu.RUnlock()
	}
	if err := b.t.inPlace(it.op); err != nil {
		return err
	}
	g := it.op.Record.GFID
	if it.op.Kind == slave.OpPark {
		g = it.op.Expect
	}
	defer b.t.busyInode(g)()
	switch it.op.Kind {
	case slave.OpMkdir:
		return b.mkdirOp(it)
	case slave.OpPut, slave.OpSymlink, slave.OpNode:
		return b.putOp(it)
	case slave.OpLink:
		return b.linkOp(it)
	case slave.OpUnpark:
		return b.unparkOp(it)
	case slave.OpMeta:
		return b.metaOp(it)
	case slave.OpPark:
		return b.parkOp(it)
	case slave.OpFinish:
		return b.finishOp(it)
	case slave.OpFilter:
		return b.t.filterOp(it.op)
	}
	return slave.ErrInvalid
}

// inPlace tells with ErrMoved that an operation's path does not lie in the directory any more that it is meant for, by what is on
// record of it (see slave/disk).
func (t *Tree) inPlace(op *slave.Op) error {
	dir, _ := beneath.Split(op.Path)
	if op.In.IsZero() || dir == "" {
		return nil
	}
	above, name := beneath.Split(dir)
	id, err := t.idOf(above)
	if err != nil || id == 0 {
		return err
	}
	e, known, err := t.idx.Get(id, name)
	if err == nil && known && !e.Record.GFID.IsZero() && e.Record.GFID != op.In {
		err = slave.ErrMoved
	}
	return err
}
