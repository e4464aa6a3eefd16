package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
	"georep/marker"
	"georep/status"
)

// watched is a session with everything that watches it: the web server, a check, the log, and a hook.
type watched struct {
	*session
	proxy  *proxy.Proxy
	client http.Client
	hooked string // what the hook's command was given, a line each
	page   string // of the session
}

// newWatched starts a session over a line that can be cut, and what watches it.
func newWatched(t *testing.T, master, slave string) *watched {
	t.Helper()
	w := &watched{session: newSession(t, master, slave)}
	var err error
	if w.proxy, err = proxy.New(w.sshd.Addr(), proxy.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.proxy.Close() })
	dir := t.TempDir()
	known, err := os.ReadFile(w.sshd.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	// The proxy's port is another one, and the keys are the server's.
	there := fmt.Sprintf("[%s]:%d", w.sshd.Host, w.proxy.Port())
	text := strings.ReplaceAll(string(known), fmt.Sprintf("[%s]:%d", w.sshd.Host, w.sshd.Port), there)
	writeFile(t, filepath.Join(dir, "known"), text)
	script := filepath.Join(dir, "hook")
	w.hooked = filepath.Join(dir, "told")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntr '\\n' ' ' >>"+w.hooked+"\necho >>"+w.hooked+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.port = w.proxy.Port()
	w.must(w.start("--known-hosts", filepath.Join(dir, "known"), "--retry-max", "1s", "--max-lag", "1m", "--hook-command", script,
		"--free-deletes", "0"))
	socket := filepath.Join(dir, "web.sock")
	ctx, cancel := context.WithCancel(context.Background())
	web := w.command(ctx, "web", "--listen", "unix:"+socket)
	web.Cancel = func() error { return web.Process.Signal(unix.SIGTERM) }
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = web.Wait() })
	w.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	w.until("the session is on the page", func() bool {
		var list struct{ Sessions []struct{ ID string } }
		text, _ := w.get("/api/v1/sessions")
		if json.Unmarshal([]byte(text), &list.Sessions) != nil && json.Unmarshal([]byte(text), &list) != nil || len(list.Sessions) != 1 {
			return false
		}
		w.page = "/session/" + list.Sessions[0].ID
		return true
	})
	return w
}

// get asks the web server.
func (w *watched) get(path string) (text string, code int) {
	resp, err := w.client.Get("http://localhost" + path)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode
}

// until waits for what must happen.
func (w *watched) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); pause(w.t, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			page, _ := w.get(w.page)
			told, _ := os.ReadFile(w.hooked)
			w.t.Fatalf("%s: not so. status --check: %+v\nthe page: %s\nthe hook was told: %s", what, w.run("status", "--check"), page, told)
		}
	}
}

// metric is the value of a metric of the session, "" where it has none.
func (w *watched) metric(name, label string) string {
	text, _ := w.get("/metrics")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label) {
			return strings.TrimSpace(line[strings.LastIndex(line, " ")+1:])
		}
	}
	return ""
}

// told tells whether the hook was told of an event of a kind with these words.
func (w *watched) told(kind, words string, from int64) bool {
	f, err := os.Open(w.hooked)
	if err != nil {
		return false
	}
	defer f.Close()
	b, _ := io.ReadAll(io.NewSectionReader(f, from, 1<<30))
	for line := range strings.Lines(string(b)) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) == nil && e["kind"] == kind && strings.Contains(line, words) {
			return true
		}
	}
	return false
}

// trouble is one way to break a session, and how that is seen.
type trouble struct {
	name        string
	broken      func(w *watched)
	mended      func(w *watched)
	code        int    // of status --check; 0: it is over before anybody can look
	words       string // the cause, as check, page, log and hook name it
	kind        string // of the event
	metric      string // which is not what it was
	label       string
	unhealthy   bool // /healthz is red
	notInStatus bool // the cause is an event that passes
}

