package marker

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/scan"
)

// slowClient changes a volume as another host does whose clock is behind: what it has changed last carries its time. A mark
// gives an entry this machine's time, as it does there.
type slowClient struct {
	v  *vol
	mu sync.RWMutex
	at map[uint64][2]beneath.Time // inode -> the ctime and the mtime of its own change, by this machine's clock
}

const behind = 5 // seconds

// slowVol is a volume on a file system that others change.
func slowVol(t *testing.T) (*vol, *slowClient) {
	t.Helper()
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.o.Source, v.o.remote = SourceScan, true
	c := &slowClient{v: v, at: map[uint64][2]beneath.Time{}}
	v.sh("mkdir -p a/b c; for f in f a/f a/g a/b/f c/f; do echo 1 > $f; done")
	made := time.Now()
	v.until("a mark cannot be in the tick of what it marks", func() bool { return time.Since(made) > 2*scan.Settled })
	return v, c
}

func (c *slowClient) hook(m *marker) { m.Root.HookStat(c.restat) }

func (c *slowClient) restat(st *beneath.Stat) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	at := c.at[st.Ino]
	for i, t := range []*beneath.Time{&st.Ctime, &st.Mtime} {
		if *t == at[i] {
			t.Sec -= behind
		}
	}
}

// sh runs a script as that client; it changes these entries. It returns when no mark can have the time of the change any more.
func (c *slowClient) sh(script string, changed ...string) {
	c.v.t.Helper()
	defer tick(c.v.t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v.sh(script)
	for _, path := range changed {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(c.v.o.Root, path), &st); err != nil {
			c.v.t.Fatal(err)
		}
		c.at[st.Ino] = [2]beneath.Time{{Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)}, {Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}}
	}
}

// tick waits for the next time of the clock that files get theirs from.
func tick(t testing.TB) {
	t.Helper()
	var before, now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &before); err != nil {
		t.Fatal(err)
	}
	for now = before; now == before; {
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *slowClient) once() {
	c.v.t.Helper()
	m, err := open(c.v.t.Context(), c.v.o)
	if err != nil {
		c.v.t.Fatal(err)
	}
	c.hook(m)
	s, err := m.scanner.pass(c.v.t.Context())
	if err != nil || s.Incomplete.Load() {
		c.v.t.Fatalf("not complete: %v", err)
	}
	if err := firstError(m.end(), m.close()); err != nil {
		c.v.t.Fatal(err)
	}
}

// TestSlowClient: a host whose clock is behind overwrites, makes, renames and removes. No ctime of that is as new as the last
// scan, nor as the xtimes that the entries have.
func TestSlowClient(t *testing.T) {
	for _, running := range []bool{true, false} {
		v, c := slowVol(t)
		begin, end := func() { v.start(c.hook).quiet() }, v.halt
		find := v.quiet
		if !running {
			begin, end, find = c.once, func() {}, c.once
		}
		begin()
		for _, step := range []struct {
			script  string
			changed []string
			want    []string
		}{
			{"echo 2 > a/f", []string{"a/f"}, []string{"", "a", "a/f"}},
			{"echo 3 > a/f", []string{"a/f"}, []string{"", "a", "a/f"}},
			{"chmod 600 a/b/f", []string{"a/b/f"}, []string{"", "a", "a/b", "a/b/f"}},
			{"echo n > c/new", []string{"c", "c/new"}, []string{"", "c", "c/new"}},
			{"rm a/g", []string{"a"}, []string{"", "a"}},
			{"mv f a/moved", []string{"", "a", "a/moved"}, []string{"", "a", "a/moved"}},
			{"mv a/b c/b", []string{"a", "c", "c/b"}, []string{"", "a", "c", "c/b", "c/b/f"}},
			{"chmod 700 c", []string{"c"}, []string{"", "c"}},
			{"echo 4 > c/b/f; touch -r c/f c/b/f", []string{"c/b/f"}, []string{"", "c", "c/b", "c/b/f"}},
		} {
			before := v.all()
			c.sh(step.script, step.changed...)
			find()
			after := v.all()
			for _, path := range step.want {
				if after[path] == before[path] {
					t.Errorf("running %v: %q: %q was not marked", running, step.script, path)
				}
			}
			if after["c/f"] != before["c/f"] {
				t.Errorf("running %v: %q: what did not change was marked", running, step.script)
			}
			find()
			v.checkMarked(after)
		}
		end()
		before := v.all()
		c.once()
		v.checkMarked(before)
	}
}

// TestSlowClientWhileStopped changes files while no marker runs, with notes in every state.
func TestSlowClientWhileStopped(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"whole": func(string) error { return nil },
		"torn":  func(path string) error { return os.Truncate(path, 40) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("nonsense"), 20)
			return firstError(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, c := slowVol(t)
			v.start(c.hook).quiet()
			v.halt()
			before := v.all()
			c.sh("echo 2 > a/f; echo 2 > c/f", "a/f", "c/f")
			if err := damage(filepath.Join(v.o.Dir, timesFile)); err != nil {
				t.Fatal(err)
			}
			v.start(c.hook).quiet()
			after := v.all()
			v.halt()
			for _, path := range []string{"", "a", "a/f", "c", "c/f"} {
				if name == "whole" && after[path] == before[path] {
					t.Errorf("%q was not marked", path)
				}
			}
			c.once()
			v.checkMarked(after)
			c.sh("echo 3 > a/f", "a/f")
			c.once()
			v.checkMarked(after, "", "a", "a/f")
		})
	}
}

// TestChangeInTheTickOfAMark: a file system may give one time to all that happens within a second. A change of the mode, right
// after a mark that it shares its ctime with, is marked still; by a scan that goes by notes, and by one that goes by ctimes.
func TestChangeInTheTickOfAMark(t *testing.T) {
	for name, remote := range map[string]bool{"noted": true, "by ctime": false} {
		t.Run(name, func(t *testing.T) {
			v, c := slowVol(t)
			v.o.remote = remote
			tick := beneath.Time{Sec: time.Now().Unix() + 3600} // its clock is ahead, so that a scan has to look, however late it is
			var inTick atomic.Uint64
			hook := func(m *marker) {
				m.Root.HookStat(func(st *beneath.Stat) {
					if st.Ino == inTick.Load() {
						st.Ctime = tick
					}
				})
			}
			v.start(hook).quiet()
			c.sh("echo n > a/n; touch -d '2 days ago' a/n")
			var st syscall.Stat_t
			if err := syscall.Lstat(filepath.Join(v.o.Root, "a/n"), &st); err != nil {
				t.Fatal(err)
			}
			inTick.Store(st.Ino)
			v.quiet()
			before := v.all()
			if before["a/n"] == 0 {
				t.Fatal("what is new was not marked")
			}
			c.sh("chmod 600 a/n")
			v.quiet()
			v.checkMarked(before, "", "a", "a/n")
			v.halt()
		})
	}
}
