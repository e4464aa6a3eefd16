package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// version is what nearly all servers speak; a server that offers more goes on with this one.
	version   = 3
	maxPacket = 256 << 10 // OpenSSH takes no larger ones, so no server sends any
	// leastHandles is what every server lets a session open.
	leastHandles = 60
	// mostHandles is more than any caller has use for.
	mostHandles = 1000
	// readSize is what every server can be asked for at a time, and takes in one write.
	readSize = 32 << 10
)

// Packet types.
const (
	fxInit          = 1
	fxVersion       = 2
	fxOpen          = 3
	fxClose         = 4
	fxRead          = 5
	fxWrite         = 6
	fxLstat         = 7
	fxFstat         = 8
	fxSetstat       = 9
	fxFsetstat      = 10
	fxOpendir       = 11
	fxReaddir       = 12
	fxRemove        = 13
	fxMkdir         = 14
	fxRmdir         = 15
	fxRealpath      = 16
	fxRename        = 18
	fxReadlink      = 19
	fxSymlink       = 20
	fxStatus        = 101
	fxHandle        = 102
	fxData          = 103
	fxName          = 104
	fxAttrs         = 105
	fxExtended      = 200
	fxExtendedReply = 201
)

// reply is an answer of the server.
type reply struct {
	kind byte
	// What follows the request's number; it is the receiver's.
	data []byte
}

// Client is one SFTP session. Its methods may be called from any goroutine.
type Client struct {
	stream io.ReadWriteCloser
	// What the server said of itself, before New returns; constant from then on.
	ext   map[string]string
	write int           // most bytes of data in one request
	read  int           // the same in one answer
	slots chan struct{} // one for each handle that is open
	// wake tells send that out has something; one signal in it is enough.
	wake chan struct{}

	// mu guards the five below it. It is held while a request is encoded, and never while anything is written or
	// read.
	mu sync.Mutex
	// next is the number of the next request; calls has who waits for which, and is nil after the end.
	next  uint32
	calls map[uint32]func(reply, error)
	out   []byte // encoded, and not yet written
	err   error
	moved time.Time // when the server last answered, or took what was sent to it, or was asked with nothing left unanswered

	// done is closed at the end, by once; parts are send and receive.
	done  chan struct{}
	once  sync.Once
	parts sync.WaitGroup
}

