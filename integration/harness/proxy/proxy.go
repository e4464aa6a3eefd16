package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options describe the line. The zero value is a line without delay or limit.
type Options struct {
	// Delay is the time a byte takes in one direction; a round trip takes two, and so does connecting.
	Delay time.Duration
	// Rate limits each direction, over all connections together, in bytes a second. 0 is no limit.
	Rate int64
	// Window bounds the bytes on the way, per connection and direction, 64 MiB when 0. It must hold rate x delay, or it
	// limits the rate.
	Window int
}

// Stats counts since New.
type Stats struct {
	// BytesUp went from clients to the server, BytesDown back: bytes that were delivered.
	BytesUp, BytesDown int64
	// Connections were accepted; Open of them still exist.
	Connections, Open int
}

// Proxy forwards connections from its address to the target. All methods may be called at any time by any goroutine.
type Proxy struct {
	listener net.Listener
	target   string
	opts     Options
	up, down *line
	gate     *gate

	end  context.CancelFunc
	done sync.WaitGroup

	mu          sync.Mutex
	open        map[*conn]struct{}
	connections int
	refuse      bool
	closed      bool
	abandoned   []net.Conn // the servers' sides
}

// New listens on a free port of 127.0.0.1 and forwards to target ("host:port"). The caller closes the proxy. The target
// need not listen yet: a connection that cannot be forwarded is reset.
func New(target string, opts Options) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for proxy to %s: %w", target, err)
	}
	if opts.Window <= 0 {
		opts.Window = 64 << 20
	}
	ctx, end := context.WithCancel(context.Background())
	p := &Proxy{
		listener: listener, target: target, opts: opts, end: end, gate: newGate(),
		up: newLine(opts), down: newLine(opts), open: map[*conn]struct{}{},
	}
	p.done.Go(func() { p.accept(ctx) })
	return p, nil
}

// Addr is where clients connect, "127.0.0.1:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the port of Addr.
func (p *Proxy) Port() int {
	if addr, ok := p.listener.Addr().(*net.TCPAddr); ok {
		return addr.Port
	}
	return 0
}

// Close resets all connections, stops listening and returns when every goroutine has ended. It may be called again.
func (p *Proxy) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	var err error
	if first {
		err = p.listener.Close()
		p.end()
		p.Cut()
		p.mu.Lock()
		for _, server := range p.abandoned {
			resetConn(server)
		}
		p.mu.Unlock()
	}
	p.done.Wait()
	return err
}

// Cut resets every open connection on both sides; what was on the way is lost. New connections are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.reset()
	}
}

// CutAfter cuts once, when n more bytes have been delivered, both directions and all connections together. No
// byte more passes; the last ones may be lost to the reset. A later call replaces the budget, and a negative n takes it away.
func (p *Proxy) CutAfter(n int64) {
	p.gate.allow(n)
	if n == 0 {
		p.Cut()
	}
}

// Stall makes the line a black hole: nothing is delivered and nothing is reset, until Resume or Cut. Clients can still
// connect, which loopback does not let us prevent, but hear nothing.
func (p *Proxy) Stall() { p.gate.shut(up, down) }

// StallUp is Stall for what clients say alone, and StallDown for what they hear.
func (p *Proxy) StallUp() { p.gate.shut(up) }

// StallDown stalls what goes to clients.
func (p *Proxy) StallDown() { p.gate.shut(down) }

// Abandon resets every open connection on the clients' side only: the server hears nothing, neither data nor an end, until
// the proxy is closed, as where a client's host was switched off.
func (p *Proxy) Abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		if server := c.abandon(); server != nil {
			p.abandoned = append(p.abandoned, server)
		}
	}
}

// Resume delivers again, first what was held back.
func (p *Proxy) Resume() { p.gate.open() }

// Refuse resets, while on, new connections at once; open ones stay.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Stats returns the counters as they stand.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{
		BytesUp: p.up.delivered.Load(), BytesDown: p.down.delivered.Load(),
		Connections: p.connections, Open: len(p.open),
	}
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, mostly: others may give some back.
			if !sleep(ctx, 10*time.Millisecond) {
				return
			}
			continue
		}
		if c := p.admit(ctx, client); c != nil {
			p.done.Go(func() { p.serve(c) })
		}
	}
}

// admit registers a connection, or resets it while connections are refused.
func (p *Proxy) admit(ctx context.Context, client net.Conn) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connections++
	if p.refuse || p.closed {
		resetConn(client)
		return nil
	}
	c := newConn(ctx, client)
	p.open[c] = struct{}{}
	return c
}

// serve forwards one connection until both directions are at their end or it is reset.
func (p *Proxy) serve(c *conn) {
	defer func() {
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
		c.end()
	}()
	server, err := p.connect(c)
	if err != nil {
		c.reset()
		return
	}
	var both sync.WaitGroup
	for _, to := range []pump{
		{dst: server, src: c.client, line: p.up, way: up},
		{dst: c.client, src: server, line: p.down, way: down},
	} {
		to.gate, to.window, to.cut, to.stop = p.gate, p.opts.Window, p.Cut, c.reset
		both.Go(func() { to.run(c.ctx) })
	}
	both.Wait()
}

// connect takes the round trip that connecting takes and reaches for the target.
func (p *Proxy) connect(c *conn) (net.Conn, error) {
	if !sleep(c.ctx, 2*p.opts.Delay) {
		return nil, c.ctx.Err()
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(c.ctx, "tcp", p.target)
	if err != nil {
		return nil, err
	}
	return server, c.attach(server)
}

// sleep waits for d or the end of ctx, and reports whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
