package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// serveRow is the first sync to georep serve, beside rsync and georep over sshd.
func serveRow(l *lab, t *host, rep *report) {
	files, bytes := l.scaled(100_000, 10), l.scaled(1<<30, 1<<20)
	small := l.memory(t, int64(files)*2*4096)
	l.serveLine(t, rep, small, manyFiles(t, small, files, 1000, 4096), line{
		work: fmt.Sprintf("first sync to georep serve, %s files of 4 KiB, %s", thousands(files), lan), unit: "s", goal: ratioGoal(0.55)})
	big := l.memory(t, int64(bytes)*2)
	l.serveLine(t, rep, big, bigMaster(t, big, bytes), line{
		work: fmt.Sprintf("one random file of %s to georep serve, %s", size(bytes), lan), unit: "s", goal: ratioGoal(0.4)})
}

// serveLine has the three copy a master in turn.
func (l *lab) serveLine(t *host, rep *report, dir, master string, row line) {
	s := l.direct(t)
	sshd := s.georepCopier(t, dir, master)
	sshd.name = "georep over sshd"
	out := l.contest(t, s.serveCopier(t, dir, master),
		s.copier("rsync", dir, master, equal, func(ctx context.Context, slave string) error { return s.rsync(ctx, master, slave) }),
		sshd)
	row.ours, row.peers = out[0], out[1:]
	rep.lines = append(rep.lines, row)
}

// served is a slave's host with georep serve, for one round.
type served struct {
	session *session
	far, to string
	server  *exec.Cmd
}

// serveCopier is georepCopier by way of a georep serve. The server, and what both hosts know of each other, are new each
// round, and not timed.
func (s *site) serveCopier(t *host, dir, master string) contender {
	var v *served
	c := s.copier("georep serve", dir, master, equal, func(ctx context.Context, _ string) error {
		return finish(v.session.georep(ctx, "sync", "data", v.to))
	})
	empty, judged := c.prepare, c.verify
	c.prepare = func(round int) error {
		if err := empty(round); err != nil {
			return err
		}
		v = &served{session: s.newSession(t, master, filepath.Join(dir, slaveName)), far: t.TempDir()}
		return v.begin(t.ctx)
	}
	c.verify = func(round int) error {
		if err := v.end(); err != nil {
			return err
		}
		return judged(round)
	}
	return c
}

// onFar runs georep on the slave's host, and gives what it said.
func (v *served) onFar(ctx context.Context, args ...string) (string, error) {
	cmd := v.session.georep(ctx, append([]string{"--state-dir", v.far}, args...)...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), said(cmd, err, out)
}

// begin registers both ends, and starts the server. It returns when that listens.
func (v *served) begin(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	v.to = "georep://" + addr + "/copy"
	if _, err := v.onFar(ctx, "volume", "create", "copy", v.session.slave); err != nil {
		return err
	}
	key, err := v.onFar(ctx, "serve", "--fingerprint")
	if err != nil {
		return err
	}
	line, err := v.session.georep(ctx, "authorize", "--print", "--host-key", key, "data", v.to).Output()
	if err != nil {
		return fmt.Errorf("authorize: %w", err)
	}
	if _, err := v.onFar(ctx, "serve", "--authorize", string(line)); err != nil {
		return err
	}
	v.server = v.session.georep(ctx, "--state-dir", v.far, "--log-level", "warn", "serve", "--listen", addr)
	v.server.Stderr = os.Stderr
	if err := v.server.Start(); err != nil {
		return fmt.Errorf("start georep serve: %w", err)
	}
	return wait(ctx, 5*time.Millisecond, func() (bool, error) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false, nil // not yet
		}
		return true, conn.Close()
	})
}

// end stops the server, which waits for its agents.
func (v *served) end() error {
	if err := v.server.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop georep serve: %w", err)
	}
	return said(v.server, v.server.Wait(), nil)
}
