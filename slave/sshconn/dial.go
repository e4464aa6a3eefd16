package sshconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// maxHops bounds a chain of jump hosts; a configuration that leads round in a circle would never end otherwise.
const maxHops = 16

// dialer connects to hosts by one configuration. It has no state and may be used again.
type dialer struct {
	files configFiles
	opts  Options
}

// wire is the byte stream under an SSH connection; it counts what comes in. The count is how a
// silent peer is noticed (countSilence).
type wire struct {
	net.Conn
	received atomic.Int64
}

// Read counts also what comes with an error.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.received.Add(int64(n))
	return n, err
}

// dial connects to one host, recursively by way of its jump hosts. On success the connection owns
// those to its jump hosts; on failure none is left open.
func (d *dialer) dial(ctx context.Context, r request) (*Conn, error) {
	if r.depth > maxHops {
		return nil, fmt.Errorf("%w: the way to %s has more than %d jump hosts; look for a circle of ProxyJump in ssh_config",
			ErrConfig, r.Host, maxHops)
	}
	h, err := d.files.resolve(r, d.opts)
	if err != nil {
		return nil, err
	}
	keys, err := newHostKeys(h)
	if err != nil {
		return nil, err
	}
	parent, err := d.dialJumps(ctx, h, r)
	if err != nil {
		return nil, err
	}
	conn, err := d.dialFrom(ctx, parent, h, keys)
	if err != nil && parent != nil {
		_ = parent.Close()
	}
	return conn, err
}

// dialJumps connects to the last jump host, nil when there is none. The ones before it are its own
// way. Each jump host has its own entry in ssh_config, its own keys and its own check of the host
// key.
func (d *dialer) dialJumps(ctx context.Context, h *hop, r request) (*Conn, error) {
	if len(h.jumps) == 0 {
		return nil, nil
	}
	last := len(h.jumps) - 1
	t, err := parseJump(h.jumps[last])
	if err != nil {
		return nil, err
	}
	t.ConfigFile = r.ConfigFile
	parent, err := d.dial(ctx, request{Target: t, jumps: h.jumps[:last], depth: r.depth + 1})
	if err != nil && r.depth == 0 {
		return nil, fmt.Errorf("jump host for %s: %w", h.alias, err)
	}
	return parent, err
}

// parseJump reads [user@]host[:port] or ssh://[user@]host[:port].
func parseJump(text string) (Target, error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), "ssh://"), "/")
	var t Target
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.User, rest = rest[:i], rest[i+1:]
	}
	t.Host = rest
	// A second colon outside of brackets means a bare IPv6 address.
	if strings.HasPrefix(rest, "[") || strings.Count(rest, ":") == 1 {
		if host, port, err := net.SplitHostPort(rest); err == nil {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return t, fmt.Errorf("%w: jump host %q: port is not a number", ErrConfig, text)
			}
			t.Host, t.Port = host, int(n)
		}
	}
	if t.Host == "" {
		return t, fmt.Errorf("%w: jump host %q has no name", ErrConfig, text)
	}
	return t, nil
}

// dialFrom connects to a host from here or from a jump host, which it takes over on success. The
// timeout covers connecting and handshake together.
func (d *dialer) dialFrom(ctx context.Context, parent *Conn, h *hop, keys *hostKeys) (*Conn, error) {
	limited, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	raw, err := d.connect(limited, parent, h)
	if err != nil {
		return nil, interrupted(ctx, limited, h, unreachable(h, err))
	}
	conn := &Conn{addr: h.addr(), wire: &wire{Conn: raw}, parent: parent, done: make(chan struct{})}
	client, err := d.handshake(limited, conn, h, keys)
	if err != nil {
		conn.cut()
		if proxy, ok := raw.(*proxy); ok && errors.Is(err, ErrUnreachable) && proxy.said.String() != "" {
			err = fmt.Errorf("%w; it said: %s", err, proxy.said.String())
		}
		return nil, interrupted(ctx, limited, h, err)
	}
	conn.establish(client)
	d.opts.Logger.Debug().Str("host", h.addr()).Str("user", h.user).
		Str("server", clean(string(client.ServerVersion()))).Msg("ssh connected")
	return conn, nil
}

