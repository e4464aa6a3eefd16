package crawler_test

import (
	"fmt"
	"os"
	"testing"

	"georep/slave"
)

// TestVeryManyNamesCostTheirNumber: what an inode costs that has more names than are linked at once, and more than a slave keeps in mind,
// is linear in their number: at the first sync, when they come, and after a change of its content or its mode.
func TestVeryManyNamesCostTheirNumber(t *testing.T) {
	eachSource(t, func(t *testing.T, w *world, connect func(), changed func(...string)) {
		small, large := veryMany(t, w, connect, changed, 1200), veryMany(t, w, connect, changed, 2400)
		for what, b := range large {
			a := small[what]
			const more = 1200
			if n := b.ops - a.ops; n > 3*more {
				t.Errorf("%s: %d operations more for %d names more: %+v, %+v", what, n, more, a, b)
			}
			if n := b.entries - a.entries; n > 4*more {
				t.Errorf("%s: %d entries more were looked at for %d names more: %+v, %+v", what, n, more, a, b)
			}
			if b.asked > a.asked+more/50 || b.listed > a.listed+8 || b.searched > a.searched+2 || b.crawls > a.crawls+1 {
				t.Errorf("%s: %+v with %d names, %+v with twice as many", what, a, more, b)
			}
		}
	})
}

// price is what a change costs: operations, requests of any other kind, entries of the master that were looked at, directories that
// were listed, searches for names, and crawls.
type price struct{ ops, asked, entries, listed, searched, crawls int64 }

// veryMany gives an inode n names in a tree of its own, and tells what that costs, and changes of it.
func veryMany(t *testing.T, w *world, connect func(), changed func(...string), n int) map[string]price {
	c := &cost{enough: make(chan struct{})}
	c.once.Do(func() { close(c.enough) })
	w.wrap = func(inner slave.Tree) slave.Tree { c.Tree = inner; return c }
	connect()
	defer w.crawler.Beside(t.Context())()
	top := fmt.Sprint("t", n, "/")
	path := func(i int) string { return fmt.Sprintf("%s%c/%d", top, "ab"[i%2], i) }
	all := map[string]price{}
	step := func(what string, paths ...string) {
		t.Helper()
		changed(paths...)
		w.forget()
		before, searches := c.spent(), w.counters.Searches.Load()
		crawls := w.comes(8)
		now := c.spent()
		all[what] = price{now.ops - before.ops, now.found - before.found + now.hashed - before.hashed + w.counters.Surveyed.Load(),
			w.counters.Entries.Load(), w.counters.Visited.Load(), w.counters.Searches.Load() - searches, int64(crawls)}
	}
	w.write(path(0), "content")
	w.write(path(1), "another")
	step("one name", path(0), path(1))
	w.ok(os.Remove(w.at(path(1))))
	names := []string{path(1)}
	for i := 1; i < n; i++ {
		w.ok(os.Link(w.at(path(0)), w.at(path(i))))
		names = append(names, path(i))
	}
	step("names", names...)
	w.write(path(1), "changed")
	step("content", path(1))
	w.ok(os.Chmod(w.at(path(2)), 0o600))
	step("mode", path(2))
	w.ok(os.MkdirAll(w.at(top+"new"), 0o755))
	w.write(top+"new/0", "of a new inode")
	names = []string{top + "new/0"}
	for i := 1; i < n; i++ {
		names = append(names, fmt.Sprint(top, "new/", i))
		w.ok(os.Link(w.at(names[0]), w.at(names[i])))
	}
	step("a new inode", names...)
	w.areOne(names)
	return all
}
