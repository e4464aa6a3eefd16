package hint

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// queueBytes bounds what waits for one subscriber.
const queueBytes = 4 << 20

// maxSubscribers bounds the connections.
const maxSubscribers = 64

// acceptPause is the pause after a connection that could not be accepted.
const acceptPause = time.Second

// Server gives hints to whoever subscribes. All methods may be called from any goroutine, on a nil Server too, and none
// but Close ever waits for a subscriber.
type Server struct {
	at       place
	listener *net.UnixListener
	log      zerolog.Logger
	wait     sync.WaitGroup
	present  atomic.Int64 // subscribers
	limit    int          // bytes that wait for one subscriber
	ending   chan struct{}

	mu sync.Mutex
	// seq, subs and closed are under mu. seq goes on over gaps, and begins at zero with each
	// marker.
	seq    uint64
	subs   map[*subscriber]struct{}
	closed bool
}

// Listen opens the socket in dir, in the place of one that a marker before left there. The caller must hold the lock that
// makes it the only marker, and closes the Server.
func Listen(dir string, log zerolog.Logger) (*Server, error) {
	at, err := openPlace(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for workers: %w", err)
	}
	s := &Server{at: at, log: log, subs: map[*subscriber]struct{}{}, limit: queueBytes, ending: make(chan struct{})}
	if s.listener, err = at.listen(); err != nil {
		at.dir.Close()
		return nil, fmt.Errorf("listen for workers in %s: %w", dir, err)
	}
	s.wait.Go(s.accept)
	return s, nil
}

// Close ends all connections and removes the socket. It is idempotent.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.ending)
	for sub := range s.subs {
		sub.conn.Close()
		sub.wake()
	}
	s.mu.Unlock()
	err := errors.Join(s.at.remove(), s.listener.Close())
	s.wait.Wait()
	return errors.Join(err, s.at.dir.Close())
}

// Wanted tells whether anybody listens: if not, a hint need not be made.
func (s *Server) Wanted() bool { return s != nil && s.present.Load() > 0 }

// Publish gives a hint to all subscribers; its Seq is set here. The hint is the Server's from then on.
func (s *Server) Publish(h *Hint) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	h.Seq = s.seq
	body, ok := encode(h)
	if !ok {
		body = appendGap(s.seq)
	}
	s.send(frame(body))
}

// Gap tells all subscribers that there was a mark of which no hint tells.
func (s *Server) Gap() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	s.send(frame(appendGap(s.seq)))
}

// send is called with mu held, so that all subscribers get everything in one order.
func (s *Server) send(frame []byte) {
	for sub := range s.subs {
		sub.put(frame, s.seq, s.limit)
	}
}

// accept admits connections until Close. No error of one connection ends it.
func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say: workers do without for as long
			s.log.Warn().Err(err).Msg("a worker could not subscribe to hints")
			select {
			case <-s.ending:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		if err := s.admit(c); err != nil {
			s.log.Warn().Err(err).Msg("a subscriber to hints was turned away")
			c.Close()
		}
	}
}

// admit makes a connection a subscriber.
func (s *Server) admit(c *net.UnixConn) error {
	if err := ours(c); err != nil {
		return err
	}
	sub := &subscriber{conn: c, ready: make(chan struct{}, 1), queue: [][]byte{[]byte(preface)}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.subs) >= maxSubscribers {
		return errors.New("too many of them, or the marker ends")
	}
	s.subs[sub] = struct{}{}
	s.present.Store(int64(len(s.subs)))
	// What was marked before it came, it has not been told.
	sub.put(frame(appendGap(s.seq)), s.seq, s.limit)
	s.wait.Go(func() { s.serve(sub) })
	s.wait.Go(func() { sub.watch() })
	return nil
}

// serve writes to one subscriber until it goes.
func (s *Server) serve(sub *subscriber) {
	defer s.dismiss(sub)
	for {
		frames := sub.takeAll()
		if len(frames) == 0 {
			<-sub.ready
			if s.over(sub) {
				return
			}
			continue
		}
		for _, f := range frames {
			if _, err := sub.conn.Write(f); err != nil {
				return
			}
		}
	}
}

// over tells the goroutine of a subscriber that it has to end.
func (s *Server) over(sub *subscriber) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || sub.gone.Load()
}

// dismiss ends the connection and forgets the subscriber. It may be called after Close.
func (s *Server) dismiss(sub *subscriber) {
	sub.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
	s.present.Store(int64(len(s.subs)))
}

// subscriber is one worker.
type subscriber struct {
	conn  *net.UnixConn
	ready chan struct{} // capacity 1
	gone  atomic.Bool

	mu sync.Mutex
	// queue has whole frames in the order of the marks; put drops them all at once.
	queue [][]byte
	bytes int // of queue
}

// put appends a frame. Where the subscriber does not keep up, all that waits is dropped, and a gap takes its place.
func (u *subscriber) put(f []byte, seq uint64, limit int) {
	u.mu.Lock()
	if u.bytes+len(f) > limit {
		f = frame(appendGap(seq))
		u.queue, u.bytes = nil, 0
	}
	u.queue, u.bytes = append(u.queue, f), u.bytes+len(f)
	u.mu.Unlock()
	u.wake()
}

// takeAll takes what waits; the frames are shared with other subscribers and read only.
func (u *subscriber) takeAll() [][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.queue
	u.queue, u.bytes = nil, 0
	return all
}

// wake never waits: one value says that there is something to see.
func (u *subscriber) wake() {
	select {
	case u.ready <- struct{}{}:
	default:
	}
}

// watch notices that the subscriber has gone, or says something, which it must not.
func (u *subscriber) watch() {
	_, _ = u.conn.Read(make([]byte, 1)) // whatever it returns, this is over
	u.gone.Store(true)
	u.conn.Close()
	u.wake()
}
