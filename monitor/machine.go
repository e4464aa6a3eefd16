package monitor

import (
	"time"

	"georep/monitor/report"
	"georep/status"
)

// pace has the times that the machine goes by.
type pace struct {
	hang   time.Duration // a worker that is silent for so long is killed
	stable time.Duration // a worker that was in order for so long begins with the shortest back-off again
	kill   time.Duration // from SIGTERM to SIGKILL
}

// Tests use shorter ones.
func defaultPace() pace {
	return pace{hang: 60 * time.Second, stable: time.Minute, kill: 10 * time.Second}
}

// event is what happened: one of the types below.
type event any

type (
	// begin is the first event: the loop runs.
	begin struct{ paused bool }
	// spawned follows the action spawn; the process is there, and has said nothing yet.
	spawned struct{ pid int }
	// spawnFailed follows it where no process came to be.
	spawnFailed struct{ err error }
	// reported is a line of the worker that could be read.
	reported struct{ report.Report }
	exited   struct{ why string } // the worker and its process group are gone
	wake     struct{}             // the time that machine.next named has come
	// stop is the operator's or the system's word: end the worker and come to an end.
	stop struct{}
	// marker is the keeper's news, told only when it changes.
	marker struct{ trouble string } // "" when the marker runs
	// reload is the session as it was read again after SIGUSR1.
	reload struct {
		paused   bool
		retryMax time.Duration
		maxLag   time.Duration
		restart  bool // the configuration changed: the worker must read it again
		own      bool // only what is the monitor's alone changed
	}
)

// action is what is to be done now. Actions are carried out in the order in which they were given.
type action struct {
	do   doing
	verb report.Verb // for tell
}

type doing string

const (
	spawn doing = "spawn" // start a worker; spawned or spawnFailed follows
	tell  doing = "tell"  // write a command to the worker
	term  doing = "term"  // SIGTERM to the worker
	kill  doing = "kill"  // SIGKILL to its process group
)

// phase is what the worker process is doing, as far as the machine knows.
type phase int

const (
	down   phase = iota // no worker
	coming              // spawn is being carried out
	up                  // running
	ending              // told to end, or killed
	over                // no worker and none to come
)

// machine decides. It has no clock, does no I/O and is used by one goroutine. Every decision is in
// handle, so a test that feeds it events and times covers what the loop can do.
type machine struct {
	// pace and random never change.
	pace pace
	// retryMax is the session's retry-max: the longest pause between two tries. A reload may change it.
	retryMax time.Duration
	random   func() float64

	// What the worker process does, and what was asked for.
	phase    phase
	paused   bool
	stopping bool
	again    bool      // spawn at once when the worker has ended
	ready    bool      // this worker has been in order
	readyAt  time.Time // since when
	heard    time.Time // the worker's last report
	retryAt  time.Time // when down: the next try; zero for none
	killAt   time.Time // when ending
	tries    int       // that went wrong in a row

	// What the status that is shown follows from (state.go).
	fault  *report.Fault // why it is not replicating, until a worker is ready
	fresh  bool          // fault is from this worker
	marker string        // trouble of the marker
	before status.Synced // by the workers before this one
	pulse  pulse         // how fast it goes
	clock  clockState
	begun  int // how often a worker said that it is in order
	// objective is filled in where the status is made (status).
	objective objective

	// What is written to the status file, and whether that is due.
	st    status.Status
	dirty bool // st has news
}

// newMachine begins in Initializing, whatever st says; random is in [0, 1).
func newMachine(st status.Status, p pace, retryMax time.Duration, random func() float64) *machine {
	st.State = status.Initializing
	m := &machine{pace: p, retryMax: retryMax, random: random, st: st, dirty: true}
	m.clock.since = func(now, at time.Time) time.Duration { return now.Sub(at) }
	return m
}

// handle takes an event and returns what is to be done, in order.
func (m *machine) handle(now time.Time, ev event) []action {
	actions := m.decide(now, ev)
	m.deriveState(now)
	return actions
}

// decide changes what the machine knows; the state that follows from it is derived by deriveState.
func (m *machine) decide(now time.Time, ev event) []action {
	switch ev := ev.(type) {
	case begin:
		m.paused = ev.paused
		return m.spawnUnlessPaused()
	case spawned:
		m.phase, m.heard, m.ready, m.fresh = up, now, false, false
		m.st.WorkerPid = ev.pid
		return m.stopIfMeant(now)
	case spawnFailed:
		m.setFault(report.Fault{Reason: "start the worker: " + ev.err.Error()})
		return m.gone(now)
	case reported:
		m.report(now, ev.Report)
	case exited:
		return m.exited(now, ev.why)
	case wake:
		return m.wake(now)
	case stop:
		m.stopping = true
		return m.end(now)
	case marker:
		m.marker = ev.trouble
	case stepped:
		m.clock.stepped(&m.st, ev.Step)
		m.dirty = true
	case reload:
		return m.reload(now, ev)
	}
	return nil
}

