// Package serve is the slave's end as an SSH server of its own, for hosts that have no sshd. It owns its listener, its
// connections and the agents that it starts. It serves one thing, the subsystem "georep": there is no shell, no
// command, no terminal, no forwarding and no SFTP.
//
// Each channel has an agent in a process of its own, as under sshd. So an agent's confinement, its memory limit and the
// user that it runs as hold for one client alone. This process only decrypts and copies. It decides who may log in, and
// hands the agent what the key is held to (Grant). What a session may do is then the agent's to decide.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
)

const (
	// Subsystem is the one that clients ask for.
	Subsystem = "georep"

	// acceptPause keeps a lasting accept error, such as too many open files, from spinning.
	acceptPause = 100 * time.Millisecond
	// maxTries bounds the keys that a client may offer on one connection.
	maxTries = 10
)

// Limits bound what clients can take of this host. A zero field means its default. Before the login they count for each
// address, afterwards for each key: a key has an owner who can be asked, an address may be that of many. What a session
// takes of memory, files and room is bounded by its agent and by the volume's policy.
type Limits struct {
	LoginTime time.Duration // from the first byte to the end of the login; 20 seconds
	Pending   int           // connections that have not logged in, of all addresses; 64
	// PendingEach is the same of one address, and Burst how many may fail before an address has to wait: it earns
	// one try a second back. 16, and 20.
	PendingEach, Burst int
	Idle               time.Duration // how long a login may have no agent; 2 minutes
	PerKey             int           // agents of one key; 48
	Agents             int           // agents of all keys; 128
	// StopTime is how long agents may take to apply what has arrived once the server stops; 20 seconds.
	StopTime time.Duration
}

// withDefaults fills in what is zero. They leave room for some sixteen busy sessions of eight streams each, and for clients
// that connect all at once after a network is back.
func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{{&l.LoginTime, 20 * time.Second}, {&l.Idle, 2 * time.Minute}, {&l.StopTime, 20 * time.Second}} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	for _, n := range []struct {
		at    *int
		value int
	}{{&l.Pending, 64}, {&l.PendingEach, 16}, {&l.Burst, 20}, {&l.PerKey, 48}, {&l.Agents, 128}} {
		if *n.at == 0 {
			*n.at = n.value
		}
	}
	return l
}

// Config says how to serve. All but Limits is required.
type Config struct {
	// HostKey is asked for a signature at each login, and again each time that a connection gets new keys.
	HostKey ssh.Signer
	Keys    string // the file of keys that may log in (ReadKeys); it is read anew at each login
	// Agent makes the command of an agent for a client. It is started with the channel as its standard streams.
	Agent  func(Client) (*exec.Cmd, error)
	Limits Limits
	Log    zerolog.Logger
}

// Client is who has logged in. Its user name is left out: it is the client's own word, and the key alone decides.
type Client struct {
	Grant Grant
	Key   string       // fingerprint of its key
	From  *net.TCPAddr // of the client
	To    *net.TCPAddr // of this host
}

// Server serves the clients of one listener. It keeps nothing on disk: what it knows of a key is in the file, and what
// there is to know of a session is in its agent's audit log. Its methods may be called from any goroutine; Run only once.
type Server struct {
	cfg    Config
	ssh    *ssh.ServerConfig
	gate   *gate
	agents *tally
	logins *tally // as many as agents: a connection without one is of no use

	// mu guards conns, which are those that have logged in or are about to, and over, after which there are no new ones.
	mu    sync.Mutex
	conns map[*conn]struct{}
	over  bool
	wg    sync.WaitGroup // of the goroutines that serve them
}

