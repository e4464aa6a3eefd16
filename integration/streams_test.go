package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
	"georep/integration/harness/tree"
	"georep/internal/sshdtest"
)

// bulk writes files that are large enough for a session to open all of its streams, and some that are small.
func bulk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "many"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		writeFile(t, filepath.Join(dir, fmt.Sprint("large", i)), strings.Repeat(strconv.Itoa(i), 1<<20))
	}
	if err := tree.Many(filepath.Join(dir, "many"), 400, 20, 4096); err != nil {
		t.Fatal(err)
	}
}

// grown starts a session with bulk, waits until it has all of its streams, and returns how many.
func (s *session) grown(t *testing.T, more ...string) int {
	t.Helper()
	bulk(t, filepath.Join(s.master, "bulk"))
	flags := []string{"--log-level", "debug"}
	if os.Getenv(jobsVar) != "" {
		flags = append(flags, "--sync-jobs", "8") // what it is otherwise; these tests are about the number
	}
	s.must(s.start(append(flags, more...)...))
	s.waitSynced()
	const message = "the session has all of its streams"
	for deadline := time.Now().Add(patience); s.lastLogged(message, "streams") == nil; pause(t, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session does not grow")
		}
	}
	return s.lastLogged(message, "streams").(int)
}

// agents are the processes of georep on the slave's host.
func (s *session) agents() (pids []int) {
	for _, pid := range s.sshd.Children() {
		if isGeorep(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// waitAgents waits for a number of agents.
func (s *session) waitAgents(want int) []int {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; pause(s.t, 20*time.Millisecond) {
		pids := s.agents()
		if len(pids) == want {
			return pids
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d agents, want %d", len(pids), want)
		}
	}
}

// TestStreams has a session with several streams over a real sshd.
func TestStreams(t *testing.T) {
	for name, c := range map[string]struct {
		sshd, flags []string
		want        int
		warned      bool
	}{
		"as it comes":             {want: 8},
		"as many as there may be": {sshd: []string{"MaxSessions 20"}, flags: []string{"--sync-jobs", "16"}, want: 16},
		"one":                     {sshd: []string{"MaxSessions 1"}, flags: []string{"--sync-jobs", "1"}, want: 1},
		"fewer than wanted":       {sshd: []string{"MaxSessions 3"}, want: 6, warned: true},
		"one a connection":        {sshd: []string{"MaxSessions 1"}, want: 2, warned: true},
	} {
		t.Run(name, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			var options []sshdtest.Option
			for _, line := range c.sshd {
				options = append(options, sshdtest.Config(line))
			}
			s := newSession(t, master, slave, options...)
			if c.want == 1 {
				bulk(t, filepath.Join(master, "bulk"))
				s.must(s.start(c.flags...))
				s.waitSynced()
			} else if n := s.grown(t, c.flags...); n != c.want {
				t.Errorf("%d streams, want %d", n, c.want)
			}
			s.waitAgents(c.want)
			if said := s.lastLogged("the session goes on with fewer streams than sync-jobs says", "streams"); (said != nil) != c.warned {
				t.Errorf("the log says of fewer streams: %v", said)
			}
			bulk(t, filepath.Join(master, "again"))
			if err := os.RemoveAll(filepath.Join(master, "bulk", "many")); err != nil {
				t.Fatal(err)
			}
			s.waitSynced()
			s.must(s.run("stop", s.masterArg, s.spec))
			s.waitAgents(0)
		})
	}
}

// TestStreamsOfAForcedCommand has a login that may run nothing but the agent of one volume.
func TestStreamsOfAForcedCommand(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	key, err := os.ReadFile(s.sshd.AuthorizedKeys)
	if err != nil {
		t.Fatal(err)
	}
	command := fmt.Sprintf("%s --state-dir %s agent --volume copy", binary, s.far)
	writeFile(t, s.sshd.AuthorizedKeys, fmt.Sprintf("restrict,command=%q %s", command, key))
	if n := s.grown(t); n != 8 {
		t.Errorf("%d streams, want 8", n)
	}
}

// TestStreamsAreLost kills, with SIGKILL, the agent of a further stream and then that of the first one: the session begins
// anew each time, and nothing of the one before is left.
func TestStreamsAreLost(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	if n := s.grown(t, "--retry-max", "1s"); n != 8 {
		t.Fatalf("%d streams, want 8", n)
	}
	for round, first := range []bool{false, true, false, true} {
		before := s.waitAgents(8)
		main := s.agentPid()
		if !slices.Contains(before, main) {
			t.Fatalf("the agents are %v, and the slave's lock is that of %d", before, main)
		}
		victim := main
		if !first {
			victim = before[slices.IndexFunc(before, func(pid int) bool { return pid != main })]
		}
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		bulk(t, filepath.Join(master, fmt.Sprint("more", round)))
		s.waitSynced()
		for _, pid := range s.waitAgents(8) {
			if slices.Contains(before, pid) {
				t.Errorf("agent %d of the session before is left", pid)
			}
		}
	}
	s.must(s.run("stop", s.masterArg, s.spec))
	s.waitAgents(0)
	names, err := filepath.Glob(filepath.Join(slave, ".georep", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Lstat(name); err != nil || info.Mode()&os.ModeSocket != 0 {
			t.Errorf("%s is left: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestStreamsOverALongLine has several streams over a line with a delay and a bounded rate.
func TestStreamsOverALongLine(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	s.through(proxy.Options{Delay: 10 * time.Millisecond, Rate: 64 << 20})
	if n := s.grown(t); n != 8 {
		t.Errorf("%d streams, want 8", n)
	}
	if err := os.RemoveAll(filepath.Join(master, "bulk", "many")); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.OneOfEverything(filepath.Join(master, "bulk")); err != nil {
		t.Fatal(err)
	}
	s.waitSynced()
}
