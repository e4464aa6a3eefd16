package sshconn

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"georep/internal/sshdtest"
)

const megabytes = 8 << 20

// echo sends random bytes through a remote cat and compares what comes back.
func echo(t *testing.T, c *Conn) error {
	s, err := c.Exec(t.Context(), "cat")
	if err != nil {
		return err
	}
	defer s.Close()
	sent := make([]byte, megabytes)
	_, _ = rand.Read(sent)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := s.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Errorf("close for writing: %v", err)
		}
	})
	got, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back, other ones than the %d sent", len(got), len(sent))
	}
	return s.Wait()
}

func TestEchoBothWays(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	if err := echo(t, c); err != nil {
		t.Fatal(err)
	}
}

func TestTwoStreamsAtOnce(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := echo(t, c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestExitStatusAndStderr(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	s := execute(t, c, `printf 'first\n\033[31mred\a\n%05000d\nlast \342\200\256word\377\n' 7 >&2; exit 3`)
	var exit *ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Status != 3 || exit.Stderr != s.Stderr() {
		t.Fatalf("got %v", err)
	}
	got := s.Stderr()
	if len(got) > stderrTail || !strings.HasSuffix(got, "0007 last word\uFFFD") || clean(got) != got {
		t.Errorf("stderr is %q", got)
	}
	if _, err := s.Write(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to an ended command: %v", err)
	}

	s = execute(t, c, "kill -TERM $$")
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal != "TERM" || exit.Status != -1 {
		t.Errorf("got %v", err)
	}
}

func TestOutputEndsBeforeTheCommand(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	s := execute(t, c, "exec >&- 2>&-; read line; exit 5")
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v", err)
	}
	if _, err := s.Write([]byte("line\n")); err != nil {
		t.Fatalf("write: %v", err)
	}
	var exit *ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Status != 5 {
		t.Errorf("got %v", err)
	}
}

func TestCloseStreamUnblocksRead(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	s := execute(t, c, "sleep 1000")
	failed := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
	go func() { failed <- s.Wait() }()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a blocked call ended with: %v", err)
		}
	}
	if _, err := s.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := s.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close for writing: %v", err)
	}
	if got := output(t, c, "echo usable"); got != "usable" {
		t.Errorf("the connection says %q after one stream was closed", got)
	}
}

func TestCloseStreamUnblocksWrite(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	s := execute(t, c, "sleep 1000")
	failed := make(chan error, 1)
	go func() { _, err := s.Write(make([]byte, megabytes)); failed <- err }()
	writing(t)
	_ = s.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a blocked write ended with: %v", err)
	}
}

func TestUnreadOutputDoesNotHoldUpClose(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	for range 2 {
		s := execute(t, c, "head -c 1000000 /dev/zero")
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
}

func TestCloseConnUnblocks(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	s := execute(t, c, "sleep 1000")
	failed := make(chan error, 3)
	go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
	go func() { _, err := s.Write(make([]byte, megabytes)); failed <- err }()
	go func() { failed <- s.Wait() }()
	_ = c.Close()
	_ = c.Close()
	for range 3 {
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a blocked call ended with: %v", err)
		}
	}
	if err := c.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("connection: %v", err)
	}
	if _, err := c.Exec(t.Context(), "true"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("exec on a closed connection: %v", err)
	}
}

func TestKilledSessionIsPeerDead(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	c := dial(t, target(t, server), Options{})
	s := execute(t, c, "echo here; cat")
	line := make([]byte, 5)
	if _, err := io.ReadFull(s, line); err != nil {
		t.Fatal(err)
	}
	server.KillSessions()
	if _, err := s.Read(line); !errors.Is(err, ErrPeerDead) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Write(line); !errors.Is(err, ErrPeerDead) {
		t.Errorf("write: %v", err)
	}
	if err := s.Wait(); !errors.Is(err, ErrPeerDead) || Final(err) {
		t.Errorf("wait: %v", err)
	}
	if err := c.Wait(); !errors.Is(err, ErrPeerDead) {
		t.Errorf("connection: %v", err)
	}
}

func TestConfigAlias(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	target(t, server) // for the environment
	c := dial(t, Target{Host: sshdtest.Alias, ConfigFile: server.ConfigFile}, Options{})
	if got := output(t, c, "echo hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestDefaultConfigOfTheUser(t *testing.T) {
	server := sshdtest.Start(t)
	target(t, server)
	text, err := os.ReadFile(server.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	text = append([]byte("Match exec \"true\"\n  Port 1\n"), text...)
	dir := filepath.Join(os.Getenv("HOME"), ".ssh")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "config"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	dial(t, Target{Host: sshdtest.Alias}, Options{})
}

func TestKnownHosts(t *testing.T) {
	server := sshdtest.Start(t, sshdtest.WithRSA())
	plain := func(key ssh.PublicKey) string { return knownhosts.Line([]string{server.Addr()}, key) + "\n" }
	hashed := knownhosts.HashHostname(knownhosts.Normalize(server.Addr())) + " " +
		string(ssh.MarshalAuthorizedKey(server.HostKeys[0]))
	tests := map[string]string{
		"hashed":          hashed,
		"ed25519 only":    plain(server.HostKeys[0]),
		"ecdsa only":      plain(server.HostKeys[1]),
		"rsa only":        plain(server.HostKeys[2]),
		"without port":    knownhosts.Line([]string{server.Host}, server.HostKeys[0]) + "\n",
		"beside nonsense": "broken line\nhost ssh-future AAAA\n# note\n\n" + plain(server.HostKeys[0]),
		"pattern":         "[127.0.0.*]:" + fmt.Sprint(server.Port) + " " + string(ssh.MarshalAuthorizedKey(server.HostKeys[0])),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			to := target(t, server)
			to.KnownHosts = []string{"/no/such/file", write(t, "known_hosts", text)}
			dial(t, to, Options{})
		})
	}
}

