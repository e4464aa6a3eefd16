package web

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"georep/internal/events"
	"georep/status"
	"georep/volume"
)

const (
	// hubEvery is how often the journals are looked at, while anybody listens.
	hubEvery = 500 * time.Millisecond
	// aliveEvery is how often a stream says that it lives, lest a proxy cut it off.
	aliveEvery = 15 * time.Second
	// maxStreams bounds those who listen at once, and maxWaiting what waits for a slow one, who is then cut off: it comes back, and
	// asks for what it missed.
	maxStreams = 32
	maxWaiting = 1024
	// maxReplays bounds those who are sent the past at once; the others wait. It is in memory meanwhile, and whoever asks may take long
	// to read it.
	maxReplays = 2
	// overlap is by how much a stream that comes back begins earlier than where it ended: events of several sessions are in no order.
	overlap = 2 * time.Second
)

// sessionEvent is an event with the session that it is of.
type sessionEvent struct {
	Session string `json:"session"`
	events.Event
	at time.Time // where it stands among those of other sessions: its time, or that of an earlier one, where the clock was set back since
}

// MarshalJSON adds the session to what the event says of itself.
func (e sessionEvent) MarshalJSON() ([]byte, error) {
	rest, err := e.Event.MarshalJSON()
	if err != nil || len(rest) < 2 {
		return rest, err
	}
	id, err := json.Marshal(e.Session)
	return append(append([]byte(`{"session":`), id...), append([]byte{','}, rest[1:]...)...), err
}

// hub reads the journals of all sessions for all who listen.
type hub struct {
	source *source
	mu     sync.Mutex
	to     map[chan sessionEvent]bool
	stop   context.CancelFunc
	past   chan struct{} // as many as are sent the past
}

func newHub(s *source) *hub {
	return &hub{source: s, to: map[chan sessionEvent]bool{}, past: make(chan struct{}, maxReplays)}
}

// join lets somebody listen; false where there are too many. The channel is closed for one that is too slow.
func (h *hub) join() (ch chan sessionEvent, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.to) >= maxStreams {
		return nil, false
	}
	ch = make(chan sessionEvent, maxWaiting)
	h.to[ch] = true
	if len(h.to) == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		go h.run(ctx, newJournals(h.source))
	}
	return ch, true
}

func (h *hub) leave(ch chan sessionEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(ch)
}

func (h *hub) drop(ch chan sessionEvent) {
	if !h.to[ch] {
		return
	}
	delete(h.to, ch)
	close(ch)
	if len(h.to) == 0 {
		h.stop()
	}
}

func (h *hub) run(ctx context.Context, j *journals) {
	tick := time.NewTicker(hubEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.tell(ctx, j.look())
	}
}

func (h *hub) tell(ctx context.Context, list []sessionEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil { // another one runs by now
		return
	}
	for ch := range h.to {
		for _, e := range list {
			select {
			case ch <- e:
				continue
			default:
			}
			h.drop(ch)
			break
		}
	}
}

// journals remembers how far each journal was read.
type journals struct {
	source *source
	began  time.Time           // what is older is not new
	seen   map[string]*journal // by session
}

type journal struct {
	file os.FileInfo  // as it was when this began; nil: there was none
	tail *events.Tail // nil: nothing was read yet
}

// newJournals begins with what is there by now, and reads nothing of it.
func newJournals(s *source) *journals {
	j := &journals{source: s, began: time.Now(), seen: map[string]*journal{}}
	now := s.snapshot()
	for _, one := range now.Sessions {
		info, err := os.Stat(events.File(s.store.Files(one.Master, one.Slave).Dir))
		if err != nil {
			info = nil
		}
		j.seen[one.ID] = &journal{file: info}
	}
	return j
}

// look gives what is new in all of them, by time. One that has not grown costs one system call.
func (j *journals) look() (list []sessionEvent) {
	s := j.source.snapshot()
	for _, one := range s.Sessions {
		at := j.seen[one.ID]
		if at == nil {
			at = &journal{}
			j.seen[one.ID] = at
		}
		for _, e := range at.news(j.source.store.Files(one.Master, one.Slave), j.began) {
			list = append(list, sessionEvent{Session: one.ID, Event: e})
		}
	}
	sortEvents(list)
	return list
}

func (at *journal) news(f volume.Files, began time.Time) []events.Event {
	first := at.tail == nil
	if first {
		info, err := os.Stat(events.File(f.Dir))
		if err != nil || at.file != nil && os.SameFile(info, at.file) && info.Size() == at.file.Size() {
			return nil
		}
		at.tail = events.NewTail(f.Dir, 0)
	}
	list, err := at.tail.News()
	if err != nil {
		return nil
	}
	if first {
		list = slices.DeleteFunc(list, func(e events.Event) bool { return e.Time.Before(began) })
	}
	return list
}

