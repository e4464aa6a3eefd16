package monitor

import (
	"time"

	"georep/monitor/report"
	"georep/status"
)

// pulse counts what has been done over the last seconds.
type pulse struct {
	// Each counts what the session's workers have done since the monitor began: files, bytes of content, bytes on the
	// wire.
	files, content, wire status.Window
}

// add notes the counters as they are now.
func (p *pulse) add(now time.Time, s status.Synced) {
	p.files.Add(now, s.Files)
	p.content.Add(now, s.BytesContent)
	p.wire.Add(now, s.BytesWire)
}

// rates are per second, over the window's length.
func (p *pulse) rates(now time.Time) status.Rates {
	return status.Rates{Files: p.files.PerSecond(now), BytesContent: p.content.PerSecond(now),
		BytesWire: p.wire.PerSecond(now)}
}

// silent is how long the worker's ETA is shown after its last report: a worker that works reports more often.
const silent = 5 * time.Second

// report takes what the worker said.
func (m *machine) report(now time.Time, r report.Report) {
	m.heard = now
	switch r.Kind {
	case report.Ready:
		if !m.ready {
			m.ready, m.readyAt = true, now
		}
		m.fault, m.fresh, m.dirty = nil, false, true
		m.begun++
	case report.KindFaulty:
		m.setFault(*r.Fault)
	case report.KindProgress:
		m.progress(now, r.Progress)
	}
}

// progress replaces what the status says of the crawl; counters go on where the last worker's ended.
func (m *machine) progress(now time.Time, p *report.Progress) {
	st := &m.st
	st.Crawl, st.LagSeconds, st.Pending, st.Marker = p.Crawl, p.LagSeconds, p.Pending, p.Marker
	st.HiddenWriters, st.WaitsUntil, st.QueueOverflows = p.HiddenWriters, p.WaitsUntil, p.QueueOverflows
	m.clock.lagAt = now
	st.Failures, st.FailuresTotal = p.Failures, p.FailuresTotal
	st.Waiting, st.WaitingTotal = p.Waiting, p.WaitingTotal
	st.Unmarked, st.MarkerWaits = p.Unmarked, p.MarkerWaits
	st.Synced = m.before.Plus(p.Synced)
	if p.HiddenAt.After(st.HiddenAt.Time) { // another marker knows of later ones only
		st.HiddenAt = p.HiddenAt
	}
	// Before it is connected a worker does not know; what was true once stays true. One that is to be followed by another since the
	// settings have changed, such as the filter, goes by the old ones.
	if (m.ready || !p.LastSynced.IsZero()) && !m.again {
		m.synced(now, p)
	}
	if p.Checkpoint != "" {
		st.Checkpoint = p.Checkpoint
	}
	// A later worker may not meet it again. What was lost to another policy of the slave's host is another matter.
	if p.NotKept != "" || m.ready && p.Policy != st.SlavePolicy {
		st.NotKept = p.NotKept
	}
	if m.ready {
		st.SlavePolicy = p.Policy
	}
	st.Filter = p.Filter
	if p.Confined != "" {
		st.Confined = p.Confined
	}
	st.ETASeconds = p.ETASeconds
	m.pulse.add(now, st.Synced)
	m.dirty = true
}

// synced takes over up to when the slave has everything. A worker that begins goes by the slave's stamp alone; what was
// known of the same stamp is still true, and nothing that the slave lacks is older.
func (m *machine) synced(now time.Time, p *report.Progress) {
	st := &m.st
	if p.Stime == 0 || p.Stime != st.Stime || p.LastSynced.After(st.LastSynced.Time) {
		st.LastSynced, st.Stime = p.LastSynced, p.Stime
	}
	if st.LagSeconds > 0 && !st.LastSynced.IsZero() {
		st.LagSeconds = min(st.LagSeconds, max(m.clock.since(now, st.LastSynced.Time).Seconds(), 0))
	}
}

// deriveState derives the state from what is known.
func (m *machine) deriveState(now time.Time) {
	state, reason, final := m.state()
	if state != m.st.State {
		m.st.StateSince = status.Time{Time: now.Round(0)}
	}
	if state != m.st.State || reason != m.st.Reason {
		m.dirty = true
	}
	m.st.State, m.st.Reason, m.st.FinalReason = state, reason, final
	if state != status.Active {
		m.st.Crawl, m.st.ETASeconds, m.pulse = status.NoCrawl, 0, pulse{}
	}
}

// state puts what is known in order of weight: the operator's word, trouble, readiness.
func (m *machine) state() (state status.State, reason string, final bool) {
	switch {
	case m.phase == over:
		return status.Stopped, "", false
	case m.paused:
		return status.Paused, "", false
	case m.fault != nil:
		return status.Faulty, m.fault.Reason, m.fault.Final
	case m.marker != "":
		return status.Faulty, m.marker, false
	case m.ready:
		return status.Active, m.st.WaitsFor(), false
	}
	return status.Initializing, "", false
}

// status is what to write now.
func (m *machine) status(now time.Time) status.Status {
	if now.Sub(m.heard) > silent {
		m.st.ETASeconds = 0
	}
	m.clock.judge(now, &m.st)
	st := m.st
	if st.State != status.Active {
		st.WaitsUntil = status.Time{}
	}
	st.Rates = m.pulse.rates(now)
	if st.LagSeconds > 0 {
		st.LagSeconds += now.Sub(m.clock.lagAt).Seconds()
	}
	st.Updated = status.Time{Time: now.Round(0)}
	m.objective.judge(now, &st, m.clock.since)
	return st
}

// facts are for the chronicle.
func (m *machine) facts() facts {
	f := facts{begun: m.begun, overflows: m.st.QueueOverflows, steps: m.st.ClockSteps, step: m.clock.last}
	if m.fault != nil && m.fault.Refused {
		f.refusal = m.fault.Reason
	}
	return f
}
