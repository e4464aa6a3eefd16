package disk

import (
	"fmt"
	"strings"
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

// TestRowOfManyNames: the row of an inode's names is written once a group, whatever that does to them, and has the right ones.
func TestRowOfManyNames(t *testing.T) {
	const names = 300
	rows := 0
	tree, err := open(testOptions(t, t.TempDir()), func(op, name string) error {
		if op == "create" && strings.HasSuffix(name, bookSuffix) {
			rows++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	g, rec := slavetest.GFID(1), slavetest.Rec(1, 10)
	var links, parks []slave.Op
	for i := 1; i < names; i++ {
		path := fmt.Sprint("n", i)
		links = append(links, slavetest.Link(path, "n0", rec, names))
		if i%2 == 1 {
			parks = append(parks, slavetest.Park(path, g))
		}
	}
	for _, step := range []struct {
		what string
		ops  []slave.Op
		left int
	}{
		{"first", []slave.Op{slavetest.Linked(slavetest.Put("n0", rec, "content"), names)}, 1}, {"links", links, names},
		{"links again", links, names}, {"parks", parks, names - len(parks)},
	} {
		rows = 0
		results, err := tree.Apply(t.Context(), &slave.Batch{Ops: step.ops})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil {
				t.Fatalf("%s: %v: %v", step.what, step.ops[i].Path, r.Err)
			}
		}
		if _, err := tree.Groups(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		if rows > 2 {
			t.Errorf("%s: the row was written %d times", step.what, rows)
		}
		if n := len(tree.links.rowNow(g).names); n != step.left {
			t.Errorf("%s: %d names in the row, want %d", step.what, n, step.left)
		}
	}
}
