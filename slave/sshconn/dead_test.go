package sshconn

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"georep/internal/sshdtest"
)

const shortKeepAlive = 200 * time.Millisecond

// dialHole connects by way of a proxy that can become a black hole.
func dialHole(t *testing.T, keepAlive time.Duration) (*Conn, *blackHole) {
	t.Helper()
	server := sshdtest.Start(t)
	to := target(t, server)
	hole := startBlackHole(t, server.Addr())
	to.Port = hole.port()
	to.KnownHosts = []string{write(t, "known_hosts",
		knownhosts.Line([]string{hole.listener.Addr().String()}, server.HostKeys[0])+"\n")}
	return dial(t, to, Options{KeepAlive: keepAlive}), hole
}

func TestBlackHoleIsPeerDead(t *testing.T) {
	noLeaks(t)
	c, hole := dialHole(t, shortKeepAlive)
	s, s2 := execute(t, c, "sleep 1000"), execute(t, c, "sleep 1000")
	hole.open()
	for _, stream := range []*Stream{s, s2} {
		if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, ErrPeerDead) || Final(err) {
			t.Errorf("read: %v", err)
		}
	}
	if err := c.Wait(); !errors.Is(err, ErrPeerDead) {
		t.Errorf("connection: %v", err)
	}
}

func TestBlackHoleFreesABlockedWriter(t *testing.T) {
	noLeaks(t)
	c, hole := dialHole(t, shortKeepAlive)
	writers := make(chan error)
	const streams = 8 // their windows hold more than the buffers on the way
	for range streams {
		s := execute(t, c, "cat >/dev/null")
		go func() {
			for {
				if _, err := s.Write(make([]byte, 1<<20)); err != nil {
					writers <- err
					return
				}
			}
		}()
	}
	hole.open()
	for range streams {
		if err := <-writers; !errors.Is(err, ErrPeerDead) {
			t.Errorf("write: %v", err)
		}
	}
}

func TestIdleConnectionLives(t *testing.T) {
	noLeaks(t)
	const interval = 400 * time.Millisecond
	c, _ := dialHole(t, interval)
	s := execute(t, c, "sleep 2; echo still here")
	if out, err := io.ReadAll(s); err != nil || string(out) != "still here\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCloseStreamInABlackHole(t *testing.T) {
	noLeaks(t)
	c, hole := dialHole(t, shortKeepAlive)
	s := execute(t, c, "cat")
	hole.open()
	_ = s.Close()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := c.Wait(); !errors.Is(err, ErrPeerDead) {
		t.Errorf("connection: %v", err)
	}
}

func TestCloseStreamFreesAWriterInABlackHole(t *testing.T) {
	noLeaks(t)
	c, hole := dialHole(t, time.Hour)
	s := execute(t, c, "sleep 1000")
	hole.open()
	failed := make(chan error, 1)
	go func() { _, err := s.Write(make([]byte, megabytes)); failed <- err }()
	writing(t)
	_ = s.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a blocked write ended with: %v", err)
	}
	if err := c.Wait(); !errors.Is(err, ErrPeerDead) {
		t.Errorf("connection: %v", err)
	}
}

// silent is a host that takes connections and says nothing.
func silent(t *testing.T) Target {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return Target{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, ConfigFile: noConfig}
}

func TestDialCancelled(t *testing.T) {
	noLeaks(t)
	to := silent(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the operator said so")
	timer := time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	defer timer.Stop()
	if _, err := Dial(ctx, to, Options{ConnectTimeout: time.Hour}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestDialTimesOut(t *testing.T) {
	noLeaks(t)
	_, err := Dial(t.Context(), silent(t), Options{ConnectTimeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrUnreachable) || Final(err) {
		t.Errorf("got %v", err)
	}
}

func TestSilentAgentDoesNotHoldUpDial(t *testing.T) {
	noLeaks(t)
	to := target(t, sshdtest.Start(t))
	l, err := net.Listen("unix", t.TempDir()+"/agent")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", l.Addr().String())
	if _, err := Dial(t.Context(), to, Options{ConnectTimeout: 50 * time.Millisecond}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

// unanswered is a connection that ends just before a channel is opened on it: then the library may wait for the answer for
// ever (golang.org/x/crypto/ssh, mux.openChannel: a channel that is added behind dropAll is never closed).
type unanswered struct {
	ssh.Conn
	over chan struct{} // the test is
}

func (u unanswered) OpenChannel(string, []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	_ = u.Close()
	<-u.over
	return nil, nil, net.ErrClosed
}

// TestEndsWhileAStreamIsOpened: neither the one who opens a stream then nor Close waits for it.
func TestEndsWhileAStreamIsOpened(t *testing.T) {
	c, err := Dial(t.Context(), target(t, sshdtest.Start(t)), Options{KeepAlive: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	defer close(over)
	c.client = &ssh.Client{Conn: unanswered{c.client.Conn, over}}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "true")
		ended <- errors.Join(err, c.Close())
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrPeerDead) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("it waits")
	}
}
