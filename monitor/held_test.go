package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/events"
	"georep/monitor/report"
	"georep/status"
)

// heldBench is a status whose reports are logged.
type heldBench struct {
	t   *testing.T
	c   *chronicle
	st  status.Status
	log bytes.Buffer
}

// report gives the lines that a report of the crawler begun brings: the level, the path and what is said of it.
func (b *heldBench) report(begun, total int, paths ...string) string {
	b.st.Failures, b.st.FailuresTotal = nil, total
	for _, p := range paths {
		b.st.Failures = append(b.st.Failures, status.Failure{Path: p, Op: "write", Error: "permission denied",
			Since: status.Time{Time: time.Unix(int64(p[0]), 0)}})
	}
	b.log.Reset()
	log := zerolog.New(&b.log)
	for _, e := range b.c.observe(&b.st, facts{begun: begun}) {
		logEvent(&log, &e)
	}
	var said []string
	for line := range strings.Lines(b.log.String()) {
		var l struct{ Level, Path, Error, Message string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			b.t.Fatal(err)
		}
		said = append(said, strings.TrimSpace(l.Level+" "+l.Path+" "+strings.TrimPrefix(l.Message, "an entry is held back")+l.Error))
	}
	slices.Sort(said)
	return strings.Join(said, ", ")
}

// TestHeldBackIsToldOnce: the log, the journal and the hooks are told by one rule.
func TestHeldBackIsToldOnce(t *testing.T) {
	b := &heldBench{t: t, st: status.Status{State: status.Active, Stime: 5, LagSeconds: 1, LastSynced: status.Time{Time: time.Unix(1, 0)}}}
	b.c = newChronicle(&b.st, nil)
	for i, step := range []struct {
		begun, total int
		paths, want  string
	}{
		{1, 0, "", ""},
		{1, 2, "a b", "warn a permission denied, warn b permission denied"},
		{1, 2, "a b", ""},
		{1, 1, "b", "info a  no more"},
		{1, 5, "b", ""},
		{1, 5, "c", "info b  no more, warn c permission denied"}, // b would stand before c
		{1, 2, "a", "warn a permission denied"},                  // the list is cut: c may be held back still
		{2, 0, "", ""},                                           // a new worker has met nothing yet
		{2, 2, "a c", ""},
		{2, 1, "c", "info a  no more"},
	} {
		if got := b.report(step.begun, step.total, strings.Fields(step.paths)...); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	b.st.LastSynced = status.Time{Time: time.Unix('c'+1, 0)} // the first crawl of a third has ended
	if got := b.report(3, 0); got != "info c  no more" {
		t.Errorf("in step: %q", got)
	}
	b.st.LastSynced = status.Time{}
	for i := range 3 * maxOpen {
		b.report(3, maxOpen, fmt.Sprint(i))
	}
	if n := len(b.c.open); n > maxOpen {
		t.Errorf("%d are remembered", n)
	}
}

// TestHeldBackIsToldOnceByMonitors: one that goes on where the journal of another ends tells nothing again.
func TestHeldBackIsToldOnceByMonitors(t *testing.T) {
	st := status.Status{State: status.Active}
	b := &heldBench{t: t, st: st, c: newChronicle(&st, []events.Event{{Kind: events.Failure, Path: "a", Op: "write"},
		{Kind: events.Failure, Path: "b", Op: "write"}, {Kind: events.FailureGone, Path: "b", Op: "write"}})}
	if got := b.report(1, 2, "a", "b"); got != "warn b permission denied" {
		t.Errorf("told %q", got)
	}
}

// TestHeldBackReachesTheLog: by the worker's reports; and trouble is a warning.
func TestHeldBackReachesTheLog(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "held", ""))
	b.wait("the log", func() bool { return strings.Contains(b.read("log"), "an entry is held back") })
	end()
	for _, want := range []string{`"level":"warn","from":"monitor"`, `"path":"some/file"`, `"error":"no space left"`} {
		if !strings.Contains(b.read("log"), want) {
			t.Errorf("the log lacks %s:\n%s", want, b.read("log"))
		}
	}
	b = newBench(t)
	end = b.run(config(b.store, testSlave, "final", ""))
	b.until("Faulty", inState(status.Faulty))
	end()
	for line := range strings.Lines(b.read("log")) {
		if strings.Contains(line, `"status":"Faulty"`) && !strings.Contains(line, `"level":"warn"`) {
			t.Errorf("no warning: %s", line)
		}
	}
}

// heldProgress is of a worker that holds an entry back.
func heldProgress() report.Progress {
	return report.Progress{LagSeconds: 1, Stime: 5, Failures: []status.Failure{{Path: "some/file", Op: "write", Error: "no space left"}}}
}
