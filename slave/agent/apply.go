package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"georep/slave"
	"georep/slave/apply"
)

// Apply sends a batch and the contents of its files, and waits for the results. Batches are sent one after the other,
// while the results of earlier ones are awaited.
//
// An operation that the wire cannot carry fails alone with slave.ErrInvalid. When ctx is cancelled while contents are
// being sent, those not sent yet are aborted; what the slave applied of the batch is not known then.
func (c *Client) Apply(ctx context.Context, batch *slave.Batch) ([]slave.Result, error) {
	return c.apply(ctx, batch, func() {})
}

// apply is Apply, and calls sent once when nothing of the batch is left to be sent.
func (c *Client) apply(ctx context.Context, batch *slave.Batch, sent func()) ([]slave.Result, error) {
	release, err := c.reserve(ctx, int64(len(batch.Ops))*(slave.ItemCost+errorCost))
	if err != nil {
		sent()
		return nil, err
	}
	defer release()
	results := make([]slave.Result, len(batch.Ops))
	parts, err := c.sendBatch(ctx, batch, results)
	sent()
	defer func() {
		for _, p := range parts {
			c.forget(p.call)
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := c.wait(ctx, p.call); err != nil {
			return nil, err
		}
	}
	if err := c.errIfIdle(len(parts)); err != nil {
		return nil, err
	}
	return results, nil
}

// part is as much of a batch as goes into one frame. Its answers go to ops one by one, in the order
// of the body.
type part struct {
	*call
	body []byte
	ops  []int // places in the batch
}

// sendBatch sends all of a batch. The results of what is not sent are filled in. It holds the
// stream's turn for all of it, so that the contents of two batches never mix. After an error the
// calls that were begun are in parts, for the caller to forget.
func (c *Client) sendBatch(ctx context.Context, batch *slave.Batch, results []slave.Result) ([]*part, error) {
	turn, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := c.bulk.Acquire(turn, 1); err != nil {
		return nil, c.reason(err)
	}
	defer c.bulk.Release(1)
	var parts []*part
	for at := 0; ; {
		var p *part
		if p, at = nextPart(batch, at, results); p == nil {
			return parts, nil
		}
		p.call = c.begin(frameResults, takeResults(p.ops, results))
		if err := c.sendPart(turn, p, batch); err != nil {
			c.abandon(p.call)
			return parts, c.reason(err)
		}
		parts = append(parts, p)
		if at == len(batch.Ops) {
			return parts, nil
		}
		// The operations of a batch take effect in order, which the server keeps within a frame only.
		if err := c.wait(turn, p.call); err != nil {
			return parts, err
		}
	}
}

// nextPart encodes operations from at on, as many as go into a frame, and tells where the next part
// begins. What cannot be sent gets its result here, and so do the directories that may not be
// finished because of that, or because of a failure in a part before, of which all results are
// there: the server knows only of what fails within a part. nil: nothing is left to be sent. A
// batch that fits one frame, as nearly all do, is sent without waiting for anything.
func nextPart(batch *slave.Batch, at int, results []slave.Result) (*part, int) {
	p, xattrs := &part{}, 0
	for ; at < len(batch.Ops); at++ {
		op := &batch.Ops[at]
		body, err := encodeOp(op, len(batch.Ops))
		if err == nil && op.Kind == slave.OpFinish && failedBelow(op.Path, batch.Ops[:at], results) {
			err = slave.ErrHeldBack
		}
		if err != nil {
			results[at].Err = &slave.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
			continue
		}
		xattrs += len(op.Meta.Xattrs)
		if len(p.ops) > 0 && (len(p.body)+len(body) > maxOp || xattrs > maxBatchXattrs) {
			break
		}
		p.body = append(p.body, body...)
		p.ops = append(p.ops, at)
	}
	if len(p.ops) == 0 {
		return nil, at
	}
	return p, at
}

// failedBelow tells whether one of the operations is known to have failed at or below dir.
func failedBelow(dir string, ops []slave.Op, results []slave.Result) bool {
	for i := range ops {
		if results[i].Err != nil && apply.Within(ops[i].Path, dir) {
			return true
		}
	}
	return false
}

// encodeOp encodes one operation of a batch of ops, or tells why it cannot be sent. A server would
// end the session over such an operation, so it is sorted out here. The check is that of the
// server, so what is refused here would have ended the session there.
func encodeOp(op *slave.Op, ops int) ([]byte, error) {
	if ops > slave.MaxOps {
		return nil, fmt.Errorf("%w: a batch of %d operations", slave.ErrInvalid, ops)
	}
	if err := checkOp(op); err != nil {
		return nil, err
	}
	if op.Streams() && op.Open == nil {
		return nil, fmt.Errorf("%w: no content", slave.ErrInvalid)
	}
	body := appendOp(nil, op)
	if len(body) > maxOp {
		return nil, fmt.Errorf("%w: %d bytes of attributes", slave.ErrInvalid, len(body))
	}
	return body, nil
}

// takeResults puts the answers where they belong. The slice is the caller's: it must not look at it
// before the call is done, and not at all when it abandons the call. It counts: an answer with too
// few results is malformed, and one with too many is cut off by the loop and found by complete.
func takeResults(ops []int, results []slave.Result) func(*decoder, bool) error {
	return func(d *decoder, last bool) error {
		for d.more() && len(ops) > 0 {
			results[ops[0]] = d.result()
			ops = ops[1:]
		}
		return complete(d, last, len(ops) == 0)
	}
}

// sendPart sends operations and contents. After an error nothing of the part is left to be sent:
// the contents that are missing were aborted. The server reads contents in the order of the
// operations, so each that is missing must be told as aborted.
func (c *Client) sendPart(ctx context.Context, p *part, batch *slave.Batch) error {
	err := c.out.put(ctx, outgoing{head: head{kind: frameBatch, id: p.id},
		body: func(b []byte) []byte { return append(b, p.body...) }})
	if err != nil {
		return err
	}
	p.body = nil
	for _, i := range p.ops {
		op := &batch.Ops[i]
		if !op.Streams() {
			continue
		}
		if err == nil {
			err = c.sendContent(ctx, p.id, op)
		}
		if err != nil {
			c.out.now(outgoing{head: head{kind: frameAbort, id: p.id}, body: errorBody(err)})
		}
	}
	c.out.flush()
	return err
}

// errorBody is the body of frames that carry nothing but an error.
func errorBody(err error) func([]byte) []byte {
	return func(b []byte) []byte { return appendError(b, err) }
}

// sendContent sends the content of one file to its end, or to where the source fails. It returns an
// error only where it could send neither. The source's failure is that of one operation, and the
// session goes on: the server hears of it in the content's place. end and cause are told in the
// same place, so the server always knows where the content ends.
func (c *Client) sendContent(ctx context.Context, id uint64, op *slave.Op) error {
	end, cause, err := c.sendPieces(ctx, id, op)
	if err != nil {
		return err
	}
	last := outgoing{head: head{kind: frameEnd, id: id}, body: func(b []byte) []byte { return appendEnd(b, end) }}
	if cause != nil {
		last.kind, last.body = frameAbort, errorBody(cause)
	}
	return c.out.put(ctx, last)
}

// sendPieces returns how the content ended, or the source's error, or that of sending. One piece is
// held at a time. The content is closed in any case.
func (c *Client) sendPieces(ctx context.Context, id uint64, op *slave.Op) (end slave.End, cause, err error) {
	content, cause := op.Open()
	if cause != nil {
		return end, cause, nil
	}
	defer func() { _ = content.Close() }() // it was only read
	for at := int64(0); ; {
		piece, cause := content.Next()
		if errors.Is(cause, io.EOF) {
			end = content.End()
			return end, checkEnd(end), nil
		}
		if cause == nil {
			cause = checkOrder(piece, at)
		}
		if cause != nil {
			return end, cause, nil
		}
		err := c.out.put(ctx, outgoing{head: head{kind: frameData, id: id},
			body: func(b []byte) []byte { return appendPiece(b, piece) }})
		if err != nil {
			return end, nil, err
		}
		at = piece.Off + int64(len(piece.Data))
	}
}

// checkOrder tells whether a piece may follow one that ended at at.
func checkOrder(p slave.Piece, at int64) error {
	if err := checkPiece(p); err != nil {
		return err
	}
	if p.Off < at {
		return malformed("a piece at %d after one that ended at %d", p.Off, at)
	}
	return nil
}

// checkEnd tells whether an end can be said. A file that was cut while it was read may end before
// its last piece. A size below zero could only come from a source with a fault.
func checkEnd(e slave.End) error {
	if e.Size < 0 {
		return malformed("a content of %d bytes", e.Size)
	}
	return nil
}
