package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errSenderEnded is what put reports once the sender has ended; callers know the reason.
var errSenderEnded = errors.New("nothing more can be sent")

// sender gathers frames and writes many of them at once. Whoever has a frame takes his turn in the
// order of coming, so that a batch's contents do not hold up a small request for longer than a
// frame; frames that are in no hurry wait until there is enough to be worth a write. One goroutine,
// run, writes. Frames are written whole and in the order in which they were queued.
type sender struct {
	w      io.Writer
	gather int           // bytes that may wait to be written together
	turn   chan struct{} // held while a frame waits for room; its waiters are served in order
	wake   chan struct{} // something is to be written now
	room   chan struct{} // what was gathered has been taken
	stop   chan struct{} // closed by end
	once   sync.Once
	done   chan struct{} // closed when run has ended

	mu sync.Mutex
	// buf is bounded by gather, one frame, and what now adds.
	buf   []byte
	hurry bool
	taken time.Time // when the last of what this end had to say had been written, signs of life apart
}

// newSender makes a sender; nothing is written before run. w is written to by run alone.
func newSender(w io.Writer, gather int) *sender {
	return &sender{w: w, gather: gather, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{})}
}

// outgoing is a frame to be sent.
type outgoing struct {
	head
	body  func([]byte) []byte
	hurry bool // write it, and all that waits, without waiting for more
}

// put queues a frame and returns when there was room for it. When it fails nothing of the frame is
// sent. It waits for room, and so for the other end to read. An error is ctx's, or errSenderEnded.
func (s *sender) put(ctx context.Context, o outgoing) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return errSenderEnded
	}
	defer func() { <-s.turn }()
	for !s.tryPut(o) {
		select {
		case <-s.room:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return errSenderEnded
		}
	}
	return nil
}

// tryPut queues a frame if there is room. One frame may go beyond the room, so that no frame is too large for it.
func (s *sender) tryPut(o outgoing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) >= s.gather {
		return false
	}
	s.add(o)
	return true
}

// now queues a small frame at once, whether there is room or not: for what must be said after a
// call was abandoned. It never waits, and drops nothing: it is for frames that are few and small.
func (s *sender) now(o outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.hurry = true
	s.add(o)
}

// add appends a frame and wakes run if there is reason to write. The caller holds the lock.
func (s *sender) add(o outgoing) {
	s.buf = appendFrame(s.buf, o.head, o.body)
	s.hurry = s.hurry || o.hurry
	if s.hurry || len(s.buf) >= s.gather {
		signal(s.wake)
	}
}

// flush writes what waits.
func (s *sender) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) > 0 {
		s.hurry = true
		signal(s.wake)
	}
}

// signal leaves one token; more than one says no more.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// end asks run to write what is there and to end. It does not wait.
func (s *sender) end() { s.once.Do(func() { close(s.stop) }) }

// run writes until end is called or a write fails, and says that this end lives when there is
// nothing else to say. A sign of life goes out after keepAlive of silence, so the other end can
// tell an idle session from a dead one.
func (s *sender) run() error {
	defer close(s.done)
	beat := time.NewTimer(keepAlive)
	defer beat.Stop()
	var spare []byte
	for {
		ending, idle := false, false
		select {
		case <-s.wake:
		case <-beat.C:
			idle = true
			s.now(outgoing{head: head{kind: frameAlive}})
		case <-s.stop:
			ending = true
		}
		b := s.take(spare)
		if len(b) > 0 {
			if _, err := s.w.Write(b); err != nil {
				return err
			}
			beat.Reset(keepAlive)
			s.wrote(idle)
		}
		if ending {
			return nil
		}
		spare = reusable(b)
	}
}

// take gives what was gathered and puts the spare buffer in its place.
func (s *sender) take(spare []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buf
	s.buf, s.hurry = spare[:0], false
	signal(s.room)
	return b
}

// wrote notes that something was written.
func (s *sender) wrote(idle bool) {
	if idle {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = time.Now()
}

// reusable drops a buffer that one large frame has blown up.
func reusable(b []byte) []byte {
	if cap(b) > keepBuffer {
		return nil
	}
	return b
}
