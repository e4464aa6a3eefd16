package sshconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	stderrTail = 4 << 10
	readChunk  = 64 << 10
	// closeGrace is how long a write that the peer does not take may hold up the end of a stream, before the whole
	// connection is given up.
	closeGrace = 5 * time.Second
)

// Stream is the standard input and output of one remote command. One goroutine may read while another writes and
// others call the remaining methods. Its reads and writes end with the connection.
type Stream struct {
	conn *Conn
	ch   ssh.Channel
	tail tail

	// Output comes through a pipe, because a read of the channel itself ends only when the peer says so.
	output *io.PipeReader
	filler *io.PipeWriter

	ended chan struct{} // closed when the channel is closed and exit is set

	// exit, exited are written before ended is closed and read after.
	exit   ExitError
	exited bool

	mu      sync.Mutex
	closed  bool          // no new writers
	closing chan struct{} // closed with closed
	writers sync.WaitGroup
}

func newStream(c *Conn, ch ssh.Channel) *Stream {
	s := &Stream{conn: c, ch: ch, ended: make(chan struct{}), closing: make(chan struct{})}
	s.output, s.filler = io.Pipe()
	return s
}

// serve takes everything that comes from the peer. Its parts end when the channel does, at the latest with the
// connection. On a closed connection it starts nothing and reports false.
func (s *Stream) serve(reqs <-chan *ssh.Request) bool {
	drained, filled := make(chan struct{}), make(chan struct{})
	return s.conn.start(
		func() {
			defer close(drained)
			_, _ = io.Copy(&s.tail, s.ch.Stderr())
		},
		func() {
			defer close(filled)
			s.fill()
		},
		func() {
			// Nobody may be there to take the output.
			select {
			case <-s.conn.done:
				s.filler.CloseWithError(s.lost(errVanished))
			case <-filled:
			}
		},
		func() {
			defer close(s.ended)
			for req := range reqs {
				s.handle(req)
			}
			<-drained
			s.exit.Stderr = s.Stderr()
		},
	)
}

// fill moves the command's output into the pipe.
func (s *Stream) fill() {
	buf := make([]byte, readChunk)
	for {
		n, err := s.ch.Read(buf)
		if n > 0 {
			if _, err := s.filler.Write(buf[:n]); err != nil {
				return // closed, or the connection has ended
			}
		}
		if err != nil {
			s.filler.CloseWithError(s.readError(err))
			return
		}
	}
}

func (s *Stream) handle(req *ssh.Request) {
	switch req.Type {
	case "exit-status":
		var msg struct{ Status uint32 }
		if ssh.Unmarshal(req.Payload, &msg) == nil {
			s.exited, s.exit.Status = true, int(msg.Status)
		}
	case "exit-signal":
		var msg struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}
		if ssh.Unmarshal(req.Payload, &msg) == nil {
			s.exited, s.exit.Status, s.exit.Signal = true, -1, clean(msg.Signal)
		}
	}
	if req.WantReply {
		// The only possible error is the connection's end, which the loop over the requests sees.
		_ = req.Reply(false, nil)
	}
}

// Read reads the command's standard output. It returns io.EOF only when the command closed it; when the connection
// is lost the error wraps ErrPeerDead, after Close it wraps net.ErrClosed.
func (s *Stream) Read(p []byte) (int, error) { return s.output.Read(p) }

// readError tells the end of the output from the end of the connection: the library says io.EOF for both.
func (s *Stream) readError(err error) error {
	if !errors.Is(err, io.EOF) {
		return s.lost(err)
	}
	if s.running() || s.exited {
		return io.EOF
	}
	return s.lost(errVanished)
}

// running asks the peer whether the channel is still open: a command may close its output and go on. The answer is a
// refusal, for nobody knows the request; without an answer the channel is closed. When it reports false, the end of
// the command is known as far as it ever will be.
func (s *Stream) running() bool {
	select {
	case <-s.ended:
		return false
	default:
	}
	if _, err := s.ch.SendRequest("keepalive@openssh.com", true, nil); err == nil {
		return true
	}
	<-s.ended
	return false
}

