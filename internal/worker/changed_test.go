package worker

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"georep/monitor/report"
	"georep/slave"
)

// toldNow is all that is to be told now.
func toldNow(c *changes) string {
	var list []string
	for out := c.take(); out != nil; out = c.take() {
		if out.All {
			list = append(list, "all")
		}
		for _, p := range out.Paths {
			list = append(list, string(p))
		}
		for _, p := range out.Trees {
			list = append(list, string(p)+"/**")
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// TestChangesAreDurable: a path is told when a stamp came after it, in whatever order the batches end, and not before.
func TestChangesAreDurable(t *testing.T) {
	put := func(path string) slave.Op { return slave.Op{Kind: slave.OpPut, Entry: slave.File, Path: path} }
	finish := func(path string) slave.Op {
		return slave.Op{Kind: slave.OpFinish, Entry: slave.Dir, Path: path, Stamp: true}
	}
	c := newChanges()
	want := func(text string) {
		t.Helper()
		if got := toldNow(c); got != text {
			t.Errorf("told %q, want %q", got, text)
		}
	}
	apply := func(before uint64, ops ...slave.Op) {
		c.end(before, &slave.Batch{Ops: ops}, make([]slave.Result, len(ops)), nil)
	}
	want("all")
	apply(c.begin(), put("a"))
	want("")
	apply(c.begin(), finish(""))
	want("all") // also of what a worker before had applied
	apply(c.begin(), put("b"))
	stamps := c.begin()
	apply(c.begin(), put("c")) // may have been applied after the stamp
	apply(stamps, put("d"), finish("x"), put("e"))
	want("b d x/")
	apply(c.begin(), finish(""))
	want("./ c e")
	refused := c.begin()
	c.end(refused, &slave.Batch{Ops: []slave.Op{put("f"), put("g"), finish("")}}, []slave.Result{{Err: errors.New("no")}, {},
		{Err: slave.ErrHeldBack}}, nil)
	want("")
	park := func(path string, k slave.Kind) slave.Op { return slave.Op{Kind: slave.OpPark, Path: path, Entry: k} }
	apply(c.begin(), park("old", slave.Dir), slave.Op{Kind: slave.OpUnpark, Path: "new", Entry: slave.Dir}, park("h", slave.File), finish(""))
	want("./ g h new/** old/**")
	apply(c.begin(), slave.Op{Kind: slave.OpPut, Path: "l", Links: 2}, finish(""))
	want("all")
	c.end(c.begin(), &slave.Batch{Ops: []slave.Op{put("i")}}, nil, errors.New("the line is cut"))
	want("")
	apply(c.begin(), finish(""))
	want("all")
	for range 3 * maxChanged / 100 {
		var ops []slave.Op
		for range 100 {
			ops = append(ops, put(strings.Repeat("x", 1+len(ops))))
		}
		apply(c.begin(), ops...)
	}
	if len(c.list) > maxChanged {
		t.Errorf("%d changes are kept", len(c.list))
	}
	apply(c.begin(), finish(""))
	want("all")
}

// TestTheRestIsTold: what is durable when the worker ends is told before it does.
func TestTheRestIsTold(t *testing.T) {
	c := newChanges()
	told := make(chan report.Changed, 10)
	stop := c.run(func(one report.Changed) error { told <- one; return nil })
	if one := <-told; !one.All {
		t.Errorf("first %+v is told", one)
	}
	c.end(c.begin(), &slave.Batch{Ops: []slave.Op{{Kind: slave.OpFinish, Stamp: true}}}, make([]slave.Result, 1), nil)
	stop()
	select {
	case one := <-told:
		if !one.All {
			t.Errorf("then %+v is told", one)
		}
	default:
		t.Error("the rest is not told")
	}
}