// TestWatched breaks a session in many ways: each is seen in the check, the page, the metrics, the log and the hook, named by its
// cause, and gone again once it is mended.
func TestWatched(t *testing.T) {
	master, _ := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 256 << 20}))
	_, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 64 << 20}))
	for i := range 200 {
		writeFile(t, filepath.Join(master, fmt.Sprint("f", i)), "text")
	}
	w := newWatched(t, master, slave)
	w.waitSynced()
	authorized, err := os.ReadFile(w.sshd.AuthorizedKeys)
	if err != nil {
		t.Fatal(err)
	}
	faulty := trouble{code: 2, kind: "state", metric: "georep_session_state", label: `state="faulty"`, unhealthy: true}
	with := func(t trouble, name, words string, broken, mended func(*watched)) trouble {
		t.name, t.words, t.broken, t.mended = name, words, broken, mended
		return t
	}
	for _, c := range []trouble{
		with(faulty, "slave down", "host unreachable", func(w *watched) { w.sshd.Stop() }, func(w *watched) { w.check(w.sshd.Restart()) }),
		with(faulty, "key refused", "authentication refused", func(w *watched) {
			writeFile(w.t, w.sshd.AuthorizedKeys, "")
			w.sshd.KillSessions()
		}, func(w *watched) { writeFile(w.t, w.sshd.AuthorizedKeys, string(authorized)) }),
		with(faulty, "line cut", "127.0.0.1", func(w *watched) { w.proxy.Refuse(true); w.proxy.Cut() }, func(w *watched) { w.proxy.Refuse(false) }),
		with(faulty, "disk full", "takes nothing more", func(w *watched) {
			w.fill(slave)
			writeFile(w.t, filepath.Join(master, "large"), strings.Repeat("0123456789abcdef", 4<<20/16))
		}, func(w *watched) { w.check(os.Remove(filepath.Join(filepath.Dir(slave), "filling"))) }),
		with(faulty, "purge refused", "too much would be deleted", func(w *watched) {
			for i := range 180 {
				w.check(os.Remove(filepath.Join(master, fmt.Sprint("f", i))))
			}
		}, func(w *watched) { w.must(w.run("approve", w.masterArg, "--yes")) }),
		with(faulty, "master away", "the master is not there", func(w *watched) {
			w.check(os.Rename(master, master+".away"))
			w.check(os.Mkdir(master, 0o755))
		}, func(w *watched) {
			w.check(os.Remove(master))
			w.check(os.Rename(master+".away", master))
		}),
		{name: "held back", code: 1, words: "operation not permitted", kind: "failure", metric: "georep_failures", broken: func(w *watched) {
			w.immutable(filepath.Join(slave, "f190"), true)
			writeFile(w.t, filepath.Join(master, "f190"), "another text")
		}, mended: func(w *watched) { w.immutable(filepath.Join(slave, "f190"), false) }},
		{name: "marker overflow", notInStatus: true, words: "overflowed", kind: "queue-overflow", metric: "georep_queue_overflows_total",
			broken: func(w *watched) { w.overflow(master) }, mended: func(*watched) {}},
		{name: "worker killed", notInStatus: true, words: "worker", kind: "worker-restarted", metric: "georep_worker_restarts_total",
			broken: func(w *watched) { w.kill(w.status().WorkerPid) }, mended: func(*watched) {}},
		{name: "clock set back", code: 1, words: "set back by", kind: "clock-stepped", metric: "georep_clock_stepped",
			broken: func(w *watched) { w.setClockBack(20 * time.Second) }, mended: func(*watched) {}}, // until the clock has come up to it
	} {
		t.Run(c.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			w.suffer(&c)
		})
	}
}

