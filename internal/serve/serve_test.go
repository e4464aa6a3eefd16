package serve_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"georep/internal/serve"
)

// patience bounds waits for what must happen. It measures nothing.
const patience = time.Minute

// bench is a server under test, with one key that may log in.
type bench struct {
	t      *testing.T
	server *serve.Server
	addr   string
	keys   string
	host   ssh.PublicKey
	key    ssh.Signer
	// private is the key as the text of an identity file.
	private []byte
	port    int
	stop    func() error // ends Run, and gives its error; it may be called again
}

// start runs a server whose agents run a shell script.
func start(t *testing.T, script string, limits serve.Limits) *bench {
	t.Helper()
	return startWith(t, limits, func(serve.Client) (*exec.Cmd, error) { return exec.Command("/bin/sh", "-c", script), nil })
}

func startWith(t *testing.T, limits serve.Limits, agent func(serve.Client) (*exec.Cmd, error)) *bench {
	t.Helper()
	dir := t.TempDir()
	host, err := serve.HostKey(filepath.Join(dir, "serve"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, keys: serve.KeysFile(filepath.Join(dir, "serve")), host: host.PublicKey()}
	b.key, b.private = newKeyText(t)
	b.authorize(`volume="v"`, b.key)
	b.server = serve.New(serve.Config{HostKey: host, Keys: b.keys, Agent: agent, Limits: limits,
		Log: zerolog.New(zerolog.NewTestWriter(t))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr, b.port = l.Addr().String(), l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.server.Run(ctx, l); close(ended) }()
	b.stop = func() error { cancel(); return <-ended }
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return b
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, _ := newKeyText(t)
	return key
}

func newKeyText(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(block)
}

// line is a line of the file of keys.
func line(options string, key ssh.Signer) string {
	return options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " a comment"
}

func (b *bench) authorize(options string, key ssh.Signer) {
	b.t.Helper()
	if _, _, err := serve.Authorize(b.keys, line(options, key)); err != nil {
		b.t.Fatal(err)
	}
}

// dial logs in.
func (b *bench) dial(key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", b.addr, &ssh.ClientConfig{User: "any", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.FixedHostKey(b.host), Timeout: patience})
}

func (b *bench) login() *ssh.Client {
	b.t.Helper()
	c, err := b.dial(b.key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// session is a channel on which an agent runs.
func session(t *testing.T, c *ssh.Client) (ssh.Channel, <-chan *ssh.Request) {
	t.Helper()
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{serve.Subsystem}))
	if err != nil || !ok {
		t.Fatalf("subsystem: %v, %v", ok, err)
	}
	return ch, requests
}

func TestAgentGetsTheChannel(t *testing.T) {
	b := start(t, "cat; echo end >&2; exit 7", serve.Limits{})
	c := b.login()
	for i := range 3 {
		ch, requests := session(t, c)
		sent := bytes.Repeat([]byte{byte(i), '\n', 0xff}, 1<<20)
		go func() { _, _ = ch.Write(sent); _ = ch.CloseWrite() }()
		said := make(chan string, 1)
		go func() { text, _ := io.ReadAll(ch.Stderr()); said <- string(text) }()
		got, err := io.ReadAll(ch)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d of %d bytes came back: %v", len(got), len(sent), err)
		}
		if text := <-said; text != "end\n" {
			t.Errorf("standard error: %q", text)
		}
		req := <-requests
		if req == nil || req.Type != "exit-status" || !bytes.Equal(req.Payload, []byte{0, 0, 0, 7}) {
			t.Errorf("its end: %+v", req)
		}
		ch.Close()
	}
}

func TestSignalIsTold(t *testing.T) {
	b := start(t, "kill -KILL $$", serve.Limits{})
	_, requests := session(t, b.login())
	if req := <-requests; req == nil || req.Type != "exit-signal" || !bytes.Contains(req.Payload, []byte("KILL")) {
		t.Errorf("its end: %+v", req)
	}
}

// TestNothingElseIsServed: what an SSH server usually has is refused, before and after that an agent can be had.
func TestNothingElseIsServed(t *testing.T) {
	b := start(t, "echo agent", serve.Limits{})
	c := b.login()
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", "auth-agent@openssh.com", "tun@openssh.com", ""} {
		if _, _, err := c.OpenChannel(kind, []byte("anything")); err == nil {
			t.Errorf("a channel %q was opened", kind)
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "hostkeys-prove-00@openssh.com"} {
		if ok, _, err := c.SendRequest(kind, true, nil); ok || err != nil {
			t.Errorf("request %s: %v, %v", kind, ok, err)
		}
	}
	ch, _, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	nothing := struct{ Text string }{}
	for kind, payload := range map[string]any{
		"exec": struct{ Command string }{"id"}, "shell": nothing, "subsystem": struct{ Name string }{"sftp"},
		"pty-req": struct{ Term string }{"xterm"}, "env": struct{ Name, Value string }{"LD_PRELOAD", "/x"}, "x11-req": nothing,
		"auth-agent-req@openssh.com": nothing, "signal": struct{ Name string }{"KILL"},
	} {
		if ok, err := ch.SendRequest(kind, true, ssh.Marshal(payload)); ok || err != nil {
			t.Errorf("request %s: %v, %v", kind, ok, err)
		}
	}
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{serve.Subsystem})); !ok || err != nil {
		t.Fatalf("the agent's: %v, %v", ok, err)
	}
	if text, err := io.ReadAll(ch); err != nil || string(text) != "agent\n" {
		t.Errorf("the agent said %q, %v", text, err)
	}
}

