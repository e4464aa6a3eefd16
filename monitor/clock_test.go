package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"georep/internal/events"
	"georep/internal/wallclock"
	"georep/monitor/report"
	"georep/status"
	"georep/volume"
)

// clocks are what a test shows instead of this host's.
type clocks struct {
	mu    sync.Mutex
	began time.Time
	now   func() time.Time
	ahead time.Duration
}

func (c *clocks) read() (wallclock.Reading, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	return wallclock.Reading{Wall: now.Round(0).Add(c.ahead), Boot: now.Sub(c.began)}, true
}

func (c *clocks) set(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = ahead
}

// clockBench is a machine on a clock that the test sets.
type clockBench struct {
	*testing.T
	clocks
	m     *machine
	watch *wallclock.Watch
	c     *chronicle
	past  time.Duration
	told  []string
}

func newClockBench(t *testing.T) *clockBench {
	b := &clockBench{T: t}
	b.began = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	b.now = func() time.Time { return b.began.Add(b.past) }
	b.watch = wallclock.Of(b.read)
	st := status.New("m", "s")
	b.m = newMachine(st, defaultPace(), time.Minute, func() float64 { return 0 })
	b.m.clock.since = func(_, at time.Time) time.Duration { return b.watch.Since(at) }
	b.m.objective = newObjective(5*time.Minute, b.began, &st)
	b.c = newChronicle(&st, nil)
	return b
}

// wall is what the clock shows.
func (b *clockBench) wall() time.Time { now, _ := b.read(); return now.Wall }

// at lets time go by, feeds events, and gives what the status says then.
func (b *clockBench) at(after time.Duration, evs ...event) status.Status {
	b.past += after
	for s, ok := b.watch.Next(); ok; s, ok = b.watch.Next() {
		b.m.handle(b.wall(), stepped{s})
	}
	for _, ev := range evs {
		b.m.handle(b.wall(), ev)
	}
	st := b.m.status(b.wall())
	for _, e := range b.c.observe(&st, b.m.facts()) {
		b.told = append(b.told, string(e.Kind)+" "+e.Reason)
	}
	return st.Now(status.View{Time: b.wall(), Pid: st.MonitorPid, Running: true, Started: true})
}

// inStep is a worker's report that the slave has everything.
func (b *clockBench) inStep() event {
	return progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: b.wall()}})
}

func (b *clockBench) lagIs(what string, st status.Status, want time.Duration, objective string) {
	b.Helper()
	if got := time.Duration(st.LagSeconds * float64(time.Second)).Round(time.Second); got != want || st.Objective != objective {
		b.Errorf("%s: lag %v, objective %s; want %v, %s (%s, LAST_SYNCED %v)", what, got, st.Objective, want, objective, st.State, st.LastSynced)
	}
}

// TestClockIsSetForward: neither lag nor objective go by the step, in step or behind. It matters until the slave has all since.
func TestClockIsSetForward(t *testing.T) {
	b := newClockBench(t)
	b.at(0, begin{}, spawned{7}, ready(), b.inStep())
	synced := b.wall()
	b.set(time.Hour)
	st := b.at(10 * time.Second)
	b.lagIs("in step", st, 0, status.ObjectiveMet)
	if st.ClockSteps != 1 || st.ClockStep == nil || st.ClockStep.BySeconds != 3600 || !st.LastSynced.Equal(synced) {
		t.Errorf("the status says %+v, LAST_SYNCED %v", st.Clock, st.LastSynced)
	}
	b.lagIs("Faulty", b.at(10*time.Second, exited{"the line is down"}), 20*time.Second, status.ObjectiveMet)
	b.lagIs("Faulty for longer", b.at(6*time.Minute), 6*time.Minute+20*time.Second, status.ObjectiveMissed)
	st = b.at(time.Second, wake{}, spawned{8}, ready(), b.inStep())
	if b.lagIs("in step again", st, 0, status.ObjectiveMissed); st.ClockStep != nil || st.ClockMoved != 0 || st.ClockSteps != 1 {
		t.Errorf("it matters no more: %+v", st.Clock)
	}
	b.tellsOnce("clock-stepped The clock of this host was set forward by 1h0m0s, to 2026-12-01 13:00:10 UTC")
}

