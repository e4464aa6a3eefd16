package connect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	built "georep/integration/harness/program"
	"georep/integration/harness/proxy"
	"georep/internal/connect"
	"georep/internal/sshdtest"
	"georep/internal/sshserver"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/slavetest"
	"georep/volume"
)

// patience bounds waits for what must happen. It measures nothing.
const patience = time.Minute

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// config is a session whose slave is behind an embedded server.
func config(t *testing.T, streams int) connect.Config {
	t.Helper()
	program := filepath.Join(t.TempDir(), "georep")
	built.Link(t, program)
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("GEOREP_SSH_CONFIG", "none")
	server, err := sshserver.New(sshserver.Config{Handler: sshserver.Shell})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		noneLeft(t, program)
	})
	dir := t.TempDir()
	identity, known := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	err = errors.Join(os.WriteFile(identity, server.ClientKey(), 0o600),
		os.WriteFile(known, []byte(server.KnownHostsLine()+"\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	to, err := volume.ParseSlave("127.0.0.1:" + filepath.Join(dir, "slave"))
	if err != nil {
		t.Fatal(err)
	}
	s := volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()}
	for key, value := range map[string]string{"ssh-port": strconv.Itoa(server.Addr().(*net.TCPAddr).Port),
		"identity": identity, "known-hosts": known, "remote-georep": program, "remote-state-dir": filepath.Join(dir, "state"),
		"sync-jobs": strconv.Itoa(streams), "compression": "off"} {
		if err := s.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	return connect.Config{Session: s, Volume: volume.Volume{Name: "data", UUID: xtime.NewUUID().String(), Path: t.TempDir()},
		Version: "test", Logger: zerolog.New(zerolog.NewTestWriter(t)), Wire: new(atomic.Int64)}
}

// noneLeft checks that no process runs the program.
func noneLeft(t *testing.T, program string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		var left []string
		links, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, program) {
				left = append(left, link)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left: %v", left)
			return
		}
	}
}

// grow sends files, which it gives the content of, until the session has so many streams.
func grow(t *testing.T, tree slave.Tree, streams int) string {
	t.Helper()
	text := strings.Repeat("content ", 100_000)
	group := tree.(interface{ Streams() int })
	for deadline := time.Now().Add(patience); ; {
		var wg sync.WaitGroup
		for i := range 2 * streams {
			wg.Go(func() {
				b := &slave.Batch{Ops: []slave.Op{slavetest.Put(fmt.Sprint(i), slavetest.Rec(i, 1), text)}}
				if results, err := tree.Apply(t.Context(), b); err != nil || results[0].Err != nil {
					t.Errorf("apply: %v, %v", results, err)
				}
			})
		}
		wg.Wait()
		if group.Streams() == streams || t.Failed() {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams, want %d", group.Streams(), streams)
		}
	}
}