// New begins a session on the stream, which is the client's from now on, also when this fails.
func New(ctx context.Context, stream io.ReadWriteCloser) (*Client, error) {
	c := &Client{stream: stream, ext: map[string]string{}, calls: map[uint32]func(reply, error){}, write: readSize,
		read: readSize, wake: make(chan struct{}, 1), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	err := c.hello()
	if err == nil {
		c.parts.Go(c.receive)
		c.parts.Go(c.send)
		err = c.learnLimits()
	}
	if !stop() || ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// hello exchanges versions.
func (c *Client) hello() error {
	if _, err := c.stream.Write([]byte{0, 0, 0, 5, fxInit, 0, 0, 0, version}); err != nil {
		return fmt.Errorf("begin the SFTP session: %w", err)
	}
	p, err := readPacket(c.stream)
	if err != nil {
		return fmt.Errorf("begin the SFTP session: %w", err)
	}
	d := decoder{b: p}
	if kind := d.take(1); kind == nil || kind[0] != fxVersion || d.uint32() < version {
		return ErrProtocol
	}
	for len(d.b) > 0 && d.err == nil {
		name := string(d.bytes())
		c.ext[name] = string(d.bytes())
	}
	if d.err != nil {
		return ErrProtocol
	}
	return nil
}

// learnLimits asks for what one packet may hold and how many handles may be open, where the server tells.
func (c *Client) learnLimits() error {
	handles := leastHandles
	if c.Has("limits@openssh.com") {
		r, err := c.sent(fxExtended, func(b []byte) []byte { return appendString(b, "limits@openssh.com") })()
		if err != nil {
			return err
		}
		d := decoder{b: r.data}
		packet, read, write, open := d.uint64(), d.uint64(), d.uint64(), d.uint64()
		if r.kind == fxExtendedReply && d.err == nil {
			// Some servers leave the length of a write out; the rest of such a packet is room for handle and numbers.
			if write == 0 && packet > 2048 {
				write = packet - 1024
			}
			if write > 0 {
				c.write = int(min(write, 255<<10))
			}
			if read > readSize {
				c.read = int(min(read, 255<<10))
			}
			// Ten are left for whatever the server counts beside ours.
			if open > 20 {
				handles = int(min(open-10, mostHandles))
			}
		}
	}
	c.slots = make(chan struct{}, handles)
	return nil
}

// Has tells whether the server offers an extension.
func (c *Client) Has(ext string) bool { _, ok := c.ext[ext]; return ok }

// Handles is how many files and directories may be open at once.
func (c *Client) Handles() int { return cap(c.slots) }

// MaxWrite is how many bytes one Write may have.
func (c *Client) MaxWrite() int { return c.write }

// Done is closed when the session has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the session has ended; nil before.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Moved tells when the server last did anything that it was asked for, and whether it is still asked for something.
func (c *Client) Moved() (last time.Time, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved, len(c.calls) > 0
}

// Close ends the session and every call. It is idempotent.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	c.parts.Wait()
	return nil
}

// fail ends the session.
func (c *Client) fail(why error) {
	c.once.Do(func() {
		c.mu.Lock()
		c.err = why
		// Each call is answered once: by receive, which takes it off the list, or here, after which there is no list.
		calls := c.calls
		c.calls = nil
		c.mu.Unlock()
		close(c.done)
		c.stream.Close()
		for _, done := range calls {
			done(reply{}, why)
		}
	})
}

// start queues a request; done is called once, with its answer or the session's end, from another goroutine.
func (c *Client) start(kind byte, body func([]byte) []byte, done func(reply, error)) {
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		done(reply{}, err)
		return
	}
	id := c.next
	c.next++
	if len(c.calls) == 0 {
		c.moved = time.Now()
	}
	c.calls[id] = done
	at := len(c.out)
	c.out = append(c.out, 0, 0, 0, 0, kind)
	c.out = binary.BigEndian.AppendUint32(c.out, id)
	c.out = body(c.out)
	binary.BigEndian.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// sent is start; what it gives waits for the answer, and is called once.
func (c *Client) sent(kind byte, body func([]byte) []byte) (wait func() (reply, error)) {
	type answer struct {
		reply
		error
	}
	got := make(chan answer, 1)
	c.start(kind, body, func(r reply, err error) { got <- answer{r, err} })
	return func() (reply, error) {
		a := <-got
		return a.reply, a.error
	}
}

// send writes what is queued, as much as there is at a time.
func (c *Client) send() {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.mu.Lock()
		b := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		if _, err := c.stream.Write(b); err != nil {
			c.fail(fmt.Errorf("send to the SFTP server: %w", err))
			return
		}
		c.mu.Lock()
		c.moved = time.Now()
		c.mu.Unlock()
		// The buffer that was written is used again, unless a burst has made it large.
		if spare = b; cap(spare) > 4<<20 {
			spare = nil
		}
	}
}

// receive hands out answers until the stream ends.
func (c *Client) receive() {
	r := bufio.NewReaderSize(c.stream, 64<<10)
	for {
		p, err := readPacket(r)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			c.fail(fmt.Errorf("the SFTP server ended the session: %w", err))
			return
		}
		if len(p) < 5 {
			c.fail(ErrProtocol)
			return
		}
		id := binary.BigEndian.Uint32(p[1:])
		c.mu.Lock()
		done, ok := c.calls[id]
		delete(c.calls, id)
		c.moved = time.Now()
		c.mu.Unlock()
		if !ok {
			c.fail(ErrProtocol)
			return
		}
		done(reply{p[0], p[5:]}, nil)
	}
}

// readPacket gives a packet without its length. What claims more than maxPacket is refused before it is read.
func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxPacket {
		return nil, ErrProtocol
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, err
	}
	return p, nil
}
