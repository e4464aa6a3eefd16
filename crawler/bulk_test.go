package crawler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"georep/crawler"
	"georep/slave"
)

// gated is a slave that answers what takes long for a large file only once it may.
type gated struct {
	slave.Tree
	open chan struct{} // closed: it may
	// fails is what becomes of a segment, lost the end of the session instead.
	fails, lost error
}

// wait waits for the gate, if one of the paths is a large file's.
func (g *gated) wait(ctx context.Context, paths ...string) error {
	if !slices.ContainsFunc(paths, func(path string) bool { return strings.HasSuffix(path, "big") }) {
		return nil
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gated) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	if err := g.wait(ctx, paths...); err != nil {
		return nil, err
	}
	return g.Tree.Hash(ctx, paths)
}

func (g *gated) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	if err := g.wait(ctx, "big"); err != nil {
		return slave.Result{}, err
	}
	if g.lost != nil {
		return slave.Result{}, g.lost
	}
	if g.fails != nil {
		return slave.Result{Err: g.fails}, nil
	}
	return g.Tree.Write(ctx, s)
}

func (g *gated) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	if err := g.wait(ctx, "big"); err != nil {
		return slave.Result{}, err
	}
	return g.Tree.Sums(ctx, q, emit)
}

const bigSize = 2 << 20

func big(seed byte) string { return string(bytes.Repeat([]byte{seed, 'x', 'y', '\n'}, bigSize/4)) }

// bulkWorld is in step, with two large files and small ones beside and elsewhere, and has the gate shut.
func bulkWorld(t *testing.T, hints bool) (*world, *gated) {
	t.Helper()
	g := &gated{open: make(chan struct{})}
	close(g.open)
	w := newMaster(t, t.TempDir(), t.TempDir())
	if hints {
		w.hints = &crawler.Hints{}
		w.hints.Up()
	}
	w.wrap = func(t slave.Tree) slave.Tree { g.Tree = t; return g }
	w.connect()
	w.write("d/big", big('1'))
	w.write("d/small", "one")
	w.write("d/e/f", "one")
	w.write("other/f", "one")
	w.mark("d/big", "d/small", "d/e/f", "other/f")
	w.inStep()
	w.forget()
	g.open = make(chan struct{})
	w.crawler.Heavy(bigSize / 2)
	t.Cleanup(w.crawler.Beside(t.Context()))
	return w, g
}

// told marks, and delivers the hint where there are any.
func (w *world) told(paths ...string) {
	w.t.Helper()
	if h := w.hint(paths...); w.hints != nil {
		w.hints.Hint(h)
	}
}

// goesOn does a pass that must not wait for what is gated, nor claim what that keeps back.
func (w *world) goesOn() crawler.Outcome {
	w.t.Helper()
	type end struct {
		out crawler.Outcome
		err error
	}
	ended := make(chan end, 1)
	go func() {
		out, err := w.crawler.Pass(w.t.Context())
		ended <- end{out, err}
	}()
	select {
	case e := <-ended:
		w.ok(e.err)
		w.checkStamps()
		return e.out
	case <-time.After(time.Minute):
		w.t.Fatal("the crawl waits for a large file")
	}
	return crawler.Outcome{}
}

// TestLargeFileHoldsUpNothing: while a large file is compared, or on its way, other changes arrive, in its own directory as
// elsewhere, and are stamped as far as that is true.
func TestLargeFileHoldsUpNothing(t *testing.T) {
	for _, hints := range []bool{true, false} {
		for name, change := range map[string]func(w *world) string{
			"metadata":        func(w *world) string { w.ok(os.Chmod(w.at("d/big"), 0o600)); return "d/big" },
			"another content": func(w *world) string { w.write("d/big", big('2')); return "d/big" },
			"a new file":      func(w *world) string { w.write("d/newbig", big('3')); return "d/newbig" },
		} {
			t.Run(fmt.Sprint(name, hints), func(t *testing.T) {
				w, g := bulkWorld(t, hints)
				path := change(w)
				w.told(path)
				if out := w.goesOn(); !out.Waiting || out.CoveredXtime != w.now || out.Stime == w.now {
					t.Errorf("%+v, want what reaches %v, but for the file", out, w.now)
				}
				for i := range 3 {
					for _, small := range []string{"d/small", "other/f", "d/e/f"} {
						w.write(small, fmt.Sprint(i))
						w.told(small)
						if out := w.goesOn(); !out.Waiting || out.CoveredXtime != w.now {
							t.Errorf("%+v, want what reaches %v, but for the file", out, w.now)
						}
						if got, err := os.ReadFile(w.there(small)); string(got) != fmt.Sprint(i) {
							t.Errorf("%s is %q, %v", small, got, err)
						}
					}
				}
				if list, n, bytes := w.crawler.Waiting(9); n != 1 || list[0].Path != path || !list[0].Large || bytes != bigSize {
					t.Errorf("there wait %v, %d, of %d bytes", list, n, bytes)
				}
				if w.crawler.NextRetry().Before(time.Now().Add(time.Hour)) {
					t.Errorf("it is due %v, before it is ready", w.crawler.NextRetry())
				}
				if listed := w.counters.Visited.Load(); hints && listed > 0 {
					t.Errorf("%d directories were listed", listed)
				}
				close(g.open)
				w.await(w.crawler.AllReady)
				w.byAndBy(5)
				if _, n, _ := w.crawler.Waiting(1); n != 0 {
					t.Errorf("%d files wait", n)
				}
			})
		}
	}
}

