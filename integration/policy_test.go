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
	s.waitStatus("the limit", func(st status.Status) bool {
		return st.State == status.Faulty && strings.Contains(st.Reason, "takes nothing more") && strings.Contains(st.Reason, "max-bytes 1M")
	})
	out, err := exec.Command("du", "-s", "-B1", slave).Output()
	var held int64
	if _, scanned := fmt.Sscan(string(out), &held); err != nil || scanned != nil || held > 1<<20+200<<10 { // georep's own books are not counted
		t.Errorf("the slave holds %d bytes, %v", held, err)
	}
	s.must(s.farRun("volume", "set", "copy", "max-bytes", "100M"))
	s.waitSynced()
}
