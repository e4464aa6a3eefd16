package marker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/inotify"
	"georep/marker/moment"
	"georep/marker/statefile"
	"georep/marker/xtime"
)

// moving is a volume in which directories move just before the n-th call of a marker that has changes to find.
type moving struct {
	*vol
	mu    sync.Mutex
	armed bool
	calls int
	moved bool
}

// movesInAScan are what is done in the midst of a scan: the scan has been in one place, or will be, and not in the other.
func movesInAScan() []string {
	return []string{"mv p r", "swap p/s q/s", "mv q/s s", "mv p/s q/t; mv q p/q", "mv p/s ../$$; mv ../$$ t"}
}

// newMoving makes the changes that nobody sees.
func newMoving(t *testing.T, top, source, script string, n int) *moving {
	v := &moving{vol: newVolIn(t, top)}
	v.o.Source = source
	v.o.hook = func(string, string) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.armed {
			if v.calls++; v.calls == n+1 {
				v.sh(script)
				v.moved = true
			}
		}
		return nil
	}
	v.sh("mkdir -p p/s/d q/s/d; touch p/f p/s/f p/s/d/f q/f q/s/f q/s/d/f")
	once(v)
	v.sh("for f in $(find . -name f); do echo changed > $f; done")
	return v
}

// arm lets the calls count from now on.
func (v *moving) arm() { v.mu.Lock(); defer v.mu.Unlock(); v.armed = true }

// disarm ends that.
func (v *moving) disarm() { v.mu.Lock(); defer v.mu.Unlock(); v.armed = false }

// check fails where a crawl would not find a change.
func (v *moving) check() {
	v.t.Helper()
	all := v.all()
	for path, x := range all {
		if filepath.Base(path) == "f" && x <= v.o.VolumeMark {
			v.t.Errorf("%q changed, and has %v, not more than the volume mark %v", path, x, v.o.VolumeMark)
		}
		if dir, _ := beneath.Split(path); path != "" && all[dir] < x {
			v.t.Errorf("%q has %v, its directory only %v", path, x, all[dir])
		}
	}
}

// eachMoment runs test for each script, with the move at each moment of it, until the moments do not come any more.
func eachMoment(t *testing.T, source string, test func(v *moving)) {
	const most = 60 // calls of a scan, and more
	step := min(failStep(t), 7)
	for first, script := range movesInAScan() {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
			var all []*moving
			for n := first % step; n < most; n += step {
				all = append(all, newMoving(t, top, source, script, n))
			}
			all[0].aged()
			moved := 0
			for n, v := range all {
				test(v)
				if v.moved {
					moved++
				}
				if v.check(); t.Failed() {
					t.Fatalf("at call %d", first%step+n*step)
				}
			}
			if moved < 20/step {
				t.Errorf("only %d moves in the midst of a scan", moved)
			}
		})
	}
}

// TestDirectoriesMoveDuringAScan: whatever moves from where a scan comes later to where it has been, or between names of a
// directory that is being listed, the scan finds what had changed in it. What is told by an event is the move alone.
func TestDirectoriesMoveDuringAScan(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			eachMoment(t, source, func(v *moving) {
				v.start(func(*marker) { v.arm() })
				v.settle()
				v.disarm()
				v.settle()
				v.halt()
			})
		})
	}
}

// TestDirectoriesMoveDuringTheLastScan: where there are no events, it is the next scan that finds it; it may be another
// process's, and the record of what the last one met may be lost.
func TestDirectoriesMoveDuringTheLastScan(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "on record", true: "record lost"}[lost], func(t *testing.T) {
			eachMoment(t, SourceScan, func(v *moving) {
				v.arm()
				once(v)
				v.disarm()
				if lost {
					v.loseRecords()
				}
				once(v)
			})
		})
	}
}

func once(v *moving) {
	v.t.Helper()
	if _, err := Once(v.t.Context(), v.o); err != nil {
		v.t.Fatal(err)
	}
}

// loseRecords removes what a marker can do without.
func (v *moving) loseRecords() {
	v.t.Helper()
	err := filepath.WalkDir(v.o.Dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(p, ownFile) || strings.HasSuffix(p, coverage.File)) {
			err = os.Remove(p)
		}
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
}

