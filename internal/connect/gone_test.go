package connect_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/internal/connect"
	"georep/slave"
	"georep/slave/slavetest"
)

// endsOf gives what each call says after the end of the session's far end, and what Err does.
func endsOf(t *testing.T, tree slave.Tree) (all []error) {
	t.Helper()
	lost := tree.(interface {
		Done() <-chan struct{}
		Err() error
	})
	select {
	case <-lost.Done():
	case <-time.After(patience):
		t.Fatal("the session goes on")
	}
	_, err := tree.Survey(t.Context(), []slave.Query{{}})
	_, put := tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{slavetest.Put("late", slavetest.Rec(1, 1), "x")}})
	return []error{lost.Err(), err, put}
}

// TestAgentGone: in the middle of a session, too, an end names the host, what ended, and how.
func TestAgentGone(t *testing.T) {
	for name, tt := range map[string]struct {
		streams int
		end     func(t *testing.T, pids []int)
		says    []string
		gone    bool
	}{
		"SIGKILL":            {1, kill(syscall.SIGKILL, 0), []string{"127.0.0.1", "status 137", "memory"}, true},
		"SIGTERM":            {1, kill(syscall.SIGTERM, 0), []string{"127.0.0.1"}, false}, // it says good-bye
		"a further stream's": {3, kill(syscall.SIGKILL, 2), []string{"127.0.0.1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t, tt.streams)
			o, err := c.Session.Options()
			if err != nil {
				t.Fatal(err)
			}
			script, started := filepath.Join(t.TempDir(), "georep"), filepath.Join(t.TempDir(), "pids")
			text := "#!/bin/sh\necho $$ >>" + started + "\nexec " + o.RemoteGeorep + " \"$@\"\n"
			if err := errors.Join(os.WriteFile(script, []byte(text), 0o755), c.Session.Set("remote-georep", script)); err != nil {
				t.Fatal(err)
			}
			tree, err := connect.Slave(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if tt.streams > 1 {
				grow(t, tree, tt.streams)
			}
			tt.end(t, pidsIn(t, started))
			for _, err := range endsOf(t, tree) {
				for _, says := range tt.says {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("it lacks %q: %v", says, err)
					}
				}
				if tt.gone && !errors.Is(err, connect.ErrAgentGone) || connect.Final(err) || strings.Count(err.Error(), "127.0.0.1") > 1 {
					t.Errorf("it is %v", err)
				}
			}
		})
	}
}

func kill(sig syscall.Signal, stream int) func(*testing.T, []int) {
	return func(t *testing.T, pids []int) {
		if err := syscall.Kill(pids[stream], sig); err != nil {
			t.Fatal(err)
		}
	}
}

func pidsIn(t *testing.T, path string) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// TestLineGone: where it is the connection that ends, its error names the host, once.
func TestLineGone(t *testing.T) {
	for _, sftp := range []bool{false, true} {
		begin := config
		if sftp {
			begin = sftpConfig
		}
		c := begin(t, 1)
		p := through(t, &c)
		tree, err := connect.Slave(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		p.Cut()
		for _, err := range endsOf(t, tree) {
			if !strings.Contains(err.Error(), "127.0.0.1") || errors.Is(err, connect.ErrAgentGone) || connect.Final(err) {
				t.Errorf("SFTP %v: %v", sftp, err)
			}
		}
		tree.Close()
	}
}