// interrupted names the cause when an error is only the consequence of a cancelled or expired context. What the host
// itself said counts more.
func interrupted(ctx, limited context.Context, h *hop, err error) error {
	switch {
	case Final(err):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: %w", h.addr(), context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%w: %s did not answer within %v; check host name, port and firewall",
			ErrUnreachable, h.addr(), h.timeout)
	}
	return err
}

// connect opens the byte stream to a host. The result is a TCP connection, a channel of the jump
// host, or a ProxyCommand. An error is not explained yet.
func (d *dialer) connect(ctx context.Context, parent *Conn, h *hop) (net.Conn, error) {
	switch {
	case parent != nil:
		defer closeOn(ctx, parent.cut)()
		return parent.client.DialContext(ctx, "tcp", h.addr())
	case h.proxyCommand != "":
		return startProxy(h.proxyCommand)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.addr())
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// A request must not wait for the answer to the one before.
		if err := tcp.SetNoDelay(true); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// unreachable adds the remedy that fits the cause. Final says of none of these that it is final.
func unreachable(h *hop, err error) error {
	var dns *net.DNSError
	remedy := "check the network, host name, port and firewall"
	switch {
	case errors.As(err, &dns):
		remedy = "check the name, or give it a HostName in ssh_config"
	case h.proxyCommand != "":
		remedy = "check ProxyCommand in ssh_config"
	}
	return fmt.Errorf("%w: %s: %s; %s", ErrUnreachable, h.addr(), clean(err.Error()), remedy)
}

// handshake checks the host's key and authenticates. The end of ctx cuts the wire and the talk with
// the agent. It ends with an error that says which part failed: the library's own does not.
func (d *dialer) handshake(ctx context.Context, conn *Conn, h *hop, keys *hostKeys) (*ssh.Client, error) {
	ring := openKeyring(ctx, h)
	defer ring.Close()
	d.opts.Logger.Debug().Str("host", h.addr()).Strs("keys", ring.notes).Msg("ssh keys to offer")
	defer closeOn(ctx, func() {
		conn.cut()
		ring.Close()
	})()
	config := &ssh.ClientConfig{
		User:              h.user,
		Auth:              ring.method(),
		HostKeyCallback:   keys.verify,
		HostKeyAlgorithms: keys.algorithms(),
		Config: ssh.Config{
			// The library's own choice has SHA-1 at its end, for servers of long ago.
			KeyExchanges: safe(ssh.SupportedAlgorithms().KeyExchanges),
			MACs:         safe(ssh.SupportedAlgorithms().MACs),
			Ciphers:      ciphers(fastAES()),
		},
	}
	c, channels, requests, err := ssh.NewClientConn(conn.wire, h.addr(), config)
	if err != nil {
		return nil, explain(err, h, keys, ring)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// ciphers lists those to offer, best first: the server takes the first that it has.
func ciphers(fastAES bool) []string {
	first := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305}
	if !fastAES {
		first = []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	}
	return append(first, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR)
}

// fastAES tells whether this processor has instructions for AES-GCM. Without them ChaCha20 is several times faster.
func fastAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL ||
		cpu.S390X.HasAES && cpu.S390X.HasAESCTR && cpu.S390X.HasGHASH
}

// explain finds out which part of the handshake went wrong. The order matters: a key that was
// refused by us makes every later step fail as well.
func explain(err error, h *hop, keys *hostKeys, ring *keyring) error {
	var algorithms *ssh.AlgorithmNegotiationError
	switch {
	case keys.err != nil:
		return keys.err
	case errors.As(err, &algorithms):
		return fmt.Errorf("%w: %s: %s; update its SSH server", ErrIncompatible, h.addr(), clean(err.Error()))
	case keys.accepted && refusal(err):
		return ring.refused(err)
	}
	return unreachable(h, err)
}

// refusal tells a server's no, or a key that does not sign, from a lost connection. A server that says goodbye may do
// so for any reason; only one of them is about keys, and the library has no type for it.
func refusal(err error) bool {
	var network net.Error
	var errno syscall.Errno
	text := err.Error()
	switch {
	case errors.As(err, &network), errors.As(err, &errno),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return false
	case strings.Contains(text, "ssh: disconnect, reason"):
		return strings.Contains(text, "Too many authentication failures")
	}
	return true
}

// closeOn runs f when ctx ends. The function that it returns stops that, and waits for f if it runs already.
func closeOn(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}
