// Package sshserver is a small SSH server for one machine to talk to itself: the demo and tests use it where no
// OpenSSH server can be had. It owns its listener, on a loopback address, its connections, and the commands that run
// on them. It lets in one public key and runs commands; it gives no terminal, no shell, no forwarding and no
// environment, and it must never listen where others can reach it.
package sshserver

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	loopback = "127.0.0.1:0"
	// loginTimeout bounds the handshake, so that a client that says nothing does not stay.
	loginTimeout = 30 * time.Second
	// acceptPause keeps a lasting accept error, such as too many open files, from spinning.
	acceptPause = 100 * time.Millisecond
)

// Handler runs one command. ctx ends when the client closes the channel, the connection is lost or the server stops;
// the handler must return soon then. Its result is the exit status that the client sees.
type Handler func(ctx context.Context, command string, io Streams) (exit int)

// Streams are a command's standard streams. They end with the channel; a handler may leave a goroutine reading Stdin
// if it started that with Go.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	wg *sync.WaitGroup
}

// Go runs f in a goroutine that may outlive the handler, until the connection has ended; the server waits for it.
func (s Streams) Go(f func()) { s.wg.Go(f) }

// Config says how to serve. Only Handler is required.
type Config struct {
	Handler       Handler
	Addr          string        // a loopback address to listen on; "" means any free port of 127.0.0.1
	HostKey       ssh.Signer    // nil: a fresh ed25519 key
	AuthorizedKey ssh.PublicKey // whom to let in, as any user; nil: a fresh key, see ClientKey
	Logger        zerolog.Logger
}

// Server is a listening server. Its methods may be called from any goroutine; Run only once.
type Server struct {
	cfg      Config
	listener net.Listener
	ssh      *ssh.ServerConfig
	// clientKey is the private key that New made, nil where Config named another one.
	clientKey []byte

	// closed ends Run, and is closed once.
	closed chan struct{}
	once   sync.Once

	// mu guards conns, the connections that Close has to cut; wg counts the goroutines that serve them.
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// New makes the keys that are not given and listens; clients are served once Run is called. The caller closes the
// server, also when it never runs.
func New(cfg Config) (*Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New("ssh server: no handler given")
	}
	s := &Server{cfg: cfg, closed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	if err := s.makeKeys(); err != nil {
		return nil, err
	}
	s.ssh = &ssh.ServerConfig{PublicKeyCallback: s.authorise}
	s.ssh.AddHostKey(s.cfg.HostKey)
	return s, s.listen()
}

// listen refuses any address but a loopback one: the server runs commands for whoever has the key.
func (s *Server) listen() error {
	addr := s.cfg.Addr
	if addr == "" {
		addr = loopback
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("ssh server: address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("ssh server: %q is not a loopback address", addr)
	}
	s.listener, err = net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("ssh server: listen: %w", err)
	}
	return nil
}

// makeKeys makes fresh keys where Config has none. They live in memory only, as long as the server.
func (s *Server) makeKeys() error {
	if s.cfg.HostKey == nil {
		key, err := newKey()
		if err != nil {
			return err
		}
		if s.cfg.HostKey, err = ssh.NewSignerFromSigner(key); err != nil {
			return fmt.Errorf("ssh server: make the host key: %w", err)
		}
	}
	if s.cfg.AuthorizedKey != nil {
		return nil
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return fmt.Errorf("ssh server: encode the client key: %w", err)
	}
	s.clientKey = pem.EncodeToMemory(block)
	if s.cfg.AuthorizedKey, err = ssh.NewPublicKey(key.Public()); err != nil {
		return fmt.Errorf("ssh server: make the client key: %w", err)
	}
	return nil
}

func newKey() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ssh server: make a key: %w", err)
	}
	return key, nil
}

// authorise lets in the one key, under any user name: the commands run as this process's user anyway.
func (s *Server) authorise(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if string(key.Marshal()) != string(s.cfg.AuthorizedKey.Marshal()) {
		return nil, errors.New("key not authorised")
	}
	return nil, nil
}

// Addr is where the server listens: a *net.TCPAddr.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// HostKey is the public key that clients must expect.
func (s *Server) HostKey() ssh.PublicKey { return s.cfg.HostKey.PublicKey() }

// KnownHostsLine is HostKey as a line of a known_hosts file, without a newline.
func (s *Server) KnownHostsLine() string {
	return knownhosts.Line([]string{s.Addr().String()}, s.HostKey())
}

// ClientKey is the private key that is let in, as the text of an identity file; nil when Config gave the public key.
func (s *Server) ClientKey() []byte { return s.clientKey }

// Run serves until ctx ends or the server is closed, and returns when every connection and command has ended. Its
// error is nil then.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			s.wg.Go(func() { s.serve(ctx, conn) })
			continue
		}
		select {
		case <-s.closed:
			return nil
		case <-time.After(acceptPause):
			s.cfg.Logger.Warn().Err(err).Msg("accept a connection")
		}
	}
}

// Close stops listening and cuts every connection; Run then returns. Calling it again does nothing.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closed)
		err = s.listener.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.conns {
			// It may have ended by itself.
			_ = conn.Close()
		}
	})
	return err
}

// track makes Close reach a connection. It reports false when that is over already.
func (s *Server) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return false
	default:
	}
	s.conns[conn] = struct{}{}
	return true
}

// forget closes a connection that was served, and is what every served connection ends with.
func (s *Server) forget(conn net.Conn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	_ = conn.Close()
}