// sortEvents merges the sessions' events by time. Those of one session, which come by their numbers, stay as they are.
func sortEvents(list []sessionEvent) {
	for i := range list {
		list[i].at = list[i].Time
		if i > 0 && list[i-1].Session == list[i].Session && list[i-1].at.After(list[i].at) {
			list[i].at = list[i-1].at
		}
	}
	slices.SortStableFunc(list, func(a, b sessionEvent) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Session, b.Session))
	})
}

// replay tells the events of all sessions, or of one, after a moment; false where that came to no end.
func (h *hub) replay(ctx context.Context, id string, after time.Time, tell func(sessionEvent) bool) bool {
	select {
	case h.past <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-h.past }()
	for _, e := range h.after(id, after) {
		if !tell(e) {
			return false
		}
	}
	return true
}

func (h *hub) after(id string, after time.Time) (list []sessionEvent) {
	s := h.source.snapshot()
	for _, one := range s.Sessions {
		if id != "" && id != one.ID {
			continue
		}
		got, err := events.Read(h.source.store.Files(one.Master, one.Slave).Dir, 0)
		if err != nil {
			continue
		}
		for _, e := range got {
			list = append(list, sessionEvent{Session: one.ID, Event: e})
		}
	}
	sortEvents(list)
	from, _ := slices.BinarySearchFunc(list, after, func(e sessionEvent, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1
	})
	return list[from:]
}

// events is a stream of server-sent events: what happens from now on, or from where the client was cut off.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("session")
	if id != "" && s.source.snapshot().find(id) == nil {
		http.Error(w, "there is no such session", http.StatusNotFound)
		return
	}
	since, resumes, err := sinceOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ch, ok := s.hub.join()
	if !ok {
		http.Error(w, "too many streams are open", http.StatusServiceUnavailable)
		return
	}
	defer s.hub.leave(ch)
	w.Header().Set("Content-Type", "text/event-stream")
	out := &stream{w: w, c: http.NewResponseController(w), sent: map[string]uint64{}, only: id}
	if !out.write(": georep\n\n") || r.Method == http.MethodHead { // who asks for the head alone is sent no more, and would keep its place
		return
	}
	if resumes && !s.hub.replay(r.Context(), id, since, out.event) {
		return
	}
	out.follow(r.Context(), ch)
}

// sinceOf is from when on somebody wants events: by the id of the last one, or as it says.
func sinceOf(r *http.Request) (since time.Time, some bool, err error) {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			return since, false, fmt.Errorf("Last-Event-ID %q is none of ours", last)
		}
		return time.Unix(0, n).Add(-overlap), true, nil
	}
	text := r.URL.Query().Get("since")
	if text == "" {
		return since, false, nil
	}
	if text == "0" {
		return since, true, nil
	}
	since, err = time.Parse(time.RFC3339, text)
	if err != nil {
		return since, false, fmt.Errorf("since %q is no time: write it as 2006-01-02T15:04:05Z, or 0 for all that is kept", text)
	}
	return since, true, nil
}

// stream is one client's.
type stream struct {
	w    http.ResponseWriter
	c    *http.ResponseController
	sent map[string]uint64 // the last number by session: what was read from the past comes by the hub, too
	only string
}

func (s *stream) follow(ctx context.Context, ch <-chan sessionEvent) {
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		good := true
		select {
		case <-ctx.Done():
			return
		case e, open := <-ch:
			good = open && s.event(e)
		case <-alive.C:
			good = s.write(": alive\n\n")
		}
		if !good {
			return
		}
	}
}

func (s *stream) event(e sessionEvent) bool {
	if s.only != "" && s.only != e.Session || e.Seq <= s.sent[e.Session] {
		return true
	}
	s.sent[e.Session] = e.Seq
	var b lines
	if err := json.NewEncoder(status.JSONWriter{W: &b}).Encode(e); err != nil {
		return true
	}
	return s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Time.UnixNano(), e.Kind, b))
}

// lines is what JSON is written to; it is one line.
type lines []byte

func (l *lines) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\n' {
			*l = append(*l, c)
		}
	}
	return len(b), nil
}

// write says something at once. A client that takes nothing for long is cut off.
func (s *stream) write(text string) bool {
	_ = s.c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	return s.c.Flush() == nil
}
