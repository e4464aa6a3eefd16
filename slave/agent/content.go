package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"georep/slave"
)

// incoming is the contents of a batch that are still in the stream. It has one user at a time: who
// stages the batch, then the reader. Only one content is open at a time, and they are read in
// order: the stream has no other way to give them.
type incoming struct {
	s     *server
	id    uint64
	total int
	next  int           // the content of which frames come next
	open  *content      // being read, or nil
	over  chan struct{} // closed when all contents are through
}

// expect gives the batch's operations their contents. Each Open may be called once, in any order
// that does not go back.
func (s *server) expect(id uint64, batch *slave.Batch) *incoming {
	in := &incoming{s: s, id: id, over: make(chan struct{})}
	for i := range batch.Ops {
		op := &batch.Ops[i]
		if !op.Streams() {
			continue
		}
		k := in.total
		op.Open = func() (slave.Content, error) { return in.get(k) }
		in.total++
	}
	if in.total == 0 {
		close(in.over)
	}
	return in
}

// get begins content k. Those before it that nobody wanted are skipped.
func (in *incoming) get(k int) (slave.Content, error) {
	if k < in.next || in.open != nil && k == in.open.k {
		return nil, fmt.Errorf("%w: this content was read already", slave.ErrInvalid)
	}
	if err := in.skipTo(k); err != nil {
		return nil, cutOff(err)
	}
	in.open = &content{in: in, k: k}
	return in.open, nil
}

// skipTo reads up to where content k begins.
func (in *incoming) skipTo(k int) error {
	for in.next < k {
		if in.open == nil {
			in.open = &content{in: in, k: in.next}
		}
		if err := in.open.drain(); err != nil {
			return err
		}
	}
	return nil
}

// drain reads all that is left of the contents.
func (in *incoming) drain() error {
	select {
	case <-in.over:
		return nil
	default:
		return in.skipTo(in.total)
	}
}

// ended is called when the last frame of a content has been read.
func (in *incoming) ended() {
	in.open = nil
	in.next++
	if in.next == in.total {
		close(in.over)
	}
}

// frame reads the batch's next frame, and starts what else is asked for meanwhile. Requests may
// come between the pieces of a content, so that a large file holds up no survey.
func (in *incoming) frame() (frame, error) {
	in.s.amid = true
	defer func() { in.s.amid = false }()
	for {
		f, err := in.s.next()
		if err != nil {
			return f, err
		}
		switch f.kind {
		case frameData, frameEnd, frameAbort:
			if f.id != in.id || f.more {
				in.s.readErr = malformed("content of batch %d within batch %d", f.id, in.id)
				return f, in.s.readErr
			}
			return f, nil
		case frameBatch:
			err = errBatchInBatch
		default:
			err = in.s.handle(f)
		}
		if err != nil {
			in.s.readErr = err
			return f, err
		}
	}
}

var errBatchInBatch = malformed("a batch within the contents of another")

// content is one file's data in the stream.
type content struct {
	in   *incoming
	k    int
	at   int64 // where the last piece ended
	end  slave.End
	last error // what Next returns from now on
}

// Next reads the next frame. When the session ends before the content does, the error wraps io.ErrUnexpectedEOF.
func (c *content) Next() (slave.Piece, error) {
	if c.last != nil {
		return slave.Piece{}, c.last
	}
	f, err := c.in.frame()
	if err != nil {
		c.last = cutOff(err)
		return slave.Piece{}, c.last
	}
	piece, err := c.take(f)
	if err != nil {
		c.in.s.readErr = err
		c.last = cutOff(err)
		return slave.Piece{}, c.last
	}
	if c.last != nil {
		c.in.ended()
	}
	return piece, c.last
}

// take decodes a frame; its error is one of the session. A frame that ends the content sets c.last.
func (c *content) take(f frame) (piece slave.Piece, err error) {
	d := decoder{b: f.body}
	switch f.kind {
	case frameData:
		piece = d.piece()
		if d.err == nil {
			d.err = checkOrder(piece, c.at)
		}
		c.at = piece.Off + int64(len(piece.Data))
	case frameEnd:
		c.end, c.last = d.contentEnd(), io.EOF
	case frameAbort:
		c.last = sourceError(d.someError())
	}
	return piece, d.end()
}

// End tells how the content ended.
func (c *content) End() slave.End { return c.end }

// Close reads what is left of the content, so that what follows it in the stream can be read. It
// never fails: what is wrong with the session is told elsewhere.
func (c *content) Close() error {
	if c.last != nil {
		return nil
	}
	// When the session has ended, its error is known to whom it concerns.
	_ = c.drain()
	return nil
}

// drain reads to the end. It returns an error only where the session has ended.
func (c *content) drain() error {
	for c.last == nil {
		_, _ = c.Next()
	}
	return c.in.s.readErr
}

// cutOff is the error of a content that ended with the session.
func cutOff(cause error) error {
	if cause = cutShort(cause); errors.Is(cause, io.ErrUnexpectedEOF) {
		return cause
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, cause)
}

// stage lets the tree take the contents of a batch and returns how it is applied. When the session
// ends before the contents do, nothing of the batch is applied. It runs on the reading goroutine,
// which is what makes a slow disk slow the sender down.
func (s *server) stage(ctx context.Context, id uint64, batch *slave.Batch) (commitFunc, error) {
	in := s.expect(id, batch)
	stager, ok := s.tree.(Stager)
	if !ok {
		return s.applyStreaming(ctx, batch, in)
	}
	commit, err := stager.Stage(batch)
	if err != nil {
		return nil, fmt.Errorf("stage a batch: %w", err)
	}
	if err := in.drain(); err != nil {
		return nil, cutOff(err) // and the tree's Close drops what is staged
	}
	return commit, nil
}

// applyStreaming is for trees that cannot stage: Apply itself reads the contents off the stream, on its own goroutine,
// and the reader goes on when they are through. Their batches are applied one after the other, since nobody can tell
// from outside when one has begun. A batch with contents therefore keeps the stream waiting for those before it.
func (s *server) applyStreaming(ctx context.Context, batch *slave.Batch, in *incoming) (commitFunc, error) {
	before, done := s.applied, make(chan struct{})
	s.applied = done
	var results []slave.Result
	var err error
	s.commits.Go(func() {
		defer close(done)
		<-before
		var tree slave.Tree
		if tree, err = s.changed(); err == nil {
			results, err = tree.Apply(ctx, batch)
		}
	})
	select {
	case <-in.over:
	case <-done:
		if err := in.drain(); err != nil {
			return nil, cutOff(err)
		}
	}
	return func(context.Context) ([]slave.Result, error) {
		<-done
		return results, err
	}, nil
}
