package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/events"
	"georep/status"
	"georep/volume"
)

func TestRun(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "", ""))
	st := b.until("Active with progress", func(st status.Status) bool { return st.State == status.Active && st.Stime == 5 })
	if st.Crawl != status.HybridCrawl || st.WorkerPid != b.pids("worker")[0] || st.MonitorPid != os.Getpid() ||
		st.LastSynced.Unix() != 5 || st.Reason != "" {
		t.Errorf("status %+v", st)
	}
	err := Run(t.Context(), config(b.store, testSlave, "", ""))
	var running *status.RunningError
	if !errors.As(err, &running) || running.Pid != os.Getpid() {
		t.Errorf("a second monitor: %v", err)
	}
	b.wait("the marker", func() bool { return len(b.pids("markers")) == 1 })
	b.change(testSlave, func(s *volume.Session) error { return s.Set("max-lag", "90s") })
	if err := Reload(b.store, b.session()); err != nil {
		t.Fatal(err)
	}
	b.until("the objective", func(st status.Status) bool { return st.ObjectiveSeconds == 90 && st.Objective != "" })
	if len(b.pids("worker")) != 1 {
		t.Error("the worker was started anew for what it never reads")
	}
	end()
	b.noneLeft()
	if told := b.read("told"); !strings.HasPrefix("stop\neof\n", told) {
		t.Errorf("the worker was told %q", told)
	}
	raw, err := status.Read(b.store.Files("data", testSlave).Status)
	if err != nil || raw.State != status.Stopped || raw.WorkerPid != 0 || raw.Stime != 5 {
		t.Errorf("the last status: %+v, %v", raw, err)
	}
	for _, want := range []string{"worker is here", "monitor started", "monitor ended"} {
		if !strings.Contains(b.read("log"), want) {
			t.Errorf("the log lacks %q:\n%s", want, b.read("log"))
		}
	}
}

func TestTrouble(t *testing.T) {
	for mode, want := range map[string]struct {
		reason string
		final  bool
	}{
		"crash":   {"the worker ended (exit status 2): panic: out of cheese", false},
		"jsonlog": {"the worker ended (exit status 1): connect to backup: connection refused", false},
		"final":   {"the host key of backup has changed", true},
		"hang":    {"the worker said nothing for 2s and was killed", false},
	} {
		t.Run(mode, func(t *testing.T) {
			b := newBench(t)
			end := b.run(config(b.store, testSlave, mode, ""))
			st := b.until("Faulty", inState(status.Faulty))
			if st.Reason != want.reason || st.FinalReason != want.final {
				t.Errorf("reason %q, final %v", st.Reason, st.FinalReason)
			}
			if !want.final {
				b.wait("the next try", func() bool { return len(b.pids("worker")) > 1 })
			}
			end()
			b.noneLeft()
		})
	}
}

func TestCommandIsMissing(t *testing.T) {
	b := newBench(t)
	cfg := config(b.store, testSlave, "", "")
	cfg.WorkerCommand = func() *exec.Cmd { return exec.Command("/nonexistent/georep") }
	end := b.run(cfg)
	st := b.until("Faulty", inState(status.Faulty))
	if !strings.Contains(st.Reason, "/nonexistent/georep") {
		t.Errorf("reason %q", st.Reason)
	}
	end()
}

func TestStubbornWorkerAndItsChildren(t *testing.T) {
	for _, mode := range []string{"stubborn", "child"} {
		t.Run(mode, func(t *testing.T) {
			b := newBench(t)
			end := b.run(config(b.store, testSlave, mode, ""))
			b.until("Active", inState(status.Active))
			end()
			b.noneLeft()
		})
	}
}

func TestPauseResume(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "", ""))
	b.until("Active", inState(status.Active))
	pause := func(paused bool) {
		b.change(testSlave, func(s *volume.Session) error { s.Paused = paused; return nil })
		if err := Reload(b.store, b.session()); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	b.until("Paused", inState(status.Paused))
	b.wait("the worker to be told", func() bool { return b.read("told") == "pause\n" })
	pause(false)
	b.until("Active", inState(status.Active))
	b.wait("the worker to be told", func() bool { return b.read("told") == "pause\nresume\n" })
	if n := len(b.pids("worker")); n != 1 {
		t.Errorf("%d workers", n)
	}
	b.change(testSlave, func(s *volume.Session) error { return s.Set("quick", "true") })
	if err := Reload(b.store, b.session()); err != nil {
		t.Fatal(err)
	}
	b.wait("a worker with the new configuration", func() bool { return len(b.pids("worker")) == 2 })
	b.until("Active", inState(status.Active))
	pause(true)
	b.until("Paused", inState(status.Paused))
	end()
	b.noneLeft()

	end = b.run(config(b.store, testSlave, "", ""))
	if st, err := WaitReady(t.Context(), b.store, b.session()); err != nil || st.State != status.Paused {
		t.Errorf("started while paused: %+v, %v", st, err)
	}
	end()
	if n := len(b.pids("worker")); n != 2 {
		t.Errorf("%d workers", n)
	}
}

func TestMarkerIsShared(t *testing.T) {
	other := volume.Slave{Host: "elsewhere", Volume: "copy"}
	b := newBench(t, other)
	endOne := b.run(config(b.store, testSlave, "", ""))
	endTwo := b.run(config(b.store, other, "", ""))
	b.until("Active", inState(status.Active))
	held := func() bool {
		held, err := volume.Locked(b.store.Runtime("data").MarkerLock, volume.Shared)
		return held && err == nil
	}
	b.wait("the marker", held)
	endOne()
	if !held() {
		t.Error("the marker ended with the first session")
	}
	endTwo()
	if held() {
		t.Error("the marker outlived the last session")
	}
	b.noneLeft()
}