// TestOneAgentAChannel: a second request for one is refused.
func TestOneAgentAChannel(t *testing.T) {
	b := start(t, "cat", serve.Limits{})
	ch, _ := session(t, b.login())
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{serve.Subsystem})); ok || err != nil {
		t.Errorf("the second: %v, %v", ok, err)
	}
	if _, err := ch.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ch, make([]byte, 1)); err != nil {
		t.Errorf("the first: %v", err)
	}
}

func TestLogins(t *testing.T) {
	b := start(t, "cat", serve.Limits{})
	stranger := newKey(t)
	if c, err := b.dial(stranger); err == nil {
		c.Close()
		t.Error("a key that is in no line may log in")
	}
	password, err := ssh.Dial("tcp", b.addr, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.Password("")},
		HostKeyCallback: ssh.FixedHostKey(b.host)})
	if err == nil {
		password.Close()
		t.Error("a password may log in")
	}
	b.authorize(`path="/srv",append-only`, stranger)
	c, err := b.dial(stranger)
	if err != nil {
		t.Fatalf("a line that was added does not count: %v", err)
	}
	c.Close()
	if err := os.Chmod(b.keys, 0o666); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(stranger); err == nil {
		c.Close()
		t.Error("a file that others may write is believed")
	}
}

// TestRecheckCuts: a login ends when its line is gone or says something else, and no other one does.
func TestRecheckCuts(t *testing.T) {
	b := start(t, "cat", serve.Limits{})
	other, third := newKey(t), newKey(t)
	b.authorize(`volume="w"`, other)
	b.authorize(`volume="x"`, third)
	c := b.login()
	changed, err := b.dial(other)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := b.dial(third)
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	ch, _ := session(t, c)
	b.authorize(`volume="w",append-only`, other)
	text, err := os.ReadFile(b.keys)
	if err != nil {
		t.Fatal(err)
	}
	without := strings.ReplaceAll(string(text), line(`volume="v"`, b.key)+"\n", "# gone\n")
	if err := os.WriteFile(b.keys, []byte(without), 0o600); err != nil {
		t.Fatal(err)
	}
	b.server.Recheck()
	_, _ = io.ReadAll(ch) // ends
	if c.Wait() == nil || changed.Wait() == nil {
		t.Error("they ended in good order")
	}
	if _, _, err := stays.SendRequest("keepalive", true, nil); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

// TestChangedLineCountsForNewAgents: the line counts as it is when an agent starts, not as it was at the login.
func TestChangedLineCountsForNewAgents(t *testing.T) {
	b := startWith(t, serve.Limits{}, func(c serve.Client) (*exec.Cmd, error) {
		return exec.Command("echo", c.Grant.Flags()...), nil
	})
	c := b.login()
	for _, options := range []string{`volume="v"`, `volume="w",append-only,keep-deleted="7d"`} {
		b.authorize(options, b.key)
		ch, _ := session(t, c)
		want := "--volume=v\n"
		if strings.Contains(options, "w") {
			want = "--volume=w --append-only=true --keep-deleted=168h0m0s\n"
		}
		if text, err := io.ReadAll(ch); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", options, text, err)
		}
	}
}

// TestFull: a key has no more agents than it may, is told so, and gets another once one has ended.
func TestFull(t *testing.T) {
	b := start(t, "cat", serve.Limits{PerKey: 2, Agents: 3})
	c := b.login()
	first, requests := session(t, c)
	session(t, c)
	_, _, err := c.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) || refused.Reason != ssh.ResourceShortage || !strings.Contains(refused.Message, "server full") {
		t.Fatalf("a third one: %v", err)
	}
	other := newKey(t)
	b.authorize(`volume="w"`, other)
	c2, err := b.dial(other)
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	session(t, c2)
	if _, _, err := c2.OpenChannel("session", nil); !errors.As(err, &refused) {
		t.Errorf("a fourth one of all: %v", err)
	}
	first.CloseWrite()
	for range requests {
	}
	first.Close()
	eventually(t, "room for another one", func() bool {
		ch, _, err := c.OpenChannel("session", nil)
		if err == nil {
			ch.Close()
		}
		return err == nil
	})
}

