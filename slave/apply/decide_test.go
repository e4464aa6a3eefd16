package apply_test

import (
	"errors"
	"fmt"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
)

// rec is the n-th inode at a second; 0 has no record.
func rec(n byte, sec uint64) slave.Record {
	if n == 0 {
		return slave.Record{}
	}
	return slave.Record{GFID: xtime.GFID{n}, Xtime: xtime.Time(sec << 32)}
}

// at is an entry that stands somewhere.
func at(kind slave.Kind, n byte, sec uint64) apply.Standing {
	return apply.Standing{There: true, Kind: kind, Record: rec(n, sec)}
}

var nothing apply.Standing

// Inodes of the tables: mine is the operation's, expected what the master expects, other another one of the master's.
const (
	mine     = 1
	expected = 2
	other    = 3
)

func TestMkdir(t *testing.T) {
	for _, c := range []struct {
		path string
		old  apply.Standing
		want error
	}{
		{"d", at(slave.Dir, mine, 5), nil},
		{"d", at(slave.Dir, expected, 5), nil},
		{"d", at(slave.Dir, 0, 0), nil},
		{"d", at(slave.Dir, other, 5), slave.ErrConflict},
		{"d", at(slave.File, mine, 5), slave.ErrConflict},
		{"d", at(slave.Symlink, 0, 0), slave.ErrConflict},
		{"", at(slave.Dir, other, 5), nil},
		{"", at(slave.File, mine, 5), slave.ErrConflict},
	} {
		op := &slave.Op{Kind: slave.OpMkdir, Path: c.path, Record: rec(mine, 0), Expect: rec(expected, 0).GFID}
		if err := apply.Mkdir(op, c.old); !errors.Is(err, c.want) {
			t.Errorf("%q over %+v: %v, want %v", c.path, c.old, err, c.want)
		}
	}
}

