package web

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"georep/status"
)

// Bounds of a scrape.
const (
	scrapesAtOnce = 4
	scrapeTimeout = 10 * time.Second
)

// states are the values of the label state.
var states = map[status.State]string{status.Created: "created", status.Initializing: "initializing", status.Active: "active",
	status.Passive: "passive", status.Faulty: "faulty", status.Paused: "paused", status.Stopped: "stopped", status.Inconsistent: "inconsistent"}

// metric is one of a session: its name, what it means, and its value; false where it has none.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Session) (float64, bool)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("georep_"+name, help, labels, nil)
}

func (c *collector) gauge(name, help string, value func(*Session) (float64, bool)) {
	c.each = append(c.each, metric{desc(name, help, "master", "slave"), prometheus.GaugeValue, value})
}

func (c *collector) counter(name, help string, value func(*status.Status) int64) {
	c.each = append(c.each, metric{desc(name, help, "master", "slave"), prometheus.CounterValue,
		func(s *Session) (float64, bool) { return float64(value(&s.Status)), true }})
}

// collector makes the metrics of all sessions when it is asked.
type collector struct {
	source  *source
	version string
	each    []metric

	build, state, memory, unread, marks, overflows *prometheus.Desc
}

func newCollector(s *source, version string) *collector {
	c := &collector{source: s, version: version,
		build:     desc("build_info", "Always 1; the labels say what this georep was built of.", "version", "goversion"),
		state:     desc("session_state", "1 for the state that the session is in, 0 for the others.", "master", "slave", "state"),
		memory:    desc("process_resident_memory_bytes", "Resident memory of the session's monitor and worker, and of the volume's marker.", "master", "slave", "process"),
		unread:    desc("unreadable", "1 while the registry, or a status, cannot be read: some sessions are missing or not up to date."),
		marks:     desc("marks_total", "Batches of changes that the volume's marker has marked since it started.", "master"),
		overflows: desc("queue_overflows_total", "How often the kernel dropped events, so that the marker scanned, since it started.", "master"),
	}
	c.gauge("lag_seconds", "Age of the oldest change that the slave lacks; 0 in step, absent before the first sync has ended.", func(s *Session) (float64, bool) {
		lag, known := s.Status.Lag()
		return lag.Seconds(), known
	})
	c.gauge("last_synced_timestamp_seconds", "The slave durably has all that the master had then; absent before the first sync has ended.", func(s *Session) (float64, bool) {
		t := s.Status.LastSynced
		return float64(t.UnixMilli()) / 1000, !t.IsZero()
	})
	c.gauge("objective_seconds", "The session's objective, max-lag; absent where there is none.", func(s *Session) (float64, bool) {
		return s.Status.ObjectiveSeconds, s.Status.ObjectiveSeconds > 0
	})
	c.gauge("objective_missed", "1 while the session misses its objective, 0 while it meets it; absent where that is not judged.", func(s *Session) (float64, bool) {
		return truth(s.Status.Objective == status.ObjectiveMissed), s.Status.Objective != ""
	})
	c.gauge("pending_entries", "Entries that are known to differ.", of(func(s *status.Status) int64 { return s.Pending.Entries }))
	c.gauge("pending_files", "Files whose content is to be sent.", of(func(s *status.Status) int64 { return s.Pending.Files }))
	c.gauge("pending_bytes", "Content that is to be sent.", of(func(s *status.Status) int64 { return s.Pending.Bytes }))
	c.gauge("failures", "Entries that are held back, and tried again.", of(func(s *status.Status) int64 { return int64(s.FailuresTotal) }))
	c.counter("files_total", "Files whose content was sent, since the monitor began.", func(s *status.Status) int64 { return s.Synced.Files })
	c.counter("content_bytes_total", "Content of the files that were sent, since the monitor began.", func(s *status.Status) int64 { return s.Synced.BytesContent })
	c.counter("wire_bytes_total", "Bytes sent and received, since the monitor began.", func(s *status.Status) int64 { return s.Synced.BytesWire })
	c.counter("renames_total", "Entries that the slave had and that were put in their new place, since the monitor began.", func(s *status.Status) int64 { return s.Synced.Renames })
	c.counter("purges_total", "Entries that were removed from the slave's tree, since the monitor began.", func(s *status.Status) int64 { return s.Synced.Purges })
	c.counter("crawls_total", "Crawls that have ended, since the monitor began.", func(s *status.Status) int64 { return s.Synced.Crawls })
	c.counter("worker_restarts_total", "How often the worker ended by itself, since the monitor began.", func(s *status.Status) int64 { return int64(s.Restarts) })
	c.counter("clock_steps_total", "How often the clock of the master's host was set, by two seconds or more, since the monitor began.", func(s *status.Status) int64 { return s.ClockSteps })
	c.gauge("clock_stepped", "1 while it matters that the clock of the master's host was set, else 0.", func(s *Session) (float64, bool) {
		return truth(s.Status.ClockStep != nil), true
	})
	return c
}

func of(value func(*status.Status) int64) func(*Session) (float64, bool) {
	return func(s *Session) (float64, bool) { return float64(value(&s.Status)), true }
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.build, c.state, c.memory, c.unread, c.marks, c.overflows} {
		ch <- d
	}
	for _, m := range c.each {
		ch <- m.desc
	}
}

// Collect is prometheus.Collector's.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := c.source.snapshot()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	put(c.build, prometheus.GaugeValue, 1, text(c.version), runtime.Version())
	put(c.unread, prometheus.GaugeValue, truth(now.Err != nil))
	for _, s := range now.Sessions {
		master, slave := text(s.Master), text(s.Slave.String())
		for state, name := range states {
			put(c.state, prometheus.GaugeValue, truth(s.Status.State == state), master, slave, name)
		}
		for process, n := range s.memory() {
			put(c.memory, prometheus.GaugeValue, float64(n), master, slave, process)
		}
		for _, m := range c.each {
			if v, known := m.value(s); known {
				put(m.desc, m.kind, v, master, slave)
			}
		}
	}
	for i := range now.Masters {
		m := &now.Masters[i]
		if !m.Known {
			continue
		}
		put(c.marks, prometheus.CounterValue, float64(m.Marker.Marks), text(m.Name))
		put(c.overflows, prometheus.CounterValue, float64(m.Marker.Overflows), text(m.Name))
		if n, ok := resident(m.Marker.PID); ok {
			put(c.memory, prometheus.GaugeValue, float64(n), text(m.Name), "", "marker")
		}
	}
}

// text makes a name fit for a label: one that is not UTF-8 would spoil the whole scrape.
func text(s string) string { return strings.ToValidUTF8(status.Printable(s), "?") }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metrics serves what Prometheus scrapes.
func (s *server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(s.source, s.o.Version), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout,
		ErrorHandling: promhttp.HTTPErrorOnError})
}
