package marker

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/moment"
	"georep/marker/statefile"
	"georep/marker/xtime"
)

func TestFirstStartTakesTheVolumeMark(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.sh("mkdir a; touch a/f")
	before := xtime.FromTime(time.Now())
	v.start().quiet()
	if v.o.VolumeMark < before || v.xtime("") != v.o.VolumeMark || v.xtime("a/f") != 0 {
		t.Errorf("volume mark %v, root %v, file %v", v.o.VolumeMark, v.xtime(""), v.xtime("a/f"))
	}
	if hb := v.m.beats.get(); hb.Entries != 2 {
		t.Errorf("counted %d entries", hb.Entries)
	}
	v.halt()
	taken := v.o.VolumeMark
	v.start().settle()
	v.halt()
	if v.o.VolumeMark != taken {
		t.Error("a further start took another volume mark")
	}
	v.o.RaiseMark = true
	v.start().settle()
	if v.o.VolumeMark <= taken || v.xtime("") != v.o.VolumeMark {
		t.Errorf("raised from %v to %v, root %v", taken, v.o.VolumeMark, v.xtime(""))
	}
}

func TestChangesWhileStoppedAreFound(t *testing.T) {
	eachEvents(t, func(t *testing.T, source, dir string) {
		v := newVol(t, dir)
		v.o.Source = source
		v.sh("mkdir -p a/b c d; touch a/b/f a/b/g c/h d/i")
		v.aged()
		v.start().quiet()
		v.halt()
		before := v.all()
		v.sh("echo x > a/b/f; rm c/h; mkdir -p c/n; touch c/n/o")
		v.start().quiet()
		v.checkMarked(before, "", "a", "a/b", "a/b/f", "c", "c/n", "c/n/o")
	})
}

// aged waits until the files are so old that the slack does not bring them back.
func (v *vol) aged() {
	v.t.Helper()
	born := time.Now()
	v.until("the files are older than the slack", func() bool { return time.Since(born) > slack+100*time.Millisecond })
}