// byAndBy is in step after so many passes at most.
func (w *world) byAndBy(most int) {
	w.t.Helper()
	for range most {
		if out := w.goesOn(); out.Stime != 0 && !out.Waiting {
			break
		}
		w.await(w.crawler.AllReady)
	}
	w.inStep()
}

// TestLargeFileMeanwhile: what a large file is on its way, or compared, for, is another thing by the time that it is there.
func TestLargeFileMeanwhile(t *testing.T) {
	for _, first := range []string{"metadata", "content"} {
		for name, change := range map[string]func(w *world) []string{
			"written again":   func(w *world) []string { w.write("d/big", big('5')); return []string{"d/big"} },
			"metadata":        func(w *world) []string { w.ok(os.Chmod(w.at("d/big"), 0o640)); return []string{"d/big"} },
			"removed":         func(w *world) []string { w.ok(os.Remove(w.at("d/big"))); return []string{"d"} },
			"moved":           func(w *world) []string { w.rename("d/big", "other/moved"); return []string{"d", "other/moved"} },
			"directory moved": func(w *world) []string { w.rename("d", "other/d"); return []string{"", "other/d"} },
			"replaced":        func(w *world) []string { w.write("t", big('6')); w.rename("t", "d/big"); return []string{"d/big"} },
			"cut":             func(w *world) []string { w.write("d/big", "small"); return []string{"d/big"} },
			"another name": func(w *world) []string {
				w.ok(os.Link(w.at("d/big"), w.at("other/l")))
				return []string{"d/big", "other/l"}
			},
			"exchanged": func(w *world) []string { w.exchange("d", "other"); return []string{"d", "other"} },
			"a directory now": func(w *world) []string {
				w.ok(os.Remove(w.at("d/big")))
				w.write("d/big/f", "f")
				return []string{"d/big", "d/big/f"}
			},
			"the volume anew":  func(w *world) []string { w.now = w.now.Next(); w.volume = w.now; return []string{"d"} },
			"nothing happened": func(w *world) []string { return []string{"other/f"} },
		} {
			t.Run(first+", "+name, func(t *testing.T) {
				w, g := bulkWorld(t, true)
				w.maxDelete = 100
				if w.ok(os.Chmod(w.at("d/big"), 0o600)); first == "content" {
					w.write("d/big", big('4'))
				}
				w.told("d/big")
				w.goesOn()
				if paths := change(w); len(paths) > 0 {
					w.told(paths...)
				}
				if name != "another name" { // of which each crawl has to see to all names
					w.goesOn()
				}
				close(g.open)
				w.await(w.crawler.AllReady)
				w.byAndBy(6)
			})
		}
	}
}

// TestLargeFileFails: trouble with it is trouble with that file alone, and tried again.
func TestLargeFileFails(t *testing.T) {
	w, g := bulkWorld(t, true)
	g.fails = errors.New("the disk is bad")
	w.write("d/big", big('7'))
	w.told("d/big")
	w.goesOn()
	close(g.open)
	w.await(w.crawler.AllReady)
	w.write("d/small", "goes on")
	w.told("d/small")
	if out := w.goesOn(); out.Stime != 0 {
		t.Errorf("stamped: %+v", out)
	}
	if list, n := w.crawler.Failures(9); n != 1 || list[0].Path != "d/big" || !errors.Is(list[0].Err, g.fails) {
		t.Errorf("%d failures: %v", n, list)
	}
	if got, err := os.ReadFile(w.there("d/small")); string(got) != "goes on" {
		t.Errorf("what lies beside it is %q, %v", got, err)
	}
	g.fails = nil
	for range 4 {
		waitFor(t, w.crawler.NextRetry())
		w.goesOn()
		w.await(w.crawler.AllReady)
	}
	w.inStep()
}

// TestConnectionEndsBesideTheCrawls: Follow ends with what ended it.
func TestConnectionEndsBesideTheCrawls(t *testing.T) {
	w, g := bulkWorld(t, true)
	g.lost = errors.New("the connection is lost")
	close(g.open)
	w.write("d/big", big('8'))
	w.told("d/big")
	err := w.crawler.Follow(t.Context(), crawler.FollowOptions{Poll: time.Millisecond, Heartbeat: time.Now,
		Events: crawler.Events{Ready: func() {}, Trouble: func(error) {}, Progress: func(crawler.Progress) {}}})
	if !errors.Is(err, g.lost) {
		t.Errorf("%v, want %v", err, g.lost)
	}
}