// TestLoginsOfAKeyAreBounded: a key cannot take memory by connections that do nothing.
func TestLoginsOfAKeyAreBounded(t *testing.T) {
	b := start(t, "cat", serve.Limits{PerKey: 2})
	first := b.login()
	// An agent that runs tells that its login is counted: that is done after the handshake, as the refusal is.
	session(t, first)
	second := b.login()
	ch, _ := session(t, second)
	ch.Close()
	if third, err := b.dial(b.key); err == nil {
		_ = third.Wait()
	}
	if _, _, err := second.SendRequest("keepalive", true, nil); err != nil {
		t.Errorf("another login than the third was cut: %v", err)
	}
	first.Close()
	eventually(t, "room for another one", func() bool {
		c, err := b.dial(b.key)
		if err != nil {
			return false
		}
		defer c.Close()
		ch, _, err := c.OpenChannel("session", nil)
		if err == nil {
			ch.Close()
		}
		return err == nil
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// TestHalfOpenConnections: connections that say nothing are cut, and never keep more places than their address may have.
func TestHalfOpenConnections(t *testing.T) {
	b := start(t, "cat", serve.Limits{LoginTime: 300 * time.Millisecond, Pending: 8, PendingEach: 4, Burst: 1000})
	var silent []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	for _, conn := range silent {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a silent connection stays")
		}
	}
	b.login()
}

// TestFailedLoginsHaveToWait: an address that fails too often is refused for a while; logins that succeed cost nothing.
func TestFailedLoginsHaveToWait(t *testing.T) {
	b := start(t, "cat", serve.Limits{Burst: 3})
	for range 5 {
		b.login().Close()
	}
	refused := 0
	for range 20 {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.1\r\n\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		text, _ := io.ReadAll(conn)
		if len(text) == 0 { // not even a greeting
			refused++
		}
		conn.Close()
	}
	if refused == 0 {
		t.Error("none of 20 was refused")
	}
	eventually(t, "a login again", func() bool {
		c, err := b.dial(b.key)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// TestRubbish: what is no SSH ends its connection and nothing else.
func TestRubbish(t *testing.T) {
	b := start(t, "cat", serve.Limits{Burst: 1000})
	for _, text := range []string{"", "\x00", "SSH-1.0-old\r\n", "SSH-2.0-x\r\n\xff\xff\xff\xff\x00" + strings.Repeat("x", 1<<16),
		strings.Repeat("x", 1<<20), "SSH-2.0-x\r\n\x00\x00\x00\x00\x00"} {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q: the connection stays", text)
		}
		conn.Close()
	}
	b.login()
}

// TestIdleLoginIsCut: a login without agents ends, one with an agent does not.
func TestIdleLoginIsCut(t *testing.T) {
	b := start(t, "cat", serve.Limits{Idle: 200 * time.Millisecond})
	idle, busy := b.login(), b.login()
	ch, _ := session(t, busy)
	if err := idle.Wait(); err == nil {
		t.Error("it ended in good order")
	}
	if _, err := ch.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(ch, make([]byte, 1)); err != nil {
		t.Errorf("the agent of the other one: %v", err)
	}
}

// TestClientThatDoesNotRead: an agent that says more than the client reads does not keep the server from stopping.
func TestClientThatDoesNotRead(t *testing.T) {
	b := start(t, "trap '' PIPE; yes", serve.Limits{StopTime: 100 * time.Millisecond})
	session(t, b.login())
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestStop: an agent sees the end of its input, and may finish; one that does not is killed.
func TestStop(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	b := start(t, "echo up; cat >/dev/null; echo done >"+mark, serve.Limits{})
	ch, _ := session(t, b.login())
	if _, err := io.ReadFull(ch, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(mark); err != nil || string(text) != "done\n" {
		t.Errorf("the agent did not finish: %q, %v", text, err)
	}
	if _, err := b.dial(b.key); err == nil {
		t.Error("it still serves")
	}
	b = start(t, "echo up; exec sleep 1000", serve.Limits{StopTime: 100 * time.Millisecond})
	ch, _ = session(t, b.login())
	if _, err := io.ReadFull(ch, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAgentThatDoesNotStart: the client hears why.
func TestAgentThatDoesNotStart(t *testing.T) {
	for _, cmd := range []func(serve.Client) (*exec.Cmd, error){
		func(serve.Client) (*exec.Cmd, error) { return exec.Command("/nonexistent/georep"), nil },
		func(serve.Client) (*exec.Cmd, error) { return nil, errors.New("no such file or directory: the user") },
	} {
		b := startWith(t, serve.Limits{}, cmd)
		ch, requests := session(t, b.login())
		text, err := io.ReadAll(ch.Stderr())
		if err != nil || !strings.Contains(string(text), "no such file or directory") {
			t.Errorf("the client hears %q, %v", text, err)
		}
		if req := <-requests; req == nil || !bytes.Equal(req.Payload, []byte{0, 0, 0, 126}) {
			t.Errorf("its end: %+v", req)
		}
	}
}
