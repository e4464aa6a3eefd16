// Package sshdtest runs a real OpenSSH server for tests: on a loopback port, with its own configuration, host keys
// and one authorised client key, all in the test's temporary directory. It owns the server process and all that
// descends from it, and ends them with the test. It never reads or writes the machine's own SSH configuration, and
// nothing but tests may import it.
package sshdtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	sshdPath     = "/usr/sbin/sshd"
	privsepDir   = "/run/sshd" // sshd refuses to start as root without it
	startTries   = 5           // another process may take the chosen port first
	startTimeout = 30 * time.Second
)

// Alias is a host name that only ConfigFile knows; it leads to the server.
const Alias = "sshdtest"

// Option changes how Start configures the server.
type Option func(*options)

// options collect what the test asked for, before the server starts.
type options struct {
	// env is for SetEnv, each quoted; lines are of sshd_config.
	env    []string
	lines  []string
	rsa    bool
	client ssh.PublicKey
}

// Env sets an environment variable for every remote command (PATH, GEOREP_STATE_DIR, ...), over sshd's defaults.
// The value must not contain a double quote or a newline.
func Env(name, value string) Option {
	return func(o *options) { o.env = append(o.env, fmt.Sprintf(`"%s=%s"`, name, value)) }
}

// Config adds a line at the head of sshd_config; there the first value of a keyword wins.
func Config(line string) Option {
	return func(o *options) { o.lines = append(o.lines, line) }
}

// WithRSA gives the server an RSA host key beside its ed25519 and ECDSA ones; making it takes a moment.
func WithRSA() Option {
	return func(o *options) { o.rsa = true }
}

// Authorise lets in another public key besides the one in IdentityFile.
func Authorise(key ssh.PublicKey) Option {
	return func(o *options) { o.client = key }
}

// Server is a running sshd. The exported fields are set by Start and do not change; methods may be called from any
// goroutine, but Stop, Restart and StopListening one at a time.
type Server struct {
	Host           string          // "127.0.0.1"
	Port           int             // kept over Restart
	User           string          // who runs the test, and whom the key lets in
	Dir            string          // holds all of the files
	IdentityFile   string          // the authorised private key, unencrypted
	KnownHostsFile string          // lists every host key under [127.0.0.1]:Port
	ConfigFile     string          // an ssh_config: Alias and 127.0.0.1 lead here with the right port, user and key
	HostKeys       []ssh.PublicKey // ed25519, ecdsa, and rsa with WithRSA
	AuthorizedKeys string          // sshd reads it at every login

	// log outlives restarts. mu guards proc.
	log  logBuffer
	mu   sync.Mutex
	proc *process // nil while stopped
}

// Start runs an sshd and returns when it takes connections; it ends with the test. It skips the test, saying why,
// only where /usr/sbin/sshd does not exist.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	if _, err := os.Stat(sshdPath); err != nil {
		t.Skipf("needs a real OpenSSH server: %v", err)
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s, err := prepare(t.TempDir(), &o)
	if err == nil {
		err = s.startAnywhere(&o)
	}
	if err != nil {
		t.Fatalf("start sshd: %v\n%s", err, s.Log())
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("sshd said:\n%s", s.Log())
		}
	})
	return s
}

// Addr is "host:port".
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Log is what sshd has written to its standard error so far.
func (s *Server) Log() string { return s.log.String() }

// Pid is the listening server's process id, 0 while it is stopped.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.pid
}

// Restart stops the server if it runs and starts it with the same port, keys and files.
func (s *Server) Restart() error {
	s.Stop()
	return s.launch()
}

// Stop ends the server, every session and every remote command at once, as when the machine goes down. It returns
// when sshd is gone. Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.end(true)
}

// StopListening ends only the listening server: sessions go on, new connections are refused.
func (s *Server) StopListening() {
	s.end(false)
}

// KillSessions ends the sshd process of every session: each client loses its connection, each remote command sees
// its standard input end, and the server still takes new connections.
func (s *Server) KillSessions() {
	for _, pid := range s.Children() {
		if isSSHD(pid) {
			kill(pid)
		}
	}
}

