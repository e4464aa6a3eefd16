package crawler_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

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

// whiteout moves a to b and leaves a whiteout in its place, as overlayfs does in its upper layer.
func (w *world) whiteout(a, b string) {
	w.ok(unix.Renameat2(unix.AT_FDCWD, w.at(a), unix.AT_FDCWD, w.at(b), unix.RENAME_WHITEOUT))
}

// TestSwapsByHints: what changes places is moved on the slave, and nothing is listed for it.
func TestSwapsByHints(t *testing.T) {
	for name, swap := range map[string]func(w *world) []string{
		"two names":         func(w *world) []string { w.exchange("a/f0", "c/f2"); return []string{"a/f0", "c/f2"} },
		"beside each other": func(w *world) []string { w.exchange("a/f0", "a/f2"); return []string{"a/f0", "a/f2"} },
		"symbolic links":    func(w *world) []string { w.exchange("a/link", "c/link"); return []string{"a/link", "c/link"} },
		"by three renames": func(w *world) []string {
			w.rename("a/f0", "t")
			w.rename("b/f0", "a/f0")
			w.rename("t", "b/f0")
			return []string{"t", "a/f0", "b/f0"}
		},
		"a cycle of three": func(w *world) []string {
			w.exchange("a/f0", "b/f0")
			w.exchange("b/f0", "c/f0")
			return []string{"a/f0", "b/f0", "c/f0"}
		},
		"directories":                   func(w *world) []string { w.exchange("a", "z/deep"); return []string{"a", "z/deep"} },
		"directories beside each other": func(w *world) []string { w.exchange("a", "b"); return []string{"a", "b"} },
		"a cycle of directories": func(w *world) []string {
			w.exchange("a", "b")
			w.exchange("b", "c")
			return []string{"a", "b", "c"}
		},
		"a directory and a file":         func(w *world) []string { w.exchange("a/sub", "c/f1"); return []string{"a/sub", "c/f1"} },
		"a directory and a file beneath": func(w *world) []string { w.exchange("b", "z/deep/f1"); return []string{"b", "z/deep/f1"} },
		"directories, and what is in them": func(w *world) []string {
			w.exchange("a", "b")
			w.exchange("a/f0", "c/f0")
			w.exchange("b/f1", "a/f2")
			return []string{"a", "b", "a/f0", "c/f0", "b/f1", "a/f2"}
		},
		"one of a swap changed, too": func(w *world) []string {
			w.exchange("a/f0", "c/f2")
			w.exchange("a/f1", "c/f1")
			w.ok(os.Chmod(w.at("a/f1"), 0o600))
			return []string{"a/f0", "c/f2", "a/f1", "c/f1"}
		},
		"a whiteout": func(w *world) []string { w.whiteout("a/f0", "b/moved"); return []string{"a/f0", "b/moved"} },
		"a whiteout over another": func(w *world) []string {
			w.whiteout("c/f0", "a/f1")
			return []string{"c/f0", "a/f1"}
		},
		"a whiteout that moves": func(w *world) []string {
			w.whiteout("a/f0", "b/moved")
			w.exchange("a/f0", "b/f2")
			return []string{"a/f0", "b/moved", "b/f2"}
		},
		"a chain over another file": func(w *world) []string {
			w.rename("a/f1", "b/f1")
			w.rename("c/f1", "a/f1")
			return []string{"a/f1", "b/f1", "c/f1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := movableByHints(t)
			w.tell(swap(w)...)
			w.inStep()
			if n := w.counters.Bytes.Load(); n != 0 {
				t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
			}
			if n := w.counters.Visited.Load(); n != 0 {
				t.Errorf("%d directories were listed", n)
			}
			w.checkStamps()
			w.ok(w.crawler.Clean(t.Context(), 0))
			w.inStep()
		})
	}
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
