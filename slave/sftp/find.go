package sftp

import (
	"context"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
)

// Find tells which inodes the slave has parked, or knows other names of. It answers for a prefix of
// gfids, one at least; the caller asks again for the rest. The answer is that of a moment: whoever
// acts on it names the GFID again.
func (ln *links) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	if err := ln.enter(); err != nil {
		return nil, err
	}
	defer ln.leave()
	all := make([]slave.Found, len(gfids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	for i, gfid := range gfids {
		g.Go(func() (err error) {
			if err := ln.live(gctx); err != nil {
				return err
			}
			all[i], err = ln.find(gfid)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all[:slave.Within(all, slave.MaxFound, (*slave.Found).Weight)], nil
}

// find answers for one inode; a name in the tree goes before a parked one, and one of its own in
// the park before one in a parked directory.
func (ln *links) find(g xtime.GFID) (slave.Found, error) {
	if g.IsZero() {
		return slave.Found{}, nil
	}
	row, err := ln.row(g)
	if err != nil {
		return slave.Found{}, err
	}
	for _, n := range row.names {
		dir, _ := beneath.Split(n)
		var in slave.Record // of a directory that moves meanwhile: an operation that names it is refused in another
		if err := ln.dirRecord(dir, &in); err != nil {
			return slave.Found{}, err
		}
		if f, _, ok := ln.verify(g, n); ok {
			return slave.Found{Linked: true, Path: n, Dir: in.GFID, Record: f.entry.Record}, nil
		}
	}
	if _, ok, err := ln.idx.Get(index.Parked, g.String()); err != nil {
		return slave.Found{}, err
	} else if ok {
		if f, err := ln.look(parkedPlace(g.String())); err == nil && f.known && f.gfid() == g {
			return slave.Found{Parked: true, Record: f.entry.Record}, nil
		}
	}
	path, rec, err := ln.park.findBelow(g)
	if err != nil || path == "" {
		return slave.Found{}, err
	}
	return slave.Found{Parked: true, Path: path, Record: rec}, nil
}
