package monitor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"georep/monitor/report"
	"georep/status"
)

// step is an event at a time (seconds since the beginning) and what must come of it.
type step struct {
	at     float64
	ev     event
	do     string // actions, space-separated
	state  status.State
	reason string  // part of it
	next   float64 // when the machine wants to be woken; 0: never
}

func ready() event { return reported{report.Report{Kind: report.Ready}} }
func alive() event { return reported{report.Report{Kind: report.Alive}} }
func progress(p report.Progress) event {
	return reported{report.Report{Kind: report.KindProgress, Progress: &p}}
}
func faulty(reason string, final bool) event {
	return reported{report.Report{Kind: report.KindFaulty, Fault: &report.Fault{Reason: reason, Final: final}}}
}

const (
	initializing = status.Initializing
	active       = status.Active
	isFaulty     = status.Faulty
	isPaused     = status.Paused
	stopped      = status.Stopped
)

func TestMachine(t *testing.T) {
	running := []step{
		{0, begin{}, "spawn", initializing, "", 0},
		{0, spawned{7}, "", initializing, "", 60},
		{1, ready(), "", active, "", 61},
	}
	for name, steps := range map[string][]step{
		"crash loop backs off, a stable minute resets": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawned{7}, "", initializing, "", 60},
			{0, exited{"why"}, "", isFaulty, "why", 1},
			{0.5, wake{}, "", isFaulty, "why", 1}, // too early
			{1, wake{}, "spawn", isFaulty, "why", 0},
			{1, spawned{8}, "", isFaulty, "why", 61},
			{1, exited{"again"}, "", isFaulty, "again", 3},
			{3, wake{}, "spawn", isFaulty, "again", 0},
			{3, spawned{9}, "", isFaulty, "again", 63},
			{4, ready(), "", active, "", 64},
			{63, alive(), "", active, "", 123},
			{64, exited{"late"}, "", isFaulty, "late", 65},
		},
		"ready but not stable goes on backing off": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawnFailed{errors.New("no such file")}, "", isFaulty, "start the worker: no such file", 1},
			{1, wake{}, "spawn", isFaulty, "start", 0},
			{1, spawned{7}, "", isFaulty, "start", 61},
			{2, ready(), "", active, "", 62},
			{61, exited{"x"}, "", isFaulty, "x", 63},
		},
		"a final error is tried at the slowest pace": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawned{7}, "", initializing, "", 60},
			{1, faulty("host key changed", true), "", isFaulty, "host key changed", 61},
			{1, exited{"exit status 1"}, "", isFaulty, "host key changed", 31},
		},
		"a window that it waits for": append(running[:3:3],
			step{2, progress(report.Progress{WaitsUntil: status.Time{Time: time.Unix(1, 0)}}), "", active, "waits for its window", 62},
			step{3, progress(report.Progress{}), "", active, "", 63},
			step{4, exited{"crash"}, "", isFaulty, "crash", 5},
		),
		"a fault that the worker lives through": append(running[:3:3],
			step{2, faulty("disk full", false), "", isFaulty, "disk full", 62},
			step{3, progress(report.Progress{}), "", isFaulty, "disk full", 63},
			step{4, ready(), "", active, "", 64},
			step{5, exited{"crash"}, "", isFaulty, "crash", 6},
		),
		"an old fault does not explain a new end": append(running[:3:3],
			step{2, faulty("network", false), "", isFaulty, "network", 62},
			step{2, exited{"1"}, "", isFaulty, "network", 3},
			step{3, wake{}, "spawn", isFaulty, "network", 0},
			step{3, spawned{8}, "", isFaulty, "network", 63},
			step{4, exited{"signal: killed"}, "", isFaulty, "signal: killed", 6},
		),
		"a hang": append(running[:3:3],
			step{30, alive(), "", active, "", 90},
			step{90, wake{}, "kill", isFaulty, "said nothing for 1m0s", 100},
			step{90, exited{"signal: killed"}, "", isFaulty, "said nothing", 91},
		),
		"pause and resume": append(running[:3:3],
			step{2, reload{paused: true, retryMax: 30 * time.Second}, "tell:pause", isPaused, "", 61},
			step{3, alive(), "", isPaused, "", 63},
			step{4, reload{retryMax: 30 * time.Second}, "tell:resume", active, "", 63},
			step{4, reload{retryMax: 30 * time.Second}, "tell:look", active, "", 63}, // nothing has changed
			step{5, reload{paused: true, retryMax: 30 * time.Second}, "tell:pause", isPaused, "", 63},
			step{6, exited{"died"}, "", isPaused, "", 0},
			step{7, reload{retryMax: 30 * time.Second}, "spawn", initializing, "", 0},
		),
		"begun paused": {
			{0, begin{paused: true}, "", isPaused, "", 0},
			{1, reload{retryMax: 30 * time.Second}, "spawn", initializing, "", 0},
			{1, spawned{7}, "", initializing, "", 61},
		},
		"pause while waiting to try again": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawnFailed{errors.New("x")}, "", isFaulty, "x", 1},
			{0, reload{paused: true, retryMax: 30 * time.Second}, "", isPaused, "", 0},
			{5, wake{}, "", isPaused, "", 0},
			{6, reload{retryMax: 30 * time.Second}, "spawn", isFaulty, "x", 0},
		},
		"a new configuration restarts the worker": append(running[:3:3],
			step{2, reload{retryMax: time.Minute, restart: true}, "tell:stop term", active, "", 12},
			step{3, exited{"exit status 0"}, "spawn", initializing, "", 0},
			step{3, spawned{8}, "", initializing, "", 63},
		),
		"a new configuration is tried at once": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawned{7}, "", initializing, "", 60},
			{0, faulty("bad key", true), "", isFaulty, "bad key", 60},
			{0, exited{""}, "", isFaulty, "bad key", 30},
			{1, reload{retryMax: 30 * time.Second, restart: true}, "spawn", isFaulty, "bad key", 0},
		},
		"stop": append(running[:3:3],
			step{2, stop{}, "tell:stop term", active, "", 12},
			step{3, reload{paused: true, restart: true}, "", isPaused, "", 12},
			step{12, wake{}, "kill", isPaused, "", 22},
			step{22, wake{}, "kill", isPaused, "", 32},
			step{23, exited{"signal: killed"}, "", stopped, "", 0},
		),
		"stop while waiting to try again": {
			{0, begin{}, "spawn", initializing, "", 0},
			{0, spawnFailed{errors.New("x")}, "", isFaulty, "x", 1},
			{0, stop{}, "", stopped, "", 0},
		},
		"stop while paused": {
			{0, begin{paused: true}, "", isPaused, "", 0},
			{1, stop{}, "", stopped, "", 0},
		},
		"trouble of the marker": append(running[:3:3],
			step{2, marker{"marker: no"}, "", isFaulty, "marker: no", 61},
			step{3, faulty("worse", false), "", isFaulty, "worse", 63},
			step{4, ready(), "", isFaulty, "marker: no", 64},
			step{5, marker{}, "", active, "", 64},
		),
	} {
		t.Run(name, func(t *testing.T) { runSteps(t, steps) })
	}
}

