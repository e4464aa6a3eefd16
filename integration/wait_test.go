package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/oracle"
	"georep/integration/harness/proxy"
	"georep/marker"
)

// TestWaitOverCuts: under changes that never end, whatever is cut, stopped, killed or started again meanwhile, wait comes back, and at
// each return the slave has what the master had when wait began, or at the checkpoint. GEOREP_WAITS is how often each is done.
func TestWaitOverCuts(t *testing.T) {
	master, slave := twoSides(t, t.TempDir())
	s := newSession(t, master, slave)
	line := s.through(proxy.Options{})
	o := oracle.New(t, master, 1)
	s.must(s.start("--retry-max", "1s", "--settle", "100ms", "--max-delay", "1s"))
	stop := make(chan struct{})
	var load sync.WaitGroup
	defer load.Wait()
	defer close(stop)
	load.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			if err := o.Change(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("GEOREP_WAITS")); err == nil {
		rounds = n
	}
	cuts := []struct {
		name string
		cut  func() (mend func())
	}{
		{"nothing", func() func() { return nil }},
		{"the line is cut", func() func() { line.Cut(); return nil }},
		{"the line stands still", func() func() { line.Stall(); return line.Resume }},
		{"the agent is killed", func() func() { s.killIf(s.agentPid()); return nil }},
		{"the agent stands still", func() func() {
			pid := s.agentPid()
			if !isGeorep(pid) {
				return nil
			}
			s.check(unix.Kill(pid, unix.SIGSTOP))
			return func() { s.check(unix.Kill(pid, unix.SIGCONT)) }
		}},
		{"the worker is killed", func() func() { s.killIf(s.status().WorkerPid); return nil }},
		{"the marker is killed", func() func() {
			if st, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d")); err == nil {
				s.killIf(st.PID)
			}
			return nil
		}},
		{"the monitor is killed", func() func() { s.killIf(s.status().MonitorPid); return func() { s.ensureStarted() } }},
	}
	for i := range rounds * len(cuts) {
		c := cuts[i%len(cuts)]
		at := o.Moment()
		name := fmt.Sprint("c", i)
		s.must(s.run("checkpoint", s.masterArg, s.spec, "--name", name))
		words := []string{"wait", s.masterArg, s.spec, "--ignore-hidden-writers", "--timeout", patience.String()}
		if i%3 == 2 {
			words = append(words, "--checkpoint", name)
		}
		var out, errs bytes.Buffer
		wait := s.command(t.Context(), words...)
		wait.Stdout, wait.Stderr = &out, &errs
		mend := c.cut()
		s.check(wait.Start())
		if mend != nil { // it goes on for a moment while wait waits
			pause(t, 500*time.Millisecond)
			mend()
		}
		if err := wait.Wait(); err != nil || !strings.Contains(out.String(), "the slave has everything") {
			t.Fatalf("%s: %v: %s%s", c.name, err, out.String(), errs.String())
		}
		o.Check(t, slave, at)
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
}

// killIf kills what is a process of georep: one that was to be killed may have ended.
func (s *session) killIf(pid int) {
	s.t.Helper()
	if isGeorep(pid) {
		s.check(unix.Kill(pid, unix.SIGKILL))
	}
}

func (s *session) check(err error) {
	s.t.Helper()
	if err != nil && !errors.Is(err, unix.ESRCH) {
		s.t.Fatal(err)
	}
}
