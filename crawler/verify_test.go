package crawler

import (
	"strings"
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

// TestWhatIsLostThere: what the slave's files cannot show is no difference, and all else is.
func TestWhatIsLostThere(t *testing.T) {
	acl := func(uid byte) []slave.Xattr {
		return []slave.Xattr{{Name: slave.AttrACL, Value: []byte{2, 0, 0, 0, 2, 0, 6, 0, uid, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255}}}
	}
	times := slave.Limits{Times: slave.TimeLimits{Min: -100, Max: 100, Step: slave.MaxStep}}
	ids := slave.Limits{UIDs: []slave.IDRange{{First: 0, Count: 50}}, GIDs: []slave.IDRange{{First: 0, Count: 50}}}
	meta := slave.Meta{Mode: 0o4750, UID: 7, GID: 7, Mtime: beneath.Time{Sec: 200, Nsec: 5}}
	change := func(fn func(m *slave.Meta)) slave.Meta { m := meta; fn(&m); return m }
	foreign := change(func(m *slave.Meta) { m.UID = 60 })
	noACL := change(func(m *slave.Meta) { m.Xattrs = acl(60) })
	for name, c := range map[string]struct {
		info  slave.Info
		mine  slave.Meta
		their slave.EntryState
		acl   []slave.Xattr
		kinds string
		lost  string
	}{
		"equal":            {slave.Info{Root: true}, meta, slave.EntryState{Mode: 0o4750, UID: 7, GID: 7, Mtime: meta.Mtime}, nil, "", ""},
		"a time":           {slave.Info{Root: true, Limits: times}, meta, slave.EntryState{Mode: 0o4750, UID: 7, GID: 7, Mtime: beneath.Time{Sec: 100}}, nil, "", "mtime"},
		"another time":     {slave.Info{Root: true, Limits: times}, meta, slave.EntryState{Mode: 0o4750, UID: 7, GID: 7, Mtime: beneath.Time{Sec: 99}}, nil, "mtime", ""},
		"no limits":        {slave.Info{Root: true}, meta, slave.EntryState{Mode: 0o4750, UID: 7, GID: 7, Mtime: beneath.Time{Sec: 100}}, nil, "mtime", ""},
		"foreign owner":    {slave.Info{Limits: ids}, foreign, slave.EntryState{Mode: 0o750, GID: 7, Mtime: meta.Mtime}, nil, "", "owner"},
		"foreign, group":   {slave.Info{Limits: ids}, foreign, slave.EntryState{Mode: 0o750, GID: 8, Mtime: meta.Mtime}, nil, "owner", "owner"},
		"known owner":      {slave.Info{Limits: ids}, meta, slave.EntryState{Mode: 0o4750, UID: 8, GID: 7, Mtime: meta.Mtime}, nil, "owner", ""},
		"known, set-id":    {slave.Info{Limits: ids}, meta, slave.EntryState{Mode: 0o750, UID: 7, GID: 7, Mtime: meta.Mtime}, nil, "mode", ""},
		"foreign ACL":      {slave.Info{Limits: ids}, noACL, slave.EntryState{Mode: 0o4700, UID: 7, GID: 7, Mtime: meta.Mtime}, nil, "", "acl"},
		"foreign, others":  {slave.Info{Limits: ids}, noACL, slave.EntryState{Mode: 0o4704, UID: 7, GID: 7, Mtime: meta.Mtime}, nil, "mode", "acl"},
		"known ACL":        {slave.Info{Limits: ids}, change(func(m *slave.Meta) { m.Xattrs = acl(40) }), slave.EntryState{Mode: 0o4750, UID: 7, GID: 7, Mtime: meta.Mtime}, acl(41), "acl", ""},
		"an ordinary user": {slave.Info{}, foreign, slave.EntryState{Mode: 0o750, UID: 9, GID: 9, Mtime: meta.Mtime}, nil, "", ""},
	} {
		p := &pair{mine: &plan.Entry{Kind: slave.File}, theirs: &slave.Detail{EntryState: c.their}, meta: c.mine}
		p.theirs.Kind = slave.File
		p.theirs.Xattrs, p.theirs.ACL = slave.DigestXattrs(p.nonce, c.acl, c.info.Root)
		if p.compare(&c.info); strings.Join(p.kinds, ",") != c.kinds || strings.Join(p.lost, ",") != c.lost {
			t.Errorf("%s: %q differ, %q are lost; want %q, %q", name, p.kinds, p.lost, c.kinds, c.lost)
		}
	}
}

// TestWhatAPolicyChanges: what the policy of the slave's host changes is no difference, and all else is.
func TestWhatAPolicyChanges(t *testing.T) {
	able := []slave.Xattr{{Name: "user.x", Value: []byte("1")}, {Name: slave.AttrCapability, Value: []byte("c")}}
	others, planted := able[:1], []slave.Xattr{{Name: "user.x", Value: []byte("2")}}
	setuid, owned := slave.PolicyLimits{NoSetuid: true}, slave.PolicyLimits{Owned: true, UID: 5, GID: 6}
	root, devices := slave.PolicyLimits{KeepRoot: true}, slave.PolicyLimits{NoDevices: true}
	entry := func(mode, uid, gid uint32) *slave.EntryState {
		return &slave.EntryState{Mode: mode, UID: uid, GID: gid}
	}
	for name, c := range map[string]struct {
		limits slave.PolicyLimits
		path   string
		kind   slave.Kind
		mode   uint32
		their  *slave.EntryState
		xattrs []slave.Xattr
		kinds  string
		policy string
	}{
		"kept all the same":      {setuid, "f", slave.File, 0o4755, entry(0o4755, 7, 7), able, "", ""},
		"without set-id bits":    {setuid, "f", slave.File, 0o4755, entry(0o755, 7, 7), others, "", "mode,xattrs"},
		"and other bits":         {setuid, "f", slave.File, 0o4755, entry(0o750, 7, 7), able, "mode", ""},
		"bits that were planted": {setuid, "f", slave.File, 0o755, entry(0o4755, 7, 7), able, "mode", ""},
		"of a directory":         {setuid, "f", slave.Dir, 0o2755, entry(0o755, 7, 7), able, "mode", ""},
		"another xattr":          {setuid, "f", slave.File, 0o755, entry(0o755, 7, 7), planted, "xattrs", ""},
		"no policy":              {devices, "f", slave.File, 0o4755, entry(0o755, 7, 7), others, "mode,xattrs", ""},
		"an owner":               {owned, "f", slave.Dir, 0o2755, entry(0o755, 5, 6), others, "", "mode,owner,xattrs"},
		"half of it":             {owned, "f", slave.File, 0o755, entry(0o755, 5, 7), able, "owner", ""},
		"the root":               {root, "", slave.Dir, 0o755, entry(0o700, 1, 2), able, "", "mode,owner"},
		"and its xattrs":         {root, "", slave.Dir, 0o755, entry(0o700, 7, 7), planted, "xattrs", "mode"},
		"not the root":           {root, "d", slave.Dir, 0o755, entry(0o700, 7, 7), able, "mode", ""},
		"no device":              {devices, "f", slave.CharDev, 0o600, nil, nil, "", "missing"},
		"no file":                {devices, "f", slave.File, 0o600, nil, nil, "missing", ""},
		"a device is made":       {setuid, "f", slave.CharDev, 0o600, nil, nil, "missing", ""},
	} {
		p := &pair{path: c.path, mine: &plan.Entry{Kind: c.kind}, meta: slave.Meta{Mode: c.mode, UID: 7, GID: 7, Xattrs: able}}
		if c.their != nil {
			p.theirs = &slave.Detail{EntryState: *c.their}
			p.theirs.Kind = c.kind
			p.theirs.Xattrs, p.theirs.ACL = slave.DigestXattrs(p.nonce, c.xattrs, true)
		}
		p.compare(&slave.Info{Root: true, Limits: slave.Limits{Policy: c.limits}})
		if strings.Join(p.kinds, ",") != c.kinds || strings.Join(p.policy, ",") != c.policy {
			t.Errorf("%s: %q differ, %q by the policy; want %q, %q", name, p.kinds, p.policy, c.kinds, c.policy)
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
