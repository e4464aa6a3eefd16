// Package sshconn reaches a slave's host: it opens one SSH connection, runs remote commands on it and hands out
// their standard input and output as byte streams. It owns the connection and everything that serves it: jump hosts,
// proxy commands, the talk with ssh-agent, and the watch that notices a peer which fell silent.
//
// It reads ssh_config, known_hosts and keys as OpenSSH does, with two differences. Host keys are always checked
// strictly: StrictHostKeyChecking is not read, an unknown or changed key always refuses the connection, and nothing
// is ever added to known_hosts. And nothing is ever asked for: no passwords, no passphrases, no confirmation.
//
// It never retries (Final tells a caller whether that can help), never looks at what the streams carry, and never
// writes a file.
package sshconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
)

const (
	// DefaultKeepAlive is the interval at which a silent peer is asked for a sign of life.
	DefaultKeepAlive = 10 * time.Second
	// DefaultConnectTimeout bounds the connecting and the handshake, for each host on the way.
	DefaultConnectTimeout = 15 * time.Second

	defaultPort = 22
)

// Target says which host to reach and as whom. What is left empty comes from ssh_config, then from OpenSSH's
// defaults; what is set wins over both.
type Target struct {
	User string
	Host string // a name, an address, or an alias that ssh_config knows
	Port int    // 0: from ssh_config, else 22

	// Identities are private key files. When there are any, those of ssh_config and the default ones are not used;
	// the keys of ssh-agent are offered after them, unless IdentitiesOnly is set in ssh_config.
	Identities []string

	// KnownHosts are the only known_hosts files to believe, when there are any.
	KnownHosts []string

	// HostKey is the fingerprint of the host's key, SHA256:..., in place of all known_hosts files. Jump hosts have their own.
	HostKey string

	// ConfigFile is the only ssh_config file to read; "" means ~/.ssh/config and then /etc/ssh/ssh_config, "none"
	// means no file. Jump hosts are looked up in the same place.
	ConfigFile string
}

// Options tune a connection. The zero value is ready for use, and silent.
type Options struct {
	Logger zerolog.Logger

	// KeepAlive is how often a silent peer is asked for a sign of life; 0 means DefaultKeepAlive. The peer is
	// dead when it has sent nothing at all for two and a half of these.
	KeepAlive time.Duration

	// ConnectTimeout bounds the connecting and the handshake with each host; 0 means ssh_config's
	// ConnectTimeout, else DefaultConnectTimeout.
	ConnectTimeout time.Duration
}

// Conn is one SSH connection. All methods may be called from any goroutine. Whoever dialled it must close it.
type Conn struct {
	addr   string // for messages
	client *ssh.Client
	wire   *wire
	parent *Conn // the jump host's connection, owned by this one

	// done and cause are set once, together.
	done chan struct{} // closed once cause is set and the wire is cut
	wg   sync.WaitGroup

	mu     sync.Mutex
	cause  error // why it ended
	closed bool  // no new goroutines
}

// Dial connects to a host, by way of its jump hosts, checks its key and authenticates. Cancelling ctx while it runs
// cuts the connection at once; afterwards ctx has no effect. Every error wraps one of the package's sentinels or
// ctx's error, and reads as one line that says what to do.
func Dial(ctx context.Context, target Target, opts Options) (*Conn, error) {
	opts.KeepAlive = defaultTo(opts.KeepAlive, DefaultKeepAlive)
	files, err := readConfig(target.ConfigFile)
	if err != nil {
		return nil, err
	}
	d := &dialer{files: files, opts: opts}
	conn, err := d.dial(ctx, request{Target: target})
	if err != nil {
		return nil, err
	}
	conn.watch(opts.KeepAlive)
	return conn, nil
}

// defaultTo is d, or fallback where d is not set.
func defaultTo(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// establish takes the client over after the handshake.
func (c *Conn) establish(client *ssh.Client) {
	c.client = client
	c.start(func() {
		err := client.Wait()
		c.fail(fmt.Errorf("%w: lost the connection to %s: %v; check the network and the host", ErrPeerDead, c.addr, err))
	})
}

// Addr is the "host:port" that the connection leads to.
func (c *Conn) Addr() string { return c.addr }

// Done is closed when the connection has ended, for whatever reason.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Wait blocks until the connection has ended and says why: an error that wraps ErrPeerDead, or net.ErrClosed after
// Close.
func (c *Conn) Wait() error {
	<-c.done
	return c.err()
}

// Close cuts the connection, ends all of its streams and every call on them, and returns when all that the
// connection started has ended. Calling it again does nothing. Its error is always nil.
func (c *Conn) Close() error {
	c.fail(fmt.Errorf("connection to %s: %w", c.addr, net.ErrClosed))
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
	if c.parent != nil {
		return c.parent.Close()
	}
	return nil
}

// err says why the connection ended, nil while it lives.
func (c *Conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// fail ends the connection; the first cause stays. Nothing here waits for the network: closing the wire interrupts
// a writer that is blocked by a full send buffer, where a polite goodbye would queue behind it.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = cause
	c.mu.Unlock()
	c.cut()
	close(c.done)
}

// cut closes the wire, lowest first: the wire of a connection through a jump host is a channel of the jump host's
// connection, and closing a channel writes.
func (c *Conn) cut() {
	if c.parent != nil {
		c.parent.fail(fmt.Errorf("connection to jump host %s: %w", c.parent.addr, net.ErrClosed))
	}
	// An error here means that it is closed already.
	_ = c.wire.Close()
}

// start runs each function in a goroutine that Close waits for. On a closed connection it runs none
// and reports false. The functions must end when done is closed.
func (c *Conn) start(parts ...func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	for _, f := range parts {
		c.wg.Go(f)
	}
	return true
}

// watch starts the two goroutines that notice a silent peer. One only counts, so that nothing can block it; the
// other asks, which blocks while the send buffer is full.
func (c *Conn) watch(interval time.Duration) {
	ask := make(chan struct{}, 1)
	c.start(func() { c.countSilence(interval, ask) })
	c.start(func() { c.askPeer(ask) })
}

const (
	ticksPerInterval = 2
	askAfterTicks    = 2 // silent for at least half an interval
	deadAfterTicks   = 5
)

// countSilence declares the peer dead after five half intervals without a byte from it. Any byte is a sign of life:
// on a slow link an answer may queue for long behind data. Ticks are counted rather than the time read, so a process
// that was stopped for a while does not take its own absence for the peer's.
func (c *Conn) countSilence(interval time.Duration, ask chan<- struct{}) {
	ticker := time.NewTicker(interval / ticksPerInterval)
	defer ticker.Stop()
	silent, last := 0, c.wire.received.Load()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		if now := c.wire.received.Load(); now != last {
			silent, last = 0, now
			continue
		}
		silent++
		if silent >= deadAfterTicks {
			c.fail(fmt.Errorf("%w: %s has sent nothing for %v; check the network and the host",
				ErrPeerDead, c.addr, interval*deadAfterTicks/ticksPerInterval))
			return
		}
		if silent >= askAfterTicks {
			offer(ask)
		}
	}
}

