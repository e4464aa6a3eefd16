package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/status"
	"georep/volume"
)

// TestClockSteps steps the master's clock by hours, back and forth, while nothing of the session runs, changes the master
// before and after, and starts again. xtimes go on increasing (invariant 2) and nothing is missed.
//
// Not the clock is set, since no namespace has a wall clock of its own, but everything that was written down before: the
// heartbeat and the clock's floor, to what they would be had the clock been ahead or behind until now.
func TestClockSteps(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
	s := newSession(t, master, slave)
	newest := xtime.Time(0)
	for i, step := range []time.Duration{0, -3 * time.Hour, 5 * time.Hour, -7 * time.Hour, 4 * time.Hour} {
		name := func(when string) string { return filepath.Join(master, fmt.Sprintf("%d/%s", i, when)) }
		s.change(name("before"))
		s.stepClock(step)
		s.change(name("after"))
		s.must(s.start("--max-delete", "100", "--retry-max", "1s"))
		s.waitStatus("active", func(st status.Status) bool { return st.State == status.Active })
		s.change(name("live"))
		s.waitSynced()
		x := s.rootXtime()
		if x <= newest {
			t.Errorf("after a step by %v the root's xtime went from %v to %v", step, newest, x)
		}
		newest = x
		s.lightsOut()
	}
}

// change makes a file, and removes and renames what an earlier round left.
func (s *session) change(path string) {
	s.t.Helper()
	_ = os.Mkdir(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
		s.t.Fatal(err)
	}
	last := filepath.Join(s.master, "last")
	_ = os.Rename(last, last+" but one")
	if err := os.Link(path, last); err != nil {
		s.t.Fatal(err)
	}
}

// stepClock makes the records of the marker, which must not run, those of a clock that was set by step since.
func (s *session) stepClock(step time.Duration) {
	s.t.Helper()
	dir := filepath.Join(s.state, "volumes", "data.d")
	beat := map[string]any{}
	text, err := os.ReadFile(filepath.Join(dir, "marker.heartbeat"))
	if os.IsNotExist(err) && step == 0 {
		return
	}
	if err == nil {
		err = json.Unmarshal(text, &beat)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, beat["time"].(string))
	if err != nil {
		s.t.Fatal(err)
	}
	var exact struct {
		Offset int64      `json:"boot_offset"`
		Xtime  xtime.Time `json:"xtime"`
		Slow   time.Time  `json:"slow_scan"`
	}
	if err := json.Unmarshal(text, &exact); err != nil {
		s.t.Fatal(err)
	}
	beat["time"], beat["boot_offset"] = at.Add(-step), exact.Offset-int64(step)
	beat["xtime"], beat["slow_scan"] = exact.Xtime, exact.Slow
	if text, err = json.Marshal(beat); err == nil {
		err = os.WriteFile(filepath.Join(dir, "marker.heartbeat"), text, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if step < 0 {
		s.raiseFloor(filepath.Join(dir, "marker.clock"), -step)
	}
}

// raiseFloor makes the clock's floor that of a clock that was ahead.
func (s *session) raiseFloor(path string, by time.Duration) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	floor, err := xtime.Parse(text)
	if err != nil {
		s.t.Fatal(err)
	}
	b := xtime.FromTime(floor.Time().Add(by)).Bytes()
	if err := os.WriteFile(path, b[:], 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// rootXtime reads what the marker put on the master's root.
func (s *session) rootXtime() xtime.Time {
	s.t.Helper()
	d, err := beneath.OpenRoot(s.master, false)
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	names := s.xattrNames()
	x, err := d.Xtime("", &names)
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// lightsOut kills everything that runs on the master's host for this session.
func (s *session) lightsOut() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; pause(s.t, 10*time.Millisecond) {
		pids, err := openersOf(s.state, s.master)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(pids) == 0 {
			s.waitGone() // a dying process gives up its locks after its list of files
			return
		}
		for _, pid := range pids {
			if !isGeorep(pid) {
				continue // on its way out; or somebody else's, whom we wait for
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				s.t.Fatal(err)
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("killed, but still there: %v", pids)
		}
	}
}

// openersOf lists the processes, but this one, that have something open below one of the directories.
func openersOf(dirs ...string) (pids []int, err error) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
		to, err := os.Readlink(fd)
		if err != nil || pid == os.Getpid() || slices.Contains(pids, pid) {
			continue // closed meanwhile
		}
		for _, dir := range dirs {
			if to == dir || strings.HasPrefix(to, dir+"/") {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, err
}

// xattrNames are those of the master's marks.
func (s *session) xattrNames() xtime.Names {
	s.t.Helper()
	var v volume.Volume
	r := s.must(s.run("volume", "info", "data", "--json"))
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		s.t.Fatalf("%v\n%s", err, r.stdout)
	}
	u, err := xtime.ParseUUID(v.UUID)
	if err != nil {
		s.t.Fatal(err)
	}
	return xtime.NamesFor(xtime.Trusted, u)
}