// New makes a server. Nothing runs yet, and nothing is opened.
func New(cfg Config) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Server{cfg: cfg, gate: newGate(cfg.Limits), conns: make(map[*conn]struct{}),
		agents: &tally{each: cfg.Limits.PerKey, all: cfg.Limits.Agents, of: make(map[string]int)},
		logins: &tally{each: cfg.Limits.PerKey, all: cfg.Limits.Agents, of: make(map[string]int)}}
	// The version says who is there, so that a client's errors name the right program.
	s.ssh = &ssh.ServerConfig{PublicKeyCallback: s.authorise, MaxAuthTries: maxTries, ServerVersion: "SSH-2.0-georep"}
	// Both ends are ours: there is no need for what is old. The client chooses the cipher, by what its processor does fast.
	s.ssh.Ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305}
	s.ssh.KeyExchanges = []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519}
	s.ssh.AddHostKey(cfg.HostKey)
	return s
}

// authorise lets in the keys of the file. The library asks it once for each key that a client offers, before the client
// has shown that it has the key; what is answered counts only if it does. The file is read each time, so a line that is added or removed counts at once.
func (s *Server) authorise(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if _, err := s.grant(key); err != nil {
		s.cfg.Log.Info().Str("from", meta.RemoteAddr().String()).Str("key", ssh.FingerprintSHA256(key)).Err(err).Msg("login refused")
		return nil, err
	}
	return &ssh.Permissions{Extensions: map[string]string{keyExtension: string(key.Marshal())}}, nil
}

// keyExtension is where a login's key is kept. It comes from authorise alone.
const keyExtension = "key@georep"

// ErrNotAuthorised means that no line of the file is for a key.
var ErrNotAuthorised = errors.New("key not authorised")

// grant is what the file allows a key now. An error other than ErrNotAuthorised is about the file, and lets nobody in.
func (s *Server) grant(key ssh.PublicKey) (Grant, error) {
	keys, err := ReadKeys(s.cfg.Keys)
	if err != nil {
		return Grant{}, err
	}
	g, ok := keys.Find(key)
	if !ok { // the client hears no more than that it is refused
		return Grant{}, fmt.Errorf("%w: no line of %s is for it", ErrNotAuthorised, s.cfg.Keys)
	}
	return g, nil
}

// Run is called once. It serves the listener, which it closes, until ctx ends. It then takes no new clients, ends the connections, and lets
// the agents apply what has arrived. When it returns nothing that it started is running. Its error is nil after ctx, and
// else why the listener failed for good.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer s.closeAll()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		raw, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = raw.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections: %w", err)
		case err != nil: // as when there are no descriptors left; the next one may be served
			s.cfg.Log.Warn().Err(err).Msg("accept a connection")
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		s.admit(ctx, raw)
	}
}

// admit is called by Run for each connection, and returns at once. It serves a connection if the gate lets it in. A refused one is closed without a word, which costs this host least.
func (s *Server) admit(ctx context.Context, raw net.Conn) {
	leave, err := s.gate.enter(raw.RemoteAddr())
	if err != nil {
		s.cfg.Log.Debug().Str("from", raw.RemoteAddr().String()).Err(err).Msg("connection refused")
		_ = raw.Close()
		return
	}
	s.wg.Go(func() {
		c := &conn{server: s, raw: raw}
		defer raw.Close()
		if !s.track(c) {
			leave(false)
			return
		}
		defer s.forget(c)
		c.serve(ctx, leave)
	})
}

// Recheck reads the keys' file and cuts the connections whose key is held to something else by now, or to nothing. A
// file that cannot be read cuts all of them: no key is known to be good.
func (s *Server) Recheck() {
	keys, err := ReadKeys(s.cfg.Keys)
	if err != nil {
		s.cfg.Log.Error().Err(err).Msg("no key may log in")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The agents of those that are cut see the end of their input, apply what has arrived, and end.
	for c := range s.conns {
		c.recheck(keys)
	}
}

// track makes closeAll reach a connection. It reports false when that is over already.
func (s *Server) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// forget is what every tracked connection ends with. Its agents have ended by then.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// closeAll cuts every connection. Their agents see the end of their input, and end.
func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true // from here on track refuses, so that no connection is missed
	for c := range s.conns {
		_ = c.raw.Close()
	}
}