// away is a volume with a directory d that leaves it, is changed, and comes back.
func away(t *testing.T, dir, source string) *vol {
	shIn(t, dir, "mkdir -p v/d/e v/c out; touch v/d/f v/d/e/f")
	v := newVol(t, filepath.Join(dir, "v"))
	v.o.Source = source
	return v
}

// leave moves d out of the volume, and waits until the marker has given it up.
func (v *vol) leave() {
	v.t.Helper()
	had := 0
	src, watches := v.m.live.src.(*inotify.Source)
	if watches {
		had = src.Watched()
	}
	v.sh("mv d ../out/d")
	v.quiet()
	if watches {
		v.until("the end of its watches", func() bool { return src.Watched() == had-2 })
	}
}

const changeOutside = "echo changed | tee out/d/f > out/d/e/f"

// changedAway is such a volume when its marker runs, and the directory was changed outside so long ago that no slack tells.
func changedAway(t *testing.T, source string) *vol {
	v := away(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}), source)
	v.start()
	v.quiet()
	v.leave()
	shIn(t, filepath.Dir(v.o.Root), changeOutside)
	v.aged()
	v.quiet()
	return v
}

// TestWhatComesBackIsMarked: what changed in a directory while it lay outside of the volume no event tells, and no ctime that
// a scan would look at; so all that is in it is marked when it comes back.
func TestWhatComesBackIsMarked(t *testing.T) {
	for how, back := range map[string]string{
		"to its place":             "mv ../out/d d",
		"to another":               "mv ../out/d c/x",
		"in another directory":     "mv ../out o",
		"and out of that at once":  "mv ../out o; mv o/d c/x; rmdir o",
		"and to a third at once":   "mv ../out/d c/x; mv c/x y",
		"and out, and back again":  "mv ../out/d d; mv d ../out/d; mv ../out/d c/x",
		"in exchange for another":  "swap ../out/d c; mv c x",
		"as its parts":             "mv ../out/d/e e; mv ../out/d d",
		"over an empty directory":  "mkdir c/x; mv -T ../out/d c/x",
		"and its part is moved on": "mv ../out/d d; mv d/e c/e",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			for _, source := range []string{SourceFanotify, SourceInotify} {
				v := changedAway(t, source)
				before := v.all()
				v.sh(back)
				v.quiet()
				v.changedFiles(before, 2)
			}
		})
	}
}

// changedFiles fails unless so many files have changed, and are marked anew.
func (v *vol) changedFiles(before map[string]xtime.Time, want int) {
	v.t.Helper()
	n := 0
	for p, x := range v.all() {
		if filepath.Base(p) != "f" {
			continue
		}
		if n++; x <= max(before[p], v.o.VolumeMark) {
			v.t.Errorf("%s: %q came back, and has %v still", v.o.Source, p, x)
		}
	}
	if n != want {
		v.t.Errorf("%d files, want %d", n, want)
	}
}

// TestWhatComesBackToAStoppedMarkerIsMarked: the same where no marker sees it come, or it go.
func TestWhatComesBackToAStoppedMarkerIsMarked(t *testing.T) {
	for _, source := range sources() {
		for _, seen := range []bool{true, false} {
			t.Run(fmt.Sprint(source, " sees it go: ", seen), func(t *testing.T) {
				t.Parallel()
				v := away(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}), source)
				v.start()
				v.quiet()
				if !seen {
					v.halt()
					v.sh("mv d ../out/d")
					v.start()
				} else if source == SourceScan {
					v.sh("mv d ../out/d")
				} else {
					v.leave()
				}
				v.quiet()
				shIn(t, filepath.Dir(v.o.Root), changeOutside)
				v.aged()
				v.quiet()
				v.halt()
				before := v.all()
				v.sh("mv ../out/d d")
				v.start()
				v.quiet()
				v.changedFiles(before, 2)
			})
		}
	}
}

// TestNewDirectoryCostsNoMore: a directory that was made while the marker ran is known when it is started again.
func TestNewDirectoryCostsNoMore(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		v := newVol(t, dir)
		v.o.Source = SourceFanotify
		v.start()
		v.quiet()
		v.sh("mkdir -p a/b/c; touch a/f a/b/f a/b/c/f; mv a/b/c a/c")
		v.aged()
		v.quiet()
		v.halt()
		before := v.all()
		v.sh("touch a/g; rm a/b/f")
		v.start()
		v.quiet()
		v.checkMarked(before, "", "a", "a/g", "a/b")
	})
}