func runSteps(t *testing.T, steps []step) {
	start := time.Unix(1_000_000, 0)
	m := newMachine(status.New("m", "s"), defaultPace(), 30*time.Second, func() float64 { return 0 })
	for i, s := range steps {
		at := func(sec float64) time.Time { return start.Add(time.Duration(sec * float64(time.Second))) }
		actions := m.handle(at(s.at), s.ev)
		var did []string
		for _, a := range actions {
			did = append(did, strings.TrimSuffix(fmt.Sprintf("%s:%s", a.do, a.verb), ":"))
		}
		if got := strings.Join(did, " "); got != s.do {
			t.Errorf("step %d, %T: did %q, want %q", i, s.ev, got, s.do)
		}
		if m.st.State != s.state || !strings.Contains(m.st.Reason, s.reason) || s.reason == "" && m.st.Reason != "" {
			t.Errorf("step %d, %T: %s %q, want %s %q", i, s.ev, m.st.State, m.st.Reason, s.state, s.reason)
		}
		next := m.next()
		if want := at(s.next); next.IsZero() != (s.next == 0) || !next.IsZero() && !next.Equal(want) {
			t.Errorf("step %d, %T: next %v, want %v s", i, s.ev, next.Sub(start), s.next)
		}
	}
}

func TestMachineProgress(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	st := status.New("m", "s")
	st.LastSynced = status.Time{Time: now.Add(-time.Hour)}
	m := newMachine(st, defaultPace(), time.Minute, func() float64 { return 0 })
	feed := func(after time.Duration, events ...event) {
		now = now.Add(after)
		for _, ev := range events {
			m.handle(now, ev)
		}
	}
	feed(0, begin{}, spawned{7}, progress(report.Progress{}))
	if got := m.st.LastSynced.Time; got.IsZero() {
		t.Error("a worker that is not connected made last_synced forgotten")
	}
	feed(0, ready(), progress(report.Progress{Crawl: status.HybridCrawl, Synced: status.Synced{Files: 10}}))
	if !m.st.LastSynced.IsZero() || m.st.Crawl != status.HybridCrawl {
		t.Errorf("a connected worker knows best: %+v", m.st)
	}
	feed(2*time.Second, progress(report.Progress{Synced: status.Synced{Files: 50, BytesWire: 100}}))
	if got := m.status(now).Rates; got != (status.Rates{Files: 20, BytesWire: 50}) {
		t.Errorf("rates %+v", got)
	}
	if got := m.status(now.Add(2 * time.Second)).Rates; got != (status.Rates{Files: 10, BytesWire: 25}) {
		t.Errorf("rates two seconds later: %+v", got)
	}
	if got := m.status(now.Add(10 * time.Second)).Rates; got != (status.Rates{}) {
		t.Errorf("rates when nothing happens: %+v", got)
	}
	feed(0, progress(report.Progress{Synced: status.Synced{Files: 50, BytesWire: 100}, ETASeconds: 60}))
	if got := m.status(now.Add(time.Second)).ETASeconds; got != 60 {
		t.Errorf("ETA %v, want the worker's", got)
	}
	if got := m.status(now.Add(6 * time.Second)).ETASeconds; got != 0 {
		t.Errorf("ETA %v of a worker that says nothing any more", got)
	}
	feed(0, progress(report.Progress{Synced: status.Synced{Files: 50, BytesWire: 100}, ETASeconds: 60}))
	feed(0, exited{"x"})
	if got := m.status(now); got.Crawl != status.NoCrawl || got.WorkerPid != 0 || got.Restarts != 1 || got.ETASeconds != 0 ||
		got.Rates != (status.Rates{}) {
		t.Errorf("after the end: %+v", got)
	}
	feed(time.Second, wake{}, spawned{8}, ready(), progress(report.Progress{Synced: status.Synced{Files: 1}}))
	if m.st.Synced.Files != 51 || m.st.WorkerPid != 8 {
		t.Errorf("the second worker adds up: %+v", m.st)
	}
}

