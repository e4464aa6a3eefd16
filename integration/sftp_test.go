package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/internal/sshdtest"
	"georep/status"
)

// sftpSession prepares a session whose slave has nothing of ours running: sshd's SFTP server alone.
func sftpSession(t testing.TB, master, slave string, more ...sshdtest.Option) *session {
	t.Helper()
	s := &session{t: t, master: master, slave: slave, state: t.TempDir(), races: t.TempDir(), masterArg: "data"}
	s.sshd = sshdtest.Start(t, append(more, sshdtest.Config("ForceCommand internal-sftp"))...)
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

// sftpEqual compares what SFTP can show: all but nanoseconds, xattrs and special files.
func sftpEqual(master, slave string) error {
	opts := compare.Replica()
	opts.IgnoreXattr = func(string) bool { return true }
	opts.IgnoreMtime = true
	opts.Skip = func(path string) bool {
		return special(filepath.Join(master, path)) || special(filepath.Join(slave, path))
	}
	found, err := compare.Trees(master, slave, opts)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%d differences:\n%s", len(found), compare.List(found))
	}
	return sftpTimes(master, slave)
}

func special(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) != 0
}

// sftpTimes compares mtimes in seconds.
func sftpTimes(master, slave string) error {
	return filepath.WalkDir(master, func(path string, e fs.DirEntry, err error) error {
		if err != nil || special(path) {
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
	s := sftpSession(t, master, slave)
	m, err := mutate.New(master, 1, mutate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), 1000, 0); err != nil {
		t.Fatalf("%v\n%s", err, m)
	}
	sync := append([]string{"sync", "data", s.spec}, s.sftpFlags()...)
	s.must(s.run(sync...))
	if err := sftpEqual(master, slave); err != nil {
		t.Fatal(err)
	}
	again := s.must(s.run(sync...))
	if !strings.Contains(again.stdout+again.stderr, "in step") {
		t.Logf("again: %s%s", again.stdout, again.stderr)
	}
	if err := m.Run(t.Context(), 500, 0); err != nil {
		t.Fatalf("%v\n%s", err, m)
	}
	s.must(s.run(append(sync, "--max-delete", "100")...))
	if err := sftpEqual(master, slave); err != nil {
		t.Fatal(err)
	}
}

// sftpConverge waits until the slave shows what it can.
func (s *session) sftpConverge(m *mutate.Mutator) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = sftpEqual(s.master, s.slave); err == nil {
			break
		}
		pause(s.t, 200*1e6)
	}
	if err != nil {
		s.stacks()
		s.t.Fatalf("%v\nstatus: %+v\n%s", err, s.status(), m)
	}
	s.waitStatus("active", func(st status.Status) bool { return st.State == status.Active })
}
