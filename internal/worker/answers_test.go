package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/marker/xtime"
	"georep/monitor/report"
	"georep/slave"
	"georep/slave/agent"
)

// stuck is a slave whose disk answers nothing until it is told to.
type stuck struct {
	slave.Tree
	answers chan struct{}
}

func (s *stuck) Info() slave.Info {
	return slave.Info{Version: "v", Namespace: xtime.Trusted, Path: "/s"}
}

func (s *stuck) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	select {
	case <-s.answers:
		return make([]slave.DirState, len(queries)), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *stuck) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	_, err := s.Survey(ctx, nil)
	return make([]slave.HashResult, len(paths)), err
}

func (s *stuck) Close() error { return nil }

// told is what a worker reports. It may be written to at any time.
type told struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *told) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(b)
}

// last is the last report and how many there are.
func (t *told) last(test *testing.T) (r report.Report, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := report.NewDecoder(bytes.NewReader(t.buf.Bytes())); ; n++ {
		next, err := d.Next()
		if err != nil {
			return r, n
		}
		r = next
	}
}

// wired is a worker's end of a session with such a slave, and what it reports.
type wired struct {
	tree   *agent.Group
	disk   *stuck
	teller *teller
	out    *told
}

// withStuck runs a test over the true protocol, with a slave that answers nothing.
func withStuck(t *testing.T, run func(t *testing.T, w *wired)) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		disk := &stuck{answers: make(chan struct{})}
		served := make(chan error, 1)
		go func() {
			served <- agent.Serve(context.Background(), there, "v", func(agent.Hello) (slave.Reader, error) { return disk, nil })
		}()
		hello := agent.Hello{Version: "v", Master: xtime.UUID{1}, Session: xtime.UUID{2}, Path: "/s"}
		tree, err := agent.DialGroup(context.Background(), hello, agent.GroupOptions{Streams: 1,
			Open: func(context.Context, int) (io.ReadWriteCloser, error) { return here, nil }})
		if err != nil {
			t.Fatal(err)
		}
		out := &told{}
		tl := &teller{reports: report.NewWriter(out), counters: &crawler.Counters{}, wire: new(atomic.Int64), clock: unset(), log: zerolog.Nop()}
		stop := watchAnswers(tree, tl.begin())
		run(t, &wired{tree, disk, tl, out})
		stop()
		tree.Close()
		// The client may have hung up while an answer, or a sign of life, was on its way.
		if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}

// TestSlaveThatOnlySaysItIsAlive: the status says that the slave answers nothing, what it was asked and since when, once, before
// it was ever looked at and after, and takes it back when an answer comes. The session lives all the while.
func TestSlaveThatOnlySaysItIsAlive(t *testing.T) {
	withStuck(t, func(t *testing.T, w *wired) {
		for round := range 2 {
			_, before := w.out.last(t)
			answered := make(chan error, 1)
			since := time.Now().UTC().Format(time.RFC3339)
			go func() {
				_, err := w.tree.Survey(context.Background(), []slave.Query{{}})
				answered <- err
			}()
			time.Sleep(50 * time.Second)
			if r, n := w.out.last(t); n != before {
				t.Errorf("told too early: %+v", r)
			}
			time.Sleep(20 * time.Second)
			r, n := w.out.last(t)
			if r.Kind != report.KindFaulty || r.Fault.Final || n != before+1 {
				t.Fatalf("round %d: after a minute without an answer: %+v, report %d", round, r, n)
			}
			for _, part := range []string{"survey", "since " + since, "disk"} {
				if !strings.Contains(r.Fault.Reason, part) {
					t.Errorf("%q does not say %q", r.Fault.Reason, part)
				}
			}
			time.Sleep(time.Hour)
			if _, again := w.out.last(t); again != n {
				t.Errorf("told %d times", again-n+1)
			}
			w.disk.answers <- struct{}{}
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			if round == 0 {
				w.teller.ready()
			}
			time.Sleep(2 * answersEvery)
			if r, _ := w.out.last(t); r.Kind != report.Ready {
				t.Errorf("round %d: it answered, and the last report is %+v", round, r)
			}
		}
	})
}

// TestTroubleBesideSilence: what the crawler is held up by is told again once the slave answers.
func TestTroubleBesideSilence(t *testing.T) {
	withStuck(t, func(t *testing.T, w *wired) {
		w.teller.ready()
		go w.tree.Survey(context.Background(), []slave.Query{{}})
		time.Sleep(70 * time.Second)
		w.teller.trouble(errors.New("the slave is full"))
		if r, _ := w.out.last(t); r.Kind != report.KindFaulty || !strings.Contains(r.Fault.Reason, "asked: survey") {
			t.Errorf("%+v", r)
		}
		close(w.disk.answers)
		time.Sleep(2 * answersEvery)
		if r, _ := w.out.last(t); r.Kind != report.KindFaulty || r.Fault.Reason != "the slave is full" {
			t.Errorf("%+v", r)
		}
		w.teller.trouble(nil)
		if r, _ := w.out.last(t); r.Kind != report.Ready {
			t.Errorf("%+v", r)
		}
	})
}

// TestWorkIsNotSilence: a slave that is not asked, that answers something else, or that hashes what may be large, is not accused.
func TestWorkIsNotSilence(t *testing.T) {
	withStuck(t, func(t *testing.T, w *wired) {
		time.Sleep(24 * time.Hour)
		go w.tree.Survey(context.Background(), []slave.Query{{}})
		for range 10 {
			time.Sleep(40 * time.Second)
			go w.tree.Survey(context.Background(), []slave.Query{{}})
			w.disk.answers <- struct{}{}
		}
		w.disk.answers <- struct{}{}
		go w.tree.Hash(context.Background(), []string{"large"})
		time.Sleep(50 * time.Minute)
		if r, n := w.out.last(t); n > 0 {
			t.Errorf("%+v", r)
		}
		time.Sleep(15 * time.Minute)
		if r, _ := w.out.last(t); r.Kind != report.KindFaulty || !strings.Contains(r.Fault.Reason, "asked: hash") {
			t.Errorf("%+v", r)
		}
		close(w.disk.answers)
	})
}

// TestCommandTellsOfSilence: a sync or a verify, which has no status, says on its log that the slave answers nothing, and that it
// does again.
func TestCommandTellsOfSilence(t *testing.T) {
	withStuck(t, func(t *testing.T, w *wired) {
		said := &told{}
		text := func() string {
			said.mu.Lock()
			defer said.mu.Unlock()
			return said.buf.String()
		}
		c := Config{Logger: zerolog.New(said)}
		c.Session.Slave.Host, c.Session.Slave.Path = "far", "/s"
		defer tellAnswers(&c, w.tree)()
		go w.tree.Survey(context.Background(), []slave.Query{{}})
		time.Sleep(50 * time.Second)
		if said := text(); said != "" {
			t.Errorf("said too early: %s", said)
		}
		time.Sleep(20 * time.Second)
		for _, part := range []string{"far", "answered nothing since", "survey"} {
			if !strings.Contains(text(), part) {
				t.Errorf("%q does not say %q", text(), part)
			}
		}
		close(w.disk.answers)
		time.Sleep(2 * answersEvery)
		if !strings.Contains(text(), "answers again") {
			t.Errorf("it answered: %q", text())
		}
	})
}