func TestFinish(t *testing.T) {
	for _, c := range []struct {
		path      string
		record    slave.Record
		want, has slave.Copy
		old       apply.Standing
		err       error
	}{
		{"d", rec(mine, 9), 0, 4, at(slave.Dir, mine, 5), nil},
		{"d", rec(mine, 9), 4, 4, at(slave.Dir, mine, 5), nil},
		{"d", rec(mine, 9), 5, 4, at(slave.Dir, mine, 5), slave.ErrMoved},
		{"d", rec(mine, 9), 0, 4, at(slave.Dir, other, 5), slave.ErrMoved},
		{"d", rec(mine, 9), 0, 4, at(slave.Dir, 0, 0), slave.ErrMoved},
		{"d", slave.Record{}, 0, 4, at(slave.Dir, other, 5), nil},
		{"", rec(mine, 9), 0, 4, at(slave.Dir, other, 5), nil},
		{"", rec(mine, 9), 5, 4, at(slave.Dir, mine, 5), slave.ErrMoved},
	} {
		op := &slave.Op{Kind: slave.OpFinish, Path: c.path, Record: c.record, Copy: c.want}
		if err := apply.Finish(op, c.old, c.has); !errors.Is(err, c.err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestMeta(t *testing.T) {
	for _, c := range []struct {
		old      apply.Standing
		recorded bool
		want     error
	}{
		{at(slave.File, mine, 5), true, nil},
		{at(slave.File, expected, 5), true, nil},
		{at(slave.File, other, 5), true, slave.ErrConflict},
		{at(slave.File, 0, 0), true, slave.ErrConflict},
		{at(slave.File, 0, 0), false, nil},
		{at(slave.Dir, mine, 5), true, slave.ErrConflict},
		{nothing, true, slave.ErrConflict},
	} {
		op := &slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "f", Record: rec(mine, 6), Expect: rec(expected, 0).GFID}
		if err := apply.Meta(op, c.old, c.recorded); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPark(t *testing.T) {
	for _, c := range []struct {
		old    apply.Standing
		expect byte
		take   bool
		err    error
	}{
		{nothing, expected, false, nil},
		{at(slave.File, expected, 5), expected, true, nil},
		{at(slave.Dir, expected, 5), expected, true, nil},
		{at(slave.File, other, 5), expected, false, slave.ErrConflict},
		{at(slave.File, 0, 0), expected, false, slave.ErrConflict},
		{at(slave.File, 0, 0), 0, true, nil},
		{at(slave.File, other, 5), 0, false, slave.ErrConflict},
	} {
		op := &slave.Op{Kind: slave.OpPark, Path: "f", Expect: rec(c.expect, 0).GFID}
		if take, err := apply.Park(op, c.old); take != c.take || !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, %v", c, take, err)
		}
	}
}

func TestUnpark(t *testing.T) {
	parked := at(slave.File, mine, 5)
	for _, c := range []struct {
		parked, old apply.Standing
		bring       bool
		err         error
	}{
		{parked, nothing, true, nil},
		{parked, at(slave.File, other, 5), true, nil},
		{parked, at(slave.File, 0, 0), true, nil},
		{parked, at(slave.Dir, other, 5), false, slave.ErrConflict},
		{parked, at(slave.File, mine, 4), false, nil},
		{nothing, at(slave.Dir, mine, 4), false, nil}, // it was brought back, and the answer was lost
		{nothing, nothing, false, slave.ErrNeedContent},
		{at(slave.File, other, 5), nothing, false, slave.ErrNeedContent},
		{nothing, at(slave.Dir, other, 5), false, slave.ErrNeedContent},
	} {
		op := &slave.Op{Kind: slave.OpUnpark, Path: "f", Record: rec(mine, 0)}
		if bring, err := apply.Unpark(op, c.parked, c.old); bring != c.bring || !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, %v", c, bring, err)
		}
	}
}

func TestDisplaces(t *testing.T) {
	for _, c := range []struct {
		old  apply.Standing
		want bool
	}{
		{nothing, false}, {at(slave.File, mine, 5), false}, {at(slave.File, 0, 0), false}, {at(slave.Symlink, other, 5), true},
	} {
		if got := apply.Displaces(&slave.Op{Record: rec(mine, 6)}, c.old); got != c.want {
			t.Errorf("%+v: %v", c.old, got)
		}
	}
}

func TestReplacesAll(t *testing.T) {
	for _, c := range []struct {
		record slave.Record
		links  uint32
		old    apply.Standing
		names  int
		want   bool
	}{
		{rec(mine, 6), 1, nothing, 0, false},
		{rec(mine, 6), 2, nothing, 0, true},
		{rec(mine, 6), 2, at(slave.File, other, 5), 1, true},
		{rec(mine, 6), 1, at(slave.File, mine, 5), 1, false},
		{rec(mine, 6), 1, at(slave.File, mine, 5), 2, true},
		{rec(mine, 6), 1, at(slave.File, other, 5), 2, false},
		{slave.Record{}, 2, at(slave.File, 0, 0), 2, false},
	} {
		if got := apply.ReplacesAll(&slave.Op{Record: c.record, Links: c.links}, c.old, c.names); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestLink(t *testing.T) {
	for _, c := range []struct {
		name        string
		old, source apply.Standing
		one         bool
		as          apply.LinkAs
		err         error
	}{
		{"new", nothing, at(slave.File, mine, 5), false, apply.LinkNew, nil},
		{"over another", at(slave.File, other, 9), at(slave.File, mine, 5), false, apply.LinkNew, nil},
		{"over an older state", at(slave.File, mine, 4), at(slave.File, mine, 5), false, apply.LinkNew, nil},
		{"the wanted state is there", at(slave.File, mine, 5), at(slave.File, mine, 4), false, apply.LinkKept, nil},
		{"the wanted state is there, and an odd one", at(slave.File, mine, 5), at(slave.File, mine, 7), false, apply.LinkKept, nil},
		{"a later state is there", at(slave.File, mine, 9), at(slave.File, mine, 8), false, apply.LinkKept, nil},
		{"later, but not wanted", at(slave.File, mine, 9), at(slave.File, mine, 5), false, apply.LinkNew, nil},
		{"two copies of one state", at(slave.File, mine, 5), at(slave.File, mine, 5), false, apply.LinkNew, nil},
		{"names of one", at(slave.File, mine, 5), at(slave.File, mine, 5), true, apply.LinkKnown, nil},
		{"no source", nothing, nothing, false, 0, slave.ErrNeedContent},
		{"no source, and another there", at(slave.File, other, 5), nothing, false, 0, slave.ErrNeedContent},
		{"no other", at(slave.File, mine, 4), nothing, false, apply.LinkKept, nil},
		{"a directory", at(slave.Dir, other, 5), at(slave.File, mine, 5), false, 0, slave.ErrConflict},
		{"a directory, and no source", at(slave.Dir, mine, 5), nothing, false, 0, slave.ErrConflict},
	} {
		op := &slave.Op{Kind: slave.OpLink, Path: "f", Record: rec(mine, 5)}
		if as, err := apply.Link(op, c.old, c.source, c.one); as != c.as || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", c.name, as, err)
		}
	}
}

func TestNewer(t *testing.T) {
	rec := func(x xtime.Time) slave.Record { return slave.Record{Xtime: x} }
	for _, c := range []struct {
		a, b, want xtime.Time
		newer      bool
	}{
		{1, 1, 1, false}, {2, 1, 2, true}, {1, 2, 2, false}, {3, 1, 2, true}, {1, 3, 2, false}, {1, 3, 1, true},
		{3, 1, 1, false}, {0, 1, 2, false}, {1, 0, 2, true},
	} {
		if got := apply.Newer(rec(c.a), rec(c.b), rec(c.want)); got != c.newer {
			t.Errorf("newer(%d, %d), wanted %d: %v", c.a, c.b, c.want, got)
		}
	}
}

// TestLearn: whatever the order in which operations arrive, what was read last of the inode counts, of that a search, and else the
// larger number.
func TestLearn(t *testing.T) {
	ops := []slave.Op{
		{Ino: 7, Links: 3, Record: rec(1, 1)}, {Ino: 7, Links: 2, Record: rec(1, 2)}, {Ino: 7, Links: 4, Record: rec(1, 2)},
		{Ino: 7, Links: 3, Record: rec(1, 2), LinksFinal: true}, {Ino: 7, Links: 0, Record: rec(1, 1), LinksFinal: true},
	}
	want := apply.Names{Ino: 7, Want: 3, At: rec(1, 2).Xtime, Final: true}
	for first := range ops {
		for step := 1; step < len(ops); step++ {
			var n apply.Names
			for i := range ops {
				n.Learn(&ops[(first+i*step)%len(ops)])
			}
			if n != want {
				t.Errorf("from %d by %d: %+v", first, step, n)
			}
		}
	}
	var n apply.Names
	n.Learn(&slave.Op{Ino: 7, Record: rec(1, 1)})
	if n.Want != 1 {
		t.Errorf("one name at least: %+v", n)
	}
	for i := range ops[:3] {
		n.Learn(&ops[i])
	}
	if n.Want != 4 || n.Final {
		t.Errorf("without a search: %+v", n)
	}
}

// TestHolds: a failure holds back what is above it in its pass, and nothing else.
func TestHolds(t *testing.T) {
	var h apply.Holds
	held := func(pass uint32, want string) {
		t.Helper()
		got := ""
		for _, path := range []string{"", "a", "a/b", "a/b/c", "ab", "d"} {
			if h.Held(pass, path) {
				got += fmt.Sprintf("%q", path)
			}
		}
		if got != want {
			t.Errorf("pass %d holds back %s, want %s", pass, got, want)
		}
	}
	held(1, "")
	h.Failed(1, "a/b/c")
	h.Failed(1, "a/b/x")
	held(1, `"""a""a/b"`)
	held(2, "")
	h.Failed(2, "")
	held(2, "")
	h.Failed(2, "d")
	held(2, `""`)
	all := `"""a""a/b""a/b/c""ab""d"`
	h.Unsynced(3)
	held(3, all)
	held(4, "")
	h.UnsyncedAny() // of pass 4, or of what has not been seen yet
	held(4, all)
	held(5, all)
	held(6, "")
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"", "", true}, {"a", "", true}, {"a/b", "a", true}, {"a", "a", true}, {"ab", "a", false}, {"a", "a/b", false}, {"", "a", false},
	} {
		if got := apply.Within(c.path, c.dir); got != c.want {
			t.Errorf("%q within %q: %v", c.path, c.dir, got)
		}
	}
}