// TestKilledBeforeWhatCameBackIsMarked: a marker that ends between the two leaves it to the next.
func TestKilledBeforeWhatCameBackIsMarked(t *testing.T) {
	v := changedAway(t, SourceFanotify)
	v.halt()
	before := v.all()
	v.o.hook = func(op, name string) error {
		if name == "f" {
			return unix.EIO
		}
		return nil
	}
	v.start()
	v.quiet()
	v.sh("mv ../out/d d")
	v.until("the arrival is seen", func() bool { _, any := v.m.scanner.awaited(); return any })
	t0 := time.Now()
	for end := t0.Add(heartbeatEach * keepEach); time.Now().Before(end); { // by then a heartbeat would have been saved
		if v.m.arrivals.earliest.Load() == nil {
			t.Fatal("for a moment nothing held the heartbeat")
		}
	}
	if hb := v.m.beats.get().Time; hb.After(t0) {
		t.Errorf("the heartbeat is at %v, after the arrival at %v, which is not marked", hb, t0)
	}
	v.halt()
	v.o.hook = nil
	v.start()
	v.quiet()
	v.changedFiles(before, 2)
}

// TestMarksAreOnTheDeviceBeforeTheyCount: the marks of what came back are no more than in memory until the scan has synced the
// file system. Where that fails its directory does not count as covered, and the next scan marks it again.
func TestMarksAreOnTheDeviceBeforeTheyCount(t *testing.T) {
	v := changedAway(t, SourceFanotify)
	v.halt()
	if _, err := Once(t.Context(), v.o); err != nil { // by now no ctime tells what was changed outside
		t.Fatal(err)
	}
	v.sh("mv ../out/d d")
	synced := 0
	v.o.hook = func(op, _ string) error {
		if op != "syncfs" {
			return nil
		}
		synced++
		return unix.EIO
	}
	for range 2 {
		before := v.all()
		if _, err := Once(t.Context(), v.o); !errors.Is(err, unix.EIO) {
			t.Fatalf("a scan whose marks could not be synced: %v", err)
		}
		v.changedFiles(before, 2)
	}
	v.o.hook = nil
	before := v.all()
	if _, err := Once(t.Context(), v.o); err != nil {
		t.Fatal(err)
	}
	v.changedFiles(before, 2)
	if synced != 2 {
		t.Errorf("synced %d times", synced)
	}
}

// TestSyncIsOwedUntilItIsDone: also by a scan that had to end before it, to whichever is complete.
func TestSyncIsOwedUntilItIsDone(t *testing.T) {
	v, failure, synced := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{})), error(nil), 0
	v.o.Source = SourceScan
	v.o.hook = func(op, _ string) error {
		if op != "syncfs" {
			return nil
		}
		synced++
		return failure
	}
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	end := func(incomplete bool) error {
		s := m.scanner.begin(false)
		s.Incomplete.Store(incomplete)
		return m.scanner.finish(s, coverage.Whole, 0, nil)
	}
	m.scans.Unsynced.Store(true)
	if err := end(true); err != nil || synced != 0 {
		t.Fatalf("%v, %d syncs by a scan that is not complete", err, synced)
	}
	failure = unix.EIO
	if err := end(false); !errors.Is(err, failure) {
		t.Fatal(err)
	}
	failure = nil
	for range 2 {
		if err := end(false); err != nil || synced != 2 {
			t.Fatalf("%v, %d syncs, want the one that failed and one more", err, synced)
		}
	}
}

