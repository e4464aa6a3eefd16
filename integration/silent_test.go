package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"georep/status"
)

// TestSilentServer stops processes of the slave's host by SIGSTOP: nothing is closed, and the kernel still takes what
// arrives. Two seconds of it are no fault. With GEOREP_NETWORK_FAULTS a minute of it is one, whichever process it is,
// noticed by who waits for it, and healed once they go on.
func TestSilentServer(t *testing.T) {
	n := newNetwork(t)
	t.Cleanup(func() { n.freeze(syscall.SIGCONT, n.everyFar()) })
	if os.Getenv("GEOREP_NETWORK_FAULTS") == "" {
		n.silentFor(2*time.Second, n.everyFar())
		return
	}
	for _, phase := range []netPhase{{"idle", func(_ *network, strike func()) { strike() }}, {"content", (*network).content}} {
		n.silentMinute("host", n.everyFar, phase)
		n.silentMinute("sshd", n.sshds, phase)
		n.silentMinute("agent", n.agents, phase)
	}
}

// everyFar are the processes of the slave's host, those that start others first.
func (s *session) everyFar() []int { return append([]int{s.sshd.Pid()}, s.sshd.Children()...) }

// sshds are all but the agents.
func (s *session) sshds() (pids []int) {
	for _, pid := range s.everyFar() {
		if !isGeorep(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// freeze sends a signal to processes that this test has started. One that has ended meanwhile needs none.
func (s *session) freeze(sig syscall.Signal, pids []int) {
	s.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			s.t.Errorf("signal %v to %d: %v", sig, pid, err)
		}
	}
}

// silentFor stops processes for a while that is no fault.
func (s *session) silentFor(d time.Duration, pids []int) {
	s.t.Helper()
	before := s.status().WorkerPid
	s.freeze(syscall.SIGSTOP, pids)
	writeFile(s.t, filepath.Join(s.master, "meanwhile"), "stopped")
	for begun := time.Now(); time.Since(begun) < d; pause(s.t, 50*time.Millisecond) {
		if st := s.status(); st.State == status.Faulty {
			s.t.Errorf("stopped for %v: Faulty, %s", time.Since(begun), st.Reason)
			break
		}
	}
	s.freeze(syscall.SIGCONT, pids)
	s.waitSynced()
	if now := s.status().WorkerPid; now != before {
		s.t.Errorf("stopped for %v: worker %d became %d", d, before, now)
	}
}

// silentMinute stops processes for a minute at least.
func (n *network) silentMinute(what string, which func() []int, phase netPhase) {
	n.t.Helper()
	const minute = time.Minute
	n.serial++
	var pids []int
	var struck time.Time
	phase.run(n, func() {
		pids, struck = which(), time.Now()
		n.freeze(syscall.SIGSTOP, pids)
	})
	writeFile(n.t, filepath.Join(n.master, "meanwhile"), fmt.Sprint(n.serial))
	st := n.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
	after := time.Since(struck)
	n.t.Logf("%s, %s, %d processes: Faulty after %.1f s: %s", what, phase.name, len(pids), after.Seconds(), st.Reason)
	if len(pids) == 0 || after > noticed || !saysWhy(st.Reason) {
		n.t.Errorf("%s, %s: %d processes, noticed after %v, reason %q", what, phase.name, len(pids), after, st.Reason)
	}
	for time.Since(struck) < minute {
		pause(n.t, 100*time.Millisecond)
	}
	n.freeze(syscall.SIGCONT, pids)
	again := time.Now()
	n.waitSynced()
	n.t.Logf("%s, %s: in step %.1f s after the end", what, phase.name, time.Since(again).Seconds())
}
