package crawler_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"georep/slave"
)

// order notes in which order names are linked and files put on the slave, and lets something happen before each batch of links.
type order struct {
	slave.Tree
	before func()
	one    sync.Mutex // holds before

	mu       sync.Mutex
	paths    []string
	searched int // links to a name that the slave has to find
}

func (o *order) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	links := false
	o.mu.Lock()
	for i := range b.Ops {
		switch op := &b.Ops[i]; op.Kind {
		case slave.OpLink:
			links = true
			if op.From == "" {
				o.searched++
			}
			o.paths = append(o.paths, "link")
		case slave.OpPut:
			o.paths = append(o.paths, op.Path)
		}
	}
	o.mu.Unlock()
	if links && o.before != nil {
		o.one.Lock()
		o.before()
		o.one.Unlock()
	}
	return o.Tree.Apply(ctx, b)
}

// TestManyNamesGiveWay: while an inode with very many names is linked, what changes elsewhere arrives before all of them, however
// often that is. No stamp lies meanwhile, each crawl comes further, and in the end all is there.
func TestManyNamesGiveWay(t *testing.T) {
	const names, step = 800, 128
	for _, hints := range []bool{false, true} {
		for _, news := range []int{1, 1000} {
			t.Run(fmt.Sprint("hints ", hints, " news ", news), func(t *testing.T) {
				w := inMemory(t, hints)
				o := &order{}
				w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
				w.connect()
				w.crawler.InSteps(100, step)
				defer w.crawler.Beside(t.Context())()
				w.write("a/0", "content")
				w.write("other/f", "")
				w.ok(os.Mkdir(w.at("b"), 0o755))
				w.mark("")
				w.inStep()
				changed := func(paths ...string) {
					if hints {
						w.tell(paths...)
					} else {
						w.mark(paths...)
					}
				}
				var all []string
				for i := 1; i < names; i++ {
					all = append(all, fmt.Sprintf("%c/%d", "ab"[i%2], i))
					w.ok(os.Link(w.at("a/0"), w.at(all[i-1])))
				}
				changed(all...)
				told := 0
				o.before = func() {
					if told < news {
						told++
						w.write("other/f", fmt.Sprint("news ", told))
						changed("other/f")
					}
				}
				passes := 1
				for ; w.pass().Stime == 0; passes++ {
					w.checkStamps()
					for _, dir := range []string{"a", "b"} {
						if w.saysInStep(dir) && w.entries(dir) != names/2 {
							t.Fatalf("%s is stamped, and has %d names", dir, w.entries(dir))
						}
					}
					if w.saysInStep("") {
						t.Fatal("the root is stamped before all is there")
					}
					if passes > 2*names/step {
						t.Fatal("it comes to no end")
					}
				}
				o.before = nil
				w.pass()
				w.inStep()
				first, links := 0, 0
				for _, path := range o.paths {
					if path == "link" {
						links++
					} else if path == "other/f" {
						first = links // the last counts
					}
				}
				if after := links - first; news == 1 && after < names/8 {
					t.Errorf("of %d names %d were linked after what had changed meanwhile", names, after)
				}
				if links > 2*names {
					t.Errorf("%d links of %d names in %d crawls", links, names, passes)
				}
				if news > 1 && passes < 3 {
					t.Errorf("%d crawls", passes)
				}
			})
		}
	}
}

// entries counts what the slave has in a directory.
func (w *world) entries(dir string) int {
	w.t.Helper()
	list, err := os.ReadDir(w.there(dir))
	w.ok(err)
	return len(list)
}
