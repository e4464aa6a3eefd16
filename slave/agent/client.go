package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"georep/slave"
	"georep/slave/compress"
)

// Client is a slave at the far end of a stream. It implements slave.Tree.
//
// A call whose context is cancelled is abandoned alone: it returns the context's error, and its
// late answer is dropped. Any other trouble with the stream or with the far end ends the session:
// all calls, pending and later, return the same error. Two goroutines run for it: read takes frames
// and never waits for anybody; write sends what is queued. Calls come from any number of others.
type Client struct {
	said  welcome
	close func() // of the stream; waits for another caller of it
	// in is read's alone after the beginning; out may be used from any goroutine.
	in   *receiver
	out  *sender
	bulk *semaphore.Weighted // whose batch is being sent
	// answers is what the answers may weigh that are waited for, of all streams of the session.
	answers *semaphore.Weighted
	wg      sync.WaitGroup

	ctx context.Context // ends with the session; the cause is its error
	end context.CancelCauseFunc

	// mu guards what follows, and is held for moments.
	mu    sync.Mutex
	calls map[uint64]*call
	last  uint64    // id given
	heard time.Time // when the last part of an answer came
}

var _ slave.Tree = (*Client)(nil)

// Dial begins a session over a stream that leads to Serve. The context bounds the beginning only.
//
// Dial owns rwc from its call on: it is closed when Dial fails, and by the Client. Closing must unblock reading and
// writing. Errors wrap ErrNoAgent where somebody else answers, slave.ErrVersion, slave.ErrNoVolume and the others that
// end a session at its beginning, or the stream's own error.
func Dial(ctx context.Context, rwc io.ReadWriteCloser, hello Hello) (*Client, error) {
	return dial(ctx, rwc, &hello, Protocol, semaphore.NewWeighted(answerBudget))
}

// dial is Dial with the number of the protocol, for the tests of what happens when it differs, and
// with what all streams of the session share. hello is shortened in place where a text is too long
// for the wire.
func dial(ctx context.Context, rwc io.ReadWriteCloser, hello *Hello, protocol uint32, answers *semaphore.Weighted) (*Client, error) {
	hello.Version = clip(hello.Version, maxVersion)
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTime, fmt.Errorf("%w for %v", ErrSilent, handshakeTime))
	defer cancel()
	c := newClient(rwc)
	c.answers = answers
	release := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	err := hello.check()
	if err == nil {
		err = c.greet(rwc, hello, preface{protocol: protocol, version: hello.Version})
	}
	if !release() {
		err = context.Cause(ctx) // what greet says is that the stream was closed
	}
	if err != nil {
		c.fail(err)
		return nil, fmt.Errorf("begin the session: %w", err)
	}
	if hello.Compressed {
		c.out.w = compress.NewWriter(rwc, hello.Mode)
	}
	c.wg.Go(c.read)
	c.wg.Go(c.write)
	return c, nil
}

// newClient makes a client that nothing runs for yet. A byte that arrives, of whatever kind, proves
// that the other end lives: the watch is below everything else.
func newClient(rwc io.ReadWriteCloser) *Client {
	c := &Client{out: newSender(rwc, gather), bulk: semaphore.NewWeighted(1), calls: make(map[uint64]*call)}
	// The error of closing tells nothing: all that mattered has been answered.
	c.close = sync.OnceFunc(func() { _ = rwc.Close() })
	c.ctx, c.end = context.WithCancelCause(context.Background())
	c.in = newReceiver(watch(rwc, clientSilence, func() { c.fail(silence()) }))
	return c
}

// silence is the error of a session that went quiet.
func silence() error {
	return fmt.Errorf("session with the slave: %w for %v; check the network and the host", ErrSilent, clientSilence)
}

// greet exchanges prefaces, says hello and waits for the answer. What comes before the magic is a
// login shell's and is passed over, within bounds. Nothing is sent before the other end has shown
// that it is an agent.
func (c *Client) greet(w io.Writer, hello *Hello, own preface) error {
	if err := findMagic(c.in.r); err != nil {
		return err
	}
	theirs, err := readPreface(c.in.r)
	if err != nil {
		return fmt.Errorf("read the agent's version: %w", err)
	}
	first := own.append(nil)
	if theirs.protocol != own.protocol {
		// The other end is told too, so that its log has the reason; ours is in the error either way.
		_, _ = w.Write(first)
		return versionError(own, theirs)
	}
	first = appendFrame(first, head{kind: frameHello}, func(b []byte) []byte { return appendHello(b, hello) })
	if _, err := w.Write(first); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	return c.welcome()
}

// welcome waits for the answer to the hello. A server that is slow to open its tree says meanwhile
// that it lives. The most that an answer may have counts from here on: before, a Welcome may be
// larger.
func (c *Client) welcome() error {
	for {
		f, err := c.in.next()
		if err != nil {
			return fmt.Errorf("wait for the agent's welcome: %w", cutShort(err))
		}
		d := decoder{b: f.body}
		switch f.kind {
		case frameAlive:
			continue
		case frameRefuse, frameBye:
			return firstError(d.someError(), d.end())
		case frameWelcome:
			c.said = d.welcome()
			c.in.most = maxAnswer
			return d.end()
		}
		return malformed("a frame of kind %d before the welcome", f.kind)
	}
}

