package marker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// mountVol is a volume with a tree in which something can be mounted: a, with b and files in it, and a file of its own.
func mountVol(t *testing.T, source string) *vol {
	t.Helper()
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.o.Source = source
	v.sh("mkdir -p a/b/c 'other\ndir'; echo x > a/f; echo x > a/b/f; echo x > a/b/c/f; echo x > f; echo mounted > 'other\ndir/f'")
	t.Cleanup(func() {
		v.sh("umount -l a/b 2> /dev/null || :; umount -l a 2> /dev/null || :; umount -l f 2> /dev/null || :")
	})
	return v
}

// bySource runs a test with each source of events.
func bySource(t *testing.T, test func(t *testing.T, v *vol)) {
	for _, source := range []string{SourceFanotify, SourceInotify, SourceScan} {
		t.Run(source, func(t *testing.T) { test(t, mountVol(t, source)) })
	}
}

// readMounts is what a worker reads.
func (v *vol) readMounts() *Mounts {
	v.t.Helper()
	root, err := beneath.OpenRoot(v.o.Root, true)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { root.Close() })
	mounts, err := ReadMounts(root, v.o.Dir)
	if err != nil {
		v.t.Fatal(err)
	}
	return mounts
}

// covered waits until the marker has written down that something is mounted on path, or that nothing ever was.
func (v *vol) covered(path string, want bool) {
	v.t.Helper()
	dir, name := filepath.Split(path)
	mounts := v.readMounts()
	defer mounts.Close()
	v.until("mounts are written down", func() bool {
		known, have := mounts.Get()[strings.TrimSuffix(dir, "/")][name]
		return have == want && known == want
	})
}

// markedSince fails for each of the paths that was not marked since the root was.
func (v *vol) markedSince(x xtime.Time, paths ...string) {
	v.t.Helper()
	for _, path := range append(paths, "") {
		if now := v.xtime(path); now <= x {
			v.t.Errorf("%q has the xtime %v, no newer than %v", path, now, x)
		}
	}
}

// TestUncoveredIsMarked: what changed, and was marked, just before something was mounted on it may be unknown to the slave, and
// the directories above are stamped all the same. All of it gets marks when it can be seen again.
func TestUncoveredIsMarked(t *testing.T) {
	bySource(t, func(t *testing.T, v *vol) {
		v.start().quiet()
		v.sh("echo y > a/b/f; echo y > f; mkdir a/b/new; echo y > a/b/new/f")
		v.quiet()
		v.sh("mount -t tmpfs tmpfs a/b; mount -t tmpfs tmpfs a/b; mount --bind 'other\ndir/f' f")
		v.covered("a/b", true)
		v.covered("f", true)
		v.quiet()
		x := v.xtime("")
		v.sh("umount a/b")
		v.quiet()
		v.covered("a/b", true) // by the other one
		v.sh("umount -l a/b; umount f")
		v.covered("a/b", false)
		v.covered("f", false)
		v.quiet()
		v.markedSince(x, "f", "a", "a/b", "a/b/f", "a/b/c", "a/b/c/f", "a/b/new", "a/b/new/f")
		if v.xtime("a/f") > x {
			t.Error("a file beside it was marked")
		}
		v.sh("echo z > a/b/c/f; echo z > a/b/new/f")
		v.quiet()
	})
}

// TestCoveredFromTheStart: what is covered when the volume mark is taken was never in the volume for any crawl.
func TestCoveredFromTheStart(t *testing.T) {
	bySource(t, func(t *testing.T, v *vol) {
		v.sh("mount -t tmpfs tmpfs a")
		v.start().quiet()
		v.covered("a", true)
		x := v.xtime("")
		v.sh("umount a")
		v.covered("a", false)
		v.quiet()
		v.markedSince(x, "a", "a/f", "a/b", "a/b/f", "a/b/c", "a/b/c/f")
		before := v.all()
		v.sh("echo y > a/b/c/f")
		v.quiet()
		v.checkMarked(before, "", "a", "a/b", "a/b/c", "a/b/c/f")
	})
}

// TestUncoveredWhileStopped: the next marker finds what was uncovered, and so does a sync without one.
func TestUncoveredWhileStopped(t *testing.T) {
	bySource(t, func(t *testing.T, v *vol) {
		v.start().quiet()
		v.sh("echo y > a/b/f; mount -t tmpfs tmpfs a/b")
		v.covered("a/b", true)
		v.quiet()
		v.halt()
		x := v.xtime("")
		v.sh("umount a/b")
		v.start().quiet()
		v.markedSince(x, "a", "a/b", "a/b/f", "a/b/c", "a/b/c/f")
		v.covered("a/b", false)
		v.halt()
		v.sh("mount -t tmpfs tmpfs a")
		v.once()
		v.covered("a", true)
		x = v.xtime("")
		v.sh("umount a")
		v.once()
		v.markedSince(x, "a", "a/f", "a/b", "a/b/f", "a/b/c", "a/b/c/f")
		before := v.all()
		v.once()
		v.checkMarked(before)
	})
}

