package marker

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"georep/integration/harness/fstest"
)

// further has a volume whose file a/f gets a further name b/g while its marker runs, and is changed through that.
func further(t *testing.T, dir string) *vol {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "volume"), 0o755); err != nil {
		t.Fatal(err)
	}
	v := newVol(t, filepath.Join(dir, "volume"))
	v.o.Source = SourceFanotify
	v.sh("mkdir a b; echo content > a/f")
	v.start(func(m *marker) { m.scanner.detachedPause = 10 * time.Millisecond })
	v.quiet()
	v.sh("ln a/f b/g")
	v.settle()
	v.sh("echo changed >> b/g")
	v.settle()
	return v
}

// TestDetachedWithoutAName: where the kernel knew the inode last is outside of the volume. A scan meets the name that is left,
// and nothing is said to be marked before.
func TestDetachedWithoutAName(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		v := further(t, dir)
		before, scanned := v.all(), v.m.beats.get().SlowScan
		v.sh("mv b/g ../outside")
		v.settle()
		for _, path := range []string{"", "a", "a/f"} {
			if x := v.xtime(path); x <= before[path] {
				t.Errorf("%q has %v still", path, x)
			}
		}
		if now := v.m.beats.get().SlowScan; !now.After(scanned) {
			t.Error("there was no scan: the test tests nothing")
		}
	})
}

// TestDetachedThatIsGone: an inode that lost its last names with a young one is no reason to list a directory.
func TestDetachedThatIsGone(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		v := further(t, dir)
		l := hear(t, v)
		v.sh("rm a/f b/g")
		v.settle()
		l.reached(v)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.gaps > 0 || len(l.hints) == 0 {
			t.Errorf("%d gaps, %d hints", l.gaps, len(l.hints))
		}
		for _, h := range l.hints {
			for _, d := range h.Dirs {
				if d.Whole {
					t.Errorf("a directory is to be listed: %+v", h)
				}
			}
		}
	})
}

// TestDetachedAtAnyMoment: the further name goes just before the n-th call that the mark of a change makes with it.
func TestDetachedAtAnyMoment(t *testing.T) {
	top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	for n := int64(0); ; n++ {
		v := newVolIn(t, top)
		var armed atomic.Bool
		var calls atomic.Int64
		v.o.hook = func(_, name string) error {
			if !armed.Load() || name != "g" || calls.Add(1) != n+1 {
				return nil
			}
			return exec.Command("rm", v.o.Root+"/b/g").Run()
		}
		v.sh("mkdir a b; echo x > a/f")
		v.start()
		v.quiet()
		before := v.all()
		v.m.core.mu.Lock() // so that the mark begins when all is done
		v.sh("ln a/f b/g; echo y > b/g")
		armed.Store(true)
		v.m.core.mu.Unlock()
		v.settle()
		v.halt()
		if calls.Load() <= n {
			if n < 3 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		for _, path := range []string{"", "a", "a/f"} {
			if x := v.xtime(path); x <= before[path] {
				t.Errorf("the name went at call %d: %q has %v still", n, path, x)
			}
		}
	}
}
