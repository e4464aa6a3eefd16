package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rsync brings slave in step with master over the site's line, keeping what georep keeps. --modify-window=-1 compares
// times in nanoseconds.
func (s *site) rsync(ctx context.Context, master, slave string, more ...string) error {
	return finish(command(ctx, s.rsyncArgs(master, slave, more...)))
}

func (s *site) rsyncArgs(master, slave string, more ...string) []string {
	args := []string{"rsync", "-aHAX", "--numeric-ids", "--modify-window=-1", "--filter=-x trusted.glusterfs.*", "-e",
		strings.Join(s.ssh(), " ")}
	return append(append(args, more...), master+"/", s.sshd.Host+":"+slave+"/")
}

// tar is the least that copying a tree over ssh can cost: nothing is compared and nothing is made durable.
func (s *site) tar(ctx context.Context, master, slave string) error {
	from := command(ctx, []string{"tar", "-C", master, "--format=posix", "--numeric-owner", "-cf", "-", "."})
	to := command(ctx, s.sshHost("tar", "-C", slave, "--numeric-owner", "-xpf", "-"))
	return piped(from, to)
}

// cat is the least that sending a file over one ssh channel can cost.
func (s *site) cat(ctx context.Context, from, to string) error {
	return piped(command(ctx, []string{"cat", from}), command(ctx, s.sshHost("cat > "+to)))
}

// piped runs both commands, the first one's output being the other's input.
func piped(from, to *exec.Cmd) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	from.Stdout, to.Stdin = w, r
	err = from.Start()
	w.Close()
	if err != nil {
		r.Close()
		return said(from, err, nil)
	}
	out, err := to.CombinedOutput()
	r.Close()
	if werr := from.Wait(); err == nil && werr != nil {
		return said(from, werr, nil)
	}
	return said(to, err, out)
}

// lsyncd keeps slave in step with master until the row ends, collecting changes for delay seconds; negative is its
// default. It returns when both are the same.
func (s *site) lsyncd(ctx context.Context, t *host, v *live, delay int) error {
	if _, err := exec.LookPath("lsyncd"); err != nil {
		return fmt.Errorf("lsyncd: %w: run integration/bench/setup.sh", errAbsent)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "lsyncd.conf.lua")
	if err := os.WriteFile(conf, []byte(s.lsyncdConfig(v, dir, delay)), 0o600); err != nil {
		return err
	}
	cmd := command(t.ctx, []string{"lsyncd", "-nodaemon", conf})
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return said(cmd, err, nil)
	}
	ctx, end := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := cmd.Wait()
		end(fmt.Errorf("lsyncd ended (%v): %s", err, log.String()))
	}()
	t.Cleanup(func() {
		cmd.Cancel() // it may have ended by itself
		<-ended
	})
	return v.settled(ctx)
}

// lsyncdConfig is in Lua. rsync gets the same options as when it runs alone.
func (s *site) lsyncdConfig(v *live, dir string, delay int) string {
	lines := []string{
		"settings { nodaemon = true, insist = true, statusFile = " + lua(filepath.Join(dir, "status")) + " }",
		"sync { default.rsync,",
		"  source = " + lua(v.master+"/") + ", target = " + lua(s.sshd.Host+":"+v.slave+"/") + ",",
	}
	if delay >= 0 {
		lines = append(lines, fmt.Sprintf("  delay = %d,", delay))
	}
	lines = append(lines,
		"  rsync = { archive = true, hard_links = true, acls = true, xattrs = true,",
		"    rsh = "+lua(strings.Join(s.ssh(), " "))+",",
		`    _extra = { "--numeric-ids", "--modify-window=-1", "--filter=-x trusted.glusterfs.*" } },`,
		"}")
	return strings.Join(lines, "\n") + "\n"
}

// lua quotes text for a Lua program: paths and options, without control characters.
func lua(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
