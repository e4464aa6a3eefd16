package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/status"
)

// TestVerifyUnderAPolicy: what the policy of the slave's host changed is counted apart and told once, whatever else differs is a
// difference, and what a policy forbade is made right once it is looser.
func TestVerifyUnderAPolicy(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	at := func(name string) string { return filepath.Join(master, name) }
	for _, name := range []string{"plain", "shell", "able"} {
		writeFile(t, at(name), name)
	}
	// Version 2, effective, cap_net_raw.
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, err := range []error{
		os.Chmod(at("shell"), 0o755|os.ModeSetuid), unix.Setxattr(at("able"), "security.capability", capability, 0),
		unix.Mknod(at("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))), os.Chmod(slave, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"no-setuid", "no-devices", "keep-root-mode"} {
		s.must(s.farRun("volume", "set", "copy", key, "on"))
	}
	s.must(s.start())
	began := time.Now()
	st := s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(began) })
	for _, word := range []string{"some modes", "devices", "policy", "no-setuid", "no-devices", "keep-root-mode"} {
		if !strings.Contains(st.NotKept, word) {
			t.Errorf("the status says %q, without %s", st.NotKept, word)
		}
	}
	// The shell, the capable file, the device and the root.
	if v := s.verify(0); len(v.Differences) > 0 || v.Left > 0 || v.Pending > 0 || v.ByPolicy != 4 || v.Policy != "no-setuid, no-devices, keep-root-mode" {
		t.Errorf("under the policy: %+v", v)
	}
	if r := s.must(s.run("verify", s.masterArg, s.spec)); !strings.Contains(r.stdout, "by the slave's policy: 4 (no-setuid, no-devices, keep-root-mode)") {
		t.Errorf("verify says %q", r.stdout)
	}
	if err := errors.Join(os.Chmod(filepath.Join(slave, "shell"), 0o757), os.Chmod(filepath.Join(slave, "plain"), 0o644|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if v := s.verify(1); len(v.Differences) != 2 || v.ByPolicy != 3 {
		t.Errorf("after modes were changed there: %+v", v)
	}
	if v := s.verify(0, "--repair"); v.Repaired != 2 || v.Left != 0 {
		t.Errorf("repaired: %+v", v)
	}
	for _, key := range []string{"no-setuid", "no-devices", "keep-root-mode"} {
		s.must(s.farRun("volume", "set", "copy", key, "off"))
	}
	s.must(s.run("pause", s.masterArg, s.spec))
	s.must(s.run("resume", s.masterArg, s.spec))
	s.waitStatus("another policy", func(st status.Status) bool { return st.SlavePolicy == "" })
	if v := s.verify(1); len(v.Differences) != 4 || v.ByPolicy != 0 {
		t.Errorf("under a looser policy: %+v", v)
	}
	if v := s.verify(0, "--repair"); v.Repaired != 4 || v.Left != 0 {
		t.Errorf("repaired: %+v", v)
	}
	if st := s.status(); st.NotKept != "" {
		t.Errorf("the status still says %q", st.NotKept)
	}
	s.waitSynced()
}

// TestMaxBytes: a master fills the slave's host up to the limit of its policy and no further; the session says so, and goes on by
// itself when the limit is raised.
func TestMaxBytes(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	for i := range 20 {
		writeFile(t, filepath.Join(master, fmt.Sprint("f", i)), strings.Repeat("x", 100<<10))
	}
	s.must(s.farRun("volume", "set", "copy", "max-bytes", "1M"))
	if r := s.sync("--retry-max", "1s"); r.code != 1 || !strings.Contains(r.stderr, "max-bytes 1M") {
		t.Errorf("a sync beyond the limit: %+v", r)
	}
	s.must(s.start("--retry-max", "1s"))
	atTheLimit := func() {
		t.Helper()
		s.waitStatus("the limit", func(st status.Status) bool {
			return st.State == status.Faulty && strings.Contains(st.Reason, "takes nothing more") && strings.Contains(st.Reason, "max-bytes 1M")
		})
	}
	atTheLimit()
	out, err := exec.Command("du", "-s", "-B1", slave).Output()
	var held int64
	if _, scanned := fmt.Sscan(string(out), &held); err != nil || scanned != nil || held > 1<<20+200<<10 { // georep's own bookkeeping is not counted
		t.Errorf("the slave holds %d bytes, %v", held, err)
	}
	if r := s.must(s.farRun("volume", "info", "copy")); !strings.Contains(r.stdout, "holds as a slave") {
		t.Errorf("volume info says %q", r.stdout)
	}
	// Where the master removes something, that makes room.
	for i := range 15 {
		if err := os.Remove(filepath.Join(master, fmt.Sprint("f", i))); err != nil {
			t.Fatal(err)
		}
	}
	s.waitSynced()
	writeFile(t, filepath.Join(master, "large"), strings.Repeat("x", 2<<20))
	atTheLimit()
	s.must(s.farRun("volume", "set", "copy", "max-bytes", "100M"))
	s.waitSynced()
}

// TestFakeOwner: an agent that runs as an ordinary user loses nothing that a file, a directory or a device has: verify sees through
// it, and the copy gives it back where it is replicated to by root.
func TestFakeOwner(t *testing.T) {
	const login = 54321
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	at := func(name string) string { return filepath.Join(master, name) }
	for _, name := range []string{"plain", "shell", "able", "closed"} {
		writeFile(t, at(name), name)
	}
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	wrapper := filepath.Join(s.state, "as-login")
	writeFile(t, wrapper, fmt.Sprintf("#!/bin/sh\nexec setpriv --reuid %d --regid %d --clear-groups %s \"$@\" --fake-owner\n", login, login, binary))
	far := t.TempDir()
	for _, err := range []error{
		os.Lchown(at("plain"), 7, 8), os.Lchown(at("shell"), 0, 9), os.Chmod(at("shell"), 0o755|os.ModeSetuid|os.ModeSetgid),
		os.Chmod(at("closed"), 0), unix.Setxattr(at("able"), "security.capability", capability, 0),
		unix.Mknod(at("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 200))), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mkfifo(at("fifo"), 0o640), unix.Mknod(at("socket"), unix.S_IFSOCK|0o755, 0), os.Mkdir(at("d"), 0o500),
		os.WriteFile(at("d/f"), []byte("f"), 0o440), os.Link(at("shell"), at("d/link")), os.Lchown(at("d"), 3, 4),
		exec.Command("setfacl", "-m", "u:4321:rwx", at("plain")).Run(), os.Chmod(master, 0o1755),
		os.Lchown(slave, login, login), os.Lchown(far, login, login), os.Chmod(wrapper, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir := slave; dir != "/"; dir = filepath.Dir(dir) {
		reach(t, dir)
	}
	for dir := filepath.Dir(far); dir != "/"; dir = filepath.Dir(dir) {
		reach(t, dir)
	}
	s.spec = s.sshd.Host + ":" + slave
	s.extra = []string{"--remote-georep", wrapper, "--remote-state-dir", far}
	s.must(s.sync())
	if v := s.verify(0); len(v.Differences) > 0 || v.Pending > 0 || v.ByPolicy > 0 {
		t.Errorf("verify: %+v", v)
	}
	if err := filepath.WalkDir(slave, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil && (st.Uid != login || st.Mode&0o6000 != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR) {
			t.Errorf("%s is %o of %d", path, st.Mode, st.Uid)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s.must(s.sync()) // what verify has marked
	if err := unix.Setxattr(filepath.Join(slave, "plain"), "user.georep.stat", []byte("100644 0,0 0:0"), 0); err != nil {
		t.Fatal(err)
	}
	if v := s.verify(0, "--repair"); v.Repaired != 1 {
		t.Errorf("an owner that was changed there: %+v", v)
	}

	// Back again: the copy is the master.
	restored := filepath.Join(filepath.Dir(slave), "restored")
	s.must(s.run("volume", "create", "back", slave))
	s.must(s.run("volume", "set", "back", "fake-owner", "on"))
	if err := os.Mkdir(restored, 0o755); err != nil {
		t.Fatal(err)
	}
	s.must(s.run("sync", "back", "file://"+restored))
	s.must(s.run("verify", "back", "file://"+restored))
	s.slave = restored
	s.equal()
}

// TestFakeOwnerTakenBack: what was kept is given once the policy is another one, and changes reach the copy live meanwhile.
func TestFakeOwnerTakenBack(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	at := func(name string) string { return filepath.Join(master, name) }
	writeFile(t, at("shell"), "shell")
	s.must(s.farRun("volume", "set", "copy", "fake-owner", "on"))
	s.must(s.start())
	inStep := func() {
		t.Helper()
		now := time.Now()
		s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	}
	inStep()
	for _, err := range []error{
		os.Lchown(at("shell"), 7, 8), os.Chmod(at("shell"), 0o711|os.ModeSetuid), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		exec.Command("setfacl", "-m", "u:4321:r", at("shell")).Run(), os.Symlink("shell", at("link")), os.Lchown(at("link"), 3, 4),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	inStep()
	// The owner of the symbolic link is lost, and that is the policy's doing.
	if v := s.verify(0); len(v.Differences) > 0 || v.ByPolicy != 1 {
		t.Errorf("kept: %+v", v)
	}
	if st := s.status(); !strings.Contains(st.NotKept, "owners") || !strings.Contains(st.NotKept, "fake-owner") {
		t.Errorf("the status says %q", st.NotKept)
	}
	if info, err := os.Lstat(filepath.Join(slave, "null")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the device is %v, %v", info, err)
	}
	s.must(s.farRun("volume", "set", "copy", "fake-owner", "off"))
	s.must(s.run("pause", s.masterArg, s.spec))
	s.must(s.run("resume", s.masterArg, s.spec))
	s.waitStatus("another policy", func(st status.Status) bool { return st.SlavePolicy == "" })
	if v := s.verify(0, "--repair"); v.Repaired == 0 || v.Left != 0 {
		t.Errorf("repaired: %+v", v)
	}
	s.waitSynced()
}

// reach lets every user into a directory of this test.
func reach(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err == nil && info.Mode()&0o001 == 0 {
		err = os.Chmod(dir, info.Mode()|0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
}
