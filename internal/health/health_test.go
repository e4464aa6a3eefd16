package health

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"georep/status"
)

func inStep(state status.State, lag float64) status.Status {
	return status.Status{Master: "data", Slave: "backup::copy", State: state, LagSeconds: lag,
		LastSynced: status.Time{Time: time.Unix(1000, 0)}}
}

func TestJudge(t *testing.T) {
	faulty := inStep(status.Faulty, 100)
	faulty.Reason = "connection refused"
	held := inStep(status.Active, 2)
	held.FailuresTotal = 2
	missing := inStep(status.Active, 90)
	missing.ObjectiveSeconds, missing.Objective = 60, status.ObjectiveMissed
	never := status.New("data", "x")
	never.State = status.Active
	back := inStep(status.Active, 0)
	back.LastSynced, back.Stime = status.Time{}, 5 // not known by the new clock yet
	back.ClockStep = &status.ClockStep{At: status.Time{Time: time.Unix(0, 0)}, BySeconds: -60, Until: status.Time{Time: time.Unix(60, 0)}}
	first := back
	first.Stime = 0
	forward := inStep(status.Active, 0)
	forward.ClockStep = &status.ClockStep{At: status.Time{Time: time.Unix(1000, 0)}, BySeconds: 60}
	limits := Limits{Warn: 30 * time.Second, Max: 5 * time.Minute}
	for _, c := range []struct {
		s    status.Status
		want Level
		why  string
	}{
		{inStep(status.Active, 0), OK, ""},
		{inStep(status.Active, 31), Warning, "behind by 31s, more than 30s"},
		{inStep(status.Active, 301), Critical, "behind by 5m1s, more than 5m0s"},
		{faulty, Critical, "Faulty: connection refused; behind by 1m40s, more than 30s"},
		{held, Warning, "2 entries are held back"},
		{inStep(status.Paused, 0), Warning, "Paused"},
		{inStep(status.Stopped, 400), Critical, "behind by 6m40s, more than 5m0s; Stopped"},
		{inStep(status.Initializing, 0), Warning, "not yet connected"},
		{status.New("a", "b"), Warning, "never started"},
		{never, Warning, "the first sync has not ended"},
		{back, Warning, back.ClockStep.String()},
		{first, Warning, back.ClockStep.String() + "; the first sync has not ended"},
		{forward, Warning, forward.ClockStep.String()},
	} {
		if got := Judge(c.s, limits); got.Level != c.want || got.Why != c.why {
			t.Errorf("%s, lag %v: %v %q, want %v %q", c.s.State, c.s.LagSeconds, got.Level, got.Why, c.want, c.why)
		}
	}
	if got := Judge(missing, limits); got.Level != Warning { // what the command line says counts more
		t.Errorf("with a limit of its own: %v %s", got.Level, got.Why)
	}
	if got := Judge(missing, Limits{}); got.Level != Critical || got.Why != "misses its objective: behind by 1m30s, max-lag 1m0s" {
		t.Errorf("%v %s", got.Level, got.Why)
	}
	if got := Judge(inStep(status.Active, 1e6), Limits{}); got.Level != OK {
		t.Errorf("without limits a lag is %v: %s", got.Level, got.Why)
	}
}

// perfdata is how the plug-ins' rules want figures.
var perfdata = regexp.MustCompile(`^( '[^'=|]+'=-?[0-9.]+(s|B)?(;[0-9.]*){0,3})+$`)

func TestPlugin(t *testing.T) {
	limits := Limits{Warn: time.Minute, Max: 5 * time.Minute}
	hostile := inStep(status.Faulty, 7)
	hostile.Master, hostile.Reason = "da|ta'=x", "no | room\x1b[2J\nleft"
	never := status.New("new", "b::c")
	for _, c := range []struct {
		list []status.Status
		want Level
		text string
	}{
		{nil, Unknown, "GEOREP UNKNOWN - no sessions: nothing is replicated"},
		{[]status.Status{inStep(status.Active, 0.25)}, OK, "GEOREP OK - data backup::copy: Active, behind by 300ms |" +
			" 'data backup::copy lag'=0.250s;60;300;0 'data backup::copy pending'=0B;;;0 'data backup::copy failures'=0;0;;0"},
		{[]status.Status{inStep(status.Active, 0), inStep(status.Active, 70)}, Warning, "GEOREP WARNING - 1 of 2 sessions: data backup::copy: behind by 1m10s, more than 1m0s |"},
		{[]status.Status{inStep(status.Active, 0), inStep(status.Active, 0)}, OK, "GEOREP OK - all 2 sessions in order |"},
		{[]status.Status{never, hostile}, Critical, `GEOREP CRITICAL - 2 of 2 sessions: new b::c: never started; da/ta'=x backup::copy: Faulty: no / room\x1b[2J\nleft |`},
	} {
		var list []Checked
		for _, s := range c.list {
			list = append(list, Checked{s, Judge(s, limits)})
		}
		line, level := Plugin(list, limits)
		if level != c.want || !strings.HasPrefix(line, c.text) || strings.Contains(line, "\n") {
			t.Errorf("%v %q, want %v %q", level, line, c.want, c.text)
		}
		text, data, some := strings.Cut(line, "|")
		if some && !perfdata.MatchString(data) {
			t.Errorf("figures %q of %q", data, text)
		}
	}
}

func TestSort(t *testing.T) {
	list := []*Checked{{Status: inStep(status.Active, 0)}, {Status: inStep(status.Active, 9)}, {Status: inStep(status.Faulty, 1)}}
	for i := range list {
		list[i].Verdict = Judge(list[i].Status, Limits{})
	}
	Sort(list, func(c *Checked) (*status.Status, *Verdict) { return &c.Status, &c.Verdict })
	if list[0].Status.State != status.Faulty || list[1].Status.LagSeconds != 9 {
		t.Errorf("sorted %+v", list)
	}
}