// checkMarked fails unless exactly these paths got another xtime.
func (v *vol) checkMarked(before map[string]xtime.Time, want ...string) {
	v.t.Helper()
	var got []string
	for path, x := range v.all() {
		if x != before[path] {
			got = append(got, path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		v.t.Errorf("marked %q, want %q", got, want)
	}
}

func TestOnce(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.sh("mkdir -p a/b c; touch a/b/f c/g")
	v.aged()
	first, err := Once(t.Context(), v.o)
	if err != nil || first.Marked != 0 || first.Entries != 5 || first.VolumeMark == 0 {
		t.Fatalf("first: %+v, %v", first, err)
	}
	before := v.all()
	v.sh("echo x > a/b/f; touch -d 2001-01-01 a/b/f")
	second, err := Once(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	v.checkMarked(before, "", "a", "a/b", "a/b/f")
	if x := v.xtime(""); second.Xtime < x || !second.Heartbeat.After(first.Heartbeat) {
		t.Errorf("root %v; %+v after %+v", x, second, first)
	}
	third, err := Once(t.Context(), v.o)
	if err != nil || third.Marked != 0 {
		t.Errorf("nothing changed, but %+v, %v", third, err)
	}
}

// TestChangeAsTheMarkIsTaken: a new volume mark covers what was there when it was taken, and no change after that.
func TestChangeAsTheMarkIsTaken(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.sh("mkdir -p a c; touch a/f c/g")
	save := v.o.SaveVolumeMark
	v.o.SaveVolumeMark = func(x xtime.Time) error {
		err := save(x)
		v.sh("echo late > c/g")
		return err
	}
	first, err := Once(t.Context(), v.o)
	if err != nil || first.Marked != 0 || v.xtime("c/g") != 0 {
		t.Fatalf("first: %+v, %v", first, err)
	}
	v.o.SaveVolumeMark = save
	if _, err := Once(t.Context(), v.o); err != nil {
		t.Fatal(err)
	}
	if x := v.xtime("c/g"); x <= first.VolumeMark || v.xtime("") < x {
		t.Errorf("the file has %v, the root %v, the volume mark was %v", x, v.xtime(""), first.VolumeMark)
	}
}

func TestOneMarkerAVolume(t *testing.T) {
	v := newVol(t, t.TempDir())
	if Alive(v.o.Dir) {
		t.Error("alive before the start")
	}
	v.start().settle()
	if !Alive(v.o.Dir) {
		t.Error("not alive")
	}
	if err := Run(t.Context(), v.o); !errors.Is(err, ErrRunning) {
		t.Errorf("a second Run: %v", err)
	}
	if _, err := Once(t.Context(), v.o); !errors.Is(err, ErrRunning) {
		t.Errorf("Once beside Run: %v", err)
	}
	v.sh("touch f")
	if err := WaitMark(t.Context(), v.o.Dir, time.Now()); err != nil || v.xtime("f") == 0 {
		t.Errorf("waited for a mark: %v, %v", v.xtime("f"), err)
	}
	v.halt()
	if err := WaitMark(t.Context(), v.o.Dir, time.Now()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("waited for a dead marker: %v", err)
	}
}

func TestAnotherRootIsNeverMarked(t *testing.T) {
	dir := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	shIn(t, dir, "mkdir master other; touch other/f")
	v := newVol(t, filepath.Join(dir, "master"))
	v.o.Identity = beneath.Identity{GFID: xtime.GFID{1}}
	if err := Run(t.Context(), v.o); !errors.Is(err, ErrNotMaster) {
		t.Fatalf("started on another directory: %v", err)
	}
	v.o.Identity = beneath.Identity{}
	v.start().settle()
	shIn(t, dir, "mv master elsewhere; mv other master; touch master/g")
	stop := v.stop
	v.stop = nil
	ended := make(chan error, 1)
	v.until("the marker sees it", func() bool {
		err := v.m.checkRoot()
		return errors.Is(err, ErrNotMaster)
	})
	go func() { ended <- stop() }()
	if err := <-ended; err != nil && !errors.Is(err, ErrNotMaster) {
		t.Errorf("ended with %v", err)
	}
	for path, x := range v.all() {
		if x != 0 {
			t.Errorf("%q of another tree was marked", path)
		}
	}
}

func TestUnusedMarkerEnds(t *testing.T) {
	t.Parallel()
	v := newVol(t, t.TempDir())
	v.o.ExitWhenUnused = true
	if err := os.MkdirAll(v.o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	user, err := tryLock(filepath.Join(v.o.Dir, usersFile), unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.keepOnce(unusedGrace); err != nil {
		t.Errorf("used, but %v", err)
	}
	user.Close()
	if err := m.keepOnce(unusedGrace - 1); err != nil {
		t.Errorf("within the grace, but %v", err)
	}
	if err := m.keepOnce(unusedGrace); !errors.Is(err, errUnused) {
		t.Errorf("unused, but %v", err)
	}
	m.users.Close()
	if err := m.run(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("an unused marker ended with %v", err)
	}
}

// TestSteppedClock edits the heartbeat as if the wall clock had been set since.
func TestSteppedClock(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.sh("mkdir a; touch a/f")
	v.start().quiet()
	v.halt()
	v.sh("echo x > a/f")
	mark := v.o.VolumeMark
	v.editHeartbeat(func(h *heartbeat) {
		h.Time, h.BootOffset = h.Time.Add(time.Hour), h.BootOffset+int64(time.Hour)
	})
	v.start().quiet()
	if v.xtime("a/f") == 0 || v.o.VolumeMark != mark {
		t.Errorf("set back in one run of the machine: file %v, volume mark %v, was %v", v.xtime("a/f"), v.o.VolumeMark, mark)
	}
	v.halt()
	v.editHeartbeat(func(h *heartbeat) { h.Time, h.BootID = h.Time.Add(time.Hour), "another" })
	v.start().settle()
	if v.o.VolumeMark <= mark {
		t.Error("set back across a boot, but not everything is compared")
	}
	v.halt()
	mark = v.o.VolumeMark
	if err := os.Remove(filepath.Join(v.o.Dir, heartbeatFile)); err != nil {
		t.Fatal(err)
	}
	v.start().settle()
	if v.o.VolumeMark <= mark {
		t.Error("the heartbeat was lost, but not everything is compared")
	}
}

// TestHeartbeatOfAClockThatWasSetBack: neither what an earlier marker wrote nor what this one has loaded is taken for a
// mark of what has happened since.
func TestHeartbeatOfAClockThatWasSetBack(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.sh("touch f")
	v.start().quiet()
	v.halt()
	was := time.Time{}
	v.editHeartbeat(func(h *heartbeat) {
		was = h.Time
		h.Time, h.BootOffset = h.Time.Add(time.Hour), h.BootOffset+int64(time.Hour)
	})
	old, err := ReadStatus(v.o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	old.Heartbeat = old.Heartbeat.Add(time.Hour)
	if err := writeStatus(statefile.FS{}, v.o.Dir, &old); err != nil {
		t.Fatal(err)
	}
	m, err := open(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if at := m.beats.get().Time; at.Sub(was).Abs() > time.Minute/2 {
		t.Errorf("the heartbeat of %v became that of %v", was, at)
	}
	v.sh("echo x > f")
	waited := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*waitPoll)
		defer cancel()
		if err := WaitMark(ctx, v.o.Dir, time.Now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: nothing was marked since, but WaitMark says %v", what, err)
		}
	}
	waited("the status of the marker before")
	if err := m.writeStatus(); err != nil {
		t.Fatal(err)
	}
	waited("its own")
}

func (v *vol) editHeartbeat(edit func(*heartbeat)) {
	v.t.Helper()
	path := filepath.Join(v.o.Dir, heartbeatFile)
	var h heartbeat
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	edit(&h)
	if b, err = json.Marshal(h); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// TestHeartbeatWaitsForTheScan: what was lost holds the heartbeat until a scan that began after the loss is complete.
func TestHeartbeatWaitsForTheScan(t *testing.T) {
	owing := int64(0)
	b, known, err := openBeats(t.TempDir(), statefile.FS{}, coverage.New("", statefile.FS{}), func() int64 { return owing })
	if err != nil || known {
		t.Fatal(known, err)
	}
	step := func(what string, moves bool) {
		t.Helper()
		before, m := b.get().Time, moment.Now()
		b.drained(m, 1)
		if moved := b.get().Time != before; moved != moves {
			t.Errorf("%s: the heartbeat moved: %v", what, moved)
		}
	}
	step("nothing lost", true)
	b.lose()
	step("lost", false)
	losses, _ := b.losses()
	b.lose()
	b.scanned(losses, time.Now(), 1)
	step("lost again during the scan", false)
	losses, _ = b.losses()
	b.scanned(losses, time.Now(), 1)
	step("found", true)
	owing = 1
	step("a mark failed", false)
}

// TestHeartbeatIsBound: while something from outside is to be marked, the heartbeat moves up to the moment before it came, and
// never back.
func TestHeartbeatIsBound(t *testing.T) {
	b, _, err := openBeats(t.TempDir(), statefile.FS{}, coverage.New("", statefile.FS{}), func() int64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	var bound *moment.Moment
	b.bound = func() *moment.Moment { return bound }
	step := func(what string, want time.Time) {
		t.Helper()
		b.drained(moment.Now(), 1)
		if got := b.get().Time; !got.Equal(want) {
			t.Errorf("%s: the heartbeat is at %v, want %v", what, got, want)
		}
	}
	bound = &moment.Moment{}
	b.now = heartbeat{Time: time.Now().Add(-time.Hour), BootID: "of the machine's last run"}
	step("came before anything was read", b.now.Time)
	first, second := moment.Now(), moment.Now()
	bound = &second
	step("came later", second.Wall)
	bound = &first
	step("one more, of before", second.Wall)
	bound = &moment.Moment{}
	step("one more, of before anything was read", second.Wall)
	bound = nil
	if b.drained(moment.Now(), 1); !b.get().Time.After(second.Wall) {
		t.Error("nothing waits, and it does not move")
	}
}

// TestHeartbeatThatCaughtUp: the heartbeat says when it has caught up after the start, or after it stood still, and only then.
func TestHeartbeatThatCaughtUp(t *testing.T) {
	dir, none := t.TempDir(), func() int64 { return 0 }
	b, _, err := openBeats(dir, statefile.FS{}, coverage.New("", statefile.FS{}), none)
	if err != nil {
		t.Fatal(err)
	}
	at := moment.Now()
	b.drained(at, 1)
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if b, _, err = openBeats(dir, statefile.FS{}, coverage.New("", statefile.FS{}), none); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		says  bool
	}{{0, true}, {keepEach, false}, {keepEach / 5, false}, {2 * keepEach, true}, {keepEach, false}, {time.Hour, true}} {
		at.Wall = at.Wall.Add(step.after)
		b.drained(at, 1)
		select {
		case <-b.caught:
			if !step.says {
				t.Errorf("said to have caught up after %v", step.after)
			}
		default:
			if step.says {
				t.Errorf("not said to have caught up after %v", step.after)
			}
		}
	}
}

// TestClockStepsWhileItRuns sets the clock that xtimes come from by hours, back and forth, under a running marker and
// between restarts. Every change gets an xtime beyond all before it (invariant 2).
func TestClockStepsWhileItRuns(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.sh("mkdir d")
	newest := xtime.Time(0)
	change := func(what string) {
		t.Helper()
		v.sh("echo " + what + " > d/f")
		v.settle()
		if x := v.xtime("d/f"); x <= newest || v.xtime("d") < x || v.xtime("") < v.xtime("d") {
			t.Errorf("%s: file %v, directory %v, root %v; before %v", what, x, v.xtime("d"), v.xtime(""), newest)
		}
		newest = v.xtime("")
	}
	var step atomic.Int64
	stepped := func(m *marker) {
		m.clock.now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
	}
	for _, to := range []time.Duration{0, -3 * time.Hour, 5 * time.Hour, -7 * time.Hour, time.Hour} {
		v.start(stepped)
		change("restarted")
		step.Store(int64(to))
		change("stepped")
		change("again")
		v.halt()
	}
}

// TestStatusHasOneWriterAtATime: the scan tells a raised volume mark while the keeper writes the status.
func TestStatusHasOneWriterAtATime(t *testing.T) {
	v := newVol(t, t.TempDir())
	v.start().quiet()
	var writers errgroup.Group
	for range 4 {
		writers.Go(func() error {
			for range 200 {
				if err := v.m.writeStatus(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := writers.Wait(); err != nil {
		t.Fatal(err)
	}
}
