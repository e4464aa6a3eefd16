package marker

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"georep/integration/harness/asuser"
	"georep/integration/harness/fstest"
	"georep/marker/writers"
	"georep/marker/xtime"
)

// eventSources are all, each with what its volume needs.
func eventSources() []string { return []string{SourceFanotify, SourceInotify, SourceScan} }

// isMarked checks that path and what lies above it were marked by now; it waits for nothing but the heartbeat.
func (v *vol) isMarked(what, path string, since map[string]xtime.Time) {
	v.t.Helper()
	v.settle()
	for at := path; ; at, _ = filepath.Split(strings.TrimSuffix(at, "/")) {
		at = strings.TrimSuffix(at, "/")
		if x := v.xtime(at); x <= since[at] {
			v.t.Errorf("%s: the heartbeat says that it is marked, but %q has %v still", what, at, x)
		}
		if at == "" {
			return
		}
	}
}

// TestWritesWithoutEvents (invariant 11): what is written while a file stays open is marked before the heartbeat passes it,
// also where no event tells.
func TestWritesWithoutEvents(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		methods := []string{"aio", "mmap"}
		if strings.HasSuffix(t.Name(), fstest.Ext4) {
			methods = append(methods, "direct", "uring", "mapfd")
		}
		for _, source := range eventSources() {
			t.Run(source, func(t *testing.T) {
				root := filepath.Join(dir, source)
				if err := os.Mkdir(root, 0o755); err != nil {
					t.Fatal(err)
				}
				v := newVol(t, root)
				v.o.Source, v.looks = source, true
				v.sh("mkdir d; for f in aio direct uring mmap mapfd; do head -c 4096 /dev/zero > d/$f; done")
				v.start()
				for _, method := range methods {
					v.writeHeld(method)
				}
			})
		}
	})
}

// writeHeld writes again and again through one holder, and once more just before it goes.
func (v *vol) writeHeld(method string) {
	v.t.Helper()
	path := "d/" + method
	h := hold(v.t, method, v.o.Root, path)
	for _, text := range []string{"one", "two"} {
		v.quiet()
		before := v.all()
		h.tell("write " + text)
		v.isMarked(method+" "+text, path, before)
	}
	if strings.HasPrefix(method, "m") {
		h.tell("msync")
		v.quiet()
		before := v.all()
		h.tell("write after msync")
		v.isMarked(method+" after msync", path, before)
	}
	v.quiet()
	before := v.all()
	h.tell("write last")
	h.end()
	v.isMarked(method+" before its end", path, before)
	v.quiet()
}

// TestWritesByALoopDevice: an image in the tree is written through the device that it is behind.
func TestWritesByALoopDevice(t *testing.T) {
	for _, source := range eventSources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source, v.looks = source, true
			v.sh("mkdir d; truncate -s 1M d/image")
			out, err := exec.Command("losetup", "--find", "--show", filepath.Join(v.o.Root, "d/image")).Output()
			if err != nil {
				t.Fatal(err)
			}
			device := strings.TrimSpace(string(out))
			t.Cleanup(func() { shIn(t, "/", "losetup --detach "+device) })
			v.start()
			for range 2 {
				v.quiet()
				before := v.all()
				v.sh("head -c 4096 /dev/urandom | dd of=" + device + " conv=fsync,notrunc status=none")
				v.isMarked("loop device", "d/image", before)
			}
		})
	}
}

// TestWritesWithoutAName: a file is written through a descriptor under whose name it is not in the tree: it got the name
// otherwise, or another name is left.
func TestWritesWithoutAName(t *testing.T) {
	for _, source := range eventSources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source, v.looks = source, true
			v.sh("mkdir d e; echo old > d/gone; ln d/gone e/left")
			v.start(func(m *marker) { m.scanner.detachedPause = 0 })
			linked := hold(t, "tmpfile", v.o.Root, "d")
			linked.tell("link e/linked")
			left := hold(t, "aio", v.o.Root, "d/gone")
			v.sh("rm d/gone")
			for _, text := range []string{"one", "two"} {
				for path, h := range map[string]*holder{"e/linked": linked, "e/left": left} {
					v.quiet()
					before := v.all()
					h.tell("write " + text)
					v.isMarked(path+" "+text, path, before)
				}
			}
			v.quiet()
			before := v.all()
			left.tell("write last")
			left.end()
			v.isMarked("e/left before its end", "e/left", before)
		})
	}
}

// TestHeldFilesCostNothing: files that are held open, within and outside, and not written give no marks.
func TestHeldFilesCostNothing(t *testing.T) {
	dir := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	shIn(t, dir, "mkdir volume; echo outside > outside; ln outside further")
	v := newVol(t, filepath.Join(dir, "volume"))
	v.sh("echo f > f")
	v.looks = true
	v.start(func(m *marker) { m.scanner.detachedPause = 0 })
	outside := hold(t, "aio", dir, "outside")
	hold(t, "aio", v.o.Root, "f")
	v.quiet()
	before := v.all()
	outside.tell("write something")
	v.quiet()
	for path, x := range v.all() {
		if x != before[path] {
			t.Errorf("%q was marked for nothing", path)
		}
	}
}

