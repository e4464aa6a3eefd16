package monitor

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"georep/internal/events"
	"georep/monitor/report"
	"georep/status"
)

func kinds(list []events.Event) (out []string) {
	for _, e := range list {
		out = append(out, strings.Trim(string(e.Kind)+":"+e.State+e.Path+e.Error, ":"))
	}
	return out
}

// TestChronicle: what happens is told once, whatever the reports that lead to it.
func TestChronicle(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	st := status.New("m", "s")
	m := newMachine(st, defaultPace(), time.Minute, func() float64 { return 0 })
	m.objective = newObjective(10*time.Second, start, &status.Status{})
	c := newChronicle(&st, nil)
	var all []events.Event
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	check := func(s float64, want string, evs ...event) {
		t.Helper()
		for _, ev := range evs {
			m.handle(at(s), ev)
		}
		st := m.status(at(s))
		got := c.observe(&st, m.facts())
		all = append(all, got...)
		if text := strings.Join(kinds(got), " "); text != want {
			t.Errorf("after %v s: %q, want %q", s, text, want)
		}
		for _, e := range got {
			if e.Master != "m" || e.Slave != "s" || e.Message == "" {
				t.Errorf("incomplete: %+v", e)
			}
		}
		if again := c.observe(&st, m.facts()); len(again) != 0 {
			t.Errorf("after %v s told again: %v", s, kinds(again))
		}
	}
	held := func(synced float64, paths ...string) event {
		p := report.Progress{Stime: 5, LastSynced: status.Time{Time: at(synced)}}
		for _, path := range paths {
			p.Failures = append(p.Failures, status.Failure{Path: path, Op: "write", Error: "EIO", Since: status.Time{Time: at(2)}})
		}
		p.FailuresTotal = len(paths)
		return progress(p)
	}
	check(0, "state:Initializing...", begin{}, spawned{7})
	check(1, "state:Active", ready(), progress(report.Progress{}))
	check(1, "first-sync", held(1))
	check(3, "failure:aEIO failure:bEIO", held(1, "a", "b"))
	check(4, "failure-gone:b", held(1, "a"))
	check(5, "state:Faulty worker-restarted", exited{"the line is down"})
	check(6, "state:Active", wake{}, spawned{8}, ready(), held(1)) // it has not come to it yet
	check(7, "", held(1, "a"))
	check(8, "state:Faulty worker-restarted", exited{"the line is down"})
	check(10, "state:Active", wake{}, spawned{9}, ready(), held(1))
	check(11, "failure-gone:a", held(9)) // the slave has all since
	check(12, "state:Faulty purge-refused", reported{report.Report{Kind: report.KindFaulty, Fault: &report.Fault{Reason: "too much", Refused: true}}})
	check(22, "objective-missed:Faulty")
	check(30, "state:Active", ready(), held(30))
	check(35, "", held(35))
	check(41, "objective-met:Active", held(41))
	check(42, "queue-overflow", progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: at(42)}, QueueOverflows: 2}))
	check(43, "", progress(report.Progress{Stime: 5, LastSynced: status.Time{Time: at(43)}})) // another marker
	check(44, "state:Paused", reload{paused: true, retryMax: time.Minute, maxLag: 10 * time.Second})

	// Another monitor goes on where the journal ends.
	next := newChronicle(&st, all)
	if next.state != "Paused" || !next.synced || next.objective != status.ObjectiveMet || len(next.open) != 0 {
		t.Errorf("from the journal: %+v", next)
	}
	if next := newChronicle(&st, all[:4]); !reflect.DeepEqual(next.open, map[string]heldBack{"a": {op: "write"}}) {
		t.Errorf("held back, from the journal: %+v", next.open)
	}
}

// byClock is how long ago something was by a clock that nobody sets.
func byClock(now, at time.Time) time.Duration { return now.Sub(at) }

