package monitor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/monitor/report"
	"georep/status"
)

// loadReport is what a worker under load says; all of it differs from one to the next.
func loadReport(i int) report.Progress {
	at := status.Time{Time: time.Unix(1_000_000+int64(i), 0)}
	path := fmt.Sprint("directory/file ", i)
	return report.Progress{
		Crawl: status.ChangelogCrawl, Stime: uint64(i + 1), LastSynced: at, LagSeconds: 0.5, Marker: "fanotify",
		Synced:   status.Synced{Files: int64(i), BytesContent: int64(i) << 10, BytesWire: int64(i) << 9},
		Failures: []status.Failure{{Path: path, Op: "write", Error: "no room " + path, Since: at}},
		Waiting:  []status.Waiting{{Path: path, Since: at}}, Unmarked: []string{path + ": no room"},
		MarkerWaits: "waits for " + path, Checkpoint: "since " + path, NotKept: "owner of " + path,
	}
}

// reading is the monitor from the pipe of the reports to the status file, without the processes.
type reading struct {
	t   *testing.T
	r   *runner
	in  *os.File // what the worker writes to
	now time.Time
	n   int // reports so far
}

func newReading(t *testing.T) *reading {
	b := newBench(t)
	cfg := config(b.store, testSlave, "", "")
	cfg.MarkerCommand = nil
	r, err := newRunner(t.Context(), cfg, b.store.Files("data", testSlave))
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{reports: out, log: &stderrLog{log: zerolog.Nop(), sink: io.Discard}}
	r.tasks.Go(func() { w.readReports(func(ev event) { r.events <- ev }) })
	t.Cleanup(func() {
		in.Close()
		r.tasks.Wait()
		closeAll([]io.Closer{out, r.logFile})
	})
	l := &reading{t: t, r: r, in: in, now: time.Unix(2_000_000, 0)}
	for _, ev := range []event{begin{}, spawned{7}, ready()} {
		r.machine.handle(l.now, ev)
	}
	return l
}

// round has the monitor take reports, four a second by its clock, and write the status file now and then.
func (l *reading) round(reports int) {
	l.t.Helper()
	for range reports {
		p := loadReport(l.n)
		line, err := json.Marshal(report.Report{Kind: report.KindProgress, Progress: &p})
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := l.in.Write(append(line, '\n')); err != nil { // it fits into the pipe
			l.t.Fatal(err)
		}
		l.now = l.now.Add(250 * time.Millisecond)
		l.r.machine.handle(l.now, <-l.r.events)
		if l.n++; l.n%50 == 0 {
			l.r.write(l.now)
		}
	}
	st, err := status.Read(l.r.files.Status)
	if want := loadReport(l.n - 1); err != nil || st.State != status.Active || st.Stime != want.Stime || st.NotKept != want.NotKept {
		l.t.Fatalf("after %d reports: %+v, %v", l.n, st, err)
	}
}

// live is what is reachable, in bytes.
func live() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one left to finalizers and pools
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestNothingIsKept: a monitor keeps nothing of the reports that it has shown, however many come.
func TestNothingIsKept(t *testing.T) {
	const rounds, reports, most = 4, 500, 64 << 10
	l := newReading(t)
	l.round(reports)
	before, tasks := live(), runtime.NumGoroutine()
	for range rounds {
		l.round(reports)
	}
	if grown := live() - before; grown > most {
		t.Errorf("%d bytes are kept of %d reports, want at most %d", grown, rounds*reports, most)
	}
	if now := runtime.NumGoroutine(); now > tasks {
		t.Errorf("%d goroutines, were %d", now, tasks)
	}
}
