package crawler_test

import (
	"context"
	"os"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

// unsettled is a slave that never has done with one of its inodes.
type unsettled struct {
	slave.Tree
	group func() slave.Group
}

func (u *unsettled) Groups(context.Context, int) ([]slave.Group, error) {
	return []slave.Group{u.group()}, nil
}

// TestUnsettledNames: names that cannot be settled keep the root from being stamped, and nothing else: the crawl says that it has
// come to everything. One in which something failed does not say so.
func TestUnsettledNames(t *testing.T) {
	w := newWorld(t)
	u := &unsettled{}
	f := &failing{}
	w.wrap = func(t slave.Tree) slave.Tree { u.Tree, f.Tree = t, u; return f }
	w.connect()
	w.write("d/f", "one")
	w.write("d/gone", "gone")
	u.group = func() slave.Group {
		g, err := w.root.GFID("d/f")
		w.ok(err)
		return slave.Group{GFID: g, Names: []string{"d/f"}, Record: slave.Record{GFID: xtime.GFID{1}}}
	}
	w.mark("")
	if out := w.pass(); out.Stime == 0 || !out.Met {
		t.Fatalf("%+v", out) // nobody had a reason to ask
	}
	w.ok(os.Remove(w.at("d/gone")))
	w.mark("d")
	for range 3 {
		if out := w.pass(); out.Stime != 0 || !out.Met {
			t.Errorf("%+v: the root was stamped, or not all was met", out)
		}
	}
	f.fail = func(op *slave.Op) error {
		if op.Path == "d/f" {
			return os.ErrPermission
		}
		return nil
	}
	w.write("d/f", "two")
	w.mark("d/f")
	if out := w.pass(); out.Stime != 0 || out.Met {
		t.Errorf("%+v: something failed", out)
	}
}