// TestCoverageIsSavedFirst: a heartbeat never gets to the device without the coverage that it stands on.
func TestCoverageIsSavedFirst(t *testing.T) {
	dir, failure := t.TempDir(), error(nil)
	f := statefile.FS{Hook: func(op, path string) error {
		if op == "rename" && strings.Contains(path, coverage.File) {
			return failure
		}
		return nil
	}}
	c := coverage.New(dir, f)
	b, _, err := openBeats(dir, f, c, func() int64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	c.CoverAll()
	c.Leave(7)
	b.drained(moment.Now(), 1)
	for _, failure = range []error{unix.EIO, nil} {
		if err := b.save(); !errors.Is(err, failure) {
			t.Fatalf("%v, want %v", err, failure)
		}
		after := coverage.New(dir, f)
		if _, known, err := openBeats(dir, f, after, b.retrying); err != nil || known != (failure == nil) || after.Has(7) || after.Has(8) != known {
			t.Errorf("coverage failed with %v: a heartbeat is there: %v, covers %v and %v, %v", failure, known, after.Has(7), after.Has(8), err)
		}
	}
}

// TestRandomBorder changes a volume and what lies around it at random, with directories that move between the two, while a
// marker runs, is killed or is not there. Whoever knew the volume at the begin of a round, and looks at what has a newer
// mark, or none and a newer ctime, misses no change.
func TestRandomBorder(t *testing.T) {
	rounds := 4
	if failStep(t) == 1 {
		rounds = 100
	}
	for _, c := range [][2]string{{fstest.Ext4, SourceFanotify}, {fstest.XFS, SourceInotify}, {fstest.Tmpfs, SourceScan}} {
		t.Run(c[1], func(t *testing.T) {
			t.Parallel()
			top := fstest.Mount(t, c[0], fstest.Options{})
			shIn(t, top, "mkdir d0 d1 d2")
			_, fill := startSelf(t, "load", top, "1 500")
			fill()
			v := newVol(t, filepath.Join(top, "d0"))
			v.o.Source = c[1]
			v.start().quiet()
			for round := range rounds {
				before, newest := v.states(), v.xtime("")
				switch round % 4 {
				case 0: // the marker runs
				case 1, 2:
					v.halt()
				default:
					v.halt()
					_, end := startSelf(t, "load", top, fmt.Sprint(1000+round, " 0 1000"))
					v.killOne(300 * time.Millisecond)
					end()
				}
				_, end := startSelf(t, "load", top, fmt.Sprint(100+round, " 400"))
				end()
				if v.stop == nil {
					v.aged() // by then the changes are too old for a start to look at by chance
					_, end := startSelf(t, "load", top, fmt.Sprint(2000+round, " 0 1000"))
					v.start().settle()
					end()
				}
				v.quiet()
				if v.checkMissed(before, newest); t.Failed() {
					t.Fatalf("round %d", round)
				}
			}
		})
	}
}

// checkMissed fails where an inode changed that was there, and neither its mark nor the marks of what it lies in are newer
// than newest, or where that goes for the directory of one that was not.
func (v *vol) checkMissed(before map[string]entryState, newest xtime.Time) {
	v.t.Helper()
	known := map[uint64]entryState{}
	for _, s := range before {
		known[s.ino] = s
	}
	now := v.states()
	changed := 0
	for path, s := range now {
		b, had := known[s.ino]
		if had && b.size == s.size && b.mode == s.mode && b.mtime == s.mtime {
			continue
		}
		changed++
		if had && s.xtime != 0 && s.xtime <= newest {
			v.t.Errorf("%q changed, and has %v; %v was known", path, s.xtime, newest)
		}
		p, _ := beneath.Split(path)
		if up, has := now[p], known[now[p].ino]; !had && has.ino == 0 && up.xtime >= s.xtime {
			continue // its directory is new, too
		}
		for ; ; p, _ = beneath.Split(p) {
			if up := now[p].xtime; up <= newest || up < s.xtime {
				v.t.Errorf("%q changed, and has %v; %q above it %v; %v was known", path, s.xtime, p, up, newest)
			}
			if p == "" {
				break
			}
		}
	}
	if changed == 0 {
		v.t.Error("nothing changed: the test tests nothing")
	}
}

// unread is where inotify's directories lie while events are yet to be read.
type unread struct{ directories }

func (unread) reopen(beneath.HandleKey) (*beneath.Dir, error) {
	return nil, fmt.Errorf("reopen: %w", inotify.ErrStale)
}

func (unread) number(beneath.HandleKey) (uint64, bool) { return 0, false }

// TestStaleIsNoTrouble: a directory of which only an event to come tells where it lies is gone to later. It is no reason to scan once more.
func TestStaleIsNoTrouble(t *testing.T) {
	v := newVol(t, t.TempDir())
	v.o.Source = SourceScan
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.tree = unread{}
	defer func() { m.tree = nil }()
	s := m.scans.Begin(false, true)
	left, err := s.RunIn(t.Context(), map[beneath.HandleKey]struct{}{"moved": {}})
	if err != nil || len(left) != 1 || s.Incomplete.Load() {
		t.Errorf("left %q, incomplete %v, %v", left, s.Incomplete.Load(), err)
	}
	s.Moving.End()
	s.Cover.End(coverage.Nothing)
}
