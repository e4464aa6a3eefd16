package sshconn

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"georep/internal/sshdtest"
)

// target reaches the fixture without any ssh_config or agent.
func target(t *testing.T, s *sshdtest.Server) Target {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("HOME", t.TempDir())
	return Target{
		User: s.User, Host: s.Host, Port: s.Port, ConfigFile: noConfig,
		Identities: []string{s.IdentityFile}, KnownHosts: []string{s.KnownHostsFile},
	}
}

func dial(t *testing.T, target Target, opts Options) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func execute(t *testing.T, c *Conn, command string) *Stream {
	t.Helper()
	s, err := c.Exec(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// output runs a command to its end.
func output(t *testing.T, c *Conn, command string) string {
	t.Helper()
	s := execute(t, c, command)
	out, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// refused dials and checks that it fails as said, in one line that has all of the words.
func refused(t *testing.T, target Target, want error, words ...string) {
	t.Helper()
	c, err := Dial(t.Context(), target, Options{})
	if err == nil {
		_ = c.Close()
		t.Fatalf("connected; want %v", want)
	}
	t.Log(err)
	if !errors.Is(err, want) {
		t.Errorf("error does not wrap %q", want)
	}
	if strings.ContainsAny(err.Error(), "\n\r") {
		t.Error("error has several lines")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error does not mention %q", word)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// eventually waits for something that has no event to wait for.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never happened: %s", what)
}

// noLeaks checks at the end of the test that no goroutine of this package or of the ssh library is left. It must be
// called before anything else that registers a cleanup.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		buf := make([]byte, 1<<20)
		eventually(t, "no goroutine left", func() bool {
			stacks := string(buf[:runtime.Stack(buf, true)])
			for _, stack := range strings.Split(stacks, "\n\n") {
				ours := strings.Contains(stack, "georep/slave/sshconn.") || strings.Contains(stack, "crypto/ssh")
				if ours && !strings.Contains(stack, "testing.tRunner") {
					return false
				}
			}
			return true
		})
	})
}

// writing waits until a write to a channel is blocked by the peer's window.
func writing(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	eventually(t, "a write is blocked", func() bool {
		for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "(*window).reserve") && strings.Contains(stack, "(*Cond).Wait") {
				return true
			}
		}
		return false
	})
}

// blackHole is a TCP proxy that can stop forwarding while every connection stays open.
type blackHole struct {
	listener net.Listener
	to       string
	hole     context.Context
	open     context.CancelFunc // makes it a black hole
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func startBlackHole(t *testing.T, to string) *blackHole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &blackHole{listener: l, to: to}
	b.hole, b.open = context.WithCancel(context.Background())
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		b.open()
		_ = l.Close()
		b.mu.Lock()
		for _, c := range b.conns {
			_ = c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *blackHole) port() int { return b.listener.Addr().(*net.TCPAddr).Port }

func (b *blackHole) accept() {
	for {
		in, err := b.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", b.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		b.mu.Lock()
		b.conns = append(b.conns, in, out)
		b.mu.Unlock()
		b.wg.Go(func() { b.forward(in, out) })
		b.wg.Go(func() { b.forward(out, in) })
	}
}

func (b *blackHole) forward(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if b.hole.Err() != nil {
			return // neither reads on nor closes
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			_ = from.Close()
			return
		}
	}
}