// Children lists the processes that descend from the listening server: sessions and what remote commands started,
// parents before children. A process that put itself under init is not among them.
func (s *Server) Children() []int {
	pid := s.Pid()
	if pid == 0 {
		return nil
	}
	return descendants(pid)
}

// end kills the listening server and waits for it; with all, also its sessions and what they run. They are looked up
// first: once their parent is gone they are init's children and not found any more.
func (s *Server) end(all bool) {
	children := s.Children()
	s.mu.Lock()
	p := s.proc
	s.proc = nil
	s.mu.Unlock()
	if p == nil {
		return
	}
	kill(p.pid)
	<-p.ended
	if !all {
		return
	}
	for _, pid := range children {
		kill(pid)
	}
}

// startAnywhere starts on a free port, another one when a stranger was faster.
func (s *Server) startAnywhere(o *options) error {
	var err error
	for range startTries {
		if err = s.choosePort(o); err != nil {
			return err
		}
		if err = s.launch(); err == nil {
			return nil
		}
	}
	return err
}

// choosePort takes a port that is free at this moment; the server opens it a little later, so it may be gone by then.
func (s *Server) choosePort(o *options) error {
	l, err := net.Listen("tcp", net.JoinHostPort(s.Host, "0"))
	if err != nil {
		return fmt.Errorf("choose a port: %w", err)
	}
	s.Port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return fmt.Errorf("choose a port: %w", err)
	}
	return s.writeConfigs(o)
}

// launch starts sshd with the files as they are, and returns once it listens.
func (s *Server) launch() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p, err := startProcess(s.file("sshd_config"), &s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	select {
	case <-p.listening:
		return nil
	case <-p.ended:
		err = errors.New("sshd ended before it listened")
	case <-ctx.Done():
		err = errors.New("sshd does not listen")
	}
	s.Stop()
	return err
}

func (s *Server) file(name string) string { return filepath.Join(s.Dir, name) }

// prepare makes the keys and the directory that sshd wants. What names the port is written later (choosePort).
func prepare(dir string, o *options) (*Server, error) {
	s := &Server{Host: "127.0.0.1", Dir: dir}
	me, err := user.Current()
	if err != nil {
		return s, fmt.Errorf("find own user name: %w", err)
	}
	s.User = me.Username
	s.IdentityFile, s.KnownHostsFile = s.file("id_ed25519"), s.file("known_hosts")
	s.ConfigFile, s.AuthorizedKeys = s.file("ssh_config"), s.file("authorized_keys")
	if os.Geteuid() == 0 {
		if err := os.MkdirAll(privsepDir, 0o755); err != nil {
			return s, fmt.Errorf("make sshd's directory: %w", err)
		}
	}
	return s, s.writeKeys(o)
}

// process is one run of the listening sshd.
type process struct {
	pid       int
	listening chan struct{} // closed when it says that it listens
	ended     chan struct{} // closed when it is gone and waited for
}

// startProcess runs sshd so that it dies with this process even if that is killed. The kernel ties this to the
// thread that started it, which therefore stays with the goroutine that waits.
func startProcess(config string, log *logBuffer) (*process, error) {
	p := &process{listening: make(chan struct{}), ended: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe for sshd's log: %w", err)
	}
	started := make(chan error)
	go func() {
		defer close(p.ended)
		runOnThread(p, exec.Command(sshdPath, "-D", "-e", "-f", config), w, started)
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(err, r.Close())
	}
	// Sessions hold the other end too, so this ends with the last of them.
	go func() {
		defer r.Close()
		_, _ = io.Copy(&lineWatcher{log: log, want: "Server listening on", found: p.listening}, r)
	}()
	return p, nil
}

// logBuffer collects what sshd says; safe for concurrent use.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lineWatcher closes found when the text wanted has passed through it.
type lineWatcher struct {
	log   *logBuffer
	seen  []byte
	want  string
	found chan struct{}
	done  bool
}

func (w *lineWatcher) Write(p []byte) (int, error) {
	if !w.done {
		w.seen = append(w.seen, p...)
		if strings.Contains(string(w.seen), w.want) {
			w.done, w.seen = true, nil
			close(w.found)
		}
	}
	return w.log.Write(p)
}
