package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"georep/internal/events"
	"georep/internal/history"
	"georep/internal/web/listen"
	"georep/status"
	"georep/volume"
)

// nasty are names that a page, a terminal or a program may take for something else.
var nasty = []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "a\xff\xfeb", "new\nline\r\x1b[2J", "\u202egnp.exe", "{{.Title}}",
	`' onmouseover='alert(1)`, "javascript:alert(1)", "\x00", "</style><script>"}

func TestGuard(t *testing.T) {
	x := newSite(t)
	for _, c := range []struct {
		method, host string
		code         int
	}{
		{"GET", "", 200}, {"HEAD", "", 200}, {"GET", "localhost:5", 200}, {"GET", "evil.example:80", 421}, {"POST", "", 405}, {"DELETE", "", 405},
		{"OPTIONS", "", 405}, {"POST", "evil.example", 421},
	} {
		r, err := http.NewRequest(c.method, x.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			r.Host = c.host
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != c.code {
			t.Errorf("%s for %q: %s, want %d", c.method, c.host, a.Status, c.code)
		}
		csp := a.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s for %q: headers %v", c.method, c.host, a.Header)
		}
	}
	x.get("/nothing", 404)
	x.get("/session/nothing", 404)
	x.get("/api/v1/sessions/nothing", 404)
	x.get("/static/base.html", 404)
	x.get("/static/..%2fpage.go", 404)
	if text := x.get("/", 200); !strings.Contains(text, "Nothing is replicated") {
		t.Error(text)
	}
	if x.get("/api/v1/sessions", 200) != "[]\n" {
		t.Error("the empty list is none")
	}
}

