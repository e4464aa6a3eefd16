package sshserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"georep/internal/sshserver"
	"georep/slave/sshconn"
)

// serve runs a server for the test and returns how to reach it.
func serve(t *testing.T, handler sshserver.Handler) (*sshserver.Server, sshconn.Target) {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	s, err := sshserver.New(sshserver.Config{Handler: handler})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	identity, known := filepath.Join(t.TempDir(), "id"), filepath.Join(t.TempDir(), "known_hosts")
	err = errors.Join(os.WriteFile(identity, s.ClientKey(), 0o600), os.WriteFile(known, []byte(s.KnownHostsLine()+"\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return s, sshconn.Target{
		Host: "127.0.0.1", Port: s.Addr().(*net.TCPAddr).Port, ConfigFile: "none",
		Identities: []string{identity}, KnownHosts: []string{known},
	}
}

// noLeaks checks at the end of the test that no goroutine of the server, the client or the library is left. It must be
// called before anything else that registers a cleanup.
func noLeaks(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	t.Cleanup(func() {
		eventually(t, "no goroutine left", func() bool {
			for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				ours := strings.Contains(stack, "georep/") || strings.Contains(stack, "crypto/ssh")
				if ours && !strings.Contains(stack, "testing.tRunner") {
					return false
				}
			}
			return true
		})
	})
}

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

func dial(t *testing.T, target sshconn.Target) *sshconn.Conn {
	t.Helper()
	c, err := sshconn.Dial(t.Context(), target, sshconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestShellEchoOnManyChannels(t *testing.T) {
	noLeaks(t)
	_, target := serve(t, sshserver.Shell)
	c := dial(t, target)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s, err := c.Exec(t.Context(), "cat; echo end >&2; exit 7")
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			sent := bytes.Repeat([]byte{byte(i), '\n', 0xff}, 1<<20)
			wg.Go(func() {
				_, _ = s.Write(sent)
				_ = s.CloseWrite()
			})
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
			}
			var exit *sshconn.ExitError
			if err := s.Wait(); !errors.As(err, &exit) || exit.Status != 7 || exit.Stderr != "end" {
				t.Errorf("exit: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestCommandEndsThoughItsInputDoesNot(t *testing.T) {
	noLeaks(t)
	_, target := serve(t, sshserver.Shell)
	s, err := dial(t, target).Exec(t.Context(), "kill -TERM $$")
	if err != nil {
		t.Fatal(err)
	}
	var exit *sshconn.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Status != 128+int(syscall.SIGTERM) {
		t.Errorf("exit: %v", err)
	}
}

// sleeping starts a command with a child of its own and returns the child's pid.
func sleeping(t *testing.T, c *sshconn.Conn) (*sshconn.Stream, int) {
	t.Helper()
	s, err := c.Exec(t.Context(), "sleep 1000 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(s, &pid); err != nil {
		t.Fatal(err)
	}
	return s, pid
}

func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "the command's child is gone", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		// Nobody may be there to reap it.
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestClosedChannelEndsTheProcessGroup(t *testing.T) {
	noLeaks(t)
	_, target := serve(t, sshserver.Shell)
	c := dial(t, target)
	s, pid := sleeping(t, c)
	_ = s.Close()
	gone(t, pid)
	s, pid = sleeping(t, c)
	_ = c.Close()
	gone(t, pid)
	if err := s.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("wait: %v", err)
	}
}

func TestCloseEndsAll(t *testing.T) {
	noLeaks(t)
	server, target := serve(t, sshserver.Shell)
	c := dial(t, target)
	s, pid := sleeping(t, c)
	_ = server.Close()
	_ = server.Close()
	gone(t, pid)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, sshconn.ErrPeerDead) {
		t.Errorf("read: %v", err)
	}
	if _, err := sshconn.Dial(t.Context(), target, sshconn.Options{}); !errors.Is(err, sshconn.ErrUnreachable) {
		t.Errorf("dial a closed server: %v", err)
	}
}

func TestHandlerInProcess(t *testing.T) {
	noLeaks(t)
	cancelled := make(chan string, 1)
	_, target := serve(t, func(ctx context.Context, command string, io sshserver.Streams) int {
		if command == "wait" {
			<-ctx.Done()
			cancelled <- command
			return 1
		}
		fmt.Fprintf(io.Stdout, "ran %q", command)
		return 0
	})
	c := dial(t, target)
	s, err := c.Exec(t.Context(), "some command")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(s); err != nil || string(out) != `ran "some command"` {
		t.Errorf("got %q, %v", out, err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if s, err = c.Exec(t.Context(), "wait"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	<-cancelled
}

func TestStrangerIsRefused(t *testing.T) {
	noLeaks(t)
	server, target := serve(t, sshserver.Shell)
	other, _ := serve(t, sshserver.Shell)
	if err := os.WriteFile(target.Identities[0], other.ClientKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sshconn.Dial(t.Context(), target, sshconn.Options{}); !errors.Is(err, sshconn.ErrAuth) {
		t.Errorf("with another key: %v", err)
	}
	if err := os.WriteFile(target.KnownHosts[0], []byte(other.KnownHostsLine()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := sshconn.Dial(t.Context(), target, sshconn.Options{})
	if !errors.Is(err, sshconn.ErrHostKeyUnknown) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(server.HostKey())) {
		t.Errorf("with another host's key known: %v", err)
	}
}

// TestRefusedRequests uses the library directly, for sshconn does not ask for these things.
func TestRefusedRequests(t *testing.T) {
	noLeaks(t)
	server, target := serve(t, sshserver.Shell)
	key, err := os.ReadFile(target.Identities[0])
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", server.Addr().String(), &ssh.ClientConfig{
		User: "anybody", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(server.HostKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Dial("tcp", server.Addr().String()); err == nil {
		t.Error("forwarding was allowed")
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, err := range map[string]error{
		"env": s.Setenv("A", "b"), "pty": s.RequestPty("xterm", 1, 1, nil), "shell": s.Shell(),
		"subsystem": s.RequestSubsystem("sftp"),
	} {
		if err == nil {
			t.Errorf("%s was allowed", name)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	noLeaks(t)
	if _, err := sshserver.New(sshserver.Config{}); err == nil {
		t.Error("a server without a handler was made")
	}
	for _, addr := range []string{"0.0.0.0:0", "nonsense", "192.0.2.1:22", ":0"} {
		if _, err := sshserver.New(sshserver.Config{Handler: sshserver.Shell, Addr: addr}); err == nil {
			t.Errorf("a server on %q was made", addr)
		}
	}
}
