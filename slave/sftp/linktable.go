package sftp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
)

// links knows the names of inodes that have several (the link table), and which inodes are dirty:
// their names are to be checked by the crawler. Both are shards of the index, so that they are
// durable with it.
type links struct {
	*changer
	park *park

	// mu is held while what is known of an inode is read and written back, with its mark.
	mu sync.Mutex
	// finalSeen counts, of inodes with more names than are kept, the names that operations found right
	// since the search of the master that found how many there are.
	finalSeen map[xtime.GFID]uint32
}

func newLinks(ch *changer, k *park) *links {
	return &links{changer: ch, park: k, finalSeen: map[xtime.GFID]uint32{}}
}

// linkRow is what is known of an inode with several names. It is an entry of the shard Links, under
// the GFID; that there may be more names than it has room for, apply.MaxNames, Want tells.
type linkRow struct {
	apply.Names
	names []string
}

// row reads what is known of an inode's names; nothing known is an empty row. mu is held by whoever
// writes it back.
func (ln *links) row(g xtime.GFID) (row linkRow, err error) {
	e, ok, err := ln.idx.Get(index.Links, g.String())
	if err != nil || !ok {
		return row, err
	}
	row = linkRow{Names: apply.Names{Ino: e.Ino, Want: e.Links, At: e.Record.Xtime, Final: e.Virtual}}
	if e.Meta.Target != "" {
		row.names = strings.Split(e.Meta.Target, "\x00")
	}
	return row, nil
}

// writeRow keeps a row as long as it tells more than the tree does. The entry's fields stand for
// other things here: see row. mu is held.
func (ln *links) writeRow(g xtime.GFID, row linkRow) error {
	if !row.WorthKeeping(len(row.names)) {
		return ln.idx.Delete(index.Links, g.String())
	}
	return ln.idx.Set(index.Links, g.String(), index.Entry{Ino: row.Ino, Links: row.Want, Record: slave.Record{GFID: g, Xtime: row.At},
		Virtual: row.Final, Meta: slave.Meta{Target: strings.Join(row.names, "\x00")}})
}

// add takes in a name, where it is new and there is room.
func (row *linkRow) add(name string) {
	if !slices.Contains(row.names, name) && len(row.names) < apply.MaxNames {
		row.names = append(row.names, name)
	}
}

// noteGroup remembers what an operation taught of an inode with several names: its names, and
// whether some are missing or have another content. What cannot be remembered is logged, and found
// by a search of the master.
func (ln *links) noteGroup(op *slave.Op, names []string) {
	g := op.Record.GFID
	if g.IsZero() {
		return
	}
	ln.park.twice.learn(g, names...)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	row, err := ln.row(g)
	if err == nil {
		was := row
		row.Learn(op)
		if op.LinksFinal && row.Want > apply.MaxNames {
			ln.finalSeen[g]++
		}
		for _, n := range names {
			row.add(n)
		}
		if len(row.names) != len(was.names) || row.Names != was.Names {
			err = ln.writeRow(g, row)
		}
		err = errors.Join(err, ln.notePending(g, row))
	}
	if err != nil {
		ln.log.Warn().Stringer("gfid", g).Err(err).Msg("note the names of an inode")
	}
}

// knownAll tells whether the row has all that an operation on names that were there could teach,
// and says that the inode is as it should be: then nothing is to be written.
func (ln *links) knownAll(op *slave.Op, names []string) bool {
	g := op.Record.GFID
	ln.mu.Lock()
	defer ln.mu.Unlock()
	row, err := ln.row(g)
	if err != nil {
		return false
	}
	now := row
	now.Learn(op)
	if now.Names != row.Names {
		return false
	}
	for _, n := range names {
		if !slices.Contains(row.names, n) {
			return false
		}
	}
	_, marked, err := ln.idx.Get(index.Pending, g.String())
	return err == nil && !marked
}

// liveNames counts the names that lead to the newest state of the inode, and where the server makes
// links, to one file. It goes by the index alone, which costs no request.
func (ln *links) liveNames(g xtime.GFID, names []string) (n uint32) {
	newest, counts := xtime.Time(0), map[index.ID]uint32{}
	for _, name := range names {
		e, ok := ln.recorded(g, name)
		if !ok || e.Record.Xtime < newest {
			continue
		}
		if e.Record.Xtime > newest {
			newest = e.Record.Xtime
			clear(counts)
		}
		id := e.ID
		if !ln.first().CanLink() || e.Virtual {
			id = 0
		}
		counts[id]++
	}
	for _, c := range counts {
		n = max(n, c)
	}
	return n
}

// hasAll tells whether an inode has all its names. Of one that has more than are kept that is so
// once a search of the master found them, and as many have been found right since. mu is held.
func (ln *links) hasAll(g xtime.GFID, row *linkRow) bool {
	want := row.Want
	if want > apply.MaxNames && len(row.names) >= apply.MaxNames {
		if !row.Final || ln.finalSeen[g] < want {
			return false
		}
		want = apply.MaxNames
	}
	// As long as there are too few no name is looked at: while an inode gets thousands of them that would be the square of it.
	return uint32(len(row.names)) >= want && ln.liveNames(g, row.names) >= want
}

