package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/sshdtest"
	"georep/status"
)

// few puts some files into a new master.
func few(t *testing.T, n, size int) string {
	t.Helper()
	master := t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(master, fmt.Sprintf("f%d", i)), make([]byte, size+i), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return master
}

// TestSFTPChroot: an account that is locked into a directory and gets nothing but SFTP there, by each way to name it.
func TestSFTPChroot(t *testing.T) {
	// sshd wants every directory down to it to be root's alone, which /tmp is not.
	jail, err := os.MkdirTemp("/run", "georep-jail-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(jail) })
	if err := os.Chmod(jail, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(jail, "copy"), 0o755); err != nil {
		t.Fatal(err)
	}
	master := few(t, 5, 100)
	s := sftpSession(t, master, filepath.Join(jail, "copy"), []sshdtest.Option{sshdtest.Config("ForceCommand internal-sftp"),
		sshdtest.Config("ChrootDirectory " + jail)})
	port := strconv.Itoa(s.port)
	for i, slave := range [][]string{
		{fmt.Sprintf("sftp://%s:%s/copy", s.sshd.Host, port)},
		{s.sshd.Host + ":/copy", "--agentless", "--ssh-port", port},
		{fmt.Sprintf("ssh://%s:%s/copy", s.sshd.Host, port), "--agentless"},
	} {
		s.spec = slave[0]
		if err := os.WriteFile(filepath.Join(master, "new"), []byte(slave[0]), 0o600); err != nil {
			t.Fatal(err)
		}
		s.must(s.run(append(append([]string{"sync", "data"}, slave...), s.sftpFlags()...)...))
		if err := sftpEqual(master, s.slave, true); err != nil {
			t.Errorf("%d, %s: %v", i, s.spec, err)
		}
	}
	r := s.run(append([]string{"sync", "data", s.sshd.Host + "::copy", "--agentless", "--ssh-port", port}, s.sftpFlags()...)...)
	if r.code != 1 || !strings.Contains(r.stderr, "give a directory") {
		t.Errorf("a volume without an agent: exit code %d, %s", r.code, r.stderr)
	}
	r = s.run(append([]string{"sync", "data", s.sshd.Host + ":/other", "--ssh-port", port}, s.sftpFlags()...)...)
	if r.code != 1 || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("an agent where only SFTP is: exit code %d, %s", r.code, r.stderr)
	}
}

// TestSFTPFull: a slave that is full, and one that is read-only, say so, and go on once that is mended.
func TestSFTPFull(t *testing.T) {
	slave := fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 4 << 20})
	master := few(t, 12, 1<<20)
	s := sftpSession(t, master, slave, sftpServers()["OpenSSH"])
	s.must(s.run(append([]string{"start", "data", s.spec, "--retry-max", "1s"}, s.sftpFlags()...)...))
	s.takesNoMore("no space left")
	remount := func(flags uintptr, data string) {
		if err := unix.Mount("tmpfs", slave, "tmpfs", unix.MS_REMOUNT|flags, data); err != nil {
			t.Fatal(err)
		}
	}
	remount(0, "size=64m")
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
	s.must(s.run("stop", "data", s.spec))
	remount(unix.MS_RDONLY, "size=64m")
	sync := append([]string{"sync", "data", s.spec}, s.sftpFlags()...)
	if r := s.run(sync...); r.code != 1 || !strings.Contains(r.stderr, "read-only") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("read-only: exit code %d, %s", r.code, r.stderr)
	}
	remount(0, "size=64m")
	if err := os.WriteFile(filepath.Join(master, "f1"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(s.run(sync...))
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
}

// takesNoMore waits until the session as a whole says why, in one line.
func (s *session) takesNoMore(why string) {
	s.t.Helper()
	st := s.waitStatus(why, func(st status.Status) bool { return st.State == status.Faulty && strings.Contains(st.Reason, why) })
	if strings.Contains(st.Reason, "\n") || strings.Contains(st.Reason, ".georep") || len(st.Failures) > 1 {
		s.t.Errorf("the status: %s %s, %+v", st.State, st.Reason, st.Failures)
	}
}

// quota makes a directory that takes so many bytes at most, on a file system with far more, and what changes that.
func quota(t *testing.T, limit string) (dir string, change func(limit string)) {
	t.Helper()
	top := fstest.Mount(t, fstest.Btrfs, fstest.Options{})
	dir = filepath.Join(top, "account")
	btrfs := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("btrfs", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("btrfs %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	btrfs("quota", "enable", top)
	btrfs("subvolume", "create", dir)
	group := "0/" + btrfs("inspect-internal", "rootid", dir)
	// By the directory above: in its own not even that may be done once it is full.
	change = func(limit string) { t.Helper(); btrfs("qgroup", "limit", limit, group, top) }
	change(limit)
	return dir, change
}

// TestSFTPQuota: OpenSSH's server says no more than "failure" of an account over its quota, and statvfs tells of room. The
// session says what is likely, and goes on by itself once there is room.
func TestSFTPQuota(t *testing.T) {
	slave, limit := quota(t, "8M")
	master := few(t, 12, 1<<20)
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(master, fmt.Sprintf("small%d", i)), make([]byte, 8000), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	s := sftpSession(t, master, slave, sftpServers()["OpenSSH"])
	s.must(s.run(append([]string{"start", "data", s.spec, "--retry-max", "1s"}, s.sftpFlags()...)...))
	s.takesNoMore("quota")
	limit("32M")
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
	s.must(s.run("stop", "data", s.spec))
	limit("1M")
	sync := append([]string{"sync", "data", s.spec}, s.sftpFlags()...)
	if r := s.run(sync...); r.code != 1 || !strings.Contains(r.stderr, "quota") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("an account over its quota: exit code %d, %s", r.code, r.stderr)
	}
	limit("32M")
	s.must(s.run(sync...))
}