func (v *vol) once() {
	v.t.Helper()
	if _, err := Once(v.t.Context(), v.o); err != nil {
		v.t.Fatal(err)
	}
}

// TestUncoveredMoves: what was uncovered moves before anybody has looked, and is found by its handle, or, where only root may
// ask for that, by its number.
func TestUncoveredMoves(t *testing.T) {
	for _, by := range []string{"handle", "number"} {
		t.Run(by, func(t *testing.T) {
			bySource(t, func(t *testing.T, v *vol) {
				v.sh("mkdir in; echo x > in/f; mount -t tmpfs tmpfs a/b; mount --bind 'other\ndir/f' in/f")
				v.start().quiet()
				v.halt()
				if by == "number" {
					v.forgetHandles()
				}
				x := v.xtime("")
				v.sh("umount a/b; umount in/f; mv a/b away; mv in out; mkdir in a/b; touch in/f")
				v.start().quiet()
				v.markedSince(x, "away", "away/f", "away/c", "away/c/f", "out", "out/f")
				if list, err := v.m.mounts.bare(); len(list) > 0 || err != nil {
					t.Errorf("left are %v, %v", list, err)
				}
			})
		})
	}
}

// forgetHandles takes what only root knows out of what is written down.
func (v *vol) forgetHandles() {
	v.t.Helper()
	m := &mounts{path: filepath.Join(v.o.Dir, mountsFile), all: map[string]*cover{}}
	list, err := readCovers(m.files, m.path)
	if err != nil || len(list) == 0 {
		v.t.Fatalf("%v, %v", list, err)
	}
	for i := range list {
		if len(list[i].Key) == 0 || list[i].Ino == 0 {
			v.t.Errorf("not identified: %+v", list[i])
		}
		list[i].Key = nil
		m.all[string(list[i].Path)] = &list[i]
	}
	if err := m.save(); err != nil {
		v.t.Fatal(err)
	}
}

// TestRemovedMountPoint: a mount point that goes with its mount asks for nothing. In another mount namespace, where nothing is
// mounted on it any more, it can be removed, and the mount goes at the same moment: nobody can look in between.
func TestRemovedMountPoint(t *testing.T) {
	bySource(t, func(t *testing.T, v *vol) {
		v.start().quiet()
		v.sh("mkdir tmp; mount -t tmpfs tmpfs tmp")
		v.covered("tmp", true)
		v.quiet()
		before := v.all()
		delete(before, "tmp")
		v.sh("unshare -m --propagation private sh -ec 'umount tmp; rmdir tmp'")
		v.covered("tmp", false)
		v.quiet()
		v.checkMarked(before, "")
	})
}

// TestBoundFileIsNotMarked: a file from elsewhere that is bound over one of the volume is not the volume's, however new it is.
func TestBoundFileIsNotMarked(t *testing.T) {
	v := mountVol(t, SourceScan)
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	shIn(t, top, "echo x > f; mount --bind f "+v.o.Root+"/f")
	v.once()
	v.sh("echo y > f; touch a/f")
	v.once()
	if v.xtime("a/f") == 0 {
		t.Error("the scan marked nothing")
	}
	if x := v.xtime("f"); x != 0 {
		t.Errorf("the file that is mounted got the xtime %v", x)
	}
}

// TestMountsThatCannotBeWrittenDown: no crawl may pass over what is not written down.
func TestMountsThatCannotBeWrittenDown(t *testing.T) {
	v := mountVol(t, SourceFanotify)
	v.start().quiet()
	next := filepath.Join(v.o.Dir, mountsFile+".new")
	if err := os.Mkdir(next, 0o755); err != nil {
		t.Fatal(err)
	}
	v.sh("mount -t tmpfs tmpfs a/b")
	v.until("it is tried", func() bool {
		v.m.mounts.mu.Lock()
		defer v.m.mounts.mu.Unlock()
		return v.m.mounts.unsaved
	})
	mounts := v.readMounts()
	defer mounts.Close()
	if got := mounts.Get(); got["a"]["b"] || len(got) != 1 {
		t.Errorf("before it is written down: %v", got)
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	v.covered("a/b", true)
}

// TestMountsAreKnownAtOnce: a worker knows of a mount that the marker has not written down, or there is no marker.
func TestMountsAreKnownAtOnce(t *testing.T) {
	v := mountVol(t, SourceScan)
	mounts := v.readMounts()
	defer mounts.Close()
	for range 2 {
		if got := mounts.Get(); len(got) > 0 {
			t.Fatalf("nothing is mounted: %v", got)
		}
		v.sh("mount -t tmpfs tmpfs a/b")
		if known, have := mounts.Get()["a"]["b"]; known || !have {
			t.Fatalf("mounted: known to the marker %v, to the kernel %v", known, have)
		}
		v.sh("umount a/b")
	}
}
