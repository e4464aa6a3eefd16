package changes

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"georep/slave"
)

// toldNow is all that is to be told now.
func toldNow(c *Changes) string {
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
	c := New()
	want := func(text string) {
		t.Helper()
		if got := toldNow(c); got != text {
			t.Errorf("told %q, want %q", got, text)
		}
	}
	apply := func(before uint64, ops ...slave.Op) {
		c.End(before, &slave.Batch{Ops: ops}, make([]slave.Result, len(ops)), nil)
	}
	want("all")
	apply(c.Begin(), put("a"))
	want("")
	apply(c.Begin(), finish(""))
	want("all") // also of what a worker before had applied
	apply(c.Begin(), put("b"))
	stamps := c.Begin()
	apply(c.Begin(), put("c")) // may have been applied after the stamp
	apply(stamps, put("d"), finish("x"), put("e"))
	want("b d x/")
	apply(c.Begin(), finish(""))
	want("./ c e")
	refused := c.Begin()
	c.End(refused, &slave.Batch{Ops: []slave.Op{put("f"), put("g"), finish("")}}, []slave.Result{{Err: errors.New("no")}, {},
		{Err: slave.ErrHeldBack}}, nil)
	want("")
	park := func(path string, k slave.Kind) slave.Op { return slave.Op{Kind: slave.OpPark, Path: path, Entry: k} }
	apply(c.Begin(), park("old", slave.Dir), slave.Op{Kind: slave.OpUnpark, Path: "new", Entry: slave.Dir}, park("h", slave.File), finish(""))
	want("./ g h new/** old/**")
	apply(c.Begin(), slave.Op{Kind: slave.OpPut, Path: "l", Links: 2}, finish(""))
	want("all")
	c.End(c.Begin(), &slave.Batch{Ops: []slave.Op{put("i")}}, nil, errors.New("the line is cut"))
	want("")
	apply(c.Begin(), finish(""))
	want("all")
	for range 3 * most / 100 {
		var ops []slave.Op
		for range 100 {
			ops = append(ops, put(strings.Repeat("x", 1+len(ops))))
		}
		apply(c.Begin(), ops...)
	}
	if len(c.list) > most {
		t.Errorf("%d changes are kept", len(c.list))
	}
	apply(c.Begin(), finish(""))
	want("all")
	// Few paths that are long are too much as well, before and after they are durable.
	for i := range 60 {
		apply(c.Begin(), put(strings.Repeat("y", 100_000+i)))
	}
	if c.listBytes > mostBytes {
		t.Errorf("%d bytes of changes are kept", c.listBytes)
	}
	apply(c.Begin(), finish(""))
	want("all")
	for i := range 60 {
		apply(c.Begin(), put(strings.Repeat("z", 100_000+i)), finish(""))
	}
	if c.readyBytes > mostBytes || !c.all {
		t.Errorf("%d bytes wait to be told, all: %v", c.readyBytes, c.all)
	}
	want("all")
	if c.listBytes != 0 || c.readyBytes != 0 {
		t.Errorf("%d and %d bytes are counted of nothing", c.listBytes, c.readyBytes)
	}
}

// TestTheRestIsTold: what is durable when the worker ends is told before it does.
func TestTheRestIsTold(t *testing.T) {
	c := New()
	told := make(chan Told, 10)
	stop := c.Run(func(one Told) error { told <- one; return nil })
	if one := <-told; !one.All {
		t.Errorf("first %+v is told", one)
	}
	c.End(c.Begin(), &slave.Batch{Ops: []slave.Op{{Kind: slave.OpFinish, Stamp: true}}}, make([]slave.Result, 1), nil)
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
