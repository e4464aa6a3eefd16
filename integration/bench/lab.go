package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh/knownhosts"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
	"georep/integration/harness/tree"
	"georep/internal/sshdtest"
)

// lab is what all rows share.
type lab struct {
	cfg    config
	dir    string // of the georep binary
	binary string
	grown  map[int]*grown // by the number of files; see grow.go
}

// newLab builds georep, as a user would.
func newLab(ctx context.Context, c config, errs io.Writer) (*lab, error) {
	dir, err := os.MkdirTemp("", "georep-bench-")
	if err != nil {
		return nil, fmt.Errorf("make room for the program: %w", err)
	}
	l := &lab{cfg: c, dir: dir, binary: filepath.Join(dir, "georep"), grown: map[int]*grown{}}
	out, err := exec.CommandContext(ctx, "go", "build", "-o", l.binary, "georep/cmd/georep").CombinedOutput()
	if err != nil {
		l.close()
		return nil, fmt.Errorf("build georep: %w: %s", err, out)
	}
	return l, nil
}

func (l *lab) close() { os.RemoveAll(l.dir) }

// scaled is a number of files or bytes at the scale asked for, at least least.
func (l *lab) scaled(n, least int) int { return max(int(float64(n)*l.cfg.scale), least) }

// memory mounts a tmpfs for bytes of data, and as many files as there is memory for.
func (l *lab) memory(t *host, bytes int64) string {
	return fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: bytes + 64<<20, MountOptions: "nr_inodes=0"})
}

// mkdir makes a directory in dir.
func mkdir(t *host, dir, name string) string {
	path := filepath.Join(dir, name)
	t.must(os.Mkdir(path, 0o755))
	return path
}

// manyFiles fills a new directory master in dir.
func manyFiles(t *host, dir string, files, perDir, size int) string {
	master := mkdir(t, dir, "master")
	t.must(tree.Many(master, files, perDir, size))
	return master
}

// Lines between master and slave.
const (
	lan = "LAN"
	wan = "WAN"
)

// The WAN: a round trip of 100 ms, 1 Gbit/s in each direction. The window is what a router might hold for a connection,
// more than rate times delay.
const (
	wanDelay  = 50 * time.Millisecond
	wanRate   = 125_000_000
	wanWindow = 16 << 20
)

// site is a slave's host: an sshd, what leads to it, and where it keeps its state.
type site struct {
	lab   *lab
	sshd  *sshdtest.Server
	port  int          // where clients connect
	line  *proxy.Proxy // nil for a direct connection
	known string       // the known_hosts file for that port
}

// direct is a site on the LAN, with nothing between.
func (l *lab) direct(t *host) *site {
	s := &site{lab: l, sshd: sshdtest.Start(t, sshdtest.Env("GEOREP_STATE_DIR", t.TempDir()))}
	s.port, s.known = s.sshd.Port, s.sshd.KnownHostsFile
	return s
}

// behind is a site behind a proxy, which counts the bytes.
func (l *lab) behind(t *host, o proxy.Options) *site {
	s := l.direct(t)
	line, err := proxy.New(s.sshd.Addr(), o)
	t.must(err)
	t.Cleanup(func() { line.Close() })
	s.line, s.port = line, line.Port()
	s.known = filepath.Join(t.TempDir(), "known_hosts")
	var text strings.Builder
	for _, key := range s.sshd.HostKeys {
		fmt.Fprintln(&text, knownhosts.Line([]string{line.Addr()}, key))
	}
	t.must(os.WriteFile(s.known, []byte(text.String()), 0o600))
	return s
}

// over is a site at the end of the LAN or of the WAN.
func (l *lab) over(t *host, which string) *site {
	if which == wan {
		return l.behind(t, proxy.Options{Delay: l.cfg.rtt / 2, Rate: wanRate, Window: wanWindow})
	}
	return l.direct(t)
}

// wire is how many bytes the line has carried so far.
func (s *site) wire() int64 {
	if s.line == nil {
		return 0
	}
	n := s.line.Stats()
	return n.BytesUp + n.BytesDown
}

// measured times do and counts what goes over the line meanwhile.
func (s *site) measured(do func() error) (result, error) {
	before := s.wire()
	seconds, err := clocked(do)
	return result{seconds: seconds, wire: s.wire() - before}, err
}

// ssh is the client's command line for the site, up to the host. Every peer uses it, with the cipher that is fastest
// here and that georep takes too.
func (s *site) ssh() []string {
	return []string{"ssh", "-F", "none", "-p", strconv.Itoa(s.port), "-i", s.sshd.IdentityFile,
		"-o", "UserKnownHostsFile=" + s.known, "-o", "StrictHostKeyChecking=yes", "-o", "IdentityAgent=none",
		"-o", "LogLevel=ERROR", "-c", "aes128-gcm@openssh.com"}
}

// sshHost is ssh with the host, to which a remote command is appended.
func (s *site) sshHost(remote ...string) []string {
	return append(append(s.ssh(), s.sshd.Host), remote...)
}

// command is a process that ends, with all that it started, when ctx does.
func command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// finish runs a command; its output is in the error.
func finish(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	return said(cmd, err, out)
}

func said(cmd *exec.Cmd, err error, out []byte) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s: %w: run integration/bench/setup.sh", cmd.Args[0], errAbsent)
	}
	if err != nil {
		const most = 2000
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, out[max(0, len(out)-most):])
	}
	return nil
}

// equal is the judge: all that georep keeps must be the same in both trees.
func equal(master, slave string) error { return compare.Equal(master, slave, compare.Replica()) }

// equalContent judges those who keep less: times do not count.
func equalContent(master, slave string) error {
	o := compare.Replica()
	o.IgnoreMtime, o.IgnoreRoot = true, true
	return compare.Equal(master, slave, o)
}