func TestBackoff(t *testing.T) {
	for tries := range 100 {
		low, high := backoff(tries, time.Minute, 0.999), backoff(tries, time.Minute, 0)
		if low < retryMin || low > high || high > time.Minute || tries > 6 && low < 30*time.Second {
			t.Errorf("try %d: %v to %v", tries, low, high)
		}
	}
	if d := backoff(0, time.Second, 0.5); d != time.Second {
		t.Errorf("retry-max 1s: %v", d)
	}
}

// TestMachineLag: the lag grows between reports and while no worker lives, and a worker that comes back forgets nothing.
func TestMachineLag(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	m := newMachine(status.New("m", "s"), defaultPace(), time.Minute, func() float64 { return 0 })
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	lag := func(s float64) float64 { return m.status(at(s)).LagSeconds }
	m.handle(at(0), begin{})
	m.handle(at(0), spawned{7})
	m.handle(at(0), ready())
	m.handle(at(10), progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: at(10)}}))
	if got := lag(14); got != 0 {
		t.Errorf("in step: lag %v", got)
	}
	m.handle(at(20), progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: at(15)}, LagSeconds: 2}))
	if a, b := lag(20), lag(23); a != 2 || b != 5 {
		t.Errorf("lag %v, 3 s later %v; want 2 and 5", a, b)
	}
	m.handle(at(30), exited{why: "the line is down"})
	if st := m.status(at(40)); st.State != status.Faulty || st.LagSeconds != 22 {
		t.Errorf("the line is down: %s, lag %v; want Faulty, 22", st.State, st.LagSeconds)
	}
	// What a new worker knows is the slave's stamp, which may be very old.
	m.handle(at(50), spawned{8})
	m.handle(at(50), ready())
	m.handle(at(50), progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: at(-9000)}, LagSeconds: 9000}))
	if st := m.status(at(50)); st.LagSeconds != 35 || !st.LastSynced.Equal(at(15)) {
		t.Errorf("back: lag %v, synced at %v; want 35, %v", st.LagSeconds, st.LastSynced, at(15))
	}
	// Another slave is another matter.
	m.handle(at(50), progress(report.Progress{Stime: 4, LastSynced: status.Time{Time: at(-9000)}, LagSeconds: 9000}))
	if st := m.status(at(50)); st.LagSeconds != 9000 || !st.LastSynced.Equal(at(-9000)) {
		t.Errorf("another slave: lag %v, synced at %v", st.LagSeconds, st.LastSynced)
	}
}