func TestObjective(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type look struct {
		at     float64
		state  status.State
		synced float64 // -1: never
		lag    float64
		want   string
		since  float64
	}
	const met, missed, active, faulty = status.ObjectiveMet, status.ObjectiveMissed, status.Active, status.Faulty
	for name, looks := range map[string][]look{
		"a lag": {{0, active, 0, 0, met, 0}, {5, active, 0, 20, met, 0}, {6, active, 0, 20.1, missed, 6}, {7, active, 0, 0, missed, 6},
			{26, active, 0, 3, missed, 6}, {27, active, 0, 3, met, 27}},
		"it swings": {{0, active, 0, 30, missed, 0}, {10, active, 0, 0, missed, 0}, {29, active, 0, 21, missed, 0}, {31, active, 0, 0, missed, 0},
			{50, active, 0, 0, missed, 0}, {51, active, 0, 0, met, 51}},
		"Faulty":          {{10, faulty, 5, 0, met, 10}, {25, faulty, 5, 0, met, 10}, {26, faulty, 5, 0, missed, 26}},
		"never in step":   {{1, status.Initializing, -1, 0, met, 1}, {20, active, -1, 0, met, 1}, {21, active, -1, 0, missed, 21}},
		"paused, stopped": {{0, active, 0, 30, missed, 0}, {1, status.Paused, 0, 99, "", 0}, {50, status.Stopped, 0, 99, "", 0}, {51, active, 0, 0, missed, 0}},
	} {
		o := newObjective(20*time.Second, start, &status.Status{})
		for _, l := range looks {
			st := status.Status{State: l.state, LagSeconds: l.lag}
			if l.synced >= 0 {
				st.LastSynced = status.Time{Time: at(l.synced)}
			}
			o.judge(at(l.at), &st, byClock)
			if st.Objective != l.want || l.want != "" && !st.ObjectiveSince.Equal(at(l.since)) || st.ObjectiveSeconds != 20 {
				t.Errorf("%s, after %v s: %q since %v, want %q since %v", name, l.at, st.Objective, st.ObjectiveSince, l.want, at(l.since))
			}
		}
		// A monitor that comes after it goes on there, and another limit is judged anew.
		last := status.Status{ObjectiveSeconds: 20, Objective: missed, ObjectiveSince: status.Time{Time: at(3)}}
		if o := newObjective(20*time.Second, start, &last); !o.missed || !o.since.Equal(at(3)) {
			t.Errorf("after a restart: %+v", o)
		}
		if o := newObjective(30*time.Second, start, &last); o.missed || !o.since.IsZero() {
			t.Errorf("another limit: %+v", o)
		}
	}
	long, st := newObjective(time.Hour, start, &status.Status{}), status.Status{State: active, LastSynced: status.Time{Time: at(0)}, LagSeconds: 4000}
	for _, l := range []struct{ at, lag float64 }{{0, 4000}, {1, 0}, {302, 0}} {
		st.LagSeconds = l.lag
		long.judge(at(l.at), &st, byClock)
	}
	if st.Objective != met {
		t.Error("met again only after more than five minutes")
	}
	if none := newObjective(0, start, &status.Status{}); true {
		none.judge(at(1), &st, byClock)
		if st.Objective != "" || st.ObjectiveSeconds != 0 {
			t.Errorf("no objective: %+v", st)
		}
	}
}

// TestRestartsAreToldOnce: the end of a worker that was in order is told; that another does not come up, while the slave's host is
// away, is not told at each try.
func TestRestartsAreToldOnce(t *testing.T) {
	st := status.New("data", "backup::copy")
	c := newChronicle(&st, nil)
	told := func(restarts, begun int) (n int) {
		st.Restarts = restarts
		for _, e := range c.observe(&st, facts{begun: begun}) {
			if e.Kind == events.WorkerRestarted {
				n++
			}
		}
		return n
	}
	for i, step := range []struct{ restarts, begun, want int }{
		{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, // it never came up
		{2, 1, 0}, {3, 1, 1}, {4, 1, 0}, {9, 1, 0}, // it did, and ended
		{9, 2, 0}, {10, 2, 1}, {11, 2, 0},
	} {
		if got := told(step.restarts, step.begun); got != step.want {
			t.Errorf("step %d: told %d times, want %d", i, got, step.want)
		}
	}
}
