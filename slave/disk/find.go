package disk

import (
	"context"

	"georep/marker/xtime"
	"georep/slave"
)

// Find tells which inodes the slave has, in the tree or parked. It answers for a prefix of gfids at
// least one long; the caller asks again for the rest. The answer is that of a moment, and whoever
// acts on it names the GFID again.
func (l *links) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	all, weight := make([]slave.Found, 0, len(gfids)), int64(0)
	for _, g := range gfids {
		if err := l.live(ctx); err != nil {
			return nil, err
		}
		f := l.findOne(g)
		if weight += f.Weight(); len(all) > 0 && weight > slave.MaxFound {
			break
		}
		all = append(all, f)
	}
	return all, nil
}

// findOne answers for one inode. What was on its way from one place to another is looked for again
// while nothing moves. moving is odd while something moves, so an unchanged even number says that
// nothing did during the look.
func (l *links) findOne(g xtime.GFID) slave.Found {
	if g.IsZero() {
		return slave.Found{}
	}
	before := l.park.moving.Load()
	f := l.findOnce(g)
	if f.Path != "" || f.Parked || before%2 == 0 && before == l.park.moving.Load() {
		return f
	}
	l.park.mu.Lock()
	defer l.park.mu.Unlock()
	return l.findOnce(g)
}

// findOnce looks in all places. A name in the tree goes before a parked one: bringing back another inode of the same GFID
// would split the group. What cannot be read counts as not there: then the inode is shipped.
func (l *links) findOnce(g xtime.GFID) slave.Found {
	var dir xtime.GFID
	for name := range l.namesOf(g) {
		if n, ok := l.leadsTo(g, name, &dir); ok && n.kind != slave.Dir {
			return slave.Found{Linked: true, Path: name, Dir: dir, Record: n.rec}
		}
	}
	if n, ok := l.placedIn(g, &dir); ok {
		return slave.Found{Linked: n.kind != slave.Dir, Path: n.path, Dir: dir, Record: n.rec}
	}
	pk, err := l.look(place{l.parked, g.String()})
	if err == nil && pk.there && pk.rec.GFID == g {
		return slave.Found{Parked: true, Record: pk.rec}
	}
	if path, e, ok := l.park.index.find(g); ok {
		return slave.Found{Parked: true, Path: path, Record: e.rec}
	}
	return slave.Found{}
}