func TestMarkerIsStartedAgain(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "", ""))
	b.wait("the marker", func() bool { return len(b.pids("markers")) == 1 })
	b.until("Active", inState(status.Active))
	unix.Kill(b.pids("markers")[0], unix.SIGKILL)
	b.wait("the next marker", func() bool { return len(b.pids("markers")) == 2 })
	end()
	b.noneLeft()
}

func TestMarkerThatCannotRun(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "", "crash"))
	st := b.until("Faulty", inState(status.Faulty))
	if st.Reason != "marker: it ended (exit status 1): Error: no xattrs here" {
		t.Errorf("reason %q", st.Reason)
	}
	b.wait("another try", func() bool { return len(b.pids("markers")) > 1 })
	end()
	b.noneLeft()
}

func TestMonitorKilled(t *testing.T) {
	b := newBench(t)
	if err := Spawn(t.Context(), again("monitor", "", b.store.Dir()), b.store.Files("data", testSlave)); err != nil {
		t.Fatal(err)
	}
	st, err := WaitReady(t.Context(), b.store, b.session())
	if err != nil || st.State != status.Active {
		t.Fatalf("ready: %+v, %v", st, err)
	}
	b.wait("the marker", func() bool { return len(b.pids("markers")) == 1 })
	b.until("progress", func(st status.Status) bool { return st.Stime == 5 })
	unix.Kill(st.MonitorPid, unix.SIGKILL)
	b.wait("the worker to see that", func() bool { return strings.Contains(b.read("told"), "eof") })
	st = b.until("the truth", inState(status.Faulty))
	if !strings.Contains(st.Reason, "the monitor is not running") || st.WorkerPid != 0 {
		t.Errorf("status %+v", st)
	}
	b.change(testSlave, func(s *volume.Session) error { s.Started = false; return nil })
	b.until("Stopped", inState(status.Stopped))
	b.wait("the end of all", func() bool {
		return !alivePid(b.pids("worker")[0]) && !alivePid(b.pids("markers")[0])
	})
	end := b.run(config(b.store, testSlave, "", "")) // nothing of the dead one is in the way
	b.until("Active", inState(status.Active))
	end()
	list, err := events.Read(b.store.Files("data", testSlave).Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := "state:Initializing... state:Active first-sync state:Initializing... state:Active state:Stopped"
	if got := strings.Join(kinds(list), " "); got != want || list[5].Seq != 6 {
		t.Errorf("the journal: %s, want %s", got, want)
	}
}

func TestSpawnAndStop(t *testing.T) {
	b := newBench(t)
	files := b.store.Files("data", testSlave)
	if err := Stop(t.Context(), b.store, b.session()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stop of nothing: %v", err)
	}
	if err := Reload(b.store, b.session()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("reload of nothing: %v", err)
	}
	if _, err := WaitReady(t.Context(), b.store, b.session()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("wait for nothing: %v", err)
	}
	if err := Spawn(t.Context(), again("monitor", "", b.store.Dir()), files); err != nil {
		t.Fatal(err)
	}
	if st, err := WaitReady(t.Context(), b.store, b.session()); err != nil || st.State != status.Active {
		t.Errorf("ready: %+v, %v", st, err)
	}
	if err := Spawn(t.Context(), again("monitor", "", b.store.Dir()), files); !errors.Is(err, status.ErrRunning) {
		t.Errorf("start again: %v", err)
	}
	if err := Stop(t.Context(), b.store, b.session()); err != nil {
		t.Error(err)
	}
	b.noneLeft()
}

func TestSpawnSaysWhy(t *testing.T) {
	b := newBench(t)
	files := b.store.Files("data", testSlave)
	if err := os.WriteFile(files.Session, []byte("slave = 'nonsense'"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Spawn(t.Context(), again("monitor", "", b.store.Dir()), files)
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("spawn: %v", err)
	}
	err = Spawn(t.Context(), exec.Command("/nonexistent/georep"), files)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("spawn of nothing: %v", err)
	}
}

func TestWaitReadyIsBounded(t *testing.T) {
	b := newBench(t)
	end := b.run(config(b.store, testSlave, "", ""))
	b.until("Active", inState(status.Active))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := func(status.Status) bool { return false }
	if st, err := WaitStatus(ctx, b.store, b.session(), never); !errors.Is(err, context.Canceled) || st.Master != "data" {
		t.Errorf("wait: %+v, %v", st, err)
	}
	end()
}

func TestConsole(t *testing.T) {
	b := newBench(t)
	cfg := config(b.store, testSlave, "", "")
	cfg.MarkerCommand = nil
	var out strings.Builder
	cfg.Console = &out
	end := b.run(cfg)
	b.until("Active", inState(status.Active))
	end()
	if !strings.Contains(out.String(), "worker is here") || out.String() != b.read("log") {
		t.Errorf("console %q, log %q", out.String(), b.read("log"))
	}
}

func TestNothingLeaks(t *testing.T) {
	b := newBench(t)
	once := func() {
		end := b.run(config(b.store, testSlave, "", ""))
		b.until("Active", inState(status.Active))
		end()
	}
	once() // what the runtime starts once is not counted
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 3 {
		once()
	}
	// Each log that was opened leaves one goroutine of the log library's behind, until the process ends.
	allowed := goroutines + 3
	b.wait(fmt.Sprintf("%d goroutines", allowed), func() bool { return runtime.NumGoroutine() <= allowed })
	b.wait(fmt.Sprintf("%d files", files), func() bool { return openFiles(t) <= files })
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
