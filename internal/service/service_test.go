package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/status"
	"georep/volume"
)

// host is a state directory with a service.
type host struct {
	t     *testing.T
	store *volume.Store
	mu    sync.Mutex
	told  []string
	end   func() error
}

func newHost(t *testing.T, sessions ...string) *host {
	t.Helper()
	s, err := volume.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, store: s}
	for _, name := range sessions {
		if _, err := s.CreateVolume(volume.NewVolume{Name: name, Path: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
		slave, err := volume.ParseSlave("file://" + t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateSession(volume.Session{Master: name, Slave: slave, Config: map[string]string{}}); err != nil {
			t.Fatal(err)
		}
		h.toRun(name, true)
	}
	return h
}

// toRun has the registry say whether a session is to run.
func (h *host) toRun(name string, started bool) {
	h.t.Helper()
	s := h.session(name)
	if _, err := h.store.UpdateSession(s.Master, s.Slave, func(s *volume.Session) error { s.Started = started; return nil }); err != nil {
		h.t.Fatal(err)
	}
}

// child, in the environment, makes this binary a monitor: it holds its pid file, and ends at once where a file says so.
const child = "GEOREP_SERVICE_CHILD"

func TestMain(m *testing.M) {
	pidFile := os.Getenv(child)
	if pidFile == "" {
		os.Exit(m.Run())
	}
	if _, err := os.Stat(pidFile + ".dies"); err == nil {
		os.Exit(3)
	}
	pid, err := status.AcquirePid(pidFile)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer pid.Close()
	time.Sleep(5 * time.Minute)
}

func (h *host) run() *host {
	h.t.Helper()
	o := Options{Store: h.store, Log: zerolog.New(zerolog.NewTestWriter(h.t)),
		Monitor: func(s volume.Session) *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), child+"="+h.store.Files(s.Master, s.Slave).Pid)
			return cmd
		},
		Notify: func(state string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if !slices.Contains(h.told, state) {
				h.told = append(h.told, state)
			}
		},
		Watchdog: 50 * time.Millisecond,
		pace: pace{look: time.Hour, first: time.Millisecond, most: 50 * time.Millisecond, steady: time.Hour, lock: time.Second,
			farewell: 10 * time.Second, statePoll: 5 * time.Millisecond}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	h.end = func() error {
		cancel()
		return <-done
	}
	h.t.Cleanup(func() { cancel() })
	return h
}

func (h *host) session(name string) volume.Session {
	h.t.Helper()
	list, err := h.store.Sessions()
	if err != nil {
		h.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s volume.Session) bool { return s.Master == name })
	return list[i]
}

func (h *host) files(name string) volume.Files {
	s := h.session(name)
	return h.store.Files(s.Master, s.Slave)
}

// pid waits until a session's monitor runs, as another process than not.
func (h *host) pid(name string, not int) int {
	h.t.Helper()
	var pid int
	h.until(name+" runs", func() bool {
		var running bool
		pid, running = status.Running(h.files(name).Pid)
		return running && pid != not && pid != 0
	})
	return pid
}

func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain until %s; the manager was told %q", what, h.said())
		}
	}
}

func (h *host) said() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told)
}

func (h *host) heard(word string) bool {
	return slices.ContainsFunc(h.said(), func(s string) bool { return strings.HasPrefix(s, word) })
}

// TestSupervises: what is to run runs, again after it was killed, and ends with the service, which says all the while how it stands.
func TestSupervises(t *testing.T) {
	h := newHost(t, "one", "two", "off")
	h.toRun("off", false)
	h.run()
	one, two := h.pid("one", 0), h.pid("two", 0)
	if err := unix.Kill(one, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := h.pid("one", one)
	if pid, _ := status.Running(h.files("two").Pid); pid != two {
		t.Errorf("the other session's monitor was %d and is %d", two, pid)
	}
	if _, running := status.Running(h.files("off").Pid); running {
		t.Error("a session that was stopped runs")
	}
	h.until("the manager was told", func() bool {
		return h.heard("READY=1") && h.heard("WATCHDOG=1") && h.heard("STATUS=2 sessions: 2 Initializing")
	})
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{again, two} {
		if unix.Kill(pid, 0) == nil {
			t.Errorf("monitor %d lives on", pid)
		}
	}
	if !h.session("one").Started || !h.heard("STOPPING=1") {
		t.Error("the end of the service stopped a session for good, or was not told")
	}
}

// TestOrders: a command has a session started that is new, or was stopped; a session that is stopped is not started again.
func TestOrders(t *testing.T) {
	h := newHost(t, "one")
	if Dial(h.store) != nil {
		t.Fatal("a service is found where none runs")
	}
	s := h.session("one")
	h.run()
	first := h.pid("one", 0)
	h.toRun("one", false)
	if err := unix.Kill(first, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.until("it has ended", func() bool { _, running := status.Running(h.files("one").Pid); return !running })
	c := Dial(h.store)
	if c == nil {
		t.Fatal("the service is not found")
	}
	if err := c.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), "not to run") {
		t.Errorf("started though it is stopped: %v", err)
	}
	h.toRun("one", true)
	if err := c.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	second := h.pid("one", first)
	if err := c.Start(t.Context(), s); err != nil {
		t.Errorf("started once more: %v", err)
	}
	if pid := h.pid("one", 0); pid != second {
		t.Errorf("it was %d and is %d", second, pid)
	}
	if err := c.Approve(t.Context(), s, "1"); err == nil || !strings.Contains(err.Error(), "nothing is pending") {
		t.Errorf("approved though nothing was refused: %v", err)
	}
	if err := h.store.RefusePurge(s.Master, s.Slave, volume.Purge{Entries: 3}); err != nil {
		t.Fatal(err)
	}
	p, err := h.store.Purge(s.Master, s.Slave)
	if err == nil {
		err = c.Approve(t.Context(), s, p.ID)
	}
	if p, perr := h.store.Purge(s.Master, s.Slave); err != nil || perr != nil || p.Approved == nil {
		t.Errorf("approved %v: %v, %v", p.Approved, err, perr)
	}
	if st, err := os.Stat(Socket(h.store)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st.Mode(), err)
	}
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
}

