package crawler_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// halves is a master on two servers, as a distributed volume is. While one of them is away, what lies on it is not found, and everything
// else is answered as if nothing were missing.
type halves struct {
	w     *world
	asked int64 // calls of a Source so far
	goes  int64 // the call at which one server goes away; 0: at none
	back  int64 // the one at which it is there again; 0: at none
	away  bool
	gen   int64    // counts how often a server went away or came back
	dirs  []string // that have files on both servers
	blind bool     // Intact says that all is well
	busy  chan struct{}
}

var halvedDirs = []string{"a", "a/sub"}

var errBrick = fmt.Errorf("%w: a brick is down: b1", source.ErrNotMaster)

// move takes what lies on the second server away, or puts it back.
func (h *halves) move(away bool) {
	for _, d := range h.dirs {
		here, there := h.w.at(d), h.w.master+".away/"+d
		if !away {
			here, there = there, here
		}
		list, err := os.ReadDir(here)
		h.w.ok(err)
		for _, e := range list {
			if strings.HasPrefix(e.Name(), "second") {
				h.w.ok(os.Rename(here+"/"+e.Name(), there+"/"+e.Name()))
			}
		}
	}
	h.away = away
	h.gen++
}

// call counts a call, and moves what has its turn.
func (h *halves) call() {
	h.busy <- struct{}{}
	defer func() { <-h.busy }()
	n := atomic.AddInt64(&h.asked, 1)
	if n == h.goes {
		h.move(true)
	}
	if n == h.back && h.away {
		h.move(false)
	}
}

func (h *halves) open(c *source.Config) (source.Source, error) {
	m, err := source.OpenLocal(c)
	if err != nil {
		return nil, err
	}
	return &halved{m, h, h.gen}, nil
}

// halved is one pass over halves.
type halved struct {
	source.Source
	h   *halves
	gen int64
}

func (s *halved) Check() error {
	if s.h.away {
		return errBrick
	}
	return s.Source.Check()
}

func (s *halved) Intact() error {
	s.h.busy <- struct{}{}
	defer func() { <-s.h.busy }()
	if s.h.blind || s.gen == s.h.gen && !s.h.away {
		return nil
	}
	return errBrick
}

func (s *halved) Open(path string, gfid xtime.GFID) (*source.Directory, error) {
	s.h.call()
	return s.Source.Open(path, gfid)
}

func (s *halved) List(d *beneath.Dir, part, parts uint32, atRoot bool) ([]beneath.Entry, int, error) {
	s.h.call()
	list, total, err := s.Source.List(d, part, parts, atRoot)
	s.h.call()
	return list, total, err
}

func (s *halved) Reader(path string, d *beneath.Dir, unmarked bool) source.Reader {
	return halvedReader{s.Source.Reader(path, d, unmarked), s.h}
}

func (s *halved) Meta(d *beneath.Dir, name string, st *beneath.Stat) (slave.Meta, error) {
	s.h.call()
	return s.Source.Meta(d, name, st)
}

func (s *halved) OpenContent(d *beneath.Dir, e *plan.Entry) (slave.Content, error) {
	s.h.call()
	return s.Source.OpenContent(d, e)
}

type halvedReader struct {
	source.Reader
	h *halves
}

func (r halvedReader) Entry(name string) (plan.Entry, error) {
	r.h.call()
	return r.Reader.Entry(name)
}

// newHalves has a slave in step, and changes on the master that it does not have yet.
func newHalves(t *testing.T, hints bool) *halves {
	w := newMaster(t, t.TempDir(), t.TempDir())
	w.maxDelete = 100 // the limit must not be what helps
	h := &halves{w: w, dirs: halvedDirs, busy: make(chan struct{}, 1)}
	w.source = h.open
	if hints {
		w.hints = &crawler.Hints{}
	}
	for _, d := range halvedDirs {
		w.ok(os.MkdirAll(w.master+".away/"+d, 0o755))
		for k := range 2 {
			w.write(fmt.Sprintf("%s/first%d", d, k), "one")
			w.write(fmt.Sprintf("%s/second%d", d, k), "two")
		}
	}
	t.Cleanup(func() { os.RemoveAll(w.master + ".away") })
	w.connect()
	w.mark("")
	w.inStep()
	w.write("a/second1", "changed")
	w.write("a/sub/second1", "changed")
	w.write("a/sub/first2", "new")
	w.ok(os.Remove(w.at("a/first0")))
	changed := []string{"a/first0", "a/second1", "a/sub/first2", "a/sub/second1"}
	if hints {
		w.tell(changed...)
	} else {
		w.mark(changed...)
	}
	h.asked = 0
	return h
}

