package crawler

import (
	"testing"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// TestWhatIsADifference: what differs at two looks counts only where the slave claims to have it.
func TestWhatIsADifference(t *testing.T) {
	const old, newer = xtime.Time(7 << 32), xtime.Time(9 << 32)
	rec := func(n byte, at xtime.Time) slave.Record { return slave.Record{GFID: xtime.GFID{n}, Xtime: at} }
	mine := func(r slave.Record) *plan.Entry { return &plan.Entry{Kind: slave.File, Record: r} }
	theirs := func(r slave.Record) *slave.Detail {
		return &slave.Detail{EntryState: slave.EntryState{Kind: slave.File, Record: r}}
	}
	at := func(m *plan.Entry, s *slave.Detail, parent, stamp slave.Record, kinds ...string) *look {
		return &look{pair: &pair{path: "d/f", mine: m, theirs: s}, parent: &plan.Entry{Kind: slave.Dir, Record: parent},
			stamp: stamp, kinds: kinds}
	}
	file, dir := rec(1, old), rec(2, old)
	touched := mine(file)
	touched.Stat.Ctime = beneath.Time{Sec: 1}
	for name, c := range map[string]struct {
		before, now *look
		want        bool
	}{
		"the same record": {at(mine(file), theirs(file), dir, rec(2, 0), "content"),
			at(mine(file), theirs(file), dir, rec(2, 0), "content"), true},
		"changed in between": {at(mine(file), theirs(file), dir, dir, "content"),
			at(touched, theirs(file), dir, dir, "content"), false},
		"marked in between": {at(mine(file), theirs(file), dir, dir, "content"),
			at(mine(rec(1, newer)), theirs(file), dir, dir, "content"), false},
		"another difference": {at(mine(file), theirs(file), dir, dir, "content"),
			at(mine(file), theirs(file), dir, dir, "mode"), false},
		"on its way": {at(mine(rec(1, newer)), theirs(file), rec(2, newer), dir, "content"),
			at(mine(rec(1, newer)), theirs(file), rec(2, newer), dir, "content"), false},
		"no record, directory stamped": {at(mine(file), theirs(slave.Record{}), dir, dir, "content"),
			at(mine(file), theirs(slave.Record{}), dir, dir, "content"), true},
		"missing, directory stamped": {at(mine(file), nil, dir, dir, "missing"), at(mine(file), nil, dir, dir, "missing"), true},
		"missing, on its way": {at(mine(file), nil, rec(2, newer), dir, "missing"),
			at(mine(file), nil, rec(2, newer), dir, "missing"), false},
		"extra, the directory goes on changing": {at(nil, theirs(file), dir, dir, "extra"),
			at(nil, theirs(file), rec(2, newer), dir, "extra"), true},
		"extra, not yet purged": {at(nil, theirs(file), rec(2, newer), dir, "extra"),
			at(nil, theirs(file), rec(2, newer), dir, "extra"), false},
		"another directory there": {at(mine(file), nil, dir, rec(3, newer), "missing"),
			at(mine(file), nil, dir, rec(3, newer), "missing"), false},
		"the directory was replaced": {at(mine(file), nil, rec(3, old), dir, "missing"),
			at(mine(file), nil, dir, dir, "missing"), false},
	} {
		if got := c.now.same(c.before) && c.now.claimed(c.before); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLinksThatDoNotAgree: names of one inode on one side only.
func TestLinksThatDoNotAgree(t *testing.T) {
	name := func(path string, g byte, ino uint64) *pair {
		p := &pair{path: path, mine: &plan.Entry{Kind: slave.File, Record: slave.Record{GFID: xtime.GFID{g}}}, theirs: &slave.Detail{Ino: ino}}
		p.mine.Stat.Nlink = 2
		return p
	}
	l := newVerifiedLinks(xtime.Trusted)
	for _, c := range []struct {
		p    *pair
		want string
	}{
		{name("a", 1, 10), ""}, {name("b", 1, 10), ""}, {name("c", 1, 11), "a"}, {name("d", 2, 10), "a"}, {name("e", 3, 12), ""},
	} {
		if got := l.meet(c.p); got != c.want {
			t.Errorf("%s: does not agree with %q, want %q", c.p.path, got, c.want)
		}
	}
}
