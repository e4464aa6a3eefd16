package crawler_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/integration/harness/fstest"
)

// inMemory is a world where many files cost little. Its crawler takes hints or not.
func inMemory(t *testing.T, hints bool) *world {
	t.Helper()
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	master, slave := filepath.Join(top, "master"), filepath.Join(top, "slave")
	for _, dir := range []string{master, slave} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := newMaster(t, master, slave)
	if hints {
		w.hints = &crawler.Hints{}
		w.hints.Up()
	}
	w.connect()
	return w
}

// goFreely lets n entries be removed whatever the share, instead of as many as ever, so that tests need fewer.
func (w *world) goFreely(n int64) {
	w.free = n
	w.connect()
}

// shares is a world of 180 entries, of which 100 may always go: 61 % in d, 33 % in k, the rest in b.
func shares(t *testing.T, hints bool) *world {
	w := inMemory(t, hints)
	w.goFreely(100)
	for dir, n := range map[string]int{"b": 10, "d": 110, "k": 60} {
		w.ok(os.MkdirAll(w.at(dir, "sub"), 0o755))
		for i := range n {
			w.ok(syscall.Mknod(w.at(dir, fmt.Sprint("f", i)), syscall.S_IFIFO|0o600, 0)) // cheaper than a file
		}
		w.ok(os.WriteFile(w.at(dir, "sub/g"), []byte(dir), 0o644))
	}
	w.mark("b", "d", "k", "b/sub", "d/sub", "k/sub")
	w.inStep()
	w.forget()
	return w
}

// moveAll moves what is in a directory into another, one by one, and names both ends of each.
func (w *world) moveAll(from, to string) (marks []string) {
	w.t.Helper()
	list, err := os.ReadDir(w.at(from))
	w.ok(err)
	w.ok(os.MkdirAll(w.at(to), 0o755))
	for _, e := range list {
		w.rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		marks = append(marks, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
	}
	return append(marks, from, to)
}

// away moves something out of the volume.
func (w *world) away(path string) {
	w.t.Helper()
	w.rename(path, "../away")
}

// TestMovesAreNoRemovals: however much of the tree moves, it sends nothing and needs nobody's word, by hints and by a crawl.
func TestMovesAreNoRemovals(t *testing.T) {
	for _, hints := range []bool{false, true} {
		w := shares(t, hints)
		for i, move := range []func() []string{
			func() []string { w.rename("d", "z"); return []string{"d", "z"} },
			func() []string { w.rename("z", "a"); return []string{"z", "a"} },
			func() []string { w.rename("a", "b/sub/d"); return []string{"a", "b/sub/d"} },
			func() []string { w.rename("b/sub/d", "d"); return []string{"b/sub/d", "d"} },
			func() []string { return w.moveAll("d", "e") },
			func() []string {
				marks := w.moveAll("e", "k/d")
				w.ok(os.Remove(w.at("e")))
				return append(marks, "k")
			},
			func() []string { w.rename("k/d", "d/d"); return []string{"k/d", "d/d", "d", "k"} },
			func() []string { w.exchange("d", "k"); return []string{"d", "k"} },
			func() []string { w.exchange("k", "b/sub"); return []string{"k", "b/sub"} },
			func() []string {
				w.ok(os.Mkdir(w.at("new"), 0o755))
				for _, d := range []string{"b", "d", "k"} {
					w.rename(d, "new/"+d)
				}
				return []string{"new", "b", "d", "k", "new/b", "new/d", "new/k"}
			},
		} {
			w.after(hints, move())
			if _, err := w.crawler.Pass(t.Context()); err != nil {
				t.Errorf("hints %v, move %d: %v", hints, i, err)
			}
			w.inStep()
			if n := w.counters.Bytes.Load(); n != 0 {
				t.Errorf("hints %v, move %d: %d bytes in %d files were sent", hints, i, n, w.counters.Files.Load())
			}
			w.ok(w.crawler.Clean(t.Context(), 0))
		}
		w.ok(os.RemoveAll(w.at("new/b"))) // what moved has not made room for this
		w.after(hints, []string{"new/b"})
		if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
			t.Fatalf("hints %v: 110 of 180: %v", hints, err)
		}
	}
}

// TestLargeDirectoriesSwap: what changes places, each more than max-delete allows to remove, is moved all the same.
func TestLargeDirectoriesSwap(t *testing.T) {
	for name, swap := range map[string]func(w *world) []string{
		"two":                   func(w *world) []string { w.exchange("d", "x/k"); return []string{"d", "x/k"} },
		"two beside each other": func(w *world) []string { w.exchange("d", "b"); return []string{"d", "b"} },
		"three": func(w *world) []string {
			w.exchange("d", "x/k")
			w.exchange("x/k", "y/b")
			return []string{"d", "x/k", "y/b"}
		},
		"one in the place of the next, the last new": func(w *world) []string {
			w.rename("d", "z")
			w.rename("x/k", "d")
			return []string{"d", "x/k", "z"}
		},
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hints %v", name, hints), func(t *testing.T) {
				w := shares(t, hints)
				w.maxDelete, w.strict = 3, true
				w.goFreely(0)
				for _, dir := range []string{"x", "y"} {
					w.ok(os.Mkdir(w.at(dir), 0o755))
				}
				w.rename("k", "x/k")
				w.rename("b", "y/b")
				w.mark("x/k", "y/b", "k", "b")
				if strings.Contains(name, "beside") {
					w.rename("x/k", "b")
					w.mark("x/k", "b")
				}
				w.inStep()
				w.ok(w.crawler.Clean(t.Context(), 0))
				w.forget()
				w.after(hints, swap(w))
				w.inStep()
				if n := w.counters.Bytes.Load(); n != 0 {
					t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
				}
				w.ok(w.crawler.Clean(t.Context(), 0))
				w.ok(os.RemoveAll(w.at("d"))) // what moved has not made room for this
				w.after(hints, []string{"d"})
				if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
					t.Fatalf("a removal: %v", err)
				}
			})
		}
	}
}