// suffer goes through one trouble.
func (w *watched) suffer(c *trouble) {
	w.t.Helper()
	before := ""
	w.until("the metric is there", func() bool { before = w.metric(c.metric, c.label); return before != "" })
	var from int64
	if st, err := os.Stat(w.hooked); err == nil {
		from = st.Size()
	}
	c.broken(w)
	if !c.notInStatus {
		w.until("status --check says so", func() bool {
			r := w.run("status", "--check")
			return r.code == c.code && strings.Contains(r.stdout, c.words)
		})
		w.until("the page says so", func() bool {
			text, _ := w.get(w.page)
			return strings.Contains(html.UnescapeString(text), c.words)
		})
	}
	if c.unhealthy {
		w.until("/healthz is red", func() bool { text, code := w.get("/healthz"); return code == 503 && strings.Contains(text, c.words) })
	}
	w.until("the metric says so", func() bool { now := w.metric(c.metric, c.label); return now != "" && now != before })
	w.until("the hook is told", func() bool { return w.told(c.kind, c.words, from) })
	w.until("the log says so", func() bool { return strings.Contains(w.run("logs", w.masterArg, "-n", "200").stdout, c.words) })
	c.mended(w)
	writeFile(w.t, filepath.Join(w.master, "after"), c.name)
	w.waitSynced()
	w.until("status --check is green", func() bool { return w.run("status", "--check").code == 0 })
	w.until("/healthz is green", func() bool { _, code := w.get("/healthz"); return code == 200 })
	if !c.notInStatus {
		w.until("the metric is what it was", func() bool { return w.metric(c.metric, c.label) == before })
	}
	w.waitStatus("nothing is left", func(st status.Status) bool {
		return st.State == status.Active && st.FailuresTotal == 0 && st.Reason == ""
	})
}

func (w *watched) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// fill leaves next to no room, not even what is kept for root, on the file system that a directory lies on.
func (w *watched) fill(dir string) {
	w.t.Helper()
	var fs unix.Statfs_t
	w.check(unix.Statfs(dir, &fs))
	f, err := os.Create(filepath.Join(filepath.Dir(dir), "filling"))
	w.check(err)
	defer f.Close()
	for n := int64(fs.Bfree) * fs.Bsize; ; n -= 1 << 20 { // some goes to what maps the blocks
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); !errors.Is(err, unix.ENOSPC) {
			w.check(err)
			return
		}
	}
}

// overflow has more happen than the kernel keeps for a marker that stands still.
func (w *watched) overflow(dir string) {
	w.t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	w.check(err)
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	w.check(err)
	pid := w.markerPid()
	w.check(unix.Kill(pid, unix.SIGSTOP))
	defer unix.Kill(pid, unix.SIGCONT)
	for i := range most + 1000 { // those of one name count as one
		name := filepath.Join(dir, fmt.Sprint("o", i))
		w.check(os.Mkdir(name, 0o755))
		w.check(os.Remove(name))
	}
}

// setClockBack makes what was written down that of a clock which was ahead until now, as clocks_test.go does. No namespace has a wall clock
// of its own, and that of the machine belongs to all.
func (w *watched) setClockBack(by time.Duration) {
	w.t.Helper()
	w.must(w.run("stop", w.masterArg))
	w.waitGone()
	w.stepClock(-by)
	paths, err := filepath.Glob(filepath.Join(w.state, "sessions", "*", "status"))
	w.check(err)
	if len(paths) != 1 {
		w.t.Fatalf("%d sessions have a status", len(paths))
	}
	st, err := status.Read(paths[0])
	w.check(err)
	st.Updated = status.Time{Time: time.Now().Add(by)}
	w.check(status.Write(paths[0], st))
	w.must(w.run("start", w.masterArg, w.spec))
}

// markerPid is the process that marks the master.
func (w *watched) markerPid() int {
	w.t.Helper()
	st, err := marker.ReadStatus(filepath.Join(w.state, "volumes", "data.d"))
	w.check(err)
	if !isGeorep(st.PID) {
		w.t.Fatalf("%d is no marker", st.PID)
	}
	return st.PID
}

// immutable sets or clears the attribute that keeps root, too, from changing a file.
func (w *watched) immutable(path string, on bool) {
	w.t.Helper()
	f, err := os.Open(path)
	w.check(err)
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	w.check(err)
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	flags &^= immutable
	if on {
		flags |= immutable
	}
	w.check(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags))
}
