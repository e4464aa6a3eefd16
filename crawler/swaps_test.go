package crawler_test

import (
	"fmt"
	"os"
	"testing"

	"georep/crawler"
	"georep/slave"
)

// movableByHints is a movable world whose crawler takes hints.
func movableByHints(t *testing.T) *world {
	w := movable(t)
	w.hints = &crawler.Hints{}
	w.hints.Up()
	w.connect()
	w.inStep()
	w.forget()
	return w
}

// TestRandomMovesByHints is TestRandomMoves with every change told of.
func TestRandomMovesByHints(t *testing.T) { randomMoves(t, movableByHints, (*world).tell) }

// TestMovesBeforeTheirHint: what moves while a hint is on its way, or while a crawl passes, is seen before a hint tells of it.
func TestMovesBeforeTheirHint(t *testing.T) {
	for name, c := range map[string]struct{ told, untold func(w *world) []string }{
		"into a new directory": {
			func(w *world) []string { w.ok(os.Mkdir(w.at("new"), 0o755)); return []string{"new"} },
			func(w *world) []string { w.rename("a/f0", "new/f0"); return []string{"a/f0", "new/f0"} },
		},
		"a directory into a new one": {
			func(w *world) []string { w.ok(os.Mkdir(w.at("new"), 0o755)); return []string{"new"} },
			func(w *world) []string { w.rename("a/sub", "new/sub"); return []string{"a/sub", "new/sub"} },
		},
		"over a new file": {
			func(w *world) []string { w.write("c/new", "never seen"); return []string{"c/new"} },
			func(w *world) []string { w.rename("a/f0", "c/new"); return []string{"a/f0", "c/new"} },
		},
		"over one that changed": {
			func(w *world) []string { w.write("c/f1", "never seen"); return []string{"c/f1"} },
			func(w *world) []string { w.rename("a/f0", "c/f1"); return []string{"a/f0", "c/f1"} },
		},
		"with one that changed": {
			func(w *world) []string { w.ok(os.Chmod(w.at("c/f1"), 0o600)); return []string{"c/f1"} },
			func(w *world) []string { w.exchange("a/f0", "c/f1"); return []string{"a/f0", "c/f1"} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := movableByHints(t)
			told := c.told(w)
			h := w.hint(told...)
			marks := c.untold(w)
			w.hints.Hint(h)
			w.pass()
			w.tell(marks...)
			w.inStep()
			if n := w.counters.Bytes.Load(); n != 0 {
				t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
			}
			w.ok(w.crawler.Clean(t.Context(), 0))
			w.inStep()
		})
	}
}

// TestMovesWhileACrawlPasses: what moves into a directory after the crawl has listed it is left to the next crawl.
func TestMovesWhileACrawlPasses(t *testing.T) {
	for name, mark := range map[string]func(*world, ...string){"crawls": (*world).mark, "hints": (*world).tell} {
		for _, to := range []string{"c", "new"} {
			t.Run(name+" into "+to, func(t *testing.T) {
				w := movable(t)
				if name == "hints" {
					w = movableByHints(t)
				}
				var later []string
				w.wrap = func(t slave.Tree) slave.Tree {
					return &failing{Tree: t, fail: func(op *slave.Op) error {
						if op.Kind == slave.OpUnpark && later == nil {
							w.rename("a/f1", to+"/n1")
							w.rename("a/sub", to+"/n2")
							later = []string{"a/f1", to + "/n1", "a/sub", to + "/n2"}
						}
						return nil
					}}
				}
				w.over(w.tree)
				w.forget()
				if err := os.Mkdir(w.at(to), 0o755); err != nil && !os.IsExist(err) {
					t.Fatal(err)
				}
				w.rename("a/f0", to+"/n0")
				mark(w, "a/f0", to, to+"/n0")
				w.pass()
				if later == nil {
					t.Fatal("nothing was moved")
				}
				mark(w, later...)
				w.inStep()
				if n := w.counters.Bytes.Load(); n != 0 {
					t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
				}
			})
		}
	}
}

// TestManySwapsByHints: beyond what is looked at ahead of a crawl by hints the slave is asked where it has what.
func TestManySwapsByHints(t *testing.T) {
	w := inMemory(t, true)
	const dirs = 560 // of which 512 are looked at ahead
	for i := range dirs {
		w.write(fmt.Sprintf("d%d/f", i), fmt.Sprint("content", i))
	}
	w.mark("")
	w.inStep()
	w.forget()
	var touched []string
	for i := 0; i < dirs; i += 2 {
		a, b := fmt.Sprintf("d%d/f", i), fmt.Sprintf("d%d/f", i+1)
		w.exchange(a, b)
		touched = append(touched, a, b)
	}
	w.tell(touched...)
	w.inStep()
	if n := w.counters.Bytes.Load(); n != 0 {
		t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
	}
}
