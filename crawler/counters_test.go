package crawler_test

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"os"
	"testing"

	"georep/slave"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/internal/beneath"
)

// TestSettled: what a first crawl has dealt with is, in the end, what there is; and a later one counts what is in step
// beside what it brings over.
func TestSettled(t *testing.T) {
	w := newWorld(t)
	w.ok(os.MkdirAll(w.at("a", "b"), 0o755))
	w.write("a/b/file", "12345")
	w.write("a/linked", "12345678")
	w.ok(os.Link(w.at("a", "linked"), w.at("a", "name")))
	w.ok(os.Symlink("x", w.at("symlink")))
	w.mark("a/b/file", "a/linked", "a/name", "symlink")
	w.inStepAfterPass()
	if got := settled(&w.counters); got != [3]int64{6, 13, 0} {
		t.Errorf("entries, bytes, skipped directories: %v after the first crawl, want 6, 13, 0", got)
	}
	w.write("a/file", "123")
	w.mark("a/file")
	w.inStepAfterPass()
	// The root's two entries, and in a: linked and name, which are in step, the new file, and b, which nobody enters.
	if got := settled(&w.counters); got != [3]int64{6 + 2 + 4, 13 + 8 + 3, 1} {
		t.Errorf("entries, bytes, skipped directories: %v after the second crawl, want 12, 24, 1", got)
	}
}

func (w *world) inStepAfterPass() {
	w.t.Helper()
	if out := w.pass(); out.Stime == 0 {
		w.t.Fatal("not in step")
	}
}

func settled(c *crawler.Counters) [3]int64 {
	return [3]int64{c.Done.Load(), c.DoneBytes.Load(), c.SkippedDirs.Load()}
}

func TestShare(t *testing.T) {
	for name, c := range map[string]struct {
		st   beneath.Stat
		want int64
	}{
		"one name":            {beneath.Stat{Mode: unix.S_IFREG, Size: 100, Nlink: 1}, 100},
		"two names":           {beneath.Stat{Mode: unix.S_IFREG, Size: 100, Nlink: 2}, 50},
		"no name, being gone": {beneath.Stat{Mode: unix.S_IFREG, Size: 100}, 100},
		"a directory":         {beneath.Stat{Mode: unix.S_IFDIR, Size: 4096, Nlink: 2}, 0},
		"a symbolic link":     {beneath.Stat{Mode: unix.S_IFLNK, Size: 5, Nlink: 1}, 0},
	} {
		if got := crawler.Share(&c.st); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestPending: while the slave takes nothing, all that is known to differ is pending, whichever way it was found, and
// nothing is left of that when the crawl is over, however it ended.
func TestPending(t *testing.T) {
	for name, c := range map[string]struct {
		hints bool
		err   error
	}{"listed": {}, "by hints": {hints: true}, "the session ends": {err: errCut}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			f := &failing{}
			w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
			if c.hints {
				w.hints = &crawler.Hints{}
				w.hints.Up()
			}
			w.connect()
			w.write("a/chmod", "x")
			w.write("a/stale", "x")
			w.mark("")
			w.inStep()
			changed := []string{"a/chmod", "a/stale"}
			for i := range 200 {
				changed = append(changed, fmt.Sprint("a/", i))
				w.write(changed[i+2], "1234567")
			}
			w.ok(os.Chmod(w.at("a/chmod"), 0o600))
			w.ok(os.Remove(w.at("a/stale")))
			if c.hints {
				w.tell(changed...)
				if got := w.hints.Names(); got != 202 {
					t.Errorf("hints tell of %d entries", got)
				}
			} else {
				w.mark(changed...)
			}
			goOn := make(chan struct{})
			f.call = func(call string) error {
				if call == "apply" {
					<-goOn
					return c.err
				}
				return nil
			}
			ended := make(chan error)
			go func() { _, err := w.crawler.Pass(t.Context()); ended <- err }()
			want := [4]int64{203, 200, 1400, 1} // the directory is an entry too
			if c.hints {
				want = [4]int64{202, 0, 0, 0} // it is parked first, before anything is looked at
			}
			for end := time.Now().Add(time.Minute); pending(&w.counters) != want; {
				if time.Now().After(end) {
					t.Fatalf("pending: %v, want %v", pending(&w.counters), want)
				}
				runtime.Gosched()
			}
			close(goOn)
			if err := <-ended; !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			if got := pending(&w.counters); got != [4]int64{} || w.hints.Names() != 0 {
				t.Errorf("pending when the crawl is over: %v", got)
			}
		})
	}
}

func pending(c *crawler.Counters) [4]int64 {
	return [4]int64{c.PendingEntries.Load(), c.PendingFiles.Load(), c.PendingBytes.Load(), c.PendingMeta.Load()}
}
