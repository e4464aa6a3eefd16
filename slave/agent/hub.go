package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sync/semaphore"

	"georep/slave"
)

// errOneStream says why a server takes no further streams.
var errOneStream = errors.New("this server takes one stream a session")

// hub is what the streams of a session share at the slave's end: the tree, the bounds, and the end,
// which comes for all streams with that of the first one to end. Stream 0 opens and closes it; the
// others join it (see join.go). It lives as long as the session. The semaphores are the session's
// bounds, whatever the number of streams.
type hub struct {
	ctx  context.Context
	tree slave.Reader
	// first and said do not change once the first stream is welcomed.
	first Hello // of stream 0
	said  welcome

	// What is not yet answered: batches, the bytes of their operations, and those of other requests. Requests have bytes of
	// their own, since they may come amid a batch's contents, when the batch already holds its (see budget.go).
	batches, given, asked, parts         *semaphore.Weighted
	surveys, finding, examining, answers *semaphore.Weighted

	listener *net.UnixListener // nil where no stream can join
	joining  chan struct{}     // a token for each connection to it
	live     context.Context   // ends when the session is over
	stop     context.CancelFunc
	further  sync.WaitGroup // all that runs for the streams that joined, or try to
	applying sync.WaitGroup // those of them that read, or apply what they read

	mu      sync.Mutex
	streams map[uint32]*server
	over    bool
	cause   error // why it is over; nil when a client left in good order
}

// newHub makes a hub, and a place for further streams to come to where the host has those. An error
// of listening is no error here: it is told to clients that want to join.
func newHub(ctx context.Context, tree slave.Reader, hello *Hello, host *Host) *hub {
	h := &hub{ctx: ctx, tree: tree, first: *hello, said: welcome{info: tree.Info(), noMore: errOneStream},
		batches: semaphore.NewWeighted(maxBatches), given: semaphore.NewWeighted(batchBudget),
		asked: semaphore.NewWeighted(requestBudget), parts: semaphore.NewWeighted(partsBudget),
		surveys: semaphore.NewWeighted(surveysAtOnce), finding: semaphore.NewWeighted(findsAtOnce),
		examining: semaphore.NewWeighted(examinesAtOnce), answers: semaphore.NewWeighted(answersAtOnce),
		joining: make(chan struct{}, 2*MaxStreams), streams: make(map[uint32]*server)}
	h.said.info.Limits = limitsFor(hello, h.said.info.Limits)
	if !hello.Room {
		h.said.info.FreeFiles = 0
	}
	if !hello.Promotion {
		h.said.info.Promoted = ""
	}
	h.live, h.stop = context.WithCancel(ctx)
	if h.said.info.Version == "" {
		h.said.info.Version = host.Version
	}
	if host.Join != nil {
		h.said.noMore = h.listen()
	}
	if host.Confine != nil {
		h.said.info.Confined = host.Confine(hello, tree)
	}
	return h
}

// serve serves stream 0, which the session begins and ends with, and closes the tree. The tree is
// closed when nothing applies any more, and before the requests are waited for, which Close
// unblocks.
func (h *hub) serve(s *server) error {
	h.streams[0] = s
	if h.listener != nil {
		h.further.Go(h.accept)
	}
	h.further.Go(h.watch)
	s.welcome(&h.said)
	h.end(s, s.read())
	s.commits.Wait()
	h.applying.Wait()
	// Closing unblocks the calls that do not heed their context. Its error tells nothing that a result did not.
	_ = h.tree.Close()
	s.requests.Wait()
	h.further.Wait()
	return h.cause
}

// watch ends the session when the tree is lost: a client that asks for nothing would not hear of
// that. A tree that cannot be lost has no Done, and needs no watch.
func (h *hub) watch() {
	lost, ok := h.tree.(interface {
		Done() <-chan struct{}
		Err() error
	})
	if !ok {
		return
	}
	select {
	case <-lost.Done():
		h.end(nil, lost.Err())
	case <-h.live.Done():
	}
}

// attach takes a stream that joins. Whoever attached it calls applying.Done when the stream applies
// nothing more. An error says why the stream cannot join; nothing has changed then.
func (h *hub) attach(number uint32, s *server) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
		return fmt.Errorf("the session has ended: %w", net.ErrClosed)
	case h.streams[number] != nil:
		return fmt.Errorf("%w: the session has a stream %d already", slave.ErrInvalid, number)
	}
	h.streams[number] = s
	h.applying.Add(1)
	return nil
}

// serveFurther serves a stream that was attached, until the session is over. The connection is that to the process that
// the stream came by: its end at either side tells the other one to let go of the stream.
func (h *hub) serveFurther(number uint32, s *server, conn *net.UnixConn) {
	defer conn.Close() // which lets the other process go, and ends the watch
	defer s.write()()
	h.further.Go(func() {
		_, err := conn.Read(make([]byte, 1))
		h.end(nil, fmt.Errorf("the process of stream %d has ended: %w", number, cutShort(err)))
	})
	s.welcome(&welcome{info: h.said.info})
	h.end(s, s.read())
	s.commits.Wait()
	h.applying.Done()
	s.requests.Wait()
}

// end ends the session for all streams: the loss of one is that of the session. s is the stream
// whose reader found the cause, or nil. The first cause stays. A client that can still be told is
// told, on every stream. It may be called any number of times, from any stream.
func (h *hub) end(s *server, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	h.over, h.cause = true, err
	h.stop()
	if h.listener != nil {
		h.listener.Close()
	}
	tell := err != nil && (s == nil || s.readErr == nil || errors.Is(err, errMalformed))
	for _, each := range h.streams {
		each.stopReading()
		if !tell {
			each.close()
			continue
		}
		each.out.now(outgoing{head: head{kind: frameBye}, body: errorBody(err)})
		if each != s {
			h.further.Go(each.farewell) // its reader waits for the client
		}
	}
}
