package crawler_test

import (
	"fmt"
	"os"
	"testing"

	"georep/slave"
)

// TestMoreNamesThanAreKept: an inode with more names than a slave by SFTP keeps in mind comes in step, and after a change it does again,
// with the names that are not kept. Then a change elsewhere costs what it would without it.
func TestMoreNamesThanAreKept(t *testing.T) {
	const names = 1030
	w := inMemory(t, true)
	c := &cost{enough: make(chan struct{})}
	w.wrap = func(inner slave.Tree) slave.Tree { c.Tree = inner; return c }
	w.connectSFTP()
	w.write("a/0", "content")
	w.write("other/f", "")
	w.ok(os.Mkdir(w.at("b"), 0o755))
	path := func(i int) string { return fmt.Sprintf("%c/%d", "ab"[i%2], i) }
	for i := 1; i < names; i++ {
		w.ok(os.Link(w.at("a/0"), w.at(path(i))))
	}
	w.mark("")
	comes := func(what, text string) {
		t.Helper()
		for tries := 0; w.pass().Stime == 0; tries++ {
			if tries == 3 {
				t.Fatalf("%s: never in step", what)
			}
		}
		for i := range names {
			if got, err := os.ReadFile(w.there(path(i))); err != nil || string(got) != text {
				t.Fatalf("%s: %s has %q, %v", what, path(i), got, err)
			}
		}
		w.write("other/f", what)
		w.tell("other/f")
		before := c.spent()
		if w.pass().Stime == 0 {
			t.Fatalf("after %s: not in step", what)
		}
		if n := c.spent().ops - before.ops; n > 8 {
			t.Errorf("after %s: %d operations for a change elsewhere", what, n)
		}
	}
	comes("first sync", "content")
	w.write("a/2", "changed")
	w.tell("a/2")
	comes("a change", "changed")
	w.connectSFTP()
	comes("another session", "changed")
}
