package hooks

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"georep/internal/events"
	"georep/volume"
)

const patience = 30 * time.Second

// got is what a hook was given.
type got struct {
	Seq     uint64
	Kind    events.Kind
	Lost    uint64
	Path    string
	Message string
}

// server is a real one that answers what answer says, and keeps what it took.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	took    []got
	refused int
	header  http.Header
	body    []byte
	bodies  [][]byte
	answer  func(w http.ResponseWriter, n int) bool
}

func serve(t *testing.T, answer func(w http.ResponseWriter, n int) bool) *server {
	s := &server{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var g got
		if err != nil || json.Unmarshal(body, &g) != nil || r.Method != http.MethodPost {
			t.Errorf("%s %q: %v", r.Method, body, err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.answer != nil && !s.answer(w, len(s.took)+s.refused) {
			s.refused++
			return
		}
		s.took, s.header, s.body = append(s.took, g), r.Header, body
		s.bodies = append(s.bodies, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) seqs() (list []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.took {
		list = append(list, g.Seq)
	}
	return list
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type bench struct {
	t       *testing.T
	journal *events.Journal
	config  Config
	mu      sync.Mutex
	failed  []string
}

func newBench(t *testing.T, h volume.Hook) *bench {
	b := &bench{t: t}
	dir := t.TempDir()
	var err error
	if b.journal, _, err = events.Open(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.journal.Close() })
	b.config = Config{Dir: dir, Hook: h, pauseFirst: 4 * time.Millisecond, timeout: patience, Failed: func(hook string, err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.failed = append(b.failed, hook+": "+err.Error())
	}}
	return b
}

func (b *bench) start() *Runner {
	b.config.Last = b.journal.Last()
	return Start(b.config)
}

func (b *bench) add(kinds ...events.Kind) {
	b.t.Helper()
	for _, k := range kinds {
		if _, err := b.journal.Append(events.Event{Kind: k, Master: "data", Slave: "h::copy", Path: "a b", Message: "it happened"}); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) failures() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.failed, "\n")
}

// TestPost: each event once, in order, from where the hook is new; signed; only of the wanted kinds.
func TestPost(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, nil)
	b := newBench(t, volume.Hook{URL: s.URL + "/x", KeyFile: key, Kinds: []events.Kind{events.Failure}})
	b.add(events.Failure) // before there was a hook
	r := b.start()
	b.add(events.Failure, events.FirstSync, events.Failure)
	until(t, "both", func() bool { return len(s.seqs()) == 2 })
	b.add(events.Failure)
	r.Stop(b.journal.Last(), patience)
	if got := s.seqs(); !reflect.DeepEqual(got, []uint64{2, 4, 5}) {
		t.Errorf("told of %v", got)
	}
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write(s.body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); s.header.Get("X-Georep-Signature-256") != want {
		t.Errorf("signature %q, want %q", s.header.Get("X-Georep-Signature-256"), want)
	}
	if s.header.Get("X-Georep-Event") != "failure" || s.took[0].Path != "a b" || s.took[0].Lost != 0 {
		t.Errorf("%v, %+v", s.header, s.took[0])
	}
	// What came while nobody told is told at the next start.
	b.add(events.Failure, events.Failure)
	r = b.start()
	r.Stop(b.journal.Last(), patience)
	if got := s.seqs(); !reflect.DeepEqual(got, []uint64{2, 4, 5, 6, 7}) {
		t.Errorf("told of %v", got)
	}
	if Floor(b.config.Dir) != 7 {
		t.Errorf("the floor is %d", Floor(b.config.Dir))
	}
	// Another URL is another hook.
	b.config.Hook.URL = s.URL + "/y"
	b.start().Stop(b.journal.Last(), patience)
	if got := s.seqs(); len(got) != 5 {
		t.Errorf("a new hook is told of %v", got)
	}
}

// TestRetries: whatever is wrong with the receiver, no event is left out, and the trouble is told once.
func TestRetries(t *testing.T) {
	elsewhere := serve(t, nil)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		why    string
	}{
		"an error":      {func(w http.ResponseWriter) { w.WriteHeader(500) }, "answers 500"},
		"a refusal":     {func(w http.ResponseWriter) { w.WriteHeader(404) }, "answers 404"},
		"a redirect":    {func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(307) }, "redirects are not followed"},
		"a broken line": {brokenLine, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, n int) bool {
				if n%4 == 3 {
					return true
				}
				c.answer(w)
				return false
			})
			b := newBench(t, volume.Hook{URL: s.URL})
			r := b.start()
			b.add(events.Failure, events.FailureGone)
			until(t, "both", func() bool { return len(s.seqs()) == 2 })
			r.Stop(0, 0)
			if got := s.seqs(); !reflect.DeepEqual(got, []uint64{1, 2}) || s.refused != 6 {
				t.Errorf("told of %v after %d refusals", got, s.refused)
			}
			if text := b.failures(); strings.Count(text, "\n") != 1 || !strings.Contains(text, c.why) {
				t.Errorf("failures: %q", text)
			}
		})
	}
	if len(elsewhere.seqs()) != 0 {
		t.Error("a redirect was followed")
	}
	endless := serve(t, func(w http.ResponseWriter, n int) bool {
		for range 100 { // more than is read
			if _, err := w.Write(make([]byte, maxAnswer)); err != nil {
				break
			}
		}
		return true
	})
	b := newBench(t, volume.Hook{URL: endless.URL})
	r := b.start()
	b.add(events.Failure)
	r.Stop(1, patience)
	if got := endless.seqs(); len(got) == 0 {
		t.Error("a long answer is taken for a failure")
	}
}

