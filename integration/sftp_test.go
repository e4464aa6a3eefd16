package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	psftp "github.com/pkg/sftp"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/internal/sshdtest"
	"georep/status"
)

// sftpVariable makes this program an SFTP server on its standard streams, pkg/sftp's: for sshd to run.
const sftpVariable = "GEOREP_TEST_SFTP"

func serveSFTP() int {
	server, err := psftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// sftpServers are what sshd is made to run: its own server, and another.
func sftpServers() map[string][]sshdtest.Option {
	return map[string][]sshdtest.Option{
		"OpenSSH": {sshdtest.Config("ForceCommand internal-sftp")},
		"library": {sshdtest.Config("ForceCommand " + os.Args[0]), sshdtest.Env(sftpVariable, "1")},
	}
}

// sftpSession prepares a session whose slave has nothing of ours running.
func sftpSession(t testing.TB, master, slave string, server []sshdtest.Option) *session {
	t.Helper()
	s := &session{t: t, master: master, slave: slave, state: t.TempDir(), races: t.TempDir(), masterArg: "data"}
	s.sshd = sshdtest.Start(t, server...)
	s.port = s.sshd.Port
	s.spec = fmt.Sprintf("sftp://%s:%d%s", s.sshd.Host, s.port, slave)
	s.must(s.run("volume", "create", "data", master))
	t.Cleanup(s.end)
	return s
}

// sftpFlags are how the master reaches the sshd.
func (s *session) sftpFlags() []string {
	return []string{"--identity", s.sshd.IdentityFile, "--known-hosts", s.sshd.KnownHostsFile}
}

// sftpEqual compares what SFTP can show: all but nanoseconds, xattrs and special files. Servers other than OpenSSH's cannot
// set owner and time of a symbolic link.
func sftpEqual(master, slave string, links bool) error {
	found, err := compare.Trees(master, slave, sftpShows(master, slave, links))
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%d differences:\n%s", len(found), compare.List(found))
	}
	return sftpTimes(master, slave, links)
}

func sftpShows(master, slave string, links bool) compare.Options {
	opts := compare.Replica()
	opts.IgnoreXattr = func(string) bool { return true }
	opts.IgnoreMtime = true
	opts.Skip = func(path string) bool {
		here, there := filepath.Join(master, path), filepath.Join(slave, path)
		if isOf(here, special) {
			_, err := os.Lstat(there)
			return err != nil // nothing else may have the name
		}
		return !links && (isOf(here, fs.ModeSymlink) || isOf(there, fs.ModeSymlink))
	}
	return opts
}

const special = fs.ModeNamedPipe | fs.ModeSocket | fs.ModeDevice

func isOf(path string, kinds fs.FileMode) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&kinds != 0
}

// sftpTimes compares mtimes in seconds, and the targets of links.
func sftpTimes(master, slave string, links bool) error {
	return filepath.WalkDir(master, func(path string, e fs.DirEntry, err error) error {
		if err != nil || isOf(path, special) {
			return err
		}
		rel := strings.TrimPrefix(path, master)
		here, err := os.Lstat(path)
		if err != nil {
			return err
		}
		there, err := os.Lstat(slave + rel)
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink && !links {
			a, _ := os.Readlink(path)
			if b, err := os.Readlink(slave + rel); err != nil || a != b {
				return fmt.Errorf("%q leads to %q, want %q: %v", rel, b, a, err)
			}
			return nil
		}
		sec := min(max(here.ModTime().Unix(), 0), 1<<32-1)
		if there.ModTime().Unix() != sec {
			return fmt.Errorf("%q is of %v, want %v", rel, there.ModTime(), here.ModTime())
		}
		return nil
	})
}

// TestSFTP: everything there is, to a server that runs nothing of ours, and nothing again when nothing has changed.
func TestSFTP(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
	s := sftpSession(t, master, slave, sftpServers()["OpenSSH"])
	m, err := mutate.New(master, 1, mutate.Options{Profile: profileOf(0, "default")})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), 1000, 0); err != nil {
		t.Fatalf("%v\n%s", err, m)
	}
	sync := append([]string{"sync", "data", s.spec}, s.sftpFlags()...)
	s.must(s.run(sync...))
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
	s.restored()
	again := s.must(s.run(sync...))
	if !strings.Contains(again.stdout+again.stderr, "in step") {
		t.Logf("again: %s%s", again.stdout, again.stderr)
	}
	if err := m.Run(t.Context(), 500, 0); err != nil {
		t.Fatalf("%v\n%s", err, m)
	}
	s.must(s.run(append(sync, "--max-delete", "100")...))
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
	s.restored()
	if st := s.status(); !strings.Contains(st.NotKept, "nanoseconds") || len(st.Failures) > 0 {
		t.Errorf("status: %+v", st)
	}
}

// restored brings the slave back beside the master, where it must be the same in everything.
func (s *session) restored() {
	s.t.Helper()
	dest := filepath.Join(filepath.Dir(s.master), "restored")
	defer os.RemoveAll(dest)
	s.must(s.run(append([]string{"restore", s.spec, dest}, s.sftpFlags()...)...))
	opts := compare.Replica()
	found, err := compare.Trees(s.master, dest, opts)
	if err != nil || len(found) > 0 {
		s.t.Fatalf("restored: %v\n%s", err, compare.List(found))
	}
}

// sftpConverge waits until the slave shows what it can.
func (s *session) sftpConverge(m *mutate.Mutator, links bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = sftpEqual(s.master, s.slave, links); err == nil {
			break
		}
		pause(s.t, 200*time.Millisecond)
	}
	if err != nil {
		s.stacks()
		s.t.Fatalf("%v\nstatus: %+v\n%s", err, s.status(), m)
	}
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	s.restored()
}

// TestSFTPKills ends the worker with SIGKILL, or every connection, again and again, under load.
func TestSFTPKills(t *testing.T) {
	kills := number(t, "GEOREP_KILLS", 4)
	for name, server := range sftpServers() {
		t.Run(name, func(t *testing.T) {
			seed := uint64(number(t, "GEOREP_SEED", 1))
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
			s := sftpSession(t, master, slave, server)
			s.must(s.run(append([]string{"start", "data", s.spec, "--max-delete", "100", "--retry-max", "1s", "--log-level", logLevel()},
				s.sftpFlags()...)...))
			m, err := mutate.New(master, seed, mutate.Options{Profile: profileOf(int(seed), "default", "exchange")})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := m.Run(ctx, 0, 2*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
			rnd := rand.New(rand.NewPCG(seed, 7))
			for range kills {
				st := s.waitStatus("up again", func(st status.Status) bool { return st.State == status.Active })
				pause(t, time.Duration(rnd.IntN(1000))*time.Millisecond)
				if rnd.IntN(2) == 0 {
					s.sshd.KillSessions()
				} else if isGeorep(st.WorkerPid) {
					_ = syscall.Kill(st.WorkerPid, syscall.SIGKILL)
				}
			}
			stop()
			wg.Wait()
			s.sftpConverge(m, name == "OpenSSH")
		})
	}
}