func TestUnknownHost(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	known := write(t, "known_hosts", "")
	to.KnownHosts = []string{known}
	refused(t, to, ErrHostKeyUnknown, "ssh-ed25519", ssh.FingerprintSHA256(server.HostKeys[0]),
		"echo '"+knownhosts.Line([]string{server.Addr()}, server.HostKeys[0])+"' >> "+known)
}

func TestChangedHostKey(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	other, err := ssh.NewPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	known := write(t, "known_hosts", "# first line\n"+knownhosts.Line([]string{server.Addr()}, other)+"\n")
	to.KnownHosts = []string{known}
	refused(t, to, ErrHostKeyChanged, ssh.FingerprintSHA256(server.HostKeys[0]), ssh.FingerprintSHA256(other),
		known+" line 2", fmt.Sprintf("ssh-keygen -f %s -R '[127.0.0.1]:%d'", known, server.Port))
}

func TestRevokedHostKey(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	line := knownhosts.Line([]string{server.Addr()}, server.HostKeys[0])
	to.KnownHosts = []string{write(t, "known_hosts", line+"\n@revoked * "+strings.SplitN(line, " ", 2)[1]+"\n")}
	refused(t, to, ErrHostKeyRevoked, "line 2")
}

func TestProxyJump(t *testing.T) {
	server := sshdtest.Start(t)
	text, err := os.ReadFile(server.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	far := func(jumps string) string {
		inner := strings.Replace(string(text), "Host "+sshdtest.Alias+" 127.0.0.1", "Host far\n  ProxyJump "+jumps, 1)
		return inner + string(text)
	}
	for _, jumps := range []string{sshdtest.Alias, sshdtest.Alias + "," + "ssh://" + server.User + "@" + server.Addr()} {
		t.Run(jumps, func(t *testing.T) {
			noLeaks(t)
			target(t, server)
			c := dial(t, Target{Host: "far", ConfigFile: write(t, "config", far(jumps))}, Options{})
			if err := echo(t, c); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("circle", func(t *testing.T) {
		noLeaks(t)
		target(t, server)
		config := write(t, "config", "Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
		refused(t, Target{Host: "a", ConfigFile: config}, ErrConfig, "circle")
	})
	t.Run("unknown key of the jump host", func(t *testing.T) {
		noLeaks(t)
		target(t, server)
		config := "Host 127.0.0.1\n  UserKnownHostsFile /dev/null\n" + far(server.User+"@"+server.Addr())
		refused(t, Target{Host: "far", ConfigFile: write(t, "config", config)}, ErrHostKeyUnknown, "jump host for far")
	})
}

func TestProxyCommand(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	target(t, server)
	text, err := os.ReadFile(server.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	proxy := fmt.Sprintf("ProxyCommand ssh -F %s -W %%h:%%p %s\n", server.ConfigFile, sshdtest.Alias)
	config := write(t, "config", proxy+string(text))
	c := dial(t, Target{Host: sshdtest.Alias, ConfigFile: config}, Options{})
	if err := echo(t, c); err != nil {
		t.Fatal(err)
	}
	config = write(t, "config", "ProxyCommand sh -c 'echo no way >&2; exit 1'\n"+string(text))
	refused(t, Target{Host: sshdtest.Alias, ConfigFile: config}, ErrUnreachable, "ProxyCommand", "it said: no way")
}

func TestHostKeyAlias(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	to.KnownHosts = []string{write(t, "known_hosts", "other-name "+string(ssh.MarshalAuthorizedKey(server.HostKeys[0])))}
	to.ConfigFile = write(t, "config", "HostKeyAlias other-name\n")
	dial(t, to, Options{})
	to.ConfigFile = write(t, "config", "HostKeyAlias third-name\n")
	refused(t, to, ErrHostKeyUnknown, "echo 'third-name ssh-ed25519 ")
}

func TestUnreachable(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	server.Stop()
	refused(t, to, ErrUnreachable, "connection refused")
	to.Host = "no-such-host.invalid"
	refused(t, to, ErrUnreachable, "no-such-host.invalid", "HostName")
}

func TestExecRefused(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t, sshdtest.Config("MaxSessions 1"))), Options{})
	execute(t, c, "sleep 1000")
	if _, err := c.Exec(t.Context(), "true"); !errors.Is(err, ErrExec) || !strings.Contains(err.Error(), "MaxSessions") {
		t.Errorf("got %v", err)
	}
}

func TestExecCancelled(t *testing.T) {
	noLeaks(t)
	c := dial(t, target(t, sshdtest.Start(t)), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Either it was ready at once or it is given up; the leak check sees to what becomes of the stream then.
	if s, err := c.Exec(ctx, "cat"); err == nil {
		_ = s.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := output(t, c, "echo usable"); got != "usable" {
		t.Errorf("got %q", got)
	}
}