// next is when handle wants a wake; zero for never.
func (m *machine) next() time.Time {
	switch m.phase {
	case down:
		return m.retryAt
	case up:
		return m.heard.Add(m.pace.hang)
	case ending:
		return m.killAt
	}
	return time.Time{}
}

// spawnUnlessPaused is the one way to a new worker. A paused session has no process at all.
func (m *machine) spawnUnlessPaused() []action {
	m.retryAt = time.Time{}
	if m.paused {
		m.phase = down
		return nil
	}
	m.phase = coming
	return []action{{do: spawn}}
}

// stopIfMeant is for what was asked while the worker came up.
func (m *machine) stopIfMeant(now time.Time) []action {
	switch {
	case m.stopping:
		return m.end(now)
	case m.paused:
		return []action{{do: tell, verb: report.Pause}}
	}
	return nil
}

// end asks the worker to end.
func (m *machine) end(now time.Time) []action {
	switch m.phase {
	case down:
		m.phase = over
	case up:
		m.phase, m.killAt = ending, now.Add(m.pace.kill)
		return []action{{do: tell, verb: report.Stop}, {do: term}}
	}
	return nil
}

// wake acts on the time that next named; one that comes too early is none.
func (m *machine) wake(now time.Time) []action {
	at := m.next()
	if at.IsZero() || now.Before(at) {
		return nil
	}
	switch m.phase {
	case down:
		return m.spawnUnlessPaused()
	case up:
		m.setFault(report.Fault{Reason: "the worker said nothing for " + m.pace.hang.String() + " and was killed"})
		fallthrough
	case ending:
		m.phase, m.killAt = ending, now.Add(m.pace.kill)
		return []action{{do: kill}}
	}
	return nil
}

// setFault notes trouble that this worker, or the try to start it, has made.
func (m *machine) setFault(f report.Fault) {
	f.Reason = status.OneLine(f.Reason)
	m.fault, m.fresh, m.dirty = &f, true, true
}

// exited keeps the reason that the worker gave itself, which says more than how it ended.
func (m *machine) exited(now time.Time, why string) []action {
	if m.ready && now.Sub(m.readyAt) >= m.pace.stable {
		m.tries = 0
	}
	asked := m.stopping || m.again || m.paused
	if !m.fresh && !asked {
		m.setFault(report.Fault{Reason: why})
	}
	return m.gone(now)
}

// gone goes on after a worker has ended or could not be started. A worker that was asked to end
// counts as no try; one that ended by itself is started again after a pause.
func (m *machine) gone(now time.Time) []action {
	m.before, m.ready, m.st.WorkerPid, m.dirty = m.st.Synced, false, 0, true
	m.phase, m.retryAt, m.st.WaitsUntil = down, time.Time{}, status.Time{}
	switch {
	case m.stopping:
		m.phase = over
	case m.again || m.paused:
		m.again = false
		return m.spawnUnlessPaused()
	default:
		m.st.Restarts++
		m.retryAt = now.Add(m.delay())
	}
	return nil
}

// delay counts a try that went wrong. What needs the operator is tried at the slowest pace from the first time.
func (m *machine) delay() time.Duration {
	tries := m.tries
	m.tries++
	if m.fault != nil && m.fault.Final {
		return m.retryMax
	}
	return backoff(tries, m.retryMax, m.random())
}

// reload takes over what the operator saved.
func (m *machine) reload(now time.Time, ev reload) []action {
	m.retryMax = ev.retryMax
	m.objective.set(ev.maxLag)
	was := m.paused
	m.paused = ev.paused
	if m.stopping {
		return nil
	}
	switch m.phase {
	case down:
		// A changed configuration may be the remedy, so it is tried at once.
		if ev.restart || was != m.paused {
			return m.spawnUnlessPaused()
		}
	case up:
		return m.reloadUp(now, ev, was)
	case coming, ending:
		m.again = m.again || ev.restart && m.phase == ending
	}
	return nil
}

// reloadUp tells a running worker. One that is restarted finds out about the pause by itself.
func (m *machine) reloadUp(now time.Time, ev reload, was bool) []action {
	switch {
	case ev.restart:
		m.again = true
		return m.end(now)
	case !was && m.paused:
		return []action{{do: tell, verb: report.Pause}}
	case was && !m.paused:
		return []action{{do: tell, verb: report.Resume}}
	case !m.paused && !ev.own:
		return []action{{do: tell, verb: report.Look}}
	}
	return nil
}
