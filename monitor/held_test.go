package monitor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/monitor/report"
	"georep/status"
)

// heldBench is a status whose reports are logged.
type heldBench struct {
	t   *testing.T
	h   held
	st  status.Status
	log bytes.Buffer
}

// report gives the lines that a report brings: the level, the path and what is said of it.
func (b *heldBench) report(total int, paths ...string) string {
	b.st.Failures, b.st.FailuresTotal = nil, total
	for _, p := range paths {
		b.st.Failures = append(b.st.Failures, status.Failure{Path: p, Op: "write", Error: "permission denied",
			Since: status.Time{Time: time.Unix(int64(p[0]), 0)}})
	}
	b.log.Reset()
	b.h.tell(zerolog.New(&b.log), &b.st)
	var said []string
	for line := range strings.Lines(b.log.String()) {
		var l struct{ Level, Path, Error, Message string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			b.t.Fatal(err)
		}
		said = append(said, strings.TrimSpace(l.Level+" "+l.Path+" "+strings.TrimPrefix(l.Message, "an entry is held back")+l.Error))
	}
	return strings.Join(said, ", ")
}

func TestHeldBackIsLoggedOnce(t *testing.T) {
	b := &heldBench{t: t, st: status.Status{WorkerPid: 1, Stime: 5, LagSeconds: 1}}
	for i, step := range []struct {
		worker, total int
		paths, want   string
	}{
		{1, 0, "", ""},
		{1, 2, "a b", "warn a permission denied, warn b permission denied"},
		{1, 2, "a b", ""},
		{1, 1, "b", "info a  no more"},
		{1, 5, "b", ""},
		{1, 5, "c", "warn c permission denied, info b  no more"}, // b would stand before c
		{1, 2, "a", "warn a permission denied"},                  // the list is cut: c may be held back still
		{2, 0, "", ""},                                           // a new worker has met nothing yet
		{2, 2, "a c", ""},
		{2, 1, "c", "info a  no more"},
	} {
		b.st.WorkerPid = step.worker
		if got := b.report(step.total, strings.Fields(step.paths)...); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	b.st.WorkerPid, b.st.LagSeconds = 3, 0 // its first crawl has ended
	if got := b.report(0); got != "info c  no more" {
		t.Errorf("in step: %q", got)
	}
	for i := range 3 * maxHeld {
		b.report(maxHeld, fmt.Sprint(i))
	}
	if n := len(b.h.logged); n > maxHeld {
		t.Errorf("%d are remembered", n)
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
