package hint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
)

// at is an xtime of a test.
func at(n int) xtime.Time { return xtime.Time(100+n) << 32 }

// sample is the hint of the n-th mark.
func sample(n int) *Hint {
	return &Hint{Xtime: at(n), Dirs: []Dir{
		{GFID: xtime.GFID{1}, Names: []Name{{Name: "a\nb\xff"}, {Name: strings.Repeat("n", 255)}}},
		{GFID: xtime.GFID{2}, Before: at(n - 1), Whole: true},
		{GFID: xtime.GFID{3}, Before: at(n - 1), Names: []Name{{Name: fmt.Sprint("d", n), Dir: xtime.GFID{1}}}},
	}}
}

func TestHintsComeBack(t *testing.T) {
	h := sample(1)
	h.Seq = 7
	b, ok := encode(h)
	if !ok {
		t.Fatal("not encoded")
	}
	m, err := decode(b)
	if err != nil || m.seq != 7 || !reflect.DeepEqual(m.hint, h) {
		t.Fatalf("%+v came back as %+v, %v", h, m.hint, err)
	}
	for size := range b {
		// A hint may well end between two directories; its frame's checksum is there for that.
		if m, err := decode(b[:size]); err == nil && len(m.hint.Dirs) == len(h.Dirs) {
			t.Errorf("%d of %d bytes: %v", size, len(b), err)
		}
	}
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Hint){
		"no time":            func(h *Hint) { h.Xtime = 0 },
		"no directory":       func(h *Hint) { h.Dirs = nil },
		"no gfid":            func(h *Hint) { h.Dirs[0].GFID = xtime.GFID{} },
		"not later":          func(h *Hint) { h.Dirs[1].Before = h.Xtime },
		"a time that is not": func(h *Hint) { h.Dirs[1].Before = 1<<32 - 1 },
		"no name":            func(h *Hint) { h.Dirs[0].Names[0].Name = "" },
		"a path":             func(h *Hint) { h.Dirs[0].Names[0].Name = "a/b" },
		"the way up":         func(h *Hint) { h.Dirs[0].Names[0].Name = ".." },
		"a name too long":    func(h *Hint) { h.Dirs[0].Names[1].Name += "n" },
	} {
		h := sample(1)
		change(h)
		b, _ := encode(h)
		if _, err := decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTooMuchIsNotTold(t *testing.T) {
	h := sample(1)
	for i := range MaxNames {
		h.Dirs[0].Names = append(h.Dirs[0].Names, Name{Name: fmt.Sprint(i)})
	}
	b, ok := encode(h)
	if m, err := decode(b); !ok || err != nil || !m.hint.Dirs[0].Whole || len(m.hint.Dirs) != 3 {
		t.Errorf("too many names of one directory: %v, %v", ok, err)
	}
	long := Dir{GFID: xtime.GFID{9}}
	for i := range MaxFrame / 250 / 2 {
		long.Names = append(long.Names, Name{Name: fmt.Sprintf("%0250d", i)})
	}
	h.Dirs = []Dir{long, long, long}
	if _, ok := encode(h); ok {
		t.Error("a hint beyond the limit was encoded")
	}
}

// FuzzReceive feeds the worker's end whatever.
func FuzzReceive(f *testing.F) {
	h := sample(1)
	b, _ := encode(h)
	f.Add(append([]byte(preface), append(frame(appendGap(3)), frame(b)...)...))
	f.Add([]byte(preface))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got := &recorder{}
		if err := receive(bytes.NewReader(b), got); err == nil {
			t.Fatal("the stream never ended")
		}
		if _, err := decode(b); err == nil && len(b) > 9 {
			m, _ := decode(b)
			if again, ok := encode(m.hint); !ok || len(again) > 2*len(b) {
				t.Fatalf("%d bytes decode to something of %d", len(b), len(again))
			}
		}
	})
}

// recorder is a sink that remembers, as text, what came.
type recorder struct {
	mu    sync.Mutex
	lines []string
	block chan struct{} // where set, a hint waits for it
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s)
}

func (r *recorder) Up() { r.add("up") }
func (r *recorder) Hint(h *Hint) {
	if r.block != nil {
		<-r.block
	}
	r.add(fmt.Sprint(uint64(h.Xtime>>32) - 100))
}
func (r *recorder) Gap()  { r.add("gap") }
func (r *recorder) Down() { r.add("down") }

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, " ")
}

