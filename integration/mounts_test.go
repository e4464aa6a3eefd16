package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/status"
)

// TestMountsHide: what is mounted in the master hides directories and files, of which the slave keeps what it has; what they
// hid, and what changed just before it was hidden, arrives once it can be seen again, whether or not a session ran then.
func TestMountsHide(t *testing.T) {
	for source, bySFTP := range map[string]bool{"fanotify": false, "inotify": true, "scan": false} {
		t.Run(source, func(t *testing.T) { testMountsHide(t, source, bySFTP) })
	}
}

func testMountsHide(t *testing.T, source string, bySFTP bool) {
	top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	master, slave := twoSides(t, top)
	var s *session
	var flags []string
	if bySFTP {
		s = sftpSession(t, master, slave, sftpServers()["OpenSSH"])
		flags = s.sftpFlags()
	} else {
		s = newSession(t, master, slave)
		flags = s.flags()
	}
	equal := func() {
		t.Helper()
		if !bySFTP {
			s.equal()
		} else if err := sftpEqual(master, slave, true); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = master
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	t.Cleanup(func() {
		sh("umount -l a/b 2> /dev/null || :; umount -l first 2> /dev/null || :; umount -l a/f 2> /dev/null || :")
	})
	sh("mkdir -m 750 -p a/b/c first; for f in a/f a/b/f a/b/c/f first/f beside; do echo one > $f; done; mount -t tmpfs tmpfs first; echo no > first/mounted")
	s.must(s.run(append([]string{"create", s.masterArg, s.spec}, flags...)...))
	s.must(s.run("config", s.masterArg, s.spec, "marker-source", source))
	s.must(s.run("start", s.masterArg, s.spec))
	s.waitNow()
	if list, err := os.ReadDir(filepath.Join(slave, "first")); err != nil || len(list) > 0 {
		t.Errorf("of a directory that was covered from the start the slave has %v, %v", list, err)
	}
	sh("echo two > a/b/f; echo two > a/f; mount -t tmpfs -o mode=1777 tmpfs a/b; mount --bind beside a/f; echo no > a/b/mounted; touch beside2")
	s.waitNow()
	if st, err := os.Stat(filepath.Join(slave, "a/b")); err != nil || st.Mode()&os.ModeSticky != 0 {
		t.Errorf("the covered directory is %v on the slave, %v", st.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(slave, "a/b/mounted")); !os.IsNotExist(err) {
		t.Errorf("what is mounted, on the slave: %v", err)
	}
	sh("umount first")
	s.waitNow()
	if got, err := os.ReadFile(filepath.Join(slave, "first/f")); string(got) != "one\n" {
		t.Errorf("the uncovered file is %q, %v", got, err)
	}
	s.must(s.run("stop", s.masterArg, s.spec))
	sh("umount a/b; umount a/f")
	s.must(s.run("start", s.masterArg, s.spec))
	s.waitNow()
	equal()
	sh("echo three > a/b/f; mount -t tmpfs tmpfs a/b; touch beside3")
	s.waitNow()
	s.must(s.run("stop", s.masterArg, s.spec))
	sh("umount a/b")
	s.must(s.run("sync", s.masterArg, s.spec))
	equal()
}

// waitNow waits until the status says that the slave has everything that the master has now.
func (s *session) waitNow() {
	s.t.Helper()
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
}
