package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/program"
	"georep/status"
)

// What the row on the service runs, and how long it watches.
const (
	serviceMasters = 10
	serviceSlaves  = 5 // of each master
	serviceIdle    = 60 * time.Second
	serviceFiles   = 100 // in each master
)

// service is georep run with its sessions.
type service struct {
	*session
	cmd      *exec.Cmd
	sessions int
}

// serviceRow measures many sessions of one service: how long it takes until all are Active, and what they need while nothing
// changes.
func serviceRow(l *lab, t *host, rep *report) {
	s := l.newService(t)
	t.must(s.run(t))
	t.must(s.georep(t.ctx, "apply", "--config", s.config(t)).Run())
	t.must(s.active(t))
	s.end(t)
	began := time.Now()
	t.must(s.run(t))
	t.must(s.active(t))
	all := time.Since(began)
	t.must(rest(t.ctx, 10*time.Second)) // what a start leaves to do is done then
	before := s.processes(t)
	t.must(rest(t.ctx, serviceIdle))
	rep.tables = append(rep.tables, s.table(before, s.processes(t), all))
	s.end(t)
}

func (l *lab) newService(t *host) *service {
	dir := l.memory(t, 256<<20)
	masters := max(l.scaled(serviceMasters, 1), 1)
	for i := range masters {
		manyFiles(t, mkdir(t, dir, fmt.Sprint("m", i)), serviceFiles, 10, 1024)
	}
	out := &session{site: l.direct(t), state: t.TempDir(), master: dir, slave: mkdir(t, dir, "slaves"), remote: l.binary}
	return &service{session: out, sessions: masters * serviceSlaves}
}

// config writes the file that names all sessions.
func (s *service) config(t *host) string {
	var b strings.Builder
	for i := range s.sessions {
		fmt.Fprintf(&b, "[[session]]\nmaster = %q\nslave = %q\nssh-port = %d\nidentity = %q\nknown-hosts = %q\nremote-georep = %q\n",
			filepath.Join(s.master, fmt.Sprint("m", i/serviceSlaves), "master"), s.site.sshd.Host+":"+filepath.Join(s.slave, fmt.Sprint(i)),
			s.site.port, s.site.sshd.IdentityFile, s.site.known, s.remote)
	}
	path := filepath.Join(t.TempDir(), "georep.toml")
	t.must(os.WriteFile(path, []byte(b.String()), 0o600))
	return path
}

// run starts the service. It is ready when its socket is there.
func (s *service) run(t *host) error {
	s.cmd = s.georep(context.Background(), "run")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	t.Cleanup(func() { s.end(t) })
	return wait(t.ctx, 5*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(filepath.Join(s.state, "run.sock"))
		return err == nil, nil
	})
}

// end ends the service and waits for it.
func (s *service) end(t *host) {
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Log(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Log(err)
	}
	s.cmd = nil
}

// active waits until each session is Active, and was in step at least once.
func (s *service) active(t *host) error {
	return wait(t.ctx, 10*time.Millisecond, func() (bool, error) {
		list, err := program.Statuses(s.state)
		if err != nil || len(list) < s.sessions {
			return false, err
		}
		return !slices.ContainsFunc(list, func(st status.Status) bool { return st.State != status.Active || st.LastSynced.IsZero() }), nil
	})
}

// ticksPerSecond is USER_HZ, which is the same on every Linux.
const ticksPerSecond = 100

// usage is what a process needs.
type usage struct {
	ticks int64 // of processor time so far
	kib   int64 // of memory, with its share of what several processes have in common
}

// processes sums what the processes of each kind need. An agent's parents, sshd's, are another program's.
func (s *service) processes(t *host) map[string]usage {
	out := map[string]usage{}
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	t.must(err)
	for _, path := range list {
		text, err := os.ReadFile(path)
		words := strings.Split(string(text), "\x00")
		if err != nil || len(words) < 2 || words[0] != s.site.lab.binary {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		u, err := usageOf(pid)
		if err != nil {
			continue // it has ended
		}
		kind := words[1]
		if kind == "--state-dir" && len(words) > 3 {
			kind = words[3]
		}
		out[kind] = usage{out[kind].ticks + u.ticks, out[kind].kib + u.kib}
	}
	return out
}

func usageOf(pid int) (u usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime = 11, 12 // counted from the state, proc_pid_stat(5)
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.ticks += n
	}
	text, err = os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return u, err
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	_, err = fmt.Sscan(rest, &u.kib)
	return u, err
}

// table shows what each kind needed a session.
func (s *service) table(before, after map[string]usage, all time.Duration) table {
	out := table{title: fmt.Sprintf("%d sessions of one service, nothing changes", s.sessions),
		rows: [][]string{{"process", "MiB a session", "% of a core a session"}},
		note: fmt.Sprintf("Memory is the proportional set size (PSS). The goal is 30 MiB and 0.2 %% a session on the master's host, and all Active "+
			"within 10 s of the start: %s s here, with the agents on the same machine.", number(all.Seconds()))}
	n := float64(s.sessions)
	row := func(name string, kib, ticks int64) {
		share := 100 * float64(ticks) / ticksPerSecond / serviceIdle.Seconds() / n
		out.rows = append(out.rows, []string{name, number(float64(kib) / 1024 / n), number(share)})
	}
	sum := usage{}
	for _, kind := range []string{"run", "monitor", "worker", "marker"} {
		kib, ticks := after[kind].kib, after[kind].ticks-before[kind].ticks
		row(kind, kib, ticks)
		sum.kib, sum.ticks = sum.kib+kib, sum.ticks+ticks
	}
	row("master's host", sum.kib, sum.ticks)
	row("agent, on the slave's host", after["agent"].kib, after["agent"].ticks-before["agent"].ticks)
	return out
}
