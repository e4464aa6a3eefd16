package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/asuser"
	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/tree"
	"georep/status"
)

// twoSides are two directories on one fresh file system.
func twoSides(t *testing.T, dir string) (master, slave string) {
	master, slave = filepath.Join(dir, "master"), filepath.Join(dir, "slave")
	for _, d := range []string{master, slave} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return master, slave
}

// TestOneOfEverything is the promise of section 7 of the design on each file system: by a sync, then live.
func TestOneOfEverything(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		master, slave := twoSides(t, dir)
		s := newSession(t, master, slave)
		leftOut, err := tree.OneOfEverything(master)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("left out here: %q", leftOut)
		s.must(s.sync())
		s.equal()
		s.must(s.start())
		s.waitSynced()
		if err := os.Mkdir(filepath.Join(master, "again"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.OneOfEverything(filepath.Join(master, "again")); err != nil {
			t.Fatal(err)
		}
		s.waitSynced()
		if st := s.status(); st.Marker != "fanotify" || st.State != status.Active {
			t.Errorf("marker %q, state %q", st.Marker, st.State)
		}
	})
}

// TestRestartSurveysOneDirectory counts, in the log of the worker, what a start with nothing changed asks of the slave.
func TestRestartSurveysOneDirectory(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	if err := tree.Many(master, 2000, 20, 10); err != nil {
		t.Fatal(err)
	}
	made := time.Now()
	s.must(s.start())
	s.waitSynced()
	// What is younger than the last heartbeat, less two seconds, the next start marks.
	s.waitStatus("all is older than that", func(st status.Status) bool { return st.LastSynced.Sub(made) > 4*time.Second })
	s.must(s.run("stop", s.masterArg, s.spec))
	s.must(s.start())
	s.waitSynced()
	s.must(s.run("stop", s.masterArg, s.spec))
	if n := s.lastLogged("the worker ends", "surveyed"); n != 1 {
		t.Errorf("a restart with nothing changed surveyed %v directories, want 1", n)
	}
}

// lastLogged finds a field of the last line with the message in the session's log.
func (s *session) lastLogged(message, field string) any {
	s.t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.state, "sessions", "*", "log"))
	if err != nil || len(logs) != 1 {
		s.t.Fatalf("logs: %v, %v", logs, err)
	}
	f, err := os.Open(logs[0])
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	var last any
	for d := json.NewDecoder(f); ; {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			break
		}
		if line["message"] == message {
			last = line[field]
		}
	}
	if n, ok := last.(float64); ok {
		return int(n)
	}
	return last
}

// TestWithoutFanotify runs a session whose master lies on an overlay, where inotify tells of changes, or scans find them,
// and the status says so.
func TestWithoutFanotify(t *testing.T) {
	for source, want := range map[string]string{"auto": "inotify", "inotify": "inotify", "scan": "scan"} {
		t.Run(source, func(t *testing.T) {
			master := fstest.Mount(t, fstest.Overlay, fstest.Options{})
			s := newSession(t, master, t.TempDir())
			if err := tree.Many(master, 50, 10, 100); err != nil {
				t.Fatal(err)
			}
			s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
			s.must(s.run("config", s.masterArg, s.spec, "marker-source", source))
			s.must(s.start())
			s.waitSynced()
			if err := os.WriteFile(filepath.Join(master, "d000001", "new"), []byte("new"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.waitSynced()
			if st := s.status(); st.Marker != want {
				t.Errorf("the marker's source is %q on an overlay, want %q", st.Marker, want)
			}
		})
	}
}

// TestOrdinaryUser replicates what an ordinary user can have, without SSH.
func TestOrdinaryUser(t *testing.T) {
	dir, here := asuser.Again(t)
	if !here {
		return
	}
	master, slave := twoSides(t, dir)
	s := &session{t: t, master: master, slave: slave, state: filepath.Join(dir, "state"), races: t.TempDir(),
		masterArg: master, spec: "file://" + slave}
	t.Cleanup(s.end)
	if _, err := tree.OneOfEverything(master); err != nil {
		t.Fatal(err)
	}
	// What its owner may not read is a failure by name, here as with rsync; this test is about the rest.
	if out, err := exec.Command("chmod", "-R", "u+rwX", master).CombinedOutput(); err != nil {
		t.Fatalf("chmod: %v\n%s", err, out)
	}
	// Links between names of what cannot carry a user xattr are not kept; see docs/limits.md.
	for _, name := range []string{"fifo-1", "symlink-1"} {
		if err := os.Remove(filepath.Join(master, "links", name)); err != nil {
			t.Fatal(err)
		}
	}
	s.must(s.run("start", s.masterArg, s.spec))
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) || st.FailuresTotal > 0 })
	if st := s.status(); st.FailuresTotal > 0 {
		t.Fatalf("failures: %+v", st.Failures)
	}
	compare.MustEqual(t, master, slave, compare.Replica())
	s.withoutWriting()
	if v := s.verify(0); len(v.Differences) > 0 || v.Pending > 0 {
		t.Errorf("verify as an ordinary user: %+v", v)
	}
	writeFile(t, filepath.Join(slave, "barred", "in", "f"), "9\n")
	if v := s.verify(1); len(v.Differences) != 1 || v.Differences[0].Path != "barred/in/f" {
		t.Errorf("somebody changed one file: %+v", v)
	}
	if v := s.verify(0, "--repair"); v.Left != 0 || v.Repaired != 1 {
		t.Errorf("after the repair: %+v", v)
	}
	compare.MustEqual(t, master, slave, compare.Replica())
}