// notePending makes or removes the mark that says that names are to be checked. mu is held.
func (ln *links) notePending(g xtime.GFID, row linkRow) error {
	if ln.hasAll(g, &row) {
		delete(ln.finalSeen, g)
		return ln.idx.Delete(index.Pending, g.String())
	}
	_, ok, err := ln.idx.Get(index.Pending, g.String())
	if err != nil || ok {
		return err
	}
	return ln.idx.Set(index.Pending, g.String(), index.Entry{Record: slave.Record{GFID: g}, Ino: row.Ino})
}

// forgetName takes a name of an inode that leaves the tree out of its row. If the inode keeps other
// names they are to be checked: what was changed through the one that is gone shows under them, in
// directories that nothing has marked. They are returned. If the name comesBack, as one that leaves
// with its directory may, the inode is to be checked even without another.
func (ln *links) forgetName(old index.Entry, path string, comesBack bool) (others []string) {
	g := old.Record.GFID
	if g.IsZero() {
		return nil
	}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	row, err := ln.row(g)
	if err != nil || len(row.names) == 0 {
		return nil
	}
	if i := slices.Index(row.names, path); i >= 0 {
		row.names = slices.Delete(row.names, i, i+1)
	}
	err = ln.writeRow(g, row)
	if len(row.names) > 0 || comesBack {
		err = errors.Join(err, ln.toBeChecked(g, row.Ino))
	}
	if err != nil {
		ln.log.Warn().Stringer("gfid", g).Err(err).Msg("forget a name of an inode")
	}
	return row.names
}

// toBeChecked makes the mark that says that the names of an inode are to be checked, since one of
// them was gone. mu is held.
func (ln *links) toBeChecked(g xtime.GFID, ino uint64) error {
	return ln.idx.Set(index.Pending, g.String(), index.Entry{Record: slave.Record{GFID: g}, Ino: ino, Virtual: true})
}

// Groups returns inodes whose names are to be checked. Those of which nothing is left to check lose
// their marks, so that an empty answer says that nothing holds the root's stamp back.
func (ln *links) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	if err := ln.enter(); err != nil {
		return nil, err
	}
	defer ln.leave()
	var marked []xtime.GFID
	removed := map[xtime.GFID]bool{}
	err := ln.idx.Each(index.Pending, func(_ string, e index.Entry) bool {
		marked = append(marked, e.Record.GFID)
		removed[e.Record.GFID] = e.Virtual
		return true
	})
	var out []slave.Group
	var none []xtime.GFID
	weight := int64(0)
	for _, g := range marked {
		if err == nil {
			err = ln.live(ctx)
		}
		if err != nil || len(out) >= most || weight > slave.MaxGroups {
			break
		}
		group, keep, gerr := ln.group(g, removed[g])
		if err = gerr; keep {
			out, weight = append(out, group), weight+group.Weight()
		} else if gerr == nil {
			none = append(none, g)
		}
	}
	err = errors.Join(err, ln.unclaimed(none, removed))
	return out[:slave.Within(out, slave.MaxGroups, (*slave.Group).Weight)], err
}

// group tells of one inode; keep is false where nothing is left to check. removed says that one of
// its names was removed.
func (ln *links) group(g xtime.GFID, removed bool) (out slave.Group, keep bool, err error) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return ln.groupLocked(g, removed)
}

// groupLocked is group for whoever holds mu.
func (ln *links) groupLocked(g xtime.GFID, removed bool) (out slave.Group, keep bool, err error) {
	row, err := ln.row(g)
	out = slave.Group{GFID: g, Ino: row.Ino}
	first, size := true, 0 // of the names
	for _, n := range row.names {
		e, ok := ln.recorded(g, n)
		switch {
		case !ok:
			continue
		case first:
			out.Record, first = e.Record, false
		case e.Record != out.Record:
			out.Record = slave.Record{}
		}
		if size += len(n); len(out.Names) < slave.MaxGroupNames && size <= slave.MaxFoundPath {
			out.Names = append(out.Names, n)
		}
	}
	out.MissingNames = len(out.Names) > 0 && !ln.hasAll(g, &row)
	if out.MissingNames {
		delete(ln.finalSeen, g) // all of it is settled anew
	}
	return out, out.MissingNames || removed && len(out.Names) > 0, err
}

// others gives the places of the known names of an inode but path, which lead to it, with what was
// found there. Each costs a request.
func (ln *links) others(g xtime.GFID, path string) (places []place, all []found, err error) {
	row, err := ln.row(g)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range row.names {
		if n == path {
			continue
		}
		if f, p, ok := ln.verify(g, n); ok {
			places, all = append(places, p), append(all, f)
		}
	}
	return places, all, nil
}

// candidate is an entry that an OpLink could link to, and where it is.
type candidate struct {
	index.Entry
	at place
}

// source finds the inode that an OpLink means: through From, or the link table, where the newest
// state is the best. The index tells which name that is before any is looked at.
func (ln *links) source(op *slave.Op) (*apply.Source[candidate], error) {
	s, g := &apply.Source[candidate]{Op: op}, op.Record.GFID
	look := func(path string) {
		if f, p, leads := ln.verify(g, path); leads && s.Fits(f.entry.Kind) {
			s.Take(candidate{f.entry, p}, f.entry.Record)
		}
	}
	if from, ok := s.From(); ok {
		if look(from); s.Found {
			return s, nil
		}
	}
	row, err := ln.row(g)
	if err != nil {
		return nil, err
	}
	for _, n := range row.names {
		if e, on := ln.recorded(g, n); on && s.Better(n, e.Record) { // the index says so, without a request
			look(n)
		}
		if s.Enough() {
			break
		}
	}
	return s, nil
}