// lost counts what the slave lacks of what the master has on both servers.
func (h *halves) lost() (n int) {
	for _, d := range halvedDirs {
		for k := range 2 {
			for _, half := range []string{"first", "second"} {
				path := fmt.Sprintf("%s/%s%d", d, half, k)
				if _, err := os.Lstat(h.w.there(path)); errors.Is(err, os.ErrNotExist) && path != "a/first0" {
					n++
				}
			}
		}
	}
	return n
}

// TestPartOfMasterMissing: while a part of the master is missing, or was since the crawl began, nothing that cannot be seen is removed,
// and nothing is stamped. The crawl says what is missing. The next one with all of it there brings the slave in step. It goes away at
// each call of the source, for the rest of the crawl or for two calls.
func TestPartOfMasterMissing(t *testing.T) {
	for _, hints := range []bool{false, true} {
		whole := newHalves(t, hints)
		whole.w.inStep()
		calls := whole.asked
		if calls < 10 {
			t.Fatalf("hints %v: a crawl makes %d calls", hints, calls)
		}
		for n := int64(1); n <= calls; n++ {
			back := int64(0) // only before the next crawl
			if n%2 == 0 {
				back = n + 2
			}
			t.Run(fmt.Sprintf("hints %v, call %d to %d of %d", hints, n, back, calls), func(t *testing.T) {
				h := newHalves(t, hints)
				h.goes, h.back = n, back
				_, err := h.w.crawler.Pass(t.Context())
				if !errors.Is(err, errBrick) {
					t.Errorf("the crawl says %v", err)
				}
				if lost := h.lost(); lost > 0 {
					t.Errorf("%d files were removed", lost)
				}
				if h.away {
					if _, err := h.w.crawler.Look(t.Context()); !errors.Is(err, errBrick) {
						t.Errorf("a look says %v", err)
					}
					h.move(false)
				}
				h.goes, h.back = 0, 0
				h.w.mark(halvedDirs...) // as renames do here, which are none on such a volume
				h.w.inStep()
			})
		}
	}
}

// TestPartOfMasterMissingUnasked: without the question the files are lost, so the test above can fail.
func TestPartOfMasterMissingUnasked(t *testing.T) {
	worst := 0
	for n := int64(1); n < 10; n++ {
		h := newHalves(t, false)
		h.blind, h.goes = true, n
		_, _ = h.w.crawler.Pass(t.Context()) // whatever it says
		worst = max(worst, h.lost())
	}
	if worst < 2 {
		t.Errorf("at most %d files were removed", worst)
	}
}

// TestPartOfMasterMissingWhileCompared: neither a dry run nor a comparison tells of a master of which a part was missing meanwhile without
// saying so.
func TestPartOfMasterMissingWhileCompared(t *testing.T) {
	for what, compare := range map[string]func(h *halves) error{
		"dry run": func(h *halves) error {
			there := h.w.aside()
			defer there.Close()
			_, err := crawler.DryRun(t.Context(), crawler.Options{Root: h.w.root, Path: h.w.master, Names: h.w.names,
				VolumeMark: func() xtime.Time { return h.w.volume }, Source: crawler.SourceOptions{Open: h.open}},
				crawler.DryRunOptions{Slave: there, Marked: true, Found: func(crawler.Change) {}})
			return err
		},
		"verify": func(h *halves) error {
			there := h.w.aside()
			defer there.Close()
			_, err := h.w.crawler.Verify(t.Context(), there, func(crawler.Difference) {})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHalves(t, false)
			h.w.inStep()
			if err := compare(h); err != nil {
				t.Fatal(err)
			}
			h.asked, h.goes, h.back = 0, 3, 5
			if err := compare(h); !errors.Is(err, errBrick) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

// TestPartOfMasterMissingAsksNobody: what seems to be gone because a part of the master is missing is nothing to be approved. That a
// master is empty is refused before anything is sent, so no batch has asked yet.
func TestPartOfMasterMissingAsksNobody(t *testing.T) {
	asked := 0
	for n := int64(1); n <= 3; n++ {
		for _, blind := range []bool{false, true} {
			h := newHalves(t, false)
			h.w.inStep()
			h.w.rename("a", "second")
			h.w.mark("second", "")
			h.w.inStep()
			h.dirs = []string{""} // which then holds nothing
			h.w.maxDelete = 0
			h.w.connect()
			h.w.mark("")
			h.asked, h.goes, h.blind = 0, n, blind
			_, err := h.w.crawler.Pass(t.Context())
			refused := limit.Refused(err) != nil
			switch {
			case blind && refused:
				asked++
			case !blind && (refused || !errors.Is(err, errBrick)):
				t.Errorf("call %d: the crawl says %v", n, err)
			}
		}
	}
	if asked == 0 {
		t.Error("nothing would have been refused either")
	}
}