// TestOnceFindsMappedWrites: a scan without a marker marks what is mapped, though no time tells that it was written.
func TestOnceFindsMappedWrites(t *testing.T) {
	for _, kind := range []string{fstest.Ext4, fstest.Tmpfs} {
		t.Run(kind, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, kind, fstest.Options{}))
			v.sh("mkdir d; echo f > d/f")
			h := hold(t, "mmap", v.o.Root, "d/f")
			h.tell("write one")
			if _, err := Once(t.Context(), v.o); err != nil {
				t.Fatal(err)
			}
			// As if the times that the file has were of long ago: the scan goes by the heartbeat.
			v.putHeartbeatOff(time.Minute)
			before := v.all()
			h.tell("write two")
			if _, err := Once(t.Context(), v.o); err != nil {
				t.Fatal(err)
			}
			for path := range map[string]bool{"": true, "d": true, "d/f": true} {
				if x := v.xtime(path); x <= before[path] {
					t.Errorf("%q has %v still", path, x)
				}
			}
		})
	}
}

// putHeartbeatOff changes the record of a marker that does not run.
func (v *vol) putHeartbeatOff(by time.Duration) {
	v.t.Helper()
	path := filepath.Join(v.o.Dir, heartbeatFile)
	b, err := os.ReadFile(path)
	var hb heartbeat
	if err == nil {
		err = json.Unmarshal(b, &hb)
	}
	hb.Time, hb.SlowScan = hb.Time.Add(by), hb.SlowScan.Add(by)
	if err == nil {
		b, err = json.Marshal(hb)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// TestHeldByAnOrdinaryUser: its own processes it sees; of others the status says that it does not.
func TestHeldByAnOrdinaryUser(t *testing.T) {
	dir, here := asuser.Again(t)
	if !here {
		return
	}
	t.Setenv("TMPDIR", dir)
	for _, source := range []string{SourceInotify, SourceScan} {
		root := filepath.Join(dir, source)
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		v := newVol(t, root)
		v.o.Source, v.o.Namespace, v.looks = source, xtime.User, true
		v.sh("mkdir d; for f in aio mmap; do head -c 4096 /dev/zero > d/$f; done")
		v.start()
		for _, method := range []string{"aio", "mmap"} {
			v.writeHeld(method)
		}
		v.until("the status says what is not seen", func() bool {
			s, err := ReadStatus(v.o.Dir)
			return err == nil && s.Hidden != ""
		})
		v.halt()
	}
}

// stepping is a finder under whose looks the clock is set by so much: what the look began with is of the clock before that.
type stepping struct {
	finder
	h  *heldFiles
	by time.Duration
}

func (s *stepping) Look(told bool) ([]writers.File, string, error) {
	s.h.at.Wall, s.h.at.Offset = s.h.at.Wall.Add(-s.by), s.h.at.Offset-int64(s.by)
	return s.finder.Look(told)
}

// TestClockSetDuringALook: how long a look took is not a matter of how the clock was set meanwhile. The next one would be due after a
// hundred times as long.
func TestClockSetDuringALook(t *testing.T) {
	v := newVol(t, t.TempDir())
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.held.find = &stepping{nobody{}, m.held, 24 * time.Hour}
	took, err := m.held.look(t.Context(), true)
	if err != nil || took < 0 || took > time.Hour {
		t.Errorf("it took %v, %v", took, err)
	}
}

// TestMappedFilesAndAClockSetBack: a mapped file is looked at again when the time for that has passed, not when the clock shows it.
func TestMappedFilesAndAClockSetBack(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.o.Source = SourceScan
	v.sh("echo f > f")
	hold(t, "mmap", v.o.Root, "f").tell("write one")
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	look := func() {
		t.Helper()
		if _, err := m.held.look(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	var due time.Time
	v.until("who has mapped the file, and where it is, is known", func() bool {
		if _, err := m.passHeld(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, e := range m.held.files {
			due = e.next
		}
		return !due.IsZero()
	})
	m.held.find = &stepping{m.held.find, m.held, 24 * time.Hour}
	v.until("it is due", func() bool { return time.Now().After(due) })
	look()
	if at := m.held.bound().Boot(); at != m.held.at.Boot() {
		t.Errorf("everything is marked up to %v before the look", time.Duration(m.held.at.Boot()-at))
	}
}

// asking is a finder that finds nothing, and notes how it was asked.
type asking struct{ told atomic.Pointer[bool] }

func (a *asking) Look(told bool) ([]writers.File, string, error) {
	a.told.Store(&told)
	return nil, "", nil
}

// TestOwnProcessesAreLookedInto: georep's own processes may be passed over with fanotify only. inotify does not tell of what is
// written to a file whose name is gone, and where there are scans nothing tells.
func TestOwnProcessesAreLookedInto(t *testing.T) {
	for _, source := range eventSources() {
		v := newVol(t, t.TempDir())
		v.o.Source = source
		a := &asking{}
		v.start(func(m *marker) { m.held.find = a })
		v.until("it has looked", func() bool { return a.told.Load() != nil })
		if told := *a.told.Load(); told != (source == SourceFanotify) {
			t.Errorf("%s: it was asked for files with events for all writes: %v", source, told)
		}
		v.halt()
	}
}

// waiting is a finder that finds nothing, and waits before it says so.
type waiting struct{ d time.Duration }

func (w waiting) Look(bool) ([]writers.File, string, error) { time.Sleep(w.d); return nil, "", nil }

// TestLookThatWaits: on a machine without a processor to spare a look takes long. It costs no more than others, and the pause
// before the next one, of which the heartbeat waits, is no longer.
func TestLookThatWaits(t *testing.T) {
	v := newVol(t, t.TempDir())
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.held.find = waiting{time.Second}
	took, err := m.held.look(t.Context(), true)
	if err != nil || took > time.Second/2 {
		t.Errorf("%v, and a look that waited for a second counts as %v of work", err, took)
	}
}