// TestSecretsStay: what fails is told by the receiver's host alone. The rest of the address, which lets in whoever knows it, is in no
// log and no journal.
func TestSecretsStay(t *testing.T) {
	refuses := serve(t, func(w http.ResponseWriter, _ int) bool { w.WriteHeader(403); return false })
	moved := serve(t, func(w http.ResponseWriter, _ int) bool { w.WriteHeader(302); return false })
	cut := serve(t, func(w http.ResponseWriter, _ int) bool { brokenLine(w); return false })
	half := serve(t, func(w http.ResponseWriter, _ int) bool {
		w.Header().Set("Content-Length", "100")
		return true
	})
	gone := serve(t, nil)
	gone.Close()
	for _, s := range []*server{refuses, moved, cut, half, gone} {
		host := strings.TrimPrefix(s.URL, "http://")
		b := newBench(t, volume.Hook{URL: "http://me:hush@" + host + "/services/hush?token=hush"})
		r := b.start()
		b.add(events.Failure)
		until(t, "the failure", func() bool { return b.failures() != "" })
		r.Stop(0, 0)
		if text := b.failures(); strings.Contains(text, "hush") || !strings.Contains(text, host) {
			t.Errorf("failures: %q", text)
		}
	}
}

// TestFailureIsToldOnce: a hook that fails to be told of its own failure does not make another event of that, and so on for ever. And
// one that takes events but no paths is not told of as failing again each time.
func TestFailureIsToldOnce(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, n int) bool {
		if n%2 == 0 {
			w.WriteHeader(500)
		}
		return n%2 == 1
	})
	b := newBench(t, volume.Hook{URL: s.URL})
	note := b.config.Failed
	b.config.Failed = func(hook string, err error) {
		note(hook, err)
		if _, err := b.journal.Append(events.Event{Kind: events.HookFailed, Name: hook}); err != nil {
			t.Error(err)
		}
	}
	r := b.start()
	b.add(events.Failure)
	until(t, "both", func() bool { return len(s.seqs()) >= 2 })
	r.Stop(b.journal.Last(), patience)
	if n := b.journal.Last(); n != 2 {
		t.Errorf("one failure makes %d events", n-1)
	}

	refused := make(chan struct{}, 1000)
	b = newBench(t, volume.Hook{URL: s.URL, Changed: true})
	h := b.config.hooks()[0]
	h.tell = func(_ context.Context, _ []byte, e *events.Event) error {
		if e.Kind == Changed {
			refused <- struct{}{}
			return fmt.Errorf("nothing to do with %s", e.Kind)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.runChanged(ctx) }()
	h.paths.add(true, nil)
	for range 4 {
		<-refused
		if err := h.tellOne(ctx, &events.Event{Seq: 1, Kind: events.Failure}, 0); err != nil {
			t.Error(err)
		}
	}
	cancel()
	<-done
	if text := b.failures(); strings.Count(text, "\n") != 0 || text == "" {
		t.Errorf("failures: %q", text)
	}
}

// brokenLine cuts the connection.
func brokenLine(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
}