// firstError prefers what came over the wire, unless it did not decode.
func firstError(remote, decoding error) error {
	if decoding != nil {
		return decoding
	}
	return remote
}

// Info tells what the agent found when the session began.
func (c *Client) Info() slave.Info { return c.said.info }

// Done is closed when the session has ended, by Close or by itself.
func (c *Client) Done() <-chan struct{} { return c.ctx.Done() }

// Err is nil while the session lives, and then the error that all calls return.
func (c *Client) Err() error { return context.Cause(c.ctx) }

// Close ends the session and unblocks every call; they return an error that wraps net.ErrClosed. It returns when
// nothing of the client runs any more, and always nil.
func (c *Client) Close() error {
	c.fail(fmt.Errorf("session with the slave: %w", net.ErrClosed))
	c.wg.Wait()
	return nil
}

// fail ends the session; the first error is the one that stays. All three steps may be repeated.
// Closing the stream unblocks the two goroutines.
func (c *Client) fail(err error) {
	c.end(err)
	c.out.end()
	c.close()
}

// write runs the sender for as long as the session lives. A write that fails is mostly the result
// of what the server did, so its last words are waited for and preferred.
func (c *Client) write() {
	err := c.out.run()
	if err == nil {
		return
	}
	// Whoever cannot be written to may have said why.
	timer := time.NewTimer(afterWriteError)
	defer timer.Stop()
	select {
	case <-c.ctx.Done():
	case <-timer.C:
		c.fail(fmt.Errorf("session with the slave: send: %w", err))
	}
}

// read takes frames off the stream until the session ends. It never writes and never waits for a caller, so that the two
// ends cannot block each other.
func (c *Client) read() {
	for {
		f, err := c.in.next()
		if err == nil {
			err = c.handle(f)
		}
		if err != nil {
			c.fail(fmt.Errorf("session with the slave: %w", cutShort(err)))
			return
		}
	}
}

// handle takes one frame; its error ends the session. The words of a Bye are the agent's reason,
// and become that of all calls.
func (c *Client) handle(f frame) error {
	switch f.kind {
	case frameAlive:
		return nil
	case frameBye:
		d := decoder{b: f.body}
		err := firstError(d.someError(), d.end())
		return fmt.Errorf("ended by the agent: %w", err)
	}
	return c.deliver(f)
}

// call is a request that waits for its answer. It is registered from begin until the last frame of
// its answer, or until it is forgotten.
type call struct {
	id     uint64
	answer frameKind
	begun  time.Time
	// accept takes one frame of the answer, on the reading goroutine; the last says whether there is more to come.
	accept func(d *decoder, last bool) error
	done   chan struct{}
}

// begin registers a call. The number is never used again in this session, so a late answer cannot
// be taken for another's.
func (c *Client) begin(answer frameKind, accept func(*decoder, bool) error) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	k := &call{id: c.last, answer: answer, begun: time.Now(), accept: accept, done: make(chan struct{})}
	c.calls[k.id] = k
	return k
}

// deliver gives a frame to the call that it answers. An error of the tree that is no result comes
// as a failure, and ends the session, as slave.Tree says.
func (c *Client) deliver(f frame) error {
	c.mu.Lock()
	k, issued := c.calls[f.id], f.id != 0 && f.id <= c.last
	c.heard = time.Now()
	c.mu.Unlock()
	switch {
	case !issued:
		return malformed("a frame of kind %d answers no request", f.kind)
	case k == nil:
		return nil // the late answer to an abandoned call
	}
	d := decoder{b: f.body}
	if f.kind == frameFailure {
		return firstError(d.someError(), d.end())
	}
	if f.kind != k.answer {
		return malformed("a frame of kind %d instead of %d", f.kind, k.answer)
	}
	err := k.accept(&d, !f.more)
	if err == nil {
		err = d.end()
	}
	if err == nil && !f.more {
		c.forget(k)
		close(k.done)
	}
	return err
}

// forget drops a call; what still comes for it is ignored. It may have been forgotten before.
func (c *Client) forget(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, k.id)
}

// wait waits for the end of the answer. After it returned an error the call's answer is not touched
// any more.
func (c *Client) wait(ctx context.Context, k *call) error {
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		c.abandon(k)
		return c.reason(ctx.Err())
	case <-c.ctx.Done():
		c.forget(k)
		return c.Err()
	}
}

// abandon forgets a call and advises the server to do so too.
func (c *Client) abandon(k *call) {
	c.forget(k)
	c.out.now(outgoing{head: head{kind: frameCancel, id: k.id}})
}

// errIfIdle is the error of a call that had nothing to ask: it too must notice that the session is over.
func (c *Client) errIfIdle(asked int) error {
	if asked > 0 {
		return nil
	}
	return c.Err()
}

// reason is the error of a call that could not go on: the session's where that has ended, else its own.
func (c *Client) reason(err error) error {
	if cause := c.Err(); cause != nil {
		return cause
	}
	if errors.Is(err, errSenderEnded) {
		// The sender ended, so the session is about to end.
		<-c.ctx.Done()
		return c.Err()
	}
	return err
}

// ask sends a request that fits one frame. An error says that nothing was sent.
func (c *Client) ask(ctx context.Context, k *call, o outgoing) error {
	o.id, o.hurry = k.id, true
	if err := c.out.put(ctx, o); err != nil {
		c.forget(k)
		return c.reason(err)
	}
	return nil
}
