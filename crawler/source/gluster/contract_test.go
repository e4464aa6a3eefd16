package gluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/source"
	"georep/crawler/source/gluster"
	"georep/crawler/source/sourcetest"
	harness "georep/integration/harness/gluster"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// world is a volume with two mounts: the users', and ours.
type world struct {
	*testing.T
	volume *harness.Volume
	path   string // where the users see it
	mount  *gluster.Mount
	names  xtime.Names
}

func attach(t *testing.T, volume string) *gluster.Mount {
	t.Helper()
	m, err := gluster.Attach(t.Context(), t.TempDir(), volume, harness.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func newWorld(t *testing.T) *world {
	t.Helper()
	v := harness.Start(t).Volume("master", "geo-replication.indexing on")
	w := &world{T: t, volume: v, path: v.Mount(t), mount: attach(t, v.Name)}
	w.names = xtime.NamesFor(xtime.Trusted, w.mount.ID)
	return w
}

// begin begins a pass over the directory dir.
func (w *world) begin(t *testing.T, dir string, window time.Duration) source.Source {
	t.Helper()
	root, err := w.mount.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	id, err := root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.mount.Opener(window)(&source.Config{Root: root, Path: filepath.Join(w.mount.Path, dir), Identity: id, Names: w.names,
		Record: xtime.Trusted, Mounts: func() map[string]map[string]bool { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// marked waits until the volume has marked what was changed at paths below dir. A mark is made after the change, by the same clock here.
func (w *world) marked(t *testing.T, dir string, paths ...string) {
	t.Helper()
	root, err := w.mount.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, p := range paths {
		least := xtime.Time(0)
		for at := beneath.Join(dir, p); ; at, _ = beneath.Split(at) {
			least = w.reached(t, root, at, least)
			if at == "" {
				break
			}
		}
	}
}

// reached waits until the xtime of path is at least that, and not before its ctime. It returns the xtime. Marks that climb at the same time
// may leave a directory some milliseconds behind what is in it, for good: then a further change in it helps.
func (w *world) reached(t *testing.T, root *beneath.Dir, path string, least xtime.Time) xtime.Time {
	t.Helper()
	nudge := time.Now().Add(200 * time.Millisecond)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if time.Now().After(nudge) {
			w.nudge(t, path)
			nudge = time.Now().Add(200 * time.Millisecond)
		}
		x, err := w.look(root, path, least)
		if errors.Is(err, os.ErrNotExist) {
			return least
		}
		if err == nil {
			return x
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is not marked: %v", path, err)
		}
	}
}

// nudge changes a directory once more, and leaves everything else as it is.
func (w *world) nudge(t *testing.T, path string) {
	t.Helper()
	f, err := os.CreateTemp(filepath.Join(w.path, path), "nudge")
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

var errEarly = errors.New("its xtime is from before")

func (w *world) look(root *beneath.Dir, path string, least xtime.Time) (xtime.Time, error) {
	dir, name := beneath.Split(path)
	d, err := root.OpenPath(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	st, err := d.Stat(name)
	if err != nil {
		return 0, err
	}
	x, err := d.Xtime(name, &w.names)
	if err == nil && (x < least || x.Time().Before(source.UnixTime(st.Ctime).Truncate(time.Microsecond))) {
		err = errEarly
	}
	return x, err
}

// TestContract: a volume is a Source. Each test of the suite has a directory of it, so that one volume is enough.
func TestContract(t *testing.T) {
	w := newWorld(t)
	sourcetest.Run(t, sourcetest.Kind{New: func(t *testing.T) sourcetest.Master {
		dir, err := os.MkdirTemp(w.path, "master")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(dir)
		w.marked(t, "", name)
		return sourcetest.Master{Path: dir,
			Marked: func(paths ...string) { w.marked(t, name, append(paths, "")...) },
			Begin:  func() source.Source { return w.begin(t, name, 0) },
			Away: func() {
				if err := os.Rename(dir, dir+".away"); err != nil {
					t.Fatal(err)
				}
			}}
	}})
	t.Run("the root of the volume", func(t *testing.T) {
		s := w.begin(t, "", 0)
		d, err := s.OpenDir("")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = s.Names(d, true, func(e beneath.Entry) error {
			if e.Name[0] == '.' {
				t.Errorf("%q is the volume's own", e.Name)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(w.mount.Path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(); !errors.Is(err, source.ErrNotMaster) {
			t.Errorf("unmounted: %v", err)
		}
		if err := s.Intact(); !errors.Is(err, source.ErrNotMaster) {
			t.Errorf("unmounted: %v", err)
		}
	})
}