// TestLost: what the journal has no more is counted, whether the hook wants the event that comes next or not.
func TestLost(t *testing.T) {
	s := serve(t, nil)
	b := newBench(t, volume.Hook{URL: s.URL, Kinds: []events.Kind{events.FirstSync}})
	b.start().Stop(0, 0)
	b.journal.Skip(3)
	b.add(events.Failure, events.FirstSync)
	b.start().Stop(b.journal.Last(), patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.took) != 2 || s.took[0].Lost != 3 || s.took[0].Seq != 4 || s.took[1].Lost != 0 {
		t.Errorf("%+v", s.took)
	}
}

// TestCommand: the event on standard input, a clean environment, and whatever takes too long is killed with all its children.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GEOREP_TEST_SECRET", "x")
	out := filepath.Join(dir, "out")
	script := func(text string) volume.Hook {
		path := filepath.Join(dir, "hook")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return volume.Hook{Command: []string{path, "a b", out}}
	}
	b := newBench(t, script(`pwd >> "$2"; env | sort >> "$2"; echo "$1" >> "$2"; cat >> "$2"`))
	r := b.start()
	b.add(events.Failure)
	r.Stop(1, patience)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err, b.failures())
	}
	for _, want := range []string{"/\n", "GEOREP_KIND=failure\nGEOREP_MASTER=data\nGEOREP_SEQ=1\nGEOREP_SLAVE=h::copy\n", "a b\n", `"seq":1,`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "SECRET") {
		t.Errorf("the environment is not clean:\n%s", text)
	}

	b = newBench(t, script(`echo "no way" >&2; exit 3`))
	r = b.start()
	b.add(events.Failure)
	until(t, "the failure", func() bool { return strings.Contains(b.failures(), "exit status 3: no way") })
	r.Stop(1, patience) // it does not wait for what fails
	if Floor(b.config.Dir) != 0 {
		t.Error("what failed counts as told")
	}

	// What fails is tried again: what it left running would grow with each try.
	b = newBench(t, script(`echo $$ > "$2.left"; sleep 1000 >/dev/null 2>&1 & exit 1`))
	r = b.start()
	b.add(events.Failure)
	until(t, "the failure", func() bool { return b.failures() != "" })
	r.Stop(0, 0)
	left, err := os.ReadFile(out + ".left")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the end of what was left", func() bool { return !groupLives(strings.TrimSpace(string(left))) })

	b = newBench(t, script(`echo $$ > "$2.pid"; sleep 1000 & sleep 1000`))
	b.config.timeout = 500 * time.Millisecond
	r = b.start()
	b.add(events.Failure)
	until(t, "the failure", func() bool { return strings.Contains(b.failures(), context.DeadlineExceeded.Error()) })
	r.Stop(0, 0)
	pid, err := os.ReadFile(out + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the end of all", func() bool { return !groupLives(strings.TrimSpace(string(pid))) })
}

// groupLives tells whether a process of that group runs.
func groupLives(pid string) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if len(fields) > 2 && fields[2] == pid && fields[0] != "Z" {
			return true
		}
	}
	return false
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct {
		text string
		mode os.FileMode
		why  string
	}{{"k\n", 0o600, ""}, {"k", 0o400, ""}, {"k", 0o640, "chmod 600"}, {"k", 0o604, "chmod 600"}, {"\n", 0o600, "1 to"},
		{strings.Repeat("k", maxKey+1), 0o600, "1 to"}} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		key, err := readKey(path)
		if c.why == "" && (err != nil || string(key) != "k") || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%d: %q, %v", i, key, err)
		}
	}
	if _, err := readKey(dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a directory: %v", err)
	}
	if err := os.Chown(filepath.Join(dir, "0"), 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := readKey(filepath.Join(dir, "0")); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("somebody else's: %v", err)
	}
}

// TestRecordIsDamaged: of what nobody knows whether it was told, all is told.
func TestRecordIsDamaged(t *testing.T) {
	s := serve(t, nil)
	b := newBench(t, volume.Hook{URL: s.URL})
	b.add(events.Failure, events.Failure)
	if err := os.WriteFile(recordFile(b.config.Dir, "url"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start().Stop(b.journal.Last(), patience)
	if got := s.seqs(); !reflect.DeepEqual(got, []uint64{1, 2}) {
		t.Errorf("told of %v", got)
	}
}