// offer leaves a request unless one is there already.
func offer(ask chan<- struct{}) {
	select {
	case ask <- struct{}{}:
	default:
	}
}

// askPeer sends a request that every server answers, if only by refusing it.
func (c *Conn) askPeer(ask <-chan struct{}) {
	for {
		select {
		case <-c.done:
			return
		case <-ask:
		}
		if _, _, err := c.client.SendRequest(keepalive, true, nil); err != nil {
			return // the connection has ended, and whoever waits for that says why
		}
	}
}

// joinAddr writes an address as messages and known_hosts want it.
func joinAddr(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Exec starts a command in the remote user's shell. Cancelling ctx while it starts gives up on it; afterwards ctx
// has no effect. The caller closes the stream. Any number of streams may be open, as far as the server allows.
func (c *Conn) Exec(ctx context.Context, command string) (*Stream, error) {
	return c.request(ctx, "exec", command)
}

// Subsystem is Exec for a subsystem of the server's, such as sftp.
func (c *Conn) Subsystem(ctx context.Context, name string) (*Stream, error) {
	return c.request(ctx, "subsystem", name)
}

// A stream that opens after its caller has given up is closed here, so none is lost.
func (c *Conn) request(ctx context.Context, kind, command string) (*Stream, error) {
	type result struct {
		s   *Stream
		err error
	}
	opened := make(chan result, 1)
	given := make(chan struct{})
	defer close(given)
	taken := false
	started := c.start(func() {
		s, err := c.open(kind, command)
		opened <- result{s, err}
		<-given
		if !taken && s != nil {
			_ = s.Close()
		}
	})
	if !started {
		return nil, c.err()
	}
	select {
	case r := <-opened:
		taken = true
		return r.s, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("run a command on %s: %w", c.addr, context.Cause(ctx))
	}
}

// open opens a channel and asks for a command on it. A refusal says what the operator has to change
// there.
func (c *Conn) open(kind, command string) (*Stream, error) {
	ch, reqs, err := c.openChannel()
	if err != nil {
		return nil, c.execError(err)
	}
	s := newStream(c, ch)
	if !s.serve(reqs) {
		_ = ch.Close()
		return nil, c.err()
	}
	ok, err := ch.SendRequest(kind, true, ssh.Marshal(struct{ Command string }{command}))
	if err == nil && ok {
		return s, nil
	}
	_ = s.Close()
	if err == nil {
		err = errors.New("the server does not let this user run commands")
		if kind == "subsystem" {
			err = fmt.Errorf("the server has no subsystem %q for this user", command)
		}
	}
	return nil, c.execError(err)
}

// openChannel opens a channel, or ends with the connection. The library does not always: a channel that is added just behind the
// end of the connection is never told of it. What waits for that then keeps nothing but itself.
func (c *Conn) openChannel() (ssh.Channel, <-chan *ssh.Request, error) {
	type result struct {
		ch   ssh.Channel
		reqs <-chan *ssh.Request
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		ch, reqs, err := c.client.OpenChannel("session", nil)
		opened <- result{ch, reqs, err}
	}()
	select {
	case r := <-opened:
		return r.ch, r.reqs, r.err
	case <-c.done:
		return nil, nil, c.err()
	}
}

// execError prefers the reason why the whole connection ended.
func (c *Conn) execError(err error) error {
	if cause := c.err(); cause != nil {
		return cause
	}
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) && bytes.HasPrefix(c.client.ServerVersion(), []byte("SSH-2.0-georep")) {
		return fmt.Errorf("%w: %s: %s", ErrExec, c.addr, clean(refused.Message))
	}
	if errors.As(err, &refused) {
		return fmt.Errorf("%w: %s: %s; raise MaxSessions in its sshd_config", ErrExec, c.addr, clean(refused.Message))
	}
	return fmt.Errorf("%w: %s: %v", ErrExec, c.addr, err)
}
