// Package health judges how a session stands, in one place for all who ask: status --check, /healthz, the page, and the order in
// which sessions are listed. It has no clock, and reads nothing.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"georep/status"
)

// Level is how bad it is. The values are the exit codes of monitoring plug-ins.
type Level int

// The levels.
const (
	OK Level = iota
	Warning
	Critical
	Unknown
)

// String is the word that monitoring plug-ins print; a value from elsewhere counts as UNKNOWN.
func (l Level) String() string {
	return [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[min(max(l, OK), Unknown)]
}

// Limits are what the lag is held against; 0 is no limit. Without Max the session's own objective counts (max-lag).
type Limits struct {
	Warn, Max time.Duration
}

// Verdict is what is said of a session. It compares sessions of different kinds, so that all
// listings sort alike.
type Verdict struct {
	Level Level
	// Why is one line without the session's name: all that is wrong, the worst first; "" where nothing is. Texts of others are in it.
	Why string
}

// Judge says how a session stands. The session is unknown where its status cannot be read, which is
// the caller's to say. All that is wrong is said, not only the worst of it, since one cause often
// hides behind another. A session that was paused or stopped is a warning, never critical: somebody
// wanted that.
func Judge(s status.Status, limits Limits) Verdict {
	var found []Verdict
	add := func(l Level, why string) { found = append(found, Verdict{l, why}) }
	switch s.State {
	case status.Faulty, status.Inconsistent:
		add(Critical, join(string(s.State), s.Reason))
	case status.Stopped, status.Paused:
		add(Warning, string(s.State))
	case status.Created:
		add(Warning, "never started")
	case status.Initializing:
		add(Warning, "not yet connected")
	}
	lag, known := s.Lag()
	if s.ClockStep != nil {
		add(Warning, s.ClockStep.String())
	}
	// After a step back it may be a moment until it is known again what is synced.
	if !known && s.State == status.Active && (s.ClockStep == nil || s.Stime == 0) {
		add(Warning, "the first sync has not ended")
	}
	switch {
	case limits.Max == 0 && s.Objective == status.ObjectiveMissed:
		add(Critical, missed(s))
	case !known:
	case limits.Max > 0 && lag > limits.Max:
		add(Critical, fmt.Sprintf("behind by %s, more than %s", round(lag), limits.Max))
	case limits.Warn > 0 && lag > limits.Warn:
		add(Warning, fmt.Sprintf("behind by %s, more than %s", round(lag), limits.Warn))
	}
	if s.FailuresTotal > 0 {
		add(Warning, heldBack(s))
	}
	slices.SortStableFunc(found, func(a, b Verdict) int { return cmp.Compare(b.Level, a.Level) })
	v := Verdict{}
	var why []string
	for _, f := range found {
		v.Level = max(v.Level, f.Level)
		why = append(why, f.Why)
	}
	v.Why = strings.Join(why, "; ")
	return v
}

// Of is Judge of what was read of a session's status; one that cannot be read is unknown.
func Of(s status.Status, err error, limits Limits) Verdict {
	if err != nil {
		return Verdict{Level: Unknown, Why: "its status cannot be read: " + status.OneLine(err.Error())}
	}
	return Judge(s, limits)
}

// Count is how many sessions stand alike, in words.
type Count struct {
	Level Level
	Text  string // as in "2 critical"
}

// Counts puts the levels that some sessions have into words, those in trouble first. Levels that no
// session has are left out.
func Counts(of map[Level]int) (list []Count) {
	for _, c := range []Count{{Critical, "critical"}, {Unknown, "unknown"}, {Warning, "warning"}, {OK, "in order"}} {
		if n := of[c.Level]; n > 0 {
			list = append(list, Count{c.Level, fmt.Sprintf("%d %s", n, c.Text)})
		}
	}
	return list
}

// missed says that the objective is.
func missed(s status.Status) string {
	objective := time.Duration(s.ObjectiveSeconds * float64(time.Second))
	if lag, known := s.Lag(); known {
		return fmt.Sprintf("misses its objective: behind by %s, max-lag %s", round(lag), objective)
	}
	return fmt.Sprintf("misses its objective: never in step, max-lag %s", objective)
}

// heldBack counts the entries that are held back, and names one with its reason.
func heldBack(s status.Status) string {
	text := fmt.Sprintf("%d entries are held back", s.FailuresTotal)
	if s.FailuresTotal == 1 {
		text = "1 entry is held back"
	}
	if len(s.Failures) == 0 {
		return text
	}
	f := s.Failures[0]
	return text + fmt.Sprintf(", such as %q: %s", f.Path, status.Printable(f.Error))
}

// join puts a reason behind a state, where there is one.
func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// round leaves as many digits as a person reads: tenths of a second below a minute.
func round(d time.Duration) time.Duration {
	if d >= time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}

// Sort puts those in trouble first, then those that are furthest behind; else by name. of gives
// what it sorts by, and must give the same for the whole call. Equal ones keep their order.
func Sort[T any](list []T, of func(T) (*status.Status, *Verdict)) {
	slices.SortStableFunc(list, func(a, b T) int {
		sa, va := of(a)
		sb, vb := of(b)
		la, _ := sa.Lag()
		lb, _ := sb.Lag()
		return cmp.Or(cmp.Compare(vb.Level, va.Level), cmp.Compare(lb.Truncate(time.Second), la.Truncate(time.Second)),
			cmp.Compare(sa.Master, sb.Master), cmp.Compare(sa.Slave, sb.Slave))
	})
}
