package crawler_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"georep/slave"
)

// TestWhatLeftIsOwed: something changes, and leaves its place after the crawl met it and before it is brought over. The
// change is then on the slave neither where it was nor where it went, so no stamp may claim it (invariant 5). All else is
// stamped, and no directory is listed for it.
func TestWhatLeftIsOwed(t *testing.T) {
	for _, hinted := range []bool{false, true} {
		for _, c := range []struct{ name, path, from, to string }{
			{"file", "x/y/f", "x/y/f", "v/g"},
			{"new file", "x/y/new", "x/y/new", "v/g"},
			{"directory", "x/y/f", "x/y", "v/y"},
			{"directory above", "x/y/f", "x", "v/x"},
			{"large file", "x/y/large", "x/y/large", "v/large"},
		} {
			for _, marked := range []bool{true, false} {
				t.Run(fmt.Sprintf("hinted %v, %s, marked at once %v", hinted, c.name, marked), func(t *testing.T) {
					whatLeft(t, &leaver{path: c.path, from: c.from, to: c.to}, hinted, marked)
				})
			}
		}
	}
}

// leaver moves something away while a crawl is on its way to it.
type leaver struct {
	slave.Tree
	path     string // changes
	from, to string // moves
	mu       sync.Mutex
	armed    bool
	move     func()
}

// at moves it when the crawl comes to path, if the time has come.
func (l *leaver) at(now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.armed && now {
		l.armed = false
		l.move()
	}
}

func (l *leaver) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	states, err := l.Tree.Survey(ctx, queries)
	for _, q := range queries {
		l.at(l.from != l.path && q.Path == "x/y")
	}
	return states, err
}

func (l *leaver) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	for i := range b.Ops {
		l.at(l.from == l.path && b.Ops[i].Path == l.path)
	}
	return l.Tree.Apply(ctx, b)
}

func (l *leaver) Begin(ctx context.Context, u *slave.Upload) (slave.UploadState, error) {
	l.at(l.path == "x/y/large")
	return l.Tree.Begin(ctx, u)
}

func whatLeft(t *testing.T, l *leaver, hinted, markedAtOnce bool) {
	w := hintedWorld(t, func(w *world) {
		for _, path := range []string{"x/y/f", "x/y/k", "x/y/large", "v/k", "other/k"} {
			w.write(path, path)
		}
	})
	w.wrap = func(t slave.Tree) slave.Tree { l.Tree = t; return l }
	w.connect()
	w.pass()
	tell := func(paths ...string) {
		if hinted {
			w.tell(paths...)
		} else {
			w.mark(paths...)
		}
	}
	change := "newer"
	if l.path == "x/y/large" {
		change = string(make([]byte, 3<<20))
	}
	w.write(l.path, change)
	w.write("other/k", "changed too")
	tell(l.path, "other/k")
	changed := w.now
	left := func() { tell(l.from, l.to) }
	l.move = func() {
		w.rename(l.from, l.to)
		if markedAtOnce {
			left()
		}
	}
	l.armed = true
	honest := func() {
		t.Helper()
		at := l.to
		if l.from != l.path {
			at += l.path[len(l.from):]
		}
		for _, path := range []string{l.path, at} {
			if got, err := os.ReadFile(w.there(path)); err == nil && string(got) == change {
				return
			}
		}
		for _, dir := range []string{"", "x", "x/y"} {
			if stamp, _ := w.stamped(dir); stamp >= changed {
				t.Fatalf("%q is stamped %v, without the change of %v", dir, stamp, changed)
			}
		}
	}
	w.pass()
	if l.armed {
		t.Fatal("the crawl did not come there")
	}
	honest()
	if stamp, _ := w.stamped("other"); stamp != changed {
		t.Errorf("what has nothing to do with it is stamped %v, want %v", stamp, changed)
	}
	if !markedAtOnce {
		if hinted {
			w.pass() // it is not found, and nobody knows why
			honest()
		}
		left()
	}
	w.forget()
	w.pass()
	honest()
	if n := w.counters.Visited.Load(); n != 0 && hinted && l.from == l.path {
		t.Errorf("%d directories were listed", n)
	}
	w.pass()
	honest()
	w.inStep()
}
