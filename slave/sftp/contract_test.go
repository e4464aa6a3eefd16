package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	psftp "github.com/pkg/sftp"
	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// openSSH is where Debian's package has the server.
const openSSH = "/usr/lib/openssh/sftp-server"

// pipe is two one-way streams as one.
type pipe struct {
	io.Reader
	io.WriteCloser
	end func()
}

func (p pipe) Close() error {
	err := p.WriteCloser.Close()
	p.end()
	return err
}

// program runs OpenSSH's server on a pipe.
func program(t testing.TB) (io.ReadWriteCloser, error) { return run(t, exec.Command(openSSH, "-e")) }

// programAs runs it as somebody else.
func programAs(id uint32) server {
	return func(t testing.TB) (io.ReadWriteCloser, error) {
		cmd := exec.Command(openSSH, "-e")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		return run(t, cmd)
	}
}

func run(t testing.TB, cmd *exec.Cmd) (io.ReadWriteCloser, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // by a signal, or because its input ended
	}()
	t.Cleanup(func() { <-ended })
	return pipe{out, in, func() { _ = cmd.Process.Kill() }}, nil
}

// library runs pkg/sftp's server in this process.
func library(t testing.TB) (io.ReadWriteCloser, error) {
	ar, aw := io.Pipe()
	br, bw := io.Pipe()
	server, err := psftp.NewServer(pipe{ar, bw, func() { ar.Close() }})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Logf("server: %v", err)
		}
		server.Close()
	}()
	t.Cleanup(func() { <-ended })
	return pipe{br, aw, func() { br.Close() }}, nil
}

type server func(testing.TB) (io.ReadWriteCloser, error)

// servers are what the suites run against.
func servers() map[string]server {
	return map[string]server{"OpenSSH": program, "library": library, "bare": bare}
}

// options are those of a slave at root.
func options(t testing.TB, root string, start server, streams int) Options {
	return Options{Path: root, Host: "test", Master: xtime.UUID{1}, Session: xtime.UUID{2}, Version: "test", Streams: streams,
		Logger: zerolog.New(zerolog.NewTestWriter(t)),
		Open:   func(context.Context, int) (io.ReadWriteCloser, error) { return start(t) }}
}

// quickLease makes a holder that was cut off dead soon.
var quickLease = leaseTimes{step: time.Hour, dead: 20 * time.Millisecond, poll: 5 * time.Millisecond}

// memory is a directory in memory, where a sync costs nothing.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "georep-sftp-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestContract(t *testing.T) {
	for name, start := range servers() {
		t.Run(name, func(t *testing.T) {
			slavetest.RunLimited(t, func(t *testing.T) (slave.Tree, string) {
				root := memory(t)
				tree, err := Open(t.Context(), options(t, root, start, 3))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := tree.Close(); err != nil {
						t.Error(err)
					}
				})
				return tree, root
			}, slavetest.Limits{NoLinks: name == "bare", OnRecord: true, ShortPaths: true, NoBasis: true, Blind: true})
		})
	}
}

func TestMain(m *testing.M) {
	if _, err := os.Stat(openSSH); err != nil {
		fmt.Fprintln(os.Stderr, "needs the package openssh-sftp-server:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