// TestStreams connects with several streams, through the embedded server.
func TestStreams(t *testing.T) {
	for _, streams := range []int{1, 8, agent.MaxStreams} {
		t.Run(fmt.Sprint(streams), func(t *testing.T) {
			c := config(t, streams)
			tree, err := connect.Slave(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			text := grow(t, tree, streams)
			for i := range 2 * streams {
				got, err := os.ReadFile(filepath.Join(tree.Info().Path, fmt.Sprint(i)))
				if err != nil || string(got) != text {
					t.Errorf("file %d: %d bytes, %v", i, len(got), err)
				}
			}
			if n := c.Wire.Load(); n < int64(2*streams*len(text)) {
				t.Errorf("%d bytes on the wire", n)
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLines: many streams are spread over two connections, and do with one where no second is to be had.
func TestLines(t *testing.T) {
	for name, refuse := range map[string]bool{"two": false, "refused": true} {
		t.Run(name, func(t *testing.T) {
			c := config(t, 8)
			p := through(t, &c)
			tree, err := connect.Slave(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			p.Refuse(refuse)
			grow(t, tree, 8)
			want := proxy.Stats{Connections: 2, Open: 2}
			if refuse {
				want.Open = 1
			}
			if got := p.Stats(); got.Connections != want.Connections || got.Open != want.Open {
				t.Errorf("%d connections, %d open, want %d and %d", got.Connections, got.Open, want.Connections, want.Open)
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
			for deadline := time.Now().Add(patience); p.Stats().Open > 0; <-time.After(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("a connection is left")
				}
			}
		})
	}
}

// TestMuch: where much is to be sent all streams are opened at once, and over both connections; and whatever becomes of the
// session, nothing is left of that.
func TestMuch(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		c := config(t, 8)
		p := through(t, &c)
		c.NeedsBulk = func(context.Context) bool { return true }
		tree, err := connect.Slave(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		eventually(t, "all streams", func() bool { return tree.(interface{ Streams() int }).Streams() == 8 })
		if st := p.Stats(); st.Connections != 2 {
			t.Errorf("%d connections", st.Connections)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the end of all connections", func() bool { return p.Stats().Open == 0 })
	})
	t.Run("no", func(t *testing.T) {
		c := config(t, 8)
		p := through(t, &c)
		said := make(chan struct{})
		c.NeedsBulk = func(context.Context) bool { defer close(said); return false }
		tree, err := connect.Slave(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		<-said
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		if st := p.Stats(); st.Connections != 1 || tree.(interface{ Streams() int }).Streams() != 1 {
			t.Errorf("%d connections", st.Connections)
		}
	})
	t.Run("ends before it is known", func(t *testing.T) {
		c := config(t, 8)
		p := through(t, &c)
		c.NeedsBulk = func(ctx context.Context) bool { <-ctx.Done(); return true }
		tree, err := connect.Slave(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		eventually(t, "the end of all connections", func() bool { return p.Stats().Open == 0 })
	})
	t.Run("fails", func(t *testing.T) {
		c := config(t, 8)
		if err := c.Session.Set("remote-georep", "/nowhere/georep"); err != nil {
			t.Fatal(err)
		}
		p := through(t, &c)
		c.NeedsBulk = func(context.Context) bool { return true }
		before := runtime.NumGoroutine()
		if _, err := connect.Slave(t.Context(), c); !errors.Is(err, connect.ErrNoAgent) {
			t.Errorf("%v", err)
		}
		eventually(t, "the end of all connections", func() bool { return p.Stats().Open == 0 })
		eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// TestLinesSFTP: so are SFTP sessions; sshd may refuse the second connection.
func TestLinesSFTP(t *testing.T) {
	for name, refuse := range map[string]bool{"two": false, "refused": true} {
		t.Run(name, func(t *testing.T) {
			c := sftpConfig(t, 8)
			p := through(t, &c)
			before := runtime.NumGoroutine()
			var refused sync.WaitGroup
			if refuse {
				refused.Go(func() { // once the first is there, long before it has logged in
					eventually(t, "a first connection", func() bool { return p.Stats().Connections == 1 })
					p.Refuse(true)
				})
			}
			tree, err := connect.Slave(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			refused.Wait()
			open := 2
			if refuse {
				open = 1
			}
			eventually(t, "a second connection", func() bool {
				st := p.Stats()
				return st.Connections == 2 && st.Open == open
			})
			for i := range 16 {
				b := &slave.Batch{Ops: []slave.Op{slavetest.Put(fmt.Sprint(i), slavetest.Rec(i, 1), "content")}}
				if results, err := tree.Apply(t.Context(), b); err != nil || results[0].Err != nil {
					t.Errorf("apply: %v, %v", results, err)
				}
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, "the end of all connections", func() bool { return p.Stats().Open == 0 })
			eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

// sftpConfig is a session whose slave is behind a real sshd that gives SFTP alone.
func sftpConfig(t *testing.T, streams int) connect.Config {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("GEOREP_SSH_CONFIG", "none")
	server := sshdtest.Start(t, sshdtest.Config("ForceCommand internal-sftp"))
	to, err := volume.ParseSlave(server.Host + ":" + filepath.Join(t.TempDir(), "slave"))
	if err != nil {
		t.Fatal(err)
	}
	s := volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()}
	for key, value := range map[string]string{"ssh-port": strconv.Itoa(server.Port), "identity": server.IdentityFile,
		"known-hosts": server.KnownHostsFile, "agentless": "true", "sync-jobs": strconv.Itoa(streams)} {
		if err := s.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	return connect.Config{Session: s, Volume: volume.Volume{Name: "data", UUID: xtime.NewUUID().String(), Path: t.TempDir()},
		Version: "test", Logger: zerolog.New(zerolog.NewTestWriter(t)), Wire: new(atomic.Int64)}
}

// eventually waits until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("no sign of %s", what)
			return
		}
	}
}

// through puts a proxy between.
func through(t *testing.T, c *connect.Config) *proxy.Proxy {
	t.Helper()
	o, err := c.Session.Options()
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(net.JoinHostPort("127.0.0.1", strconv.Itoa(o.SSHPort)), proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	known, err := os.ReadFile(o.Trust.KnownHosts)
	if err == nil {
		text := strings.ReplaceAll(string(known), strconv.Itoa(o.SSHPort), strconv.Itoa(p.Port()))
		err = errors.Join(os.WriteFile(o.Trust.KnownHosts, []byte(text), 0o600), c.Session.Set("ssh-port", strconv.Itoa(p.Port())))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The settings know as many streams as the protocol does.
func TestSyncJobs(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 1: true, agent.MaxStreams: true, agent.MaxStreams + 1: false} {
		s := volume.Session{}
		if err := s.Set("sync-jobs", strconv.Itoa(n)); (err == nil) != ok {
			t.Errorf("sync-jobs %d: %v", n, err)
		}
	}
}
