package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"georep/integration/harness/compare"
	"georep/integration/harness/tree"
)

// rcloneTransfers is how many files rclone has on their way: its default of 4 would take hours. It looks at a file's directory
// before each file, for one file of a directory at a time, and goes through the directories in turn: with 1,000 files in
// each it would bring over ten files a second, however many transfers it may make. With few it is at its best.
const (
	rcloneTransfers = 64
	sftpPerDir      = 10
)

// rclone brings slave in step with master over the site's SFTP server. As georep, it does not read back what it wrote.
func (s *site) rclone(ctx context.Context, master, slave string) error {
	n := strconv.Itoa(rcloneTransfers)
	cmd := command(ctx, []string{"rclone", "--config", os.DevNull, "sync", master, ":sftp:" + slave, "--sftp-host", s.sshd.Host,
		"--sftp-port", strconv.Itoa(s.port), "--sftp-user", s.sshd.User, "--sftp-key-file", s.sshd.IdentityFile,
		"--sftp-known-hosts-file", s.known, "--transfers", n, "--checkers", n, "--sftp-disable-hashcheck", "--exclude", "/.georep/**", "-q"})
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	return finish(cmd)
}

// shown judges those who keep what SFTP can carry: times in seconds are as good as none here. rclone keeps no modes, so
// neither has to.
func shown(master, slave string) error {
	o := compare.Replica()
	o.IgnoreMtime, o.IgnoreMode, o.IgnoreRoot = true, true, true
	o.IgnoreXattr = func(string) bool { return true }
	return compare.Equal(master, slave, o)
}

// sftpRow is the first sync of many small files to a server that runs nothing of ours, and one change in them.
func sftpRow(l *lab, t *host, rep *report) {
	const size = 4096
	files := l.scaled(100_000, 10)
	dir := l.memory(t, int64(files)*2*size+256<<20)
	master := manyFiles(t, dir, files, sftpPerDir, size)
	s := l.over(t, wan)
	var session *session
	ours := s.copier("georep", dir, master, shown, func(ctx context.Context, _ string) error { return session.sync(ctx) })
	empty := ours.prepare
	ours.prepare = func(round int) error {
		session = s.newSession(t, master, filepath.Join(dir, slaveName))
		session.more = []string{"--agentless"}
		return empty(round)
	}
	out := l.contest(t, ours, s.copier(fmt.Sprintf("rclone, %d transfers", rcloneTransfers), dir, master, shown,
		func(ctx context.Context, slave string) error { return s.rclone(ctx, master, slave) }))
	rep.lines = append(rep.lines, line{work: fmt.Sprintf("first sync by SFTP, %s files of 4 KiB, WAN", thousands(files)),
		ours: out[0], peers: out[1:], unit: "s", goal: goal{"≤ 1/3 × rclone", func(l *line) bool { return l.ratio() <= 1.0/3 }}})
	rep.lines = append(rep.lines, l.sftpChange(t))
}

// sftpChange is one change in a tree that is kept in step by SFTP.
func (l *lab) sftpChange(t *host) line {
	const most = 2000 // milliseconds
	dir := l.memory(t, 256<<20)
	v := live{master: mkdir(t, dir, "master"), slave: mkdir(t, dir, slaveName), judge: compare.Replica()}
	v.judge.IgnoreMtime, v.judge.IgnoreXattr = true, func(string) bool { return true }
	t.must(tree.Many(v.master, l.scaled(10_000, 10), 1000, 4096))
	session := l.over(t, wan).newSession(t, v.master, v.slave)
	session.more = []string{"--agentless"}
	v.start = session.start
	took := l.sampled(t, "georep", v, l.scaled(30, 5))
	session.stop(t.ctx)
	return line{work: "a write until it is visible, by SFTP, WAN, p50", ours: took.at(0.5), unit: "ms",
		goal: valueGoal("≤ 2 s", most)}
}
