package crawler_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// unread is a slave that cannot tell what is in a directory.
type unread struct {
	slave.Tree
	path string
}

func (u *unread) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	states, err := u.Tree.Survey(ctx, queries)
	for i := range states {
		if u.path != "" && queries[i].Path == u.path {
			states[i] = slave.DirState{Err: unix.EIO}
		}
	}
	return states, err
}

// TestLeftNamesOutOfReach: a directory in which names are left is removed, or cannot be reached, while something fails. Then
// nothing waits any more, crawls do not follow each other without end, and names of inodes are checked again.
func TestLeftNamesOutOfReach(t *testing.T) {
	for _, how := range []string{"removed", "removed, and another fails", "out of reach"} {
		t.Run(how, func(t *testing.T) {
			eachSource(t, func(t *testing.T, w *world, connect func(), changed func(...string)) {
				o, f, u := &order{}, &failing{}, &unread{}
				w.wrap = func(inner slave.Tree) slave.Tree { f.Tree, u.Tree, o.Tree = inner, f, u; return o }
				connect()
				w.crawler.InSteps(10, 16)
				defer w.crawler.Beside(t.Context())()
				w.write("a/0", "content")
				w.write("p/x/f", "")
				w.write("other/bad", "")
				w.mark("")
				w.comes(3)
				var all []string
				for i := 1; i < 600; i++ {
					all = append(all, fmt.Sprint("p/x/", i))
					w.ok(os.Link(w.at("a/0"), w.at(all[i-1])))
				}
				changed(all...)
				o.before = func() { o.before = nil; w.write("news", ""); changed("news") }
				w.pass()
				if _, total, _ := w.crawler.Waiting(1); total == 0 {
					t.Fatalf("no names were left")
				}
				if how == "out of reach" {
					u.path = "p"
				} else {
					w.ok(os.RemoveAll(w.at("p/x")))
					changed("p/x")
				}
				if how == "removed, and another fails" {
					w.write("other/bad", "changed")
					changed("other/bad")
					f.fail = func(op *slave.Op) error {
						if op.Path == "other/bad" {
							return unix.EIO
						}
						return nil
					}
				}
				for range 4 {
					w.pass()
				}
				if _, total, _ := w.crawler.Waiting(1); total != 0 {
					t.Errorf("%d names wait", total)
				}
				u.path, f.fail = "", nil
				if next := w.crawler.NextRetry(); !next.IsZero() {
					waitFor(t, next)
				}
				w.comes(100)
			})
		})
	}
}
