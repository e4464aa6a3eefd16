package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/moves"
	"georep/marker"
	"georep/status"
)

// TestMoves makes every kind of move live, and then again, half of them before everything is killed, the others while nothing
// runs. No content is sent, and the slave has every file and directory still, but under its new name.
func TestMoves(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	fill := func(phase string) {
		t.Helper()
		for i := range moves.Cases() {
			dir := filepath.Join(master, fmt.Sprint(phase, i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := moves.In(dir).Fill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	move := func(phase string, first, step int) {
		t.Helper()
		cases := moves.Cases()
		for i := first; i < len(cases); i += step {
			if err := moves.In(filepath.Join(master, fmt.Sprint(phase, i))).Do(cases[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("live")
	fill("killed")
	s.must(s.start("--max-delete", "100", "--retry-max", "1s"))
	s.waitSynced()
	s.waitStatus("following hints", func(st status.Status) bool { return st.Crawl == status.ChangelogCrawl })
	before, sent := s.places(), s.cost().BytesContent
	check := func(how string) {
		t.Helper()
		s.waitSynced()
		if c := s.cost(); c.BytesContent != sent {
			t.Errorf("%s: %+v, before it %d bytes of content", how, c, sent)
		}
		sent = 0 // a new worker counts anew
		after := s.places()
		for ino, now := range after {
			if was, is := before[ino]; is && was.ino != now.ino {
				t.Errorf("%s: the slave has %s anew, which it had as %s", how, now.path, was.path)
			}
		}
		before = after
	}
	move("live", 0, 1)
	check("live")
	move("killed", 0, 2)
	ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d"))
	if err != nil {
		t.Fatal(err)
	}
	st := s.status()
	for _, pid := range []int{st.WorkerPid, ms.PID, st.MonitorPid} {
		s.kill(pid)
	}
	s.waitGone()
	move("killed", 1, 2)
	s.must(s.start())
	check("made before everything was killed, and while nothing ran")
}

// place is where the slave has an inode of the master.
type place struct {
	path string
	ino  uint64
}

// places are those of all files and directories, by their inode numbers on the master.
func (s *session) places() map[uint64]place {
	s.t.Helper()
	all := map[uint64]place{}
	err := filepath.WalkDir(s.master, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.master, p)
		if err != nil {
			return err
		}
		var here, there unix.Stat_t
		if err := errors.Join(unix.Lstat(p, &here), unix.Lstat(filepath.Join(s.slave, rel), &there)); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		if kind := here.Mode & unix.S_IFMT; kind == unix.S_IFREG || kind == unix.S_IFDIR {
			all[here.Ino] = place{rel, there.Ino}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}