// TestStoppedWhileItWaits: a session that is stopped while its monitor waits to be tried again is not started any more, and a monitor
// that was started in just that moment ends.
func TestStoppedWhileItWaits(t *testing.T) {
	h := newHost(t, "one")
	dies := h.files("one").Pid + ".dies"
	if err := os.WriteFile(dies, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.run()
	h.until("the service waits to try again", func() bool { return h.heard("STATUS=1 session: 1 Stopped") })
	h.toRun("one", false)
	h.until("it is not tried again", func() bool { return h.heard("STATUS=0 sessions") })
	if err := os.Remove(dies); err != nil {
		t.Fatal(err)
	}
	h.toRun("one", true)
	if err := Dial(h.store).Start(t.Context(), h.session("one")); err != nil {
		t.Fatal(err)
	}
	h.toRun("one", false)
	if err := Dial(h.store).Start(t.Context(), h.session("one")); err == nil { // the registry is read for each order
		t.Fatal("it was started though it is stopped")
	}
	h.until("it has ended", func() bool { _, running := status.Running(h.files("one").Pid); return !running })
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
}

// TestNotTaken: that somebody else runs the session, or that the service is between its end and its beginning, is told as such: it is
// no reason to stop the session.
func TestNotTaken(t *testing.T) {
	h := newHost(t, "one")
	s := h.session("one")
	lock, err := volume.TryLock(lockFile(h.store), volume.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if err := Dial(h.store).Start(t.Context(), s); !errors.Is(err, ErrAway) {
		t.Errorf("without a socket: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	pid, err := status.AcquirePid(h.files("one").Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pid.Close()
	h.run()
	h.until("it is ready", func() bool { return h.heard("READY=1") })
	var running *status.RunningError
	if err := Dial(h.store).Start(t.Context(), s); !errors.As(err, &running) || running.Pid != os.Getpid() {
		t.Errorf("started by another: %v", err)
	}
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
}

// TestMonitorThatDies: one that cannot live is tried again and again, and harms no other.
func TestMonitorThatDies(t *testing.T) {
	h := newHost(t, "good", "bad")
	dies := h.files("bad").Pid + ".dies"
	if err := os.MkdirAll(filepath.Dir(dies), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dies, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.run()
	good := h.pid("good", 0)
	if err := os.Remove(dies); err != nil {
		t.Fatal(err)
	}
	h.pid("bad", 0)
	if pid := h.pid("good", 0); pid != good {
		t.Errorf("the good one was %d and is %d", good, pid)
	}
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
}

// TestOneService: a state directory has one, and what an earlier one left does no harm.
func TestOneService(t *testing.T) {
	h := newHost(t)
	if err := os.WriteFile(Socket(h.store), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.run()
	h.until("it is ready", func() bool { return h.heard("READY=1") })
	err := Run(t.Context(), Options{Store: h.store, Log: zerolog.Nop(), pace: pace{lock: 50 * time.Millisecond}})
	if !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
}

func TestJournal(t *testing.T) {
	var message string
	var level journal.Priority
	var vars map[string]string
	j := NewJournal("data backup::copy")
	j.Send = func(m string, p journal.Priority, v map[string]string) error {
		message, level, vars = m, p, v
		return nil
	}
	write := func(line string) {
		t.Helper()
		if n, err := j.Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Fatal(n, err)
		}
	}
	write(`{"level":"warn","from":"worker","path":"d/f","lost":"its owner","time":"2026-01-01T00:00:00Z","message":"the slave's file system cannot keep something of this entry"}`)
	if level != journal.PriWarning || message != "the slave's file system cannot keep something of this entry: d/f" ||
		vars["ENTRY"] != "d/f" || vars["SESSION"] != "data backup::copy" || vars["GEOREP_LOST"] != "its owner" || vars["MESSAGE_ID"] != idNotKept {
		t.Errorf("%q %v %q", message, level, vars)
	}
	write("panic: no line of JSON")
	if message != "panic: no line of JSON" || vars["SESSION"] != "data backup::copy" {
		t.Errorf("%q %q", message, vars)
	}
	write(`{"level":"error","message":"worker started","pid":12}`)
	if level != journal.PriErr || vars["GEOREP_PID"] != "12" || vars["MESSAGE_ID"] != idProcess {
		t.Errorf("%v %q", level, vars)
	}
}

// TestKindsAreSaid: a message whose words were changed would lose its id without a word.
func TestKindsAreSaid(t *testing.T) {
	said := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "integration") {
			return cmp.Or(err, fs.SkipDir)
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "journal.go" {
			return nil
		}
		text, err := os.ReadFile(path)
		for message := range kinds {
			said[message] = said[message] || strings.Contains(string(text), strconv.Quote(message))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for message := range kinds {
		if !said[message] {
			t.Errorf("nobody says %q", message)
		}
	}
}
