package agent

import (
	"context"

	"golang.org/x/sync/semaphore"

	"georep/slave"
)

// How both ends stay in bounded memory, whatever the other one sends.
//
// The server reads a frame only once there is room for it in a budget that all streams of the session share. admit takes what the
// frame can need at most, by its kind and length, before any of it is read; when it is decoded all but what it does need is given
// back, and that too when the answer has been sent. Why nobody waits for ever, as long as the client reads what it is answered:
//
//   - Contents of files need no budget: a stream has one buffer for them. So a batch that was begun is always read to its end.
//   - Requests take of asked, and batches of given. Who holds of asked is a frame that is being read, whose rest needs nothing but
//     the network, or a request at work, which needs nothing but the tree and the client. Who holds of given needs asked as well,
//     where requests lie between a batch's contents. Nobody who holds of asked waits for given.
//   - parts, finding, surveys and answers are taken after asked or given, in the order of this list, by requests at work. Who
//     holds of the last waits for the client only.
//   - Each budget is larger than the most that one frame, or one request, takes of it, and serves in the order of coming: whatever
//     the others hold, one request may always go on, and each is the first one day.
//
// The client takes what an answer can weigh at most before it asks, all at once, and holds it until the call returns. It holds
// nothing else that another call waits for, but a stream's turn, which is given back without another answer.

// holding is what a frame, or the request in it, holds of a budget. It is given back once, by
// whoever has it last; the zero value holds nothing.
type holding struct {
	of *semaphore.Weighted
	n  int64
}

// hold takes n of a budget. An error is ctx's, and nothing is held then.
func hold(ctx context.Context, of *semaphore.Weighted, n int64) (holding, error) {
	if err := of.Acquire(ctx, n); err != nil {
		return holding{}, err
	}
	return holding{of, n}, nil
}

// keep gives back all but n.
func (h *holding) keep(n int64) {
	if h.n > n {
		h.of.Release(h.n - n)
		h.n = n
	}
}

// release gives all back.
func (h *holding) release() {
	if h.n > 0 {
		h.of.Release(h.n)
		h.n = 0
	}
}

// What items of a request take in memory, beyond their bytes.
const (
	opCost    = 512
	xattrCost = 128
	itemCost  = 256 // the place of its answer included
	nameCost  = 32
	partCost  = 64
)

// admit is asked before a frame of n bytes is read. An error ends the session. It may wait, and
// then nothing more is read from this stream, which is what holds the client back.
func (s *server) admit(kind frameKind, n int) (err error) {
	s.held = holding{}
	switch kind {
	case frameData, frameEnd, frameAbort, frameAlive, frameCancel:
		if n > maxContent {
			return malformed("a frame of kind %d of %d bytes", kind, n)
		}
		return nil
	case frameBatch:
		if s.amid {
			return errBatchInBatch
		}
		if err := s.batches.Acquire(s.reading, 1); err != nil {
			return err
		}
		// An operation takes 22 bytes or more, an xattr 3.
		structs := min(64*n, slave.MaxOps*opCost+maxBatchXattrs*xattrCost)
		s.held, err = hold(s.reading, s.given, frameCost(n)+int64(structs))
		return err
	}
	if n > maxRequest {
		return malformed("a request of kind %d of %d bytes", kind, n)
	}
	cost := frameCost(n)
	if kind != frameWrite { // whose parts have a budget of their own
		cost += int64(min(itemCost*n, maxItemsCost))
	}
	s.held, err = hold(s.reading, s.asked, cost)
	return err
}

// maxItemsCost is what the items of one request take at most.
const maxItemsCost = maxGFIDs * itemCost

// frameCost is what a frame takes while it is decoded: what it decodes to, and a buffer where the stream's own is too small.
func frameCost(n int) int64 {
	if n > maxContent {
		n *= 2
	}
	return int64(n + requestCost)
}

// decoded gives back what a frame took beyond what it decoded to, and the buffer. Nothing of the frame is used after that.
func (s *server) decoded(f frame, weight int) holding {
	h := s.held
	s.held = holding{}
	h.keep(int64(len(f.body) + requestCost + weight))
	s.in.drop()
	return h
}

// reserve takes the most that an answer can weigh, before it is asked for. The call gives it back
// when it returns. An error is ctx's or that of the session's end. What is reserved is an upper
// bound; most answers are far smaller.
func (c *Client) reserve(ctx context.Context, most int64) (release func(), err error) {
	most = min(most, answerBudget)
	release = func() { c.answers.Release(most) }
	if c.answers.TryAcquire(most) {
		return release, nil
	}
	turn, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := c.answers.Acquire(turn, most); err != nil {
		return nil, c.reason(err)
	}
	return release, nil
}
