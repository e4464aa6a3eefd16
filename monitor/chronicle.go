package monitor

import (
	"cmp"
	"fmt"
	"time"

	"georep/internal/events"
	"georep/internal/wallclock"
	"georep/status"
)

// maxOpen bounds the entries that are known to be held back. The status counts more, and the journal says no more of them.
const maxOpen = 10 * status.MaxFailures

// chronicle tells what has happened from one status of the session to the next. It does no I/O, and
// is for one goroutine. What it remembers is what was told. It is made anew of the journal by each
// monitor, so a restart repeats nothing.
type chronicle struct {
	master, slave string

	state, reason string // as told last; "": never
	objective     string
	synced        bool // the first sync was told
	refusal       string
	restarts      int
	ended         int // facts.begun when the end of a worker was told last
	overflows     int64
	steps         int64
	open          map[string]heldBack // by path
	out           []events.Event
}

// heldBack is an entry of which was told that it is held back.
type heldBack struct {
	op    string
	since time.Time
	begun int // the crawler that named it last; 0: one of an earlier monitor
}

// newChronicle goes on where the journal stands; st is what the last monitor's status says.
func newChronicle(st *status.Status, journal []events.Event) *chronicle {
	c := &chronicle{master: st.Master, slave: st.Slave, synced: !st.LastSynced.IsZero(), open: map[string]heldBack{}}
	for _, e := range journal {
		switch e.Kind {
		case events.StateChanged:
			c.state, c.reason = e.State, e.Reason
		case events.ObjectiveMissed:
			c.objective = status.ObjectiveMissed
		case events.ObjectiveMet:
			c.objective = status.ObjectiveMet
		case events.FirstSync:
			c.synced = true
		case events.Failure:
			c.open[e.Path] = heldBack{op: e.Op, since: e.Time}
		case events.FailureGone:
			delete(c.open, e.Path)
		}
	}
	return c
}

// facts are what the status does not say of itself.
type facts struct {
	refusal   string // what max-delete refused; "" for nothing
	begun     int    // how often a worker was in order, or in order again
	overflows int64  // of the marker's queue since that was started
	steps     int64  // of the clock; step is the last one
	step      wallclock.Step
}

// observe returns what has happened since the last call. It is called with every status, however
// little has changed, and returns nothing for most.
func (c *chronicle) observe(st *status.Status, f facts) []events.Event {
	c.out = nil
	c.observeState(st)
	if f.refusal != c.refusal {
		if c.refusal = f.refusal; f.refusal != "" {
			c.add(events.Event{Kind: events.PurgeRefused, Reason: f.refusal, Message: "A purge is refused: " + f.refusal})
		}
	}
	// One that never came into order, as while the slave's host is away, is in the state already.
	if st.Restarts > c.restarts && f.begun > c.ended {
		c.ended = f.begun
		c.add(events.Event{Kind: events.WorkerRestarted, Reason: st.Reason, Message: "The worker ended and is started again: " + st.Reason})
	}
	c.restarts = st.Restarts
	if f.overflows > c.overflows {
		c.add(events.Event{Kind: events.QueueOverflow, Message: "The kernel's event queue overflowed: the marker looks for the lost changes"})
	}
	c.overflows = f.overflows
	if f.steps > c.steps {
		c.steps = f.steps
		c.observeClock(st, f.step)
	}
	c.observeFailures(st, f.begun)
	if !c.synced && !st.LastSynced.IsZero() {
		c.synced = true
		c.add(events.Event{Kind: events.FirstSync, Message: "The slave is in step for the first time"})
	}
	c.observeObjective(st)
	return c.out
}

// add fills in what each event has.
func (c *chronicle) add(e events.Event) {
	e.Master, e.Slave = c.master, c.slave
	c.out = append(c.out, e)
}

// observeState tells a new state, and another reason for the same trouble. While a session is
// Faulty another reason is news; in other states the reason is not.
func (c *chronicle) observeState(st *status.Status) {
	state, reason := string(st.State), st.Reason
	if state == c.state && (reason == c.reason || st.State != status.Faulty) {
		return
	}
	c.state, c.reason = state, reason
	text := "The session is " + state
	if reason != "" {
		text += ": " + reason
	}
	c.add(events.Event{Kind: events.StateChanged, State: state, Reason: reason, Message: text})
}

// observeClock tells that the clock was set, and whether the status has more to say of that.
func (c *chronicle) observeClock(st *status.Status, s wallclock.Step) {
	what, by := "forward", s.By().Round(time.Second)
	if by < 0 {
		what, by = "back", -by
	}
	text := fmt.Sprintf("The clock of this host was set %s by %s, to %s", what, by, s.To.UTC().Format(time.DateTime+" MST"))
	if at := st.ClockStep; at != nil && !at.Until.IsZero() {
		text += ": xtimes run ahead of it until " + at.Until.UTC().Format(time.DateTime+" MST")
	}
	c.add(events.Event{Kind: events.ClockStepped, Reason: text, Message: text})
}

// observeFailures tells each entry once when it is held back, and once when it is so no more: the journal, the log and the hooks go by
// that. A crawler that begins names nothing before it has met it again. So what another one has named is over only when the slave has all
// that the master had since. And of a list that was cut short only what would stand before its end can be missed.
func (c *chronicle) observeFailures(st *status.Status, begun int) {
	listed := map[string]bool{}
	for _, f := range st.Failures {
		listed[f.Path] = true
		_, told := c.open[f.Path]
		if !told && len(c.open) >= maxOpen {
			continue
		}
		c.open[f.Path] = heldBack{op: f.Op, since: f.Since.Time, begun: begun}
		if !told {
			c.add(events.Event{Kind: events.Failure, Path: f.Path, Op: f.Op, Error: f.Error,
				Message: fmt.Sprintf("%q is held back: %s: %s", f.Path, f.Op, f.Error)})
		}
	}
	at := begun // the crawler that would name what it still holds back; 0: none
	if st.State != status.Active || !st.WaitsUntil.IsZero() {
		at = 0
	}
	for path, h := range c.open {
		named := at != 0 && h.begun == at
		if listed[path] || !st.LastSynced.After(h.since) && !(named && h.missed(path, st)) {
			continue
		}
		delete(c.open, path)
		c.add(events.Event{Kind: events.FailureGone, Path: path, Op: h.op, Message: fmt.Sprintf("%q is held back no more", path)})
	}
}

// missed tells whether the list of the status would have the entry if it were held back still. Lists are in the order of time and path.
func (h *heldBack) missed(path string, st *status.Status) bool {
	n := len(st.Failures)
	if st.FailuresTotal <= n {
		return true
	}
	if n == 0 {
		return false
	}
	last := st.Failures[n-1]
	return cmp.Or(h.since.Compare(last.Since.Time), cmp.Compare(path, last.Path)) < 0
}

// observeObjective tells that the objective is missed, and met again after that.
func (c *chronicle) observeObjective(st *status.Status) {
	if st.Objective == "" || st.Objective == c.objective {
		return
	}
	before := c.objective
	c.objective = st.Objective
	limit := time.Duration(st.ObjectiveSeconds * float64(time.Second))
	switch {
	case st.Objective == status.ObjectiveMissed:
		c.add(events.Event{Kind: events.ObjectiveMissed, State: string(st.State), Reason: st.Reason,
			Message: fmt.Sprintf("The slave is further behind than max-lag (%s) allows", limit)})
	case before != "":
		c.add(events.Event{Kind: events.ObjectiveMet, State: string(st.State),
			Message: fmt.Sprintf("The slave is no further behind than max-lag (%s) allows", limit)})
	}
}
