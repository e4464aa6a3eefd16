package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"georep/internal/events"
	"georep/internal/web/listen"
	"georep/volume"
)

// freePort is one that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// listener reads a stream of events.
type listener struct {
	*testing.T
	r    *bufio.Reader
	last string // id
}

func (x *site) listen(query, last string) *listener {
	x.Helper()
	r, err := http.NewRequestWithContext(x.Context(), "GET", x.url+"/api/v1/events"+query, nil)
	if err != nil {
		x.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { a.Body.Close() })
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		x.Fatalf("%s %v", a.Status, a.Header)
	}
	l := &listener{T: x.T, r: bufio.NewReader(a.Body)}
	l.line() // the greeting: it listens
	return l
}

func (l *listener) line() string {
	l.Helper()
	text, err := l.r.ReadString('\n')
	if err != nil {
		l.Fatal(err)
	}
	return strings.TrimSuffix(text, "\n")
}

// next is the message of the next event.
func (l *listener) next() string {
	l.Helper()
	for {
		text := l.line()
		if id, ok := strings.CutPrefix(text, "id: "); ok {
			l.last = id
		}
		data, ok := strings.CutPrefix(text, "data: ")
		if !ok {
			continue
		}
		var e struct{ Session, Message string }
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Session == "" || strings.Contains(data, "\x7f") {
			l.Fatalf("%v: %q", err, data)
		}
		return e.Message
	}
}

// TestEvents: who listens gets each event once, by session or all; who comes back gets what was missed.
func TestEvents(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	a, b := x.session("data", "h::a", active(0)), x.session("data", "h::b", active(0))
	append1 := x.journal(a)
	append2 := x.journal(b)
	append1("old")
	all, one := x.listen("", ""), x.listen("?session="+b.UUID, "")
	append1("first")
	if got := all.next(); got != "first" {
		t.Errorf("%q", got)
	}
	append2("second\x7f")
	if got := all.next(); got != "second\x7f" {
		t.Errorf("%q", got)
	}
	if got := one.next(); got != "second\x7f" {
		t.Errorf("of one session: %q", got)
	}
	append1("third")
	back := x.listen("", one.last)
	for got := ""; got != "third"; {
		got = back.next()
	}
	past := x.listen("?since=0&session="+a.UUID, "")
	if got := past.next() + " " + past.next() + " " + past.next(); got != "old first third" {
		t.Errorf("%q", got)
	}
	append1("fourth")
	for _, l := range []*listener{past, back} {
		if got := l.next(); got != "fourth" {
			t.Errorf("%q", got)
		}
	}
	x.get("/api/v1/events?session=none", 404)
	x.get("/api/v1/events?since=soon", 400)
}

// TestNobodyListens: then no journal is looked at, and streams are bounded.
func TestNobodyListens(t *testing.T) {
	x := newSite(t)
	var all []chan sessionEvent
	for {
		ch, ok := x.s.hub.join()
		if !ok {
			break
		}
		all = append(all, ch)
	}
	if len(all) != maxStreams {
		t.Errorf("%d streams", len(all))
	}
	x.get("/api/v1/events", 503)
	for range maxWaiting + 1 { // too slow
		x.s.hub.tell(t.Context(), []sessionEvent{{}})
	}
	if len(x.s.hub.to) != 0 {
		t.Errorf("%d slow ones are served still", len(x.s.hub.to))
	}
	for _, ch := range all {
		x.s.hub.leave(ch)
	}
}

// journal gives what adds an event to a session's.
func (x *site) journal(s volume.Session) func(string) {
	x.Helper()
	j, _, err := events.Open(x.store.Files(s.Master, s.Slave).Dir, 0)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { j.Close() })
	return func(message string) {
		x.Helper()
		if _, err := j.Append(events.Event{Time: time.Now(), Kind: events.StateChanged, Message: message}); err != nil {
			x.Fatal(err)
		}
	}
}

// TestEventsOfAClockSetBack: who comes back gets all of a session's events, in their order, also those whose time is earlier than that
// of the ones before.
func TestEventsOfAClockSetBack(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	a := x.session("data", "h::a", active(0))
	j, _, err := events.Open(x.store.Files(a.Master, a.Slave).Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	noon := time.Unix(1_800_000_000, 0)
	for i, at := range []time.Duration{0, time.Minute, -time.Hour, -time.Hour + time.Minute} {
		if _, err := j.Append(events.Event{Time: noon.Add(at), Kind: events.StateChanged, Message: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	all := x.listen("?since=0", "")
	back := x.listen("", fmt.Sprint(noon.Add(time.Minute).UnixNano())) // it got two
	if _, err := j.Append(events.Event{Kind: events.StateChanged, Message: "4"}); err != nil {
		t.Fatal(err)
	}
	for l, want := range map[*listener]string{all: "01234", back: "1234"} {
		got := l.next()
		for !strings.HasSuffix(got, "4") {
			got += l.next()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestReplaysAreBounded: who asks for the past waits while as many as may are sent it, or goes.
func TestReplaysAreBounded(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	x.journal(x.session("data", "h::a", active(0)))("old")
	h := x.s.hub
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	told := 0
	tell := func(sessionEvent) bool {
		told++
		return h.replay(gone, "", time.Time{}, func(sessionEvent) bool { t.Error("there are too many"); return false })
	}
	for range maxReplays - 1 {
		h.past <- struct{}{}
	}
	if h.replay(t.Context(), "", time.Time{}, tell) || told != 1 {
		t.Errorf("%d events were told", told)
	}
	for range maxReplays - 1 {
		<-h.past
	}
	l := x.listen("?since=0", "")
	if got := l.next(); got != "old" || len(h.past) > 1 {
		t.Errorf("%q", got)
	}
}

// TestHeadOfEvents: who asks for the head alone keeps no place among the streams.
func TestHeadOfEvents(t *testing.T) {
	x := newSite(t)
	a, err := http.Head(x.url + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v", a.Header)
	}
	listening := func() int {
		x.s.hub.mu.Lock()
		defer x.s.hub.mu.Unlock()
		return len(x.s.hub.to)
	}
	for end := time.Now().Add(time.Minute); listening() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has a stream still")
		}
	}
}

// TestStreamsEndWithTheServer: a server that ends says goodbye to those who listen, and waits for none of them.
func TestStreamsEndWithTheServer(t *testing.T) {
	x := newSite(t)
	d, err := listen.Open(listen.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, x.s.o, d) }()
	a, err := http.Get(d.URL + "api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	cancel()
	if text, err := io.ReadAll(a.Body); err != nil { // a stream that is cut off has no end
		t.Errorf("%v after %q", err, text)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNewsCostWhatIsNew: that something happens in a session does not have all read again that has happened before.
func TestNewsCostWhatIsNew(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	s := x.session("data", "backup::copy", active(0))
	list := newJournals(x.s.source)
	j, _, err := events.Open(x.store.Files(s.Master, s.Slave).Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	happen := func(n int) {
		t.Helper()
		for range n {
			if _, err := j.Append(events.Event{Kind: events.StateChanged, State: "Active", Message: "The session is Active"}); err != nil {
				t.Fatal(err)
			}
		}
		if got := list.look(); len(got) != n {
			t.Fatalf("%d events are new, not %d", len(got), n)
		}
	}
	happen(5000)
	happen(1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		happen(1)
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / 20
	info, err := os.Stat(events.File(x.store.Files(s.Master, s.Slave).Dir))
	if err != nil || each > uint64(info.Size())/4 {
		t.Errorf("%d bytes are allocated for an event, in a journal of %d bytes, %v", each, info.Size(), err)
	}
}