// TestHostileNames: no name gets out of its place on a page, and none comes out raw.
func TestHostileNames(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	st := active(3)
	st.State, st.Reason = status.Faulty, strings.Join(nasty, " ")
	for _, n := range nasty {
		st.Failures = append(st.Failures, status.Failure{Path: n, Op: n, Error: n, Since: status.Time{Time: time.Now()}})
		st.Waiting = append(st.Waiting, status.Waiting{Path: n})
	}
	st.FailuresTotal, st.Filter, st.NotKept, st.Marker = len(nasty), nasty[0], nasty[1], nasty[2]
	s := x.session("data", "file:///b<script>alert(1)</script>\xff\"'\x1b", st)
	j, _, err := events.Open(x.store.Files(s.Master, s.Slave).Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, n := range nasty {
		if _, err := j.Append(events.Event{Time: time.Now(), Kind: events.Failure, Path: n, Message: n, Reason: n}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/", "/session/" + s.UUID, "/session/" + s.UUID + "?span=%3Cscript%3E"} {
		checkPage(t, path, x.get(path, 200))
	}
	for _, path := range []string{"/api/v1/sessions", "/api/v1/sessions/" + s.UUID} {
		text := x.get(path, 200)
		if !json.Valid([]byte(text)) || strings.ContainsAny(text, "\x1b\x00\x7f") || strings.Contains(text, "<script") {
			t.Errorf("%s: %s", path, text)
		}
	}
	if text := x.get("/healthz", 503); strings.ContainsAny(text, "\x1b\x00\r") {
		t.Errorf("%q", text)
	}
}

// checkPage finds elements and attributes that no template has, and characters that nobody can see.
func checkPage(t *testing.T, path, text string) {
	t.Helper()
	allowed := strings.Fields("html head meta title link noscript script body header a span main p section h1 h2 b i table thead tbody tr th td svg path " +
		"small footer code div nav figure figcaption ul li dl dt dd ol time details summary wbr")
	for _, r := range text {
		if r < ' ' && r != '\n' || r == 0x7f || r == 0x202e {
			t.Errorf("%s: %q comes out raw", path, r)
		}
	}
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8", path)
	}
	scripts := 0
	for z := html.NewTokenizer(strings.NewReader(text)); z.Next() != html.ErrorToken; {
		token := z.Token()
		if token.Type != html.StartTagToken && token.Type != html.SelfClosingTagToken {
			continue
		}
		if !slices.Contains(allowed, token.Data) {
			t.Errorf("%s: there is an element %s", path, token.Data)
		}
		if token.Data == "script" {
			scripts++
		}
		for _, a := range token.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.HasPrefix(strings.ToLower(a.Val), "javascript:") {
				t.Errorf("%s: %s has %s=%q", path, token.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%s: %d scripts", path, scripts)
	}
}

// TestHealth: red while one session is Faulty, or misses its objective.
func TestHealth(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	a := x.session("data", "h::a", active(0))
	x.session("data", "h::b", active(1e6))
	if text := x.get("/healthz", 200); text != "ok: 2 sessions\n" {
		t.Errorf("%q", text)
	}
	st := active(90)
	st.ObjectiveSeconds, st.Objective = 60, status.ObjectiveMissed
	x.write(a, st)
	if text := x.get("/healthz", 503); !strings.HasPrefix(text, "data h::a: misses its objective: behind by 1m") {
		t.Errorf("%q", text)
	}
	st = active(0)
	st.State, st.Reason = status.Faulty, "no space"
	x.write(a, st)
	if text := x.get("/healthz", 503); !strings.Contains(text, "Faulty: no space") {
		t.Errorf("%q", text)
	}
	list := x.get("/", 200)
	if strings.Index(list, "h::a") > strings.Index(list, "h::b") || !strings.Contains(list, "1 session needs attention") {
		t.Errorf("trouble does not come first: %s", list)
	}
	x.write(a, active(0))
	x.get("/healthz", 200)
	if err := os.WriteFile(x.store.Files(a.Master, a.Slave).Status, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	x.s.source.last = nil
	x.get("/healthz", 503)
	x.get("/metrics", 200)
	x.get("/", 200)
}

// TestOneSession: the page and the API have what the session's files have.
func TestOneSession(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	st := active(2.501)
	st.Failures, st.FailuresTotal = []status.Failure{{Path: "a/b", Op: "write", Error: "permission denied"}}, 150
	s := x.session("data", "h::a", st)
	x.stopClock()
	x.s.recorder.record(x.s.source.snapshot())
	j, _, err := events.Open(x.store.Files(s.Master, s.Slave).Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Append(events.Event{Time: time.Now(), Kind: events.FirstSync, Message: "the slave is in step for the first time"}); err != nil {
		t.Fatal(err)
	}
	for _, span := range []string{"hour", "day", "week"} {
		text := x.get("/session/"+s.UUID+"?span="+span, 200)
		for _, want := range []string{"a/b", "write: permission denied", "... and 149 more", "the slave is in step for the first time", "now 2.5 s",
			"max-delete", `aria-label="Lag over the last ` + span} {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
	var one oneJSON
	if err := json.Unmarshal([]byte(x.get("/api/v1/sessions/"+s.UUID, 200)), &one); err != nil {
		t.Fatal(err)
	}
	lags := one.History.Lag["max"]
	if last := lags[len(lags)-1]; one.Level != "warning" || one.ID != s.UUID || len(lags) != 360 || last == nil || int(*last) != 2 || lags[0] != nil ||
		one.Settings["max-delete"] != "50" || one.Status.FailuresTotal != 150 {
		t.Errorf("%+v", one)
	}
}

// TestSecretsOfHooks: neither the page nor the API shows what lets whoever knows it in elsewhere.
func TestSecretsOfHooks(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	s := x.session("data", "h::a", active(0))
	_, err := x.store.UpdateSession(s.Master, s.Slave, func(s *volume.Session) error {
		return errors.Join(s.Set("hook-url", "https://me:secret@chat.example.org/hooks/secret?t=secret"), s.Set("hook-command", "/usr/bin/tell --token secret"))
	})
	if err != nil {
		t.Fatal(err)
	}
	x.s.source.last = nil
	for _, path := range []string{"/session/" + s.UUID, "/api/v1/sessions/" + s.UUID} {
		text := x.get(path, 200)
		if strings.Contains(text, "secret") || !strings.Contains(text, "https://chat.example.org/ ...") || !strings.Contains(text, "/usr/bin/tell ...") {
			t.Errorf("%s: %s", path, text)
		}
	}
}

// TestRecorder: what a session was is there after the server has been started again; a session that is gone is forgotten.
func TestRecorder(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	s := x.session("data", "h::a", active(5))
	now := x.stopClock()
	x.s.recorder.record(x.s.source.snapshot())
	x.s.recorder.close()
	again := newRecorder(x.s.source, x.s.o.Log)
	defer again.close()
	again.record(x.s.source.snapshot())
	if lags := again.lags(s.UUID); len(lags) != sparkSlots || int(lags[sparkSlots-2]) != 5 || int(lags[sparkSlots-1]) != 5 {
		t.Errorf("%v", lags)
	}
	second := newRecorder(x.s.source, x.s.o.Log) // another process's
	second.record(x.s.source.snapshot())
	if len(second.lags(s.UUID)) != sparkSlots {
		t.Error("who may not write the history knows no lags")
	}
	points, err := history.Read(historyFile(x.store.Files(s.Master, s.Slave)), now, history.Week)
	if err != nil || int(points[len(points)-1].Avg[history.Lag]) != 5 {
		t.Errorf("%v, %v", points[len(points)-1], err)
	}
	again.record(&Snapshot{Time: now})
	if again.lags(s.UUID) != nil || len(again.writers) != 0 {
		t.Error("a session that is gone is remembered")
	}
}

// TestTwoHundred: however many ask at once, the files of 200 sessions are read once; and a request takes no time by itself.
func TestTwoHundred(t *testing.T) {
	x := newSite(t)
	x.many(200)
	x.s.source.now = func() time.Time { return time.Unix(1_900_000_000, 0) } // within one second
	x.s.source.last = nil
	before := x.s.source.reads.Load()
	begin := time.Now()
	list := x.get("/", 200)
	first := time.Since(begin)
	begin = time.Now()
	for _, path := range []string{"/", "/metrics", "/healthz", "/api/v1/sessions"} {
		code := 200
		if path == "/healthz" {
			code = 503
		}
		x.get(path, code)
	}
	t.Logf("the page, read anew: %v; four more requests: %v; the page has %d KiB", first, time.Since(begin), len(list)>>10)
	if n := x.s.source.reads.Load() - before; n != 1 {
		t.Errorf("the files were read %d times for five requests", n)
	}
	if strings.Count(list, `class="name"`) != 200 || len(list) > 1<<20 {
		t.Errorf("%d bytes", len(list))
	}
}

// TestToken: a bearer's, or a browser's password; without it there is nothing.
func TestToken(t *testing.T) {
	x := newSite(t)
	path := t.TempDir() + "/token"
	if err := os.WriteFile(path, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := listen.Open(listen.Options{Listen: "127.0.0.1:0", TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- Run(t.Context(), x.s.o, d) }()
	t.Cleanup(func() { <-done })
	for _, c := range []struct {
		header string
		code   int
	}{{"", 401}, {"Bearer x", 401}, {"Bearer 0123456789abcdef", 200}, {"Basic eDowMTIzNDU2Nzg5YWJjZGVm", 200}, {"Basic eDp4", 401}} {
		for _, path := range []string{"", "metrics", "healthz", "api/v1/events", "static/style.css"} {
			if path == "api/v1/events" && c.code == 200 {
				continue // it does not end
			}
			r, err := http.NewRequest("GET", d.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", c.header)
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if a.StatusCode != c.code {
				t.Errorf("%q %s: %s", c.header, path, a.Status)
			}
		}
	}
}