// TestClockIsSetBack: what is told by the clock as it was is not told again when it comes up to that. It matters until then.
func TestClockIsSetBack(t *testing.T) {
	b := newClockBench(t)
	b.at(0, begin{}, spawned{7}, ready(), b.inStep())
	b.set(-time.Hour)
	st := b.at(10 * time.Second)
	if b.lagIs("in step", st, 0, status.ObjectiveMet); !st.LastSynced.IsZero() || st.ClockStep == nil || st.ClockStep.BySeconds != -3600 {
		t.Errorf("the status says %+v, LAST_SYNCED %v", st.Clock, st.LastSynced)
	}
	b.past += time.Second
	st = b.at(0, b.inStep())
	if b.lagIs("in step", st, 0, status.ObjectiveMet); !st.LastSynced.Equal(b.wall()) || st.ClockStep == nil {
		t.Errorf("by the new clock: %+v, LAST_SYNCED %v", st.Clock, st.LastSynced)
	}
	b.lagIs("Faulty", b.at(10*time.Second, exited{"the line is down"}), 10*time.Second, status.ObjectiveMet)
	b.set(-2 * time.Hour)
	b.lagIs("Faulty, and set back once more", b.at(10*time.Second), 20*time.Second, status.ObjectiveMet)
	b.lagIs("Faulty for longer", b.at(6*time.Minute), 6*time.Minute+20*time.Second, status.ObjectiveMissed)
	b.set(-90 * time.Minute)
	st = b.at(time.Second, wake{}, spawned{8}, ready(), b.inStep())
	if st.ClockStep == nil || st.ClockSteps != 3 || !st.ClockStep.Until.Equal(b.began.Add(10*time.Second)) {
		t.Errorf("not set forward by as much: %+v", st.Clock)
	}
	if st = b.at(80 * time.Minute); st.ClockStep == nil {
		t.Error("it has not come up to where it was, and is believed to have")
	}
	if st = b.at(10*time.Minute, b.inStep()); st.ClockStep != nil || st.ClockSteps != 3 {
		t.Errorf("it has come up to where it was: %+v", st.Clock)
	}
	if len(b.told) == 0 || b.told[len(b.told)-1] != "objective-met " {
		t.Errorf("told last: %q", b.told)
	}
	b.told = b.told[:3]
	b.tellsOnce("clock-stepped The clock of this host was set back by 1h0m0s, to 2026-12-01 11:00:10 UTC: xtimes run ahead of it until " +
		"2026-12-01 12:00:10 UTC")
}

// TestClockIsSetRight: a clock that was set back, and is set right again, is as it was.
func TestClockIsSetRight(t *testing.T) {
	b := newClockBench(t)
	b.at(0, begin{}, spawned{7}, ready(), b.inStep())
	b.set(-time.Hour)
	b.at(time.Second, b.inStep())
	b.set(0)
	st := b.at(time.Second)
	b.lagIs("set right", st, 0, status.ObjectiveMet)
	if st = b.at(time.Second, b.inStep()); st.ClockStep != nil || st.ClockSteps != 2 {
		t.Errorf("set right: %+v", st.Clock)
	}
}

// tellsOnce looks for an event that was told, once.
func (b *clockBench) tellsOnce(want string) {
	b.Helper()
	if n := strings.Count(strings.Join(b.told, "\n")+"\n", want+"\n"); n != 1 {
		b.Errorf("told %d times: %s\nall: %q", n, want, b.told)
	}
}

// TestClockStepIsSeen: a monitor says that the clock is set while it runs, in its status, journal, log and hook.
func TestClockStepIsSeen(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"set back by 1h0m0s": time.Hour, "set forward by 1h0m0s": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			told := filepath.Join(t.TempDir(), "told")
			hook := filepath.Join(t.TempDir(), "hook")
			if err := os.WriteFile(hook, []byte("#!/bin/sh\ncat >>"+told+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			b.change(testSlave, func(s *volume.Session) error { return s.Set("hook-command", hook) })
			// It was wrong until now, so that what the status says goes by this host's clock.
			c := &clocks{began: time.Now(), now: time.Now, ahead: ahead}
			cfg := config(b.store, testSlave, "", "")
			cfg.clock = wallclock.Of(c.read)
			end := b.run(cfg)
			b.until("Active with progress", func(st status.Status) bool { return st.State == status.Active && st.Stime == 5 })
			c.set(0)
			st := b.until("the step", func(st status.Status) bool { return st.ClockStep != nil })
			if st.ClockSteps != 1 || !strings.Contains(st.ClockStep.String(), name) {
				t.Errorf("the status says %+v", st.Clock)
			}
			b.wait("the hook", func() bool {
				text, _ := os.ReadFile(told)
				return strings.Contains(string(text), `"kind":"clock-stepped"`) && strings.Contains(string(text), name)
			})
			end()
			b.noneLeft()
			seen := 0
			list, err := events.Read(b.store.Files("data", testSlave).Dir, 0)
			for _, e := range list {
				if e.Kind == events.ClockStepped && strings.Contains(e.Message, name) {
					seen++
				}
			}
			if log := b.read("log"); err != nil || seen != 1 || strings.Count(log, name) != 1 || !strings.Contains(log, `"event":"clock-stepped"`) {
				t.Errorf("%d events, %v; the log:\n%s", seen, err, log)
			}
		})
	}
}

// TestClockSetWhileNoMonitorRan: the status of the monitor before is of a time that has not come. The next one goes on with what it said.
func TestClockSetWhileNoMonitorRan(t *testing.T) {
	b := newBench(t)
	b.run(config(b.store, testSlave, "", ""))()
	path := b.store.Files("data", testSlave).Status
	st, err := status.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.ClockSteps != 0 || st.ClockStep != nil {
		t.Errorf("nobody set the clock: %+v", st.Clock)
	}
	ahead := time.Now().Add(time.Hour)
	st.Updated = status.Time{Time: ahead}
	if err := status.Write(path, st); err != nil {
		t.Fatal(err)
	}
	for i, steps := range []int64{1, 0} { // it is counted once, and known to the monitor after that
		end := b.run(config(b.store, testSlave, "", ""))
		st := b.until("Active", inState(status.Active))
		if st.ClockSteps != steps || st.ClockStep == nil || !st.ClockStep.Until.Equal(ahead) || st.ClockStep.BySeconds > -3000 {
			t.Errorf("monitor %d: %+v", i, st.Clock)
		}
		end()
	}
	if n := strings.Count(b.read("log"), fmt.Sprintf(`"event":"%s"`, events.ClockStepped)); n != 1 {
		t.Errorf("logged %d times:\n%s", n, b.read("log"))
	}
}
