package sftp

import (
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
)

// This file has what becomes of the names of inodes with several when their directory leaves the tree, and comes back.

// anyIn tells whether a shard has an entry.
func (t *Tree) anyIn(shards ...index.ID) (any bool, err error) {
	for _, id := range shards {
		if err == nil && !any {
			err = t.idx.Each(id, func(string, index.Entry) bool { any = true; return false })
		}
	}
	return any, err
}

// linkedBelow calls fn for the entries of inodes with several names in a directory, which lies at path, one directory at a time.
func (t *Tree) linkedBelow(id index.ID, path string, fn func(path string, e index.Entry)) error {
	type level struct {
		id   index.ID
		path string
	}
	for todo := []level{{id, path}}; len(todo) > 0; {
		l := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if l.id == 0 {
			continue
		}
		linked := map[string]index.Entry{} // fn may write to the index
		err := t.idx.Each(l.id, func(name string, e index.Entry) bool {
			at := l.path + "/" + name
			if e.Kind == slave.Dir {
				todo = append(todo, level{e.ID, at})
			} else if e.Links > 1 && !e.Record.GFID.IsZero() {
				linked[at] = e
			}
			return true
		})
		if err != nil {
			return err
		}
		for at, e := range linked {
			fn(at, e)
		}
	}
	return nil
}

// forgetBelow does what forgetName does for all names in a directory that has left the tree, which lay at path and is parked as
// name.
func (t *Tree) forgetBelow(id index.ID, path, parked string) error {
	// Without a single book there is nothing to forget, and no shard to be read: the usual case.
	if any, err := t.anyIn(index.Links); err != nil || !any {
		return err
	}
	return t.linkedBelow(id, path, func(at string, e index.Entry) {
		others := t.forgetName(e, at, true)
		t.twice.add(e.Record.GFID, parked+strings.TrimPrefix(at, path), others)
	})
}

// backBelow takes the names in a directory that came back to path into the books again. They are to be checked: the inode may
// have changed through a name that is gone, while this one was none.
func (t *Tree) backBelow(id index.ID, path string) error {
	if any, err := t.anyIn(index.Links, index.Pending); err != nil || !any && t.twice.none() {
		return err
	}
	return t.linkedBelow(id, path, func(at string, e index.Entry) {
		if err := t.backName(at, e); err != nil {
			t.log.Warn().Stringer("gfid", e.Record.GFID).Err(err).Msg("remember a name of an inode")
		}
	})
}

// backName is backBelow for one name. An inode of which neither a book nor a mark is left has this name only.
func (t *Tree) backName(path string, e index.Entry) error {
	g := e.Record.GFID
	t.twice.learn(g, path)
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	b, err := t.book(g)
	if err != nil {
		return err
	}
	_, marked, err := t.idx.Get(index.Pending, g.String())
	if err != nil || len(b.names) == 0 && !marked {
		return err
	}
	if len(b.names) == 0 { // how many there should be went with the last of them
		b.Ino, b.Want, b.At = e.Ino, e.Links, e.Record.Xtime
	}
	b.add(path)
	if err := t.writeBook(g, b); err != nil {
		return err
	}
	return t.toBeChecked(g, b.Ino)
}

// unclaimed takes the marks off inodes of whose names none is to be checked. One of those of which names were removed may lie in a
// parked directory, come back with that, and have changed through a name that is gone. So the directories there lose their stamps
// first: then a crawl comes to it. Where it is not known what lies in parked directories, all of them do.
func (t *Tree) unclaimed(gfids []xtime.GFID, removed map[xtime.GFID]bool) error {
	var paths []string
	unknown := false
	for _, g := range gfids {
		if !removed[g] {
			continue
		}
		at, full, err := t.searchWithin(g)
		if err != nil {
			return err
		}
		paths, unknown = append(paths, at...), unknown || full
	}
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	if unknown {
		all, err := t.allWithin()
		if err != nil {
			return err
		}
		paths = append(paths, all...)
	}
	if err := t.unstampWithin(paths...); err != nil {
		return err
	}
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	for _, g := range gfids {
		// A large file may have got a name since, from beside the crawl.
		_, keep, err := t.booked(g, removed[g])
		if err == nil && !keep {
			err = t.idx.Delete(index.Pending, g.String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// allWithin gives a path in each parked directory.
func (t *Tree) allWithin() (paths []string, err error) {
	for todo := []parkedShard{{"", index.Parked}}; len(todo) > 0; {
		one := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		paths = append(paths, beneath.Join(one.path, slave.Reserved))
		err := t.idx.Each(one.id, func(name string, e index.Entry) bool {
			if e.Kind == slave.Dir && e.ID != 0 {
				todo = append(todo, parkedShard{beneath.Join(one.path, name), e.ID})
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// leftAlone books that a name of an inode has left the tree, at path, for a place of its own in the park.
func (t *Tree) leftAlone(old index.Entry, path, parked string) {
	if others := t.forgetName(old, path, false); len(others) > 0 || old.Links > 1 {
		t.twice.add(old.Record.GFID, parked, others)
	}
}
