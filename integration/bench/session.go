package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"georep/integration/harness/program"
	"georep/marker"
	"georep/status"
)

// session is a georep session from a master to a directory at a site, with a registry of its own.
type session struct {
	site          *site
	state         string
	master, slave string
	remote        string // what to run as georep on the slave's host
	wrap          []string
	more          []string // flags of sync and start
}

// newSession registers the master. Nothing runs yet; what is started ends with the row.
func (s *site) newSession(t *host, master, slave string) *session {
	out := &session{site: s, state: t.TempDir(), master: master, slave: slave, remote: s.lab.binary}
	t.must(finish(out.georep(t.ctx, "volume", "create", "data", master)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out.stop(ctx)
	})
	return out
}

// georep is a command of the master's host.
func (s *session) georep(ctx context.Context, args ...string) *exec.Cmd {
	cmd := command(ctx, append(append(append([]string(nil), s.wrap...), s.site.lab.binary), args...))
	cmd.Env = append(os.Environ(), "GEOREP_STATE_DIR="+s.state, "GEOREP_SSH_CONFIG=none", "SSH_AUTH_SOCK=")
	return cmd
}

// spec is the SLAVE argument.
func (s *session) spec() string { return s.site.sshd.Host + ":" + s.slave }

func (s *session) flags() []string {
	return append([]string{"--ssh-port", strconv.Itoa(s.site.port), "--identity", s.site.sshd.IdentityFile, "--known-hosts",
		s.site.known, "--remote-georep", s.remote}, s.more...)
}

// sync is the one shot.
func (s *session) sync(ctx context.Context) error {
	return finish(s.georep(ctx, append([]string{"sync", "data", s.spec()}, s.flags()...)...))
}

// start starts the session, and returns when the status says that the slave has all that was there before.
func (s *session) start(ctx context.Context) error {
	begin := time.Now()
	if err := finish(s.georep(ctx, append([]string{"start", "data", s.spec()}, s.flags()...)...)); err != nil {
		return err
	}
	return s.inStep(ctx, begin)
}

func (s *session) stop(ctx context.Context) error {
	return finish(s.georep(ctx, "stop", "data", s.spec()))
}

// inStep waits until the status says that the slave has everything that the master had at since.
func (s *session) inStep(ctx context.Context, since time.Time) error {
	return wait(ctx, 5*time.Millisecond, func() (bool, error) {
		st, err := s.status()
		return st.LastSynced.After(since), err
	})
}

// status is what georep status shows, without a process for it.
func (s *session) status() (status.Status, error) {
	list, err := program.Statuses(s.state)
	if err != nil || len(list) != 1 {
		return status.Status{}, fmt.Errorf("%d sessions: %w", len(list), err)
	}
	return list[0], nil
}

// scanned waits until the marker has found what changed before since.
func (s *session) scanned(ctx context.Context, since time.Time) error {
	return wait(ctx, 5*time.Millisecond, func() (bool, error) {
		ms, err := marker.ReadStatus(s.runtime())
		return err == nil && ms.Heartbeat.After(since), nil
	})
}

func (s *session) runtime() string { return filepath.Join(s.state, "volumes", "data.d") }

// peaks is the largest resident set that each process of the running session ever had, in MiB.
func (s *session) peaks() (map[string]float64, error) {
	st, err := s.status()
	if err != nil {
		return nil, err
	}
	ms, err := marker.ReadStatus(s.runtime())
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	pids := map[string]int{"worker": st.WorkerPid, "agent": s.agentPid(), "marker": ms.PID, "monitor": st.MonitorPid}
	for name, pid := range pids {
		if out[name], err = peakMiB(pid); err != nil {
			return nil, fmt.Errorf("the %s's memory: %w", name, err)
		}
	}
	return out, nil
}

// verified compares both sides in full, and gives the largest resident sets that its two ends had meanwhile, in MiB. They are
// looked at a few times a second, up to shortly before their ends.
func (s *session) verified(ctx context.Context) (map[string]float64, error) {
	cmd, out := s.georep(ctx, "verify", "data", s.spec()), &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, said(cmd, err, nil)
	}
	worker := s.agentPid() // serves the session's worker, and is not asked
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	peaks := map[string]float64{}
	note := func(name string, pid int) {
		if v, err := peakMiB(pid); err == nil {
			peaks[name] = max(peaks[name], v)
		}
	}
	for {
		note("verify", cmd.Process.Pid)
		for _, pid := range running(s.remote, "agent") {
			if pid != worker {
				note("its agent", pid)
			}
		}
		select {
		case err := <-ended:
			return peaks, said(cmd, err, []byte(out.String()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// running finds the processes with these first arguments.
func running(args ...string) (pids []int) {
	want := strings.Join(args, "\x00") + "\x00"
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range list {
		if text, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(text), want) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// agentPid reads the pid that the agent left in the lock of the slave; 0 without one.
func (s *session) agentPid() int {
	text, err := os.ReadFile(filepath.Join(s.slave, ".georep", "lock"))
	if err != nil {
		return 0
	}
	word, _, _ := strings.Cut(string(text), " ")
	pid, _ := strconv.Atoi(word)
	return pid
}

// peakMiB reads VmHWM.
func peakMiB(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has none", pid)
}
