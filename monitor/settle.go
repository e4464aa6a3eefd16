package monitor

import (
	"time"

	"georep/monitor/report"
	"georep/status"
)

// ratesAge is how long rates are shown after the last progress; sampleEvery is what they are averaged over.
const (
	ratesAge    = 5 * time.Second
	sampleEvery = time.Second
)

// report takes what the worker said.
func (m *machine) report(now time.Time, r report.Report) {
	m.heard = now
	switch r.Kind {
	case report.Ready:
		if !m.ready {
			m.ready, m.readyAt = true, now
		}
		m.fault, m.fresh, m.dirty = nil, false, true
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
	st.Failures, st.FailuresTotal = p.Failures, p.FailuresTotal
	st.Synced = m.before.Plus(p.Synced)
	// Before it is connected a worker does not know; what was true once stays true.
	if m.ready || !p.LastSynced.IsZero() {
		st.LastSynced, st.Stime = p.LastSynced, p.Stime
	}
	if p.Checkpoint != "" {
		st.Checkpoint = p.Checkpoint
	}
	m.rates(now)
	m.dirty = true
}

// rates compares with a sample that is at least a second old; after a longer silence it only takes a new one.
func (m *machine) rates(now time.Time) {
	since := now.Sub(m.sampled)
	if since < sampleEvery {
		return
	}
	if since <= ratesAge {
		per := 1 / since.Seconds()
		m.st.Rates = status.Rates{
			Files:        per * float64(m.st.Synced.Files-m.sample.Files),
			BytesContent: per * float64(m.st.Synced.BytesContent-m.sample.BytesContent),
			BytesWire:    per * float64(m.st.Synced.BytesWire-m.sample.BytesWire),
		}
	}
	m.sampled, m.sample = now, m.st.Synced
}

// settle derives the state from what is known.
func (m *machine) settle(now time.Time) {
	state, reason, final := m.state()
	if state != m.st.State {
		m.st.StateSince = status.Time{Time: now.Round(0)}
	}
	if state != m.st.State || reason != m.st.Reason {
		m.dirty = true
	}
	m.st.State, m.st.Reason, m.st.FinalReason = state, reason, final
	if state != status.Active {
		m.st.Crawl, m.st.Rates = status.NoCrawl, status.Rates{}
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
		return status.Active, "", false
	}
	return status.Initializing, "", false
}

// status is what to write now.
func (m *machine) status(now time.Time) status.Status {
	if now.Sub(m.sampled) > ratesAge {
		m.st.Rates = status.Rates{}
	}
	st := m.st
	st.Updated = status.Time{Time: now.Round(0)}
	return st
}