// lost prefers the reason why the whole connection ended.
func (s *Stream) lost(err error) error {
	if cause := s.conn.err(); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: lost the connection to %s: %v", ErrPeerDead, s.conn.addr, err)
}

// Write writes to the command's standard input and blocks while the peer takes no more. When the command has ended
// the error wraps io.ErrClosedPipe and Wait says how; when the connection is lost it wraps ErrPeerDead, after Close
// net.ErrClosed.
func (s *Stream) Write(p []byte) (int, error) {
	if !s.beginWrite() {
		return 0, s.closedError("write to")
	}
	defer s.writers.Done()
	n, err := s.ch.Write(p)
	if err != nil {
		err = s.writeError(err)
	}
	return n, err
}

// beginWrite makes Close wait for a writer. It reports false on a closed stream.
func (s *Stream) beginWrite() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.writers.Add(1)
	return true
}

func (s *Stream) closedError(what string) error {
	return fmt.Errorf("%s %s: %w", what, s.conn.addr, net.ErrClosed)
}

func (s *Stream) writeError(err error) error {
	select {
	case <-s.closing:
		return s.closedError("write to")
	default:
	}
	switch {
	case !errors.Is(err, io.EOF):
		return s.lost(err)
	case s.running():
		return fmt.Errorf("write to %s: its input was closed: %w", s.conn.addr, io.ErrClosedPipe)
	case s.exited:
		return fmt.Errorf("write to %s: the remote command has ended: %w", s.conn.addr, io.ErrClosedPipe)
	}
	return s.lost(errVanished)
}

// CloseWrite ends the command's standard input; reading goes on.
func (s *Stream) CloseWrite() error {
	if !s.beginWrite() {
		return s.closedError("end the input of")
	}
	defer s.writers.Done()
	if err := s.ch.CloseWrite(); err != nil {
		return s.writeError(err)
	}
	return nil
}

// Wait blocks until the command has ended and the stream is closed by the peer. It returns nil for exit status 0, an
// *ExitError for another end, and an error that wraps ErrPeerDead or net.ErrClosed when the end was not told. It does
// not wait for the output to be read.
func (s *Stream) Wait() error {
	select {
	case <-s.ended:
		return s.exitError()
	default:
	}
	select {
	case <-s.ended:
		return s.exitError()
	case <-s.closing:
		return s.closedError("remote command on")
	}
}

// Exit is Wait that goes on after Close, since the host may tell how the command ended a moment after its output did. It waits
// no longer than limit, and gives context.DeadlineExceeded then.
func (s *Stream) Exit(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.ended:
		return s.exitError()
	case <-timer.C:
		return context.DeadlineExceeded
	}
}

func (s *Stream) exitError() error {
	switch {
	case s.exited && s.exit.Status == 0:
		return nil
	case s.exited:
		exit := s.exit
		return &exit
	}
	return s.lost(errVanished)
}

// Stderr is the last 4 KiB of what the command has written to its standard error so far, as one printable line.
func (s *Stream) Stderr() string { return s.tail.String() }

// Close ends the stream and every call on it. The remote command sees its input end and its output break; it is not
// waited for, use CloseWrite and Wait before for that. Only a write that the peer does not take holds Close up: after
// five seconds the peer is taken for dead, and the connection with all of its streams is given up. Calling Close
// again only waits. Its error is always nil.
func (s *Stream) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.closing)
		// Closed from this side, the pipe tells the reader this error.
		s.filler.CloseWithError(s.closedError("read from"))
		// The goodbye itself may block behind a full send buffer.
		s.conn.start(func() { _ = s.ch.Close() })
	}
	s.awaitWriters()
	return nil
}

func (s *Stream) awaitWriters() {
	idle := make(chan struct{})
	watched := s.conn.start(func() {
		s.writers.Wait()
		close(idle)
	})
	if !watched {
		return // the connection is closed, and with it every write
	}
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-idle:
		return
	case <-timer.C:
	}
	s.conn.fail(fmt.Errorf("%w: %s did not take the rest of a write within %v; check the network and the host",
		ErrPeerDead, s.conn.addr, closeGrace))
	<-idle
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - stderrTail; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return clean(string(t.buf))
}