// withoutWriting changes what its owner may not write, and so cannot mark.
func (s *session) withoutWriting() {
	s.t.Helper()
	step := func(script string) {
		s.t.Helper()
		s.shell("cd " + s.master + "; " + script)
		now := time.Now()
		s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) || st.FailuresTotal > 0 })
		compare.MustEqual(s.t, s.master, s.slave, compare.Replica())
	}
	step("mkdir -p barred/in; echo 1 > barred/in/f; echo 1 > barred/in/g")
	step("chmod 444 barred/in/g; chmod 555 barred/in")
	step("echo 2 > barred/in/f")
	step("chmod 644 barred/in/g; echo 2 > barred/in/g; chmod 444 barred/in/g")
	step("chmod -R u+w barred")
}

// TestLocalSlave is a session without SSH.
func TestLocalSlave(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	s.spec = "file://" + slave
	if _, err := tree.OneOfEverything(master); err != nil {
		t.Fatal(err)
	}
	s.must(s.run("sync", s.masterArg, s.spec))
	s.equal()
}

// TestFanOut has two sessions on one master: they share its marker, which ends with the last of them.
func TestFanOut(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	a := newSession(t, master, slave)
	b := *a
	b.slave = t.TempDir()
	b.spec = "file://" + b.slave
	a.must(a.start())
	b.must(b.run("start", b.masterArg, b.spec))
	if err := tree.Many(master, 100, 10, 1000); err != nil {
		t.Fatal(err)
	}
	a.waitSynced()
	b.waitSynced()
	a.must(a.run("stop", a.masterArg, a.spec))
	if err := os.RemoveAll(filepath.Join(master, "d000002")); err != nil {
		t.Fatal(err)
	}
	b.waitSynced()
	b.must(b.run("stop", b.masterArg, b.spec))
	if out, err := exec.Command("fuser", filepath.Join(a.state, "volumes", "data.d", "marker.lock")).Output(); err == nil && len(out) > 0 {
		t.Errorf("the marker outlives its sessions: %s", out)
	}
	a.must(a.start())
	a.waitSynced()
}

// TestAdoption gives georep a slave that rsync has filled.
func TestAdoption(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	if err := tree.Many(master, 300, 30, 5000); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("rsync", "-aHAX", "--exclude=/.georep", master+"/", slave+"/").CombinedOutput(); err != nil {
		t.Fatalf("rsync: %v\n%s", err, out)
	}
	s := newSession(t, master, slave)
	if r := s.start(); r.code != 1 {
		t.Fatalf("a slave that is not empty was taken: %+v", r)
	}
	s.must(s.start("--force"))
	s.waitSynced()
	if st := s.status(); st.Synced.Files != 0 {
		t.Errorf("%d files were sent to a slave that has them", st.Synced.Files)
	}
}

// TestResetSyncTime finds what somebody changed on the slave behind georep's back, in a session that begins anew.
func TestResetSyncTime(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	if err := tree.Many(master, 100, 10, 100_000); err != nil {
		t.Fatal(err)
	}
	s.must(s.sync())
	s.equal()
	writeFile(t, filepath.Join(slave, "d000001", "f000003"), "tampered with")
	s.must(s.run("delete", s.masterArg, s.spec, "--reset-sync-time"))
	s.must(s.start())
	s.waitSynced()
	if st := s.status(); st.Synced.Files != 1 {
		t.Errorf("%d files were sent to mend one", st.Synced.Files)
	}
}

// TestACLsBetweenFileSystems brings ACLs from and to XFS, which shows root each ACL a second time, as an xattr of its own.
func TestACLsBetweenFileSystems(t *testing.T) {
	for _, kinds := range [][2]string{{fstest.XFS, fstest.Ext4}, {fstest.Ext4, fstest.XFS}} {
		t.Run(kinds[0]+" to "+kinds[1], func(t *testing.T) {
			master, slave := fstest.Mount(t, kinds[0], fstest.Options{}), fstest.Mount(t, kinds[1], fstest.Options{})
			s := newSession(t, master, slave)
			path := filepath.Join(master, "f")
			writeFile(t, path, "with an ACL")
			setfacl := func(args ...string) {
				if out, err := exec.Command("setfacl", append(args, path, master)...).CombinedOutput(); err != nil {
					t.Fatalf("setfacl: %v: %s", err, out)
				}
			}
			for _, args := range [][]string{{"-m", "u:1003:rwx"}, {"-m", "u:1004:r"}, {"-b"}} {
				setfacl(args...)
				if err := os.Chmod(path, 0o640); err != nil {
					t.Fatal(err)
				}
				s.must(s.sync())
				s.equal()
				for _, path := range []string{slave, filepath.Join(slave, "f")} {
					var buf [256]byte
					if n, err := unix.Lgetxattr(path, "trusted.SGI_ACL_FILE", buf[:]); err == nil && kinds[1] != fstest.XFS {
						t.Errorf("%s has XFS's own form of its ACL: %x", path, buf[:n])
					}
				}
			}
		})
	}
}
