package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/tree"
	"georep/status"
)

// TestMasterIsNotThere: a root that is unmounted, replaced or emptied is not the wish to delete everything. The session is
// Faulty, says why, leaves the slave alone, and goes on when the master is back.
func TestMasterIsNotThere(t *testing.T) {
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	master, there, away := filepath.Join(top, "master"), filepath.Join(top, "there"), filepath.Join(top, "away")
	for _, dir := range []string{master, there} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := func() {
		if err := unix.Mount(there, master, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	bind()
	t.Cleanup(func() { _ = unix.Unmount(master, unix.MNT_DETACH) })
	s := newSession(t, master, t.TempDir())
	// In one directory: the master is then emptied at one stroke, not bit by bit, which would be removals like others.
	if err := os.Mkdir(filepath.Join(master, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		writeFile(t, filepath.Join(master, "d", fmt.Sprint("f", i)), fmt.Sprint("content", i))
	}
	s.must(s.start("--retry-max", "1s"))
	s.waitSynced()
	for _, c := range []struct {
		name          string
		breaks, heals func()
		reason        string
	}{
		{"emptied", func() { rename(t, filepath.Join(there, "d"), filepath.Join(top, "kept")) }, func() {
			rename(t, filepath.Join(top, "kept"), filepath.Join(there, "d"))
		}, "is empty"},
		{"unmounted", func() {
			if err := unix.Unmount(master, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}, bind, "master"},
		{"replaced", func() {
			if err := unix.Unmount(master, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			rename(t, master, away)
			if err := os.Mkdir(master, 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(master, "another"), "tree")
		}, func() {
			if err := os.RemoveAll(master); err != nil {
				t.Fatal(err)
			}
			rename(t, away, master)
			bind()
		}, "master"},
	} {
		c.breaks()
		st := s.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
		t.Logf("%s: %s", c.name, st.Reason)
		if !strings.Contains(st.Reason, c.reason) {
			t.Errorf("%s: the reason lacks %q: %s", c.name, c.reason, st.Reason)
		}
		if out, err := exec.Command("sh", "-c", "cd "+s.slave+" && cat d/f* | wc -c; ls . d").Output(); err != nil ||
			strings.Count(string(out), "f") != 20 || strings.Contains(string(out), "another") {
			t.Errorf("%s: the slave has %s, %v", c.name, out, err)
		}
		c.heals()
		s.waitSynced()
	}
}

// TestMovesOfTheWholeTree: moves are no removals, however much moves, by hints and by a crawl. What leaves the volume is
// one.
func TestMovesOfTheWholeTree(t *testing.T) {
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	master, slave := twoSides(t, top)
	s := newSession(t, master, slave)
	if err := tree.Many(master, 1200, 1200, 10); err != nil {
		t.Fatal(err)
	}
	s.must(s.start())
	s.waitSynced()
	following := func(st status.Status) bool { return st.Crawl == status.ChangelogCrawl }
	s.waitStatus("following hints", following)
	sent := s.status().Synced
	for _, move := range []string{"mv d000000 a", "mkdir z && mv a/* z && rmdir a", "mkdir -p new/below && mv z new/below/z"} {
		s.shell(move)
		s.waitSynced()
	}
	if now := s.status().Synced; now.Renames < sent.Renames+2 || now.BytesContent != sent.BytesContent {
		t.Errorf("%+v before the moves, %+v after them", sent, now)
	}
	s.must(s.run("stop", s.masterArg, s.spec))
	s.shell("mv new/below/z d && rmdir -p new/below")
	sent = s.status().Synced
	s.must(s.start())
	s.waitSynced()
	if now := s.status().Synced; now.BytesContent > 0 && now.BytesContent != sent.BytesContent || now.Renames == 0 {
		t.Errorf("%+v before the move while it was stopped, %+v after it", sent, now)
	}
	s.waitStatus("following hints again", following)
	writeFile(t, filepath.Join(master, "stays"), "stays")
	s.waitSynced()
	rename(t, filepath.Join(master, "d"), filepath.Join(top, "away"))
	st := s.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
	if !strings.Contains(st.Reason, "max-delete") {
		t.Errorf("what was moved out of the volume: %s", st.Reason)
	}
	if list, err := os.ReadDir(filepath.Join(slave, "d")); len(list) != 1200 {
		t.Errorf("the slave has %d of 1,200 files left, %v", len(list), err)
	}
}

// TestSlaveChangedBySomebodyElse: the next compare of a directory finds what somebody did to it on the slave.
func TestSlaveChangedBySomebodyElse(t *testing.T) {
	s := small(t)
	s.must(s.sync())
	for path, content := range map[string]string{"d000000/extra": "not the master's", "d000001/f000001": "another content"} {
		writeFile(t, filepath.Join(s.slave, path), content)
	}
	if err := os.Remove(filepath.Join(s.slave, "d000002", "f000002")); err != nil {
		t.Fatal(err)
	}
	s.shell("for d in d*; do touch $d/new; done; echo more >> d000001/f000001")
	s.must(s.sync())
	s.equal()
}
