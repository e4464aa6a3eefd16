package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/monitor/report"
	"georep/status"
	"georep/volume"
)

// What the test binary is when it is run again: TEST_ROLE says which process, TEST_MODE how it behaves.
const (
	roleVar  = "MONITOR_TEST_ROLE"
	modeVar  = "MONITOR_TEST_MODE"
	stateVar = "MONITOR_TEST_STATE"
	paceVar  = "MONITOR_TEST_PACE"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "worker":
		os.Exit(fakeWorker(os.Getenv(modeVar)))
	case "marker":
		os.Exit(fakeMarker(os.Getenv(modeVar)))
	case "monitor":
		os.Exit(realMonitor())
	case "sleeper":
		select {}
	}
	os.Exit(m.Run())
}

// again is a command that runs this binary in a role.
func again(role, mode, state string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	// The race detector would make each process linger for a second.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleVar+"="+role, modeVar+"="+mode, stateVar+"="+state)
	return cmd
}

// fakeWorker writes what it was told to the file "told" and its pid to "worker", in the state directory.
func fakeWorker(mode string) int {
	state := os.Getenv(stateVar)
	note(filepath.Join(state, "worker"), fmt.Sprintln(os.Getpid()))
	out, err := report.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w := report.NewWriter(out)
	switch mode {
	case "crash":
		fmt.Fprintln(os.Stderr, "panic: out of cheese")
		fmt.Fprintln(os.Stderr, "goroutine 1 [running]:")
		return 2
	case "final":
		w.Faulty(report.Fault{Reason: "the host key of backup has changed", Final: true})
		return 1
	case "jsonlog":
		fmt.Fprintln(os.Stderr, `{"level":"error","error":"connection refused","message":"connect to backup"}`)
		fmt.Fprintln(os.Stderr, `{"level":"info","message":"bye"}`)
		return 1
	case "hang":
		w.Ready()
		unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
	case "child":
		sleeper := again("sleeper", "", state)
		sleeper.Stdout, sleeper.Stderr = os.Stdout, os.Stderr
		if err := sleeper.Start(); err != nil {
			return 1
		}
		note(filepath.Join(state, "sleeper"), fmt.Sprintln(sleeper.Process.Pid))
	}
	fmt.Fprintln(os.Stderr, `{"level":"info","message":"worker is here"}`)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	w.Ready()
	p := report.Progress{Crawl: status.HybridCrawl, Stime: 5, LastSynced: status.Time{Time: time.Unix(5, 0)}}
	if mode == "held" {
		p = heldProgress()
	}
	w.Progress(p)
	report.ReadCommands(os.Stdin, func(c report.Command) { note(filepath.Join(state, "told"), string(c.Verb)+"\n") })
	cancel()
	<-done
	note(filepath.Join(state, "told"), "eof\n")
	return 0
}

// fakeMarker holds the marker's lock and ends when nobody holds the users' lock.
func fakeMarker(mode string) int {
	state := os.Getenv(stateVar)
	note(filepath.Join(state, "markers"), fmt.Sprintln(os.Getpid()))
	if mode == "crash" {
		fmt.Fprintln(os.Stderr, "Error: no xattrs here")
		return 1
	}
	store, err := volume.OpenStore(state)
	if err != nil {
		return 1
	}
	files := store.Runtime("data")
	lock, err := volume.TryLock(files.MarkerLock, volume.Exclusive)
	if err != nil {
		return 3
	}
	defer lock.Close()
	for range time.Tick(50 * time.Millisecond) {
		if used, err := volume.Locked(files.UsersLock, volume.Exclusive); err != nil || !used {
			return 0
		}
	}
	return 0
}

// realMonitor is Run in a process of its own, for Spawn and for kill -9.
func realMonitor() int {
	store, err := volume.OpenStore(os.Getenv(stateVar))
	if err != nil {
		return 1
	}
	cfg := config(store, testSlave, os.Getenv(modeVar), "")
	if err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var testSlave = volume.Slave{Host: "backup", Volume: "copy"}

// config has a pace that a test can wait for.
func config(store *volume.Store, slave volume.Slave, worker, marker string) Config {
	return Config{
		Store: store, Master: "data", Slave: slave,
		WorkerCommand: func() *exec.Cmd { return again("worker", worker, store.Dir()) },
		MarkerCommand: func() *exec.Cmd { return again("marker", marker, store.Dir()) },
		pace:          pace{hang: 2 * time.Second, stable: time.Minute, kill: 300 * time.Millisecond},
	}
}

func note(path, text string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteString(text)
}

// bench is a registry with one volume and sessions on it.
type bench struct {
	t     *testing.T
	store *volume.Store
}

func newBench(t *testing.T, slaves ...volume.Slave) *bench {
	t.Helper()
	store, err := volume.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateVolume(volume.NewVolume{Name: "data", Path: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store}
	for _, s := range append(slaves, testSlave) {
		if _, err := store.CreateSession(volume.Session{Master: "data", Slave: s}); err != nil {
			t.Fatal(err)
		}
		b.change(s, func(s *volume.Session) error { s.Started = true; return nil })
	}
	return b
}

func (b *bench) change(slave volume.Slave, f func(*volume.Session) error) {
	b.t.Helper()
	if _, err := b.store.UpdateSession("data", slave, f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) session() volume.Session {
	b.t.Helper()
	s, err := b.store.Session("data", testSlave)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// run starts Run in this process and returns what ends it and waits for that.
func (b *bench) run(cfg Config) (end func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	ended := false
	end = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(end)
	files := b.store.Files(cfg.Master, cfg.Slave)
	b.wait("the monitor", func() bool { _, ok := status.Running(files.Pid); return ok })
	return end
}

// until waits for a status, of the session with testSlave.
func (b *bench) until(what string, ok func(status.Status) bool) status.Status {
	b.t.Helper()
	var st status.Status
	b.wait(what, func() bool {
		var err error
		st, err = Status(b.store, b.session())
		return err == nil && ok(st)
	})
	return st
}

// wait waits for a condition that must come true; the bound is only there for a failing test to end.
func (b *bench) wait(what string, ok func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return ok(), nil }); err != nil {
		st, _ := Status(b.store, b.session())
		b.t.Fatalf("waiting for %s: %v; the status is %+v; log:\n%s", what, err, st, b.read("log"))
	}
}

// read returns a file of the state directory, "log" being the session's.
func (b *bench) read(name string) string {
	path := filepath.Join(b.store.Dir(), name)
	if name == "log" {
		path = b.store.Files("data", testSlave).Log
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	return string(data)
}

// pids returns the processes that noted themselves in a file.
func (b *bench) pids(name string) (pids []int) {
	for _, f := range strings.Fields(b.read(name)) {
		var pid int
		fmt.Sscan(f, &pid)
		pids = append(pids, pid)
	}
	return pids
}

func alivePid(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

// noneLeft fails if a worker or marker is alive. A marker that another session started is nobody's child here: it has
// given up its lock, and is given the moment to exit.
func (b *bench) noneLeft() {
	b.t.Helper()
	b.wait("the markers' end", func() bool {
		return !slices.ContainsFunc(b.pids("markers"), alivePid)
	})
	for _, name := range []string{"worker", "markers", "sleeper"} {
		for _, pid := range b.pids(name) {
			if alivePid(pid) {
				b.t.Errorf("%s: process %d is alive", name, pid)
			}
		}
	}
}

func inState(s status.State) func(status.Status) bool {
	return func(st status.Status) bool { return st.State == s }
}