// TestRemovalsBesideMoves: what is removed within the share may go, whatever moves beside it.
func TestRemovalsBesideMoves(t *testing.T) {
	for name, move := range map[string]func(w *world) []string{
		"a part of what is removed moves": func(w *world) []string {
			w.rename("k/sub", "saved")
			w.rename("d", "e")
			w.ok(os.RemoveAll(w.at("k")))
			return []string{"d", "k/sub", "saved", "e", "k"}
		},
		"over a smaller directory": func(w *world) []string {
			w.ok(os.RemoveAll(w.at("k")))
			w.rename("d", "k")
			return []string{"d", "k"}
		},
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hints %v", name, hints), func(t *testing.T) {
				w := shares(t, hints)
				w.after(hints, move(w))
				w.inStep()
				if n := w.counters.Bytes.Load(); n != 0 {
					t.Errorf("%d bytes in %d files were sent", n, w.counters.Files.Load())
				}
			})
		}
	}
}

// after marks what was changed, and tells of it.
func (w *world) after(hints bool, marks []string) {
	w.t.Helper()
	if hints {
		w.tell(marks...)
	} else {
		w.mark(marks...)
	}
}

// TestRemovalsAmongMoves: what is removed is refused beyond the share, whatever moves beside it, and nothing of it is gone.
func TestRemovalsAmongMoves(t *testing.T) {
	for name, remove := range map[string]func(w *world) []string{
		"alone":             func(w *world) []string { w.ok(os.RemoveAll(w.at("d"))); return []string{"d"} },
		"out of the volume": func(w *world) []string { w.away("d"); return []string{"d"} },
		"beside a move": func(w *world) []string {
			w.ok(os.RemoveAll(w.at("d")))
			w.rename("k", "z")
			return []string{"d", "k", "z"}
		},
		"a move over it": func(w *world) []string {
			w.ok(os.RemoveAll(w.at("d")))
			w.rename("k", "d")
			return []string{"d", "k"}
		},
		"moved first, then out of the volume": func(w *world) []string {
			w.rename("d", "e")
			w.away("e")
			return []string{"d", "e"}
		},
		"over it, one by one": func(w *world) []string {
			w.ok(os.RemoveAll(w.at("k/sub")))
			marks := w.moveAll("d", "k")
			w.ok(os.RemoveAll(w.at("b")))
			w.ok(os.RemoveAll(w.at("k/sub")))
			list, err := os.ReadDir(w.at("k"))
			w.ok(err)
			for _, e := range list[:30] {
				w.ok(os.Remove(w.at("k", e.Name())))
			}
			return append(marks, "b")
		},
	} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hints %v", name, hints), func(t *testing.T) {
				w := shares(t, hints)
				w.after(hints, remove(w))
				for range 2 {
					if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
						t.Fatalf("110 of 180: %v", err)
					}
				}
				left := 0
				w.ok(filepath.WalkDir(w.slave, func(p string, e os.DirEntry, err error) error {
					if e.Name() == ".georep" {
						return filepath.SkipDir
					}
					if !e.IsDir() {
						left++
					}
					return err
				}))
				// Of two that both count, one may have gone.
				if whole := !strings.Contains(name, "over it"); left < 92 || whole && left < 183 {
					t.Errorf("the slave has %d files, had 183", left)
				}
				w.maxDelete = 100
				w.connect()
				w.inStep()
			})
		}
	}
}

// TestHardLinksThatMove: names of inodes with several are made and removed one by one.
func TestHardLinksThatMove(t *testing.T) {
	for _, hints := range []bool{false, true} {
		w := inMemory(t, hints)
		w.goFreely(100)
		w.write("keep", "x")
		w.ok(os.Mkdir(w.at("d"), 0o755))
		for i := range 60 {
			name := w.at("d", fmt.Sprint("f", i))
			w.ok(os.WriteFile(name, []byte("content"), 0o644))
			w.ok(os.Link(name, name+"-too"))
		}
		w.mark("d")
		w.inStep()
		w.forget()
		w.after(hints, w.moveAll("d", "e"))
		w.inStep()
		if n := w.counters.Bytes.Load(); n != 0 {
			t.Errorf("hints %v: %d bytes were sent", hints, n)
		}
		w.ok(os.RemoveAll(w.at("e")))
		w.after(hints, []string{"e"})
		if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
			t.Fatalf("hints %v: all of it: %v", hints, err)
		}
	}
}

// TestRefusedPurgeIsNotStamped: the directory is met again by each crawl, until the operator says a word.
func TestRefusedPurgeIsNotStamped(t *testing.T) {
	w := inMemory(t, false)
	w.maxDelete, w.strict = 0, true
	w.connect()
	w.write("a/b/f", "x")
	w.write("a/b/g", "x")
	w.mark("a/b")
	w.inStep()
	w.ok(os.Remove(w.at("a/b/f")))
	w.mark("a/b")
	for i := range 60 {
		if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
			t.Fatalf("crawl %d: %v", i, err)
		}
	}
	w.maxDelete = 100
	w.connect()
	w.inStep()
}
