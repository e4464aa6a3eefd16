package apply_test

import (
	"errors"
	"testing"

	"georep/slave"
	"georep/slave/apply"
)

// calls notes which action was asked for.
type calls struct{ got string }

func (c *calls) note(what, it string) error { c.got = what + " " + it; return nil }

func (c *calls) Mkdir(it string) error  { return c.note("mkdir", it) }
func (c *calls) Put(it string) error    { return c.note("put", it) }
func (c *calls) Link(it string) error   { return c.note("link", it) }
func (c *calls) Unpark(it string) error { return c.note("unpark", it) }
func (c *calls) Meta(it string) error   { return c.note("meta", it) }
func (c *calls) Park(it string) error   { return c.note("park", it) }
func (c *calls) Finish(it string) error { return c.note("finish", it) }
func (c *calls) Filter(it string) error { return c.note("filter", it) }

func TestDo(t *testing.T) {
	want := map[slave.OpKind]string{
		slave.OpMkdir: "mkdir", slave.OpPut: "put", slave.OpSymlink: "put", slave.OpNode: "put", slave.OpLink: "link",
		slave.OpUnpark: "unpark", slave.OpMeta: "meta", slave.OpPark: "park", slave.OpFinish: "finish", slave.OpFilter: "filter",
	}
	for kind := range slave.OpKind(32) {
		var c calls
		err := apply.Do(kind, &c, "it")
		what, known := want[kind]
		switch {
		case known && (err != nil || c.got != what+" it"):
			t.Errorf("%v: %q, %v", kind, c.got, err)
		case !known && (!errors.Is(err, slave.ErrInvalid) || c.got != ""):
			t.Errorf("%v, which is no kind: %q, %v", kind, c.got, err)
		}
	}
}

func TestInode(t *testing.T) {
	for kind, want := range map[slave.OpKind]byte{slave.OpPut: mine, slave.OpLink: mine, slave.OpFinish: mine, slave.OpPark: expected} {
		op := &slave.Op{Kind: kind, Record: rec(mine, 1), Expect: rec(expected, 1).GFID}
		if got := apply.Inode(op); got != rec(want, 1).GFID {
			t.Errorf("%v is about %v", kind, got)
		}
	}
}

func TestMeantFor(t *testing.T) {
	for _, c := range []struct {
		path    string
		in      byte
		dir     string
		insists bool
	}{
		{"a/b/c", mine, "a/b", true}, {"a/b/c", 0, "a/b", false}, {"a", mine, "", false}, {"", mine, "", false},
	} {
		dir, insists := apply.MeantFor(&slave.Op{Path: c.path, In: rec(c.in, 1).GFID})
		if dir != c.dir || insists != c.insists {
			t.Errorf("%+v: %q, %v", c, dir, insists)
		}
	}
}

func TestHoldsBack(t *testing.T) {
	for _, c := range []struct {
		failed slave.OpKind
		at     string
		kind   slave.OpKind
		path   string
		want   bool
	}{
		{slave.OpPut, "a/b", slave.OpFinish, "a", true},
		{slave.OpPut, "a/b/c", slave.OpFinish, "a", true},
		{slave.OpMkdir, "a", slave.OpFinish, "a", true},
		{slave.OpPut, "f", slave.OpFinish, "", true},
		{slave.OpPut, "ab", slave.OpFinish, "a", false},
		{slave.OpPut, "a", slave.OpFinish, "a/b", false},
		{slave.OpFinish, "a/b", slave.OpFinish, "a", false},
		{slave.OpPut, "a/b", slave.OpMeta, "a", false},
	} {
		if got := apply.HoldsBack(&slave.Op{Kind: c.failed, Path: c.at}, &slave.Op{Kind: c.kind, Path: c.path}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestWorthKeeping(t *testing.T) {
	for _, c := range []struct {
		n     apply.Names
		names int
		want  bool
	}{
		{apply.Names{}, 0, false}, {apply.Names{Want: 3, Final: true}, 0, false}, {apply.Names{Want: 1}, 1, false},
		{apply.Names{Want: 2}, 1, true}, {apply.Names{Want: 1, Final: true}, 1, true}, {apply.Names{}, 2, true},
	} {
		if got := c.n.WorthKeeping(c.names); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestSource: whatever the order in which the names come, the state that the operation wants is the source, and else the latest; its own
// path and other kinds never are.
func TestSource(t *testing.T) {
	type name struct {
		path  string
		kind  slave.Kind
		xtime uint64
	}
	names := []name{{"own", slave.File, 5}, {"old", slave.File, 3}, {"late", slave.File, 8}, {"link", slave.Symlink, 5}, {"good", slave.File, 5}}
	for _, c := range []struct {
		names  []name
		entry  slave.Kind
		want   string
		enough bool
	}{
		{names, slave.File, "good", true},
		{names[:4], slave.File, "late", false},
		{names[:2], slave.File, "old", false},
		{names[:1], slave.File, "", false},
		{names, slave.Symlink, "link", true},
	} {
		for first := range c.names {
			s := &apply.Source[string]{Op: &slave.Op{Kind: slave.OpLink, Path: "own", Entry: c.entry, Record: rec(mine, 5)}}
			for i := range c.names {
				n := c.names[(first+i)%len(c.names)]
				if s.Fits(n.kind) && s.Better(n.path, rec(mine, n.xtime)) {
					s.Take(n.path, rec(mine, n.xtime))
				}
			}
			if s.Best != c.want || s.Found != (c.want != "") || s.Enough() != c.enough {
				t.Errorf("of %v from %d: %q, %v, %v", c.names, first, s.Best, s.Found, s.Enough())
			}
		}
	}
	any := &apply.Source[string]{Op: &slave.Op{}}
	if !any.Fits(slave.File) || !any.Fits(slave.Fifo) {
		t.Error("an operation that names no kind takes any")
	}
	for from, named := range map[string]bool{"": false, "own": false, "other": true} {
		s := &apply.Source[string]{Op: &slave.Op{Path: "own", From: from}}
		if path, ok := s.From(); ok != named || ok && path != from {
			t.Errorf("from %q: %q, %v", from, path, ok)
		}
	}
}
