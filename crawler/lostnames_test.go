package crawler_test

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/marker/hint"
	"georep/marker/xtime"
	"georep/slave"
)

// eachKind runs a test for slaves on a disk and by SFTP, by hints and by crawls.
func eachKind(t *testing.T, run func(t *testing.T, w *world, deliver func(h *hint.Hint))) {
	for _, kind := range []string{"disk", "SFTP"} {
		for _, hints := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, hints %v", kind, hints), func(t *testing.T) {
				w := newMaster(t, t.TempDir(), t.TempDir())
				w.maxDelete = 100
				deliver := func(*hint.Hint) {}
				if hints {
					w.hints = &crawler.Hints{}
					w.hints.Up()
					deliver = w.hints.Hint
				}
				if kind == "SFTP" {
					w.connectSFTP()
				} else {
					w.connect()
				}
				run(t, w, deliver)
			})
		}
	}
}

// comesInStep crawls until the slave says that it is in step, and tells what it has in a file then.
func (w *world) comesInStep(path string) string {
	w.t.Helper()
	for range 6 {
		w.pass()
		if look, err := w.crawler.Look(w.t.Context()); err == nil && look.InStep() {
			b, err := os.ReadFile(w.there(path))
			w.ok(err)
			return string(b)
		}
	}
	list, _ := w.crawler.Failures(3)
	w.t.Fatalf("never in step: %v", list)
	return ""
}

// TestNameIsGoneWhileTheOthersDirectoryMoves: a file is written through one of its two names, which then is another file's, and
// the directory of the other name moves before the slave has any of it. No mark leads to that name. It gets the new content all
// the same, whichever comes first, and if the crawl sees only that the directory has left, too.
func TestNameIsGoneWhileTheOthersDirectoryMoves(t *testing.T) {
	for _, dir := range []string{"b", "e"} {
		for _, byHalf := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by half %v", dir, byHalf), func(t *testing.T) {
				eachKind(t, func(t *testing.T, w *world, deliver func(h *hint.Hint)) {
					w.write("d/hot", "one")
					w.ok(os.MkdirAll(w.at(dir, "in"), 0o755))
					w.ok(os.Link(w.at("d/hot"), w.at(dir, "in/n")))
					w.write("z/x", "x")
					w.mark("")
					w.comesInStep("d/hot")
					w.write("d/hot", "two")
					deliver(w.hint("d/hot"))
					w.write("d/new", "another")
					w.rename("d/new", "d/hot")
					deliver(w.hint("d/new", "d/hot"))
					w.rename(dir, "z/moved")
					if byHalf {
						deliver(w.hint(dir))
						w.comesInStep("d/hot")
						deliver(w.hint("z/moved"))
					} else {
						deliver(w.hint(dir, "z/moved"))
					}
					if text := w.comesInStep("z/moved/in/n"); text != "two" {
						t.Errorf("in step, and the other name has %q", text)
					}
				})
			})
		}
	}
}

// TestDirectoryMovesBetweenLinkAndLook: the slave has too few names of an inode, one of which lies outside, and an old state of it.
// While the crawl sees to the names, the directory of the one that it is to look at moves.
func TestDirectoryMovesBetweenLinkAndLook(t *testing.T) {
	eachKind(t, func(t *testing.T, w *world, deliver func(h *hint.Hint)) {
		for _, path := range []string{"b/n", "y/x", "z/x"} {
			w.write(path, "one")
		}
		w.mark("")
		w.comesInStep("b/n")
		f := &failing{Tree: w.tree}
		w.over(f)
		w.ok(os.Link(w.at("b/n"), w.at("../outside")))
		t.Cleanup(func() { os.Remove(w.at("../outside")) })
		w.ok(os.Chmod(w.at("b/n"), 0o600))
		deliver(w.hint("b/n"))
		var changed, moved atomic.Bool
		f.call = func(name string) error {
			if name == "groups" && !changed.Swap(true) { // through a name that is gone at once, so that no mark leads to b/n
				w.ok(os.Link(w.at("b/n"), w.at("y/short")))
				w.write("y/short", "two")
				deliver(w.hint("y/short"))
				w.ok(os.Remove(w.at("y/short")))
				deliver(w.hint("y/short"))
			}
			return nil
		}
		f.fail = func(op *slave.Op) error {
			if op.Kind == slave.OpLink && op.Path == "b/n" && !moved.Swap(true) {
				w.rename("b", "z/b")
				deliver(w.hint("b", "z/b"))
			}
			return nil
		}
		w.pass()
		if !changed.Load() || !moved.Load() {
			t.Fatalf("changed: %v, moved: %v", changed.Load(), moved.Load())
		}
		if text := w.comesInStep("z/b/n"); text != "two" {
			t.Errorf("in step, and z/b/n has %q", text)
		}
	})
}

// TestPutBackWhereItStood: directories change places, and the slave cannot put them in their new places. So each goes back to
// where it stood, which is another directory than that place.
func TestPutBackWhereItStood(t *testing.T) {
	for _, hints := range []bool{true, false} {
		t.Run(fmt.Sprint("hints ", hints), func(t *testing.T) {
			w, f := failingWorld(t)
			if !hints {
				w.hints = nil
				w.connect()
			}
			w.write("a/d/f", "of d")
			w.write("b/e/f", "of e")
			w.mark("")
			w.inStep()
			w.exchange("a/d", "b/e")
			h := w.hint("a/d", "b/e")
			if hints {
				w.hints.Hint(h)
			}
			above := map[string]xtime.GFID{}
			for path, dir := range map[string]string{"a/d": "a", "b/e": "b"} {
				g, err := w.root.GFID(dir)
				w.ok(err)
				above[path] = g
			}
			stood := map[xtime.GFID]string{} // where each directory was before
			for was, is := range map[string]string{"a/d": "b/e", "b/e": "a/d"} {
				g, err := w.root.GFID(is)
				w.ok(err)
				stood[g] = was
			}
			var mu sync.Mutex
			back, wrong := 0, 0
			f.fail = func(op *slave.Op) error {
				if op.Kind != slave.OpUnpark {
					return nil
				}
				if stood[op.Record.GFID] != op.Path {
					return unix.EIO // both, since the one that came first would leave the other no place to go back to
				}
				mu.Lock()
				defer mu.Unlock()
				back++
				if op.In != above[op.Path] {
					wrong++
				}
				return nil
			}
			w.pass()
			mu.Lock()
			if back == 0 || wrong > 0 {
				t.Errorf("put back %d times, of which %d are meant for another directory", back, wrong)
			}
			mu.Unlock()
			f.fail = nil
			waitFor(t, w.crawler.NextRetry())
			w.inStep()
		})
	}
}
