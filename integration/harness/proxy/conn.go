package proxy

import (
	"context"
	"net"
	"sync"
)

// conn is one connection with its two sides. The server's side comes later, or never.
type conn struct {
	ctx    context.Context
	client net.Conn

	mu     sync.Mutex
	cancel context.CancelFunc
	server net.Conn
	over   bool
}

// newConn owns client from now on.
func newConn(ctx context.Context, client net.Conn) *conn {
	ctx, cancel := context.WithCancel(ctx)
	return &conn{ctx: ctx, client: client, cancel: cancel}
}

// attach hands the server's side over to the connection, which closes it, at once if it was reset meanwhile.
func (c *conn) attach(server net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		resetConn(server)
		return net.ErrClosed
	}
	c.server = server
	return nil
}

// reset ends both sides at once with RST.
func (c *conn) reset() { c.finish(resetConn) }

// end closes both sides; after reset it does nothing.
func (c *conn) end() { c.finish(func(side net.Conn) { side.Close() }) }

// abandon resets the client's side, and returns the server's, still open, which the caller then owns; nil if there is none.
func (c *conn) abandon() (server net.Conn) {
	c.finish(func(side net.Conn) {
		if side == c.server {
			server = side
			return
		}
		resetConn(side)
	})
	return server
}

// finish ends the connection once, in the given way, and wakes everything that waits in its goroutines.
func (c *conn) finish(shut func(net.Conn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	c.cancel()
	shut(c.client)
	if c.server != nil {
		shut(c.server)
	}
}

// resetConn closes a connection so that its peer sees a reset, as when a router forgets it.
func resetConn(side net.Conn) {
	if tcp, ok := side.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	side.Close()
}
