package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	built "georep/integration/harness/program"
	"georep/internal/serve"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/slavetest"
	"georep/slave/sshconn"
)

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// TestContract runs the suite of every slave on a directory behind a server, with an agent of the built program.
func TestContract(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	dir := t.TempDir()
	path := filepath.Join(dir, "georep")
	built.Link(t, path)
	b := startWith(t, serve.Limits{}, func(c serve.Client) (*exec.Cmd, error) {
		return exec.Command(path, append([]string{"--state-dir", filepath.Join(dir, "state"), "agent"}, c.Grant.Flags()...)...), nil
	})
	identity := filepath.Join(dir, "id")
	target := b.target(identity)
	slavetest.Run(t, func(t *testing.T) (slave.Tree, string) {
		root, err := os.MkdirTemp(t.TempDir(), "slave")
		if err != nil {
			t.Fatal(err)
		}
		b.authorize(fmt.Sprintf(`path="%s",keep-root-mode="off",no-force="off"`, root), b.key)
		conn, err := sshconn.Dial(t.Context(), target, sshconn.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		hello := agent.Hello{Version: "test", Master: xtime.UUID{1}, Session: xtime.UUID{2}, Path: root}
		g, err := agent.DialGroup(context.Background(), hello, agent.GroupOptions{Streams: 2,
			Open: func(ctx context.Context, _ int) (io.ReadWriteCloser, error) {
				return conn.Subsystem(ctx, serve.Subsystem)
			}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g, root
	})
	// Another place is refused, whatever the client asks for.
	conn, err := sshconn.Dial(t.Context(), target, sshconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = agent.DialGroup(context.Background(), agent.Hello{Version: "test", Master: xtime.UUID{1}, Session: xtime.UUID{2}, Path: t.TempDir()},
		agent.GroupOptions{Streams: 1, Open: func(ctx context.Context, _ int) (io.ReadWriteCloser, error) {
			return conn.Subsystem(ctx, serve.Subsystem)
		}})
	if !errors.Is(err, slave.ErrNoVolume) {
		t.Errorf("another directory: %v", err)
	}
}

// target is how sshconn reaches the server, by the fingerprint of its key. The client's key is written to a file.
func (b *bench) target(identity string) sshconn.Target {
	b.t.Helper()
	if err := os.WriteFile(identity, b.private, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return sshconn.Target{Host: "127.0.0.1", Port: b.port, ConfigFile: "none", Identities: []string{identity},
		HostKey: ssh.FingerprintSHA256(b.host)}
}

// TestHostKeyIsChecked: another key than the one whose fingerprint was given ends the login, and nothing is ever taken unseen.
func TestHostKeyIsChecked(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	b := start(t, "cat", serve.Limits{})
	target := b.target(filepath.Join(t.TempDir(), "id"))
	conn, err := sshconn.Dial(t.Context(), target, sshconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	target.HostKey = ssh.FingerprintSHA256(newKey(t).PublicKey())
	if _, err := sshconn.Dial(t.Context(), target, sshconn.Options{}); !errors.Is(err, sshconn.ErrHostKeyChanged) {
		t.Errorf("another key: %v", err)
	}
	target.HostKey, target.KnownHosts = "", []string{os.DevNull}
	if _, err := sshconn.Dial(t.Context(), target, sshconn.Options{}); !errors.Is(err, sshconn.ErrHostKeyUnknown) {
		t.Errorf("no key: %v", err)
	}
}
