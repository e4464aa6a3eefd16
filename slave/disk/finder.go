package disk

import (
	"errors"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/gfidindex"
)

// This file has what the slave remembers of where each inode is (package gfidindex). It is written by the committer, and
// checked in the tree whenever it is used.

// finder finds inodes in the tree: by the GFID index, whose answer is checked in the tree, or by a search. The index has its own
// lock.
type finder struct {
	*records
	index *gfidindex.Index
}

// commit writes what a group taught.
func (f *finder) commit() {
	if err := f.index.Commit(); err != nil && !errors.Is(err, gfidindex.ErrClosed) {
		f.log.Warn().Err(err).Msg("write the index of GFIDs; some files may be sent again when they move")
	}
}

// placed finds an inode in the tree, of any kind, by what is remembered. False says nothing: the
// inode may be somewhere else.
func (f *finder) placed(g xtime.GFID) (named, bool) { return f.placedIn(g, nil) }

// placedIn is placed that tells of the directory what leadsTo does.
func (f *finder) placedIn(g xtime.GFID, dir *xtime.GFID) (named, bool) {
	path, ok := f.index.Path(gfidindex.KeyOf(g))
	if !ok || !slave.AllowedPath(path) {
		return named{}, false
	}
	return f.leadsTo(g, path, dir)
}

// knownNames gives the names of the inode on record as g, but path, that are remembered and lead to
// it. Each was looked at in the tree just now; further names may exist that nobody remembers.
func (f *finder) knownNames(g xtime.GFID, names []string, path string) []named {
	all := f.verified(g, names, path)
	n, ok := f.placed(g)
	if !ok || n.kind == slave.Dir || n.path == path {
		return all
	}
	for _, have := range all {
		if have.path == n.path {
			return all
		}
	}
	return append(all, n)
}

// forget forgets inodes that were deleted, unless they are in the tree again. It also compacts the
// index, which is done here because Clean is the time when much is forgotten.
func (f *finder) forget(gfids []xtime.GFID) {
	for _, g := range gfids {
		if _, there := f.placed(g); !there {
			f.index.Note(gfidindex.Entry{Key: gfidindex.KeyOf(g)})
		}
	}
	err := f.index.Commit()
	if err == nil {
		err = f.index.Compact(f.unclosed)
	}
	if err != nil && !errors.Is(err, gfidindex.ErrClosed) {
		f.log.Warn().Err(err).Msg("remove deleted inodes from the index of GFIDs")
	}
}

// named is an inode as one of its names was found to lead to it.
type named struct {
	path string
	entry
}

// verify tells whether path is a name of the inode on record as g.
func (f *finder) verify(g xtime.GFID, path string) (named, bool) {
	n, ok := f.leadsTo(g, path, nil)
	return n, ok && n.kind != slave.Dir
}

// leadsTo is verify for inodes of any kind. It puts the GFID on record of the directory that path lies in, if there is one, into
// dir where that is wanted.
func (f *finder) leadsTo(g xtime.GFID, path string, dir *xtime.GFID) (named, bool) {
	in, name := beneath.Split(path)
	d, err := f.openDir(in)
	if err != nil {
		return named{}, false
	}
	defer d.Close()
	e, err := f.look(place{d, name})
	ok := err == nil && e.there && e.rec.GFID == g
	if ok && dir != nil {
		*dir, _ = f.gfidOf(place{d, ""}) // one that cannot be read is none
	}
	return named{path, e}, ok
}

// verified gives those of the names, but path, that lead to the inode on record as g. The order is
// that of names.
func (f *finder) verified(g xtime.GFID, names []string, path string) []named {
	var all []named
	for _, name := range names {
		if name == path {
			continue
		}
		if n, ok := f.verify(g, name); ok {
			all = append(all, n)
		}
	}
	return all
}

// hit is a name that a search found.
type hit struct {
	path string
	ino  uint64
}

// search lists every name in the tree of the inodes with these numbers. Memory: the directories
// still to be listed. It reads the whole tree, so it is for cases in which the link table must be
// wrong. What cannot be read is left out.
func (f *finder) search(inos map[uint64]bool) []hit {
	var found []hit
	todo := []string{""}
	for len(todo) > 0 && f.unclosed() {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := f.dir.OpenDir(dir)
		if err != nil {
			f.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			path := beneath.Join(dir, e.Name)
			switch {
			case slave.Kind(e.Type) == slave.Dir && path != slave.Reserved:
				todo = append(todo, path)
			case inos[e.Ino]:
				found = append(found, hit{path, e.Ino})
			case slave.Kind(e.Type) == slave.Unknown && path != slave.Reserved:
				if st, err := d.Stat(e.Name); err == nil && st.IsDir() {
					todo = append(todo, path)
				}
			}
			return nil
		})
		d.Close()
		if err != nil {
			f.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
	return found
}

// nameNow is a name in a row of the link table as it is by now.
func (f *finder) nameNow(row *linkRow, i int) string {
	name := row.names[i]
	if row.dirs[i] != gfidindex.Root {
		if dir, ok := f.index.DirPath(row.dirs[i]); ok {
			_, base := beneath.Split(name)
			name = beneath.Join(dir, base)
		}
	}
	return name
}