func (r *recorder) wait(t *testing.T, what string, ok func(string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok(r.text()) {
		select {
		case <-ctx.Done():
			t.Fatalf("never came: %s; there is %q", what, r.text())
		case <-tick.C:
		}
	}
}

func ends(s string) func(string) bool {
	return func(all string) bool { return strings.HasSuffix(all, s) }
}

// follower runs Follow until the test ends.
func follower(t *testing.T, dir string, r *recorder) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { Follow(ctx, dir, r) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Listen(dir, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// deep is a directory whose path no socket address could hold.
func deep(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 60))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSubscribersGetAllInOrder(t *testing.T) {
	dir := deep(t)
	s := listen(t, dir)
	if st, err := os.Stat(filepath.Join(dir, File)); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	if s.Wanted() {
		t.Error("somebody listens")
	}
	all := []*recorder{{}, {}, {}}
	for _, r := range all {
		follower(t, dir, r)
		r.wait(t, "a connection", ends("up gap"))
	}
	if !s.Wanted() {
		t.Error("nobody listens")
	}
	want := "up gap"
	for n := range 50 {
		s.Publish(sample(n + 1))
		want += fmt.Sprint(" ", n+1)
	}
	s.Gap()
	for _, r := range all {
		r.wait(t, "all hints", func(text string) bool { return text == want+" gap" })
	}
}

func TestSubscribersComeBackAfterAnEnd(t *testing.T) {
	dir := deep(t)
	r := &recorder{}
	stop := follower(t, dir, r) // before anybody listens
	for n := range 3 {
		s := listen(t, dir)
		r.wait(t, "a connection", ends("up gap"))
		s.Publish(sample(n))
		r.wait(t, "the hint", ends(fmt.Sprint("gap ", n)))
		if n == 1 {
			// A marker that was killed leaves its socket behind.
			s.listener.Close()
			s.mu.Lock()
			for sub := range s.subs {
				sub.conn.Close()
			}
			s.mu.Unlock()
		} else if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		r.wait(t, "the end", ends("down"))
	}
	stop()
	if _, err := os.Stat(filepath.Join(dir, File)); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestSlowSubscriberGetsAGap: what waits for one that does not read is bounded, delays nobody, and what it gets in the end
// is whole hints, a gap, and then hints again.
func TestSlowSubscriberGetsAGap(t *testing.T) {
	dir := deep(t)
	s := listen(t, dir)
	s.mu.Lock()
	s.limit = 4 << 10
	s.mu.Unlock()
	slow, quick := &recorder{block: make(chan struct{})}, &recorder{}
	follower(t, dir, slow)
	follower(t, dir, quick)
	slow.wait(t, "a connection", ends("up gap"))
	quick.wait(t, "a connection", ends("up gap"))
	const many = 5000 // far more than sockets and queue hold
	for n := range many {
		s.Publish(sample(n + 1))
		if n%4 == 0 { // the quick one is never far behind
			quick.wait(t, "the hint", ends(fmt.Sprint(" ", n+1)))
		}
	}
	quick.wait(t, "the last", ends(fmt.Sprint(" ", many)))
	if n := strings.Count(quick.text(), "gap"); n != 1 {
		t.Errorf("the quick one got %d gaps", n)
	}
	s.mu.Lock()
	for sub := range s.subs {
		sub.mu.Lock()
		if sub.bytes > s.limit {
			t.Errorf("%d bytes wait", sub.bytes)
		}
		sub.mu.Unlock()
	}
	s.mu.Unlock()
	close(slow.block)
	s.Publish(sample(many + 1))
	slow.wait(t, "the last", ends(fmt.Sprint(" ", many+1)))
	words := strings.Fields(slow.text())[2:]
	gaps := 0
	last := 0
	for _, w := range words {
		n := 0
		if w == "gap" {
			gaps++
			last = -1
			continue
		}
		fmt.Sscan(w, &n)
		if last >= 0 && n != last+1 {
			t.Fatalf("%d follows %d without a gap", n, last)
		}
		last = n
	}
	if gaps == 0 || len(words) > many {
		t.Errorf("%d gaps among %d words", gaps, len(words))
	}
}

// TestSubscribersThatGoAreForgotten, and one that talks is dismissed.
func TestSubscribersThatGoAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s := listen(t, dir)
	for _, talk := range []bool{true, false} {
		c, err := net.Dial("unix", filepath.Join(dir, File))
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return s.Wanted() })
		if talk {
			c.Write([]byte("x"))
		} else {
			c.Close()
		}
		waitFor(t, func() bool { return !s.Wanted() })
		c.Close()
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	(&recorder{}).wait(t, "a condition", func(string) bool { return ok() })
}

// TestCutAnywhere: a stream that breaks off gives whole hints only.
func TestCutAnywhere(t *testing.T) {
	stream := []byte(preface)
	for n := range 3 {
		h := sample(n + 1)
		h.Seq = uint64(n + 1)
		b, _ := encode(h)
		stream = append(stream, frame(b)...)
	}
	for size := range stream {
		r := &recorder{}
		if err := receive(bytes.NewReader(stream[:size]), r); err == nil {
			t.Fatal("no error")
		}
		if want := "up gap 1 2 3"; size >= len(preface) && !strings.HasPrefix(want, strings.TrimSuffix(strings.TrimSuffix(r.text(), "down"), " ")) {
			t.Fatalf("%d bytes: %q", size, r.text())
		}
		// A byte that is not what was sent: never another hint.
		bad := bytes.Clone(stream)
		bad[size] ^= 0x10
		r = &recorder{}
		_ = receive(bytes.NewReader(bad), r)
		for _, w := range strings.Fields(r.text()) {
			if !strings.Contains(" up down gap 1 2 3 ", " "+w+" ") {
				t.Fatalf("byte %d changed: %q", size, r.text())
			}
		}
	}
}

// TestNilServer: a marker without a socket marks all the same.
func TestNilServer(t *testing.T) {
	var s *Server
	s.Publish(sample(1))
	s.Gap()
	if s.Wanted() || s.Close() != nil {
		t.Error("a nil Server does something")
	}
}
