package disk

import (
	"errors"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/places"
)

// This file has what the slave remembers of where each inode is (package places). It is written by the committer, and
// checked in the tree whenever it is used.

// notePlace remembers where the inode is that an operation has put, or found, in its place.
func (t *Tree) notePlace(op *slave.Op) {
	g := op.Record.GFID
	if g.IsZero() || op.Path == "" || op.Kind == slave.OpPark {
		return
	}
	if op.Entry != slave.Unknown && !op.Entry.CarriesRecord(t.names.Namespace) {
		return
	}
	dir, name := beneath.Split(op.Path)
	if key, ok := t.dirKey(op.Path, dir); ok {
		t.places.Note(places.Entry{Key: places.KeyOf(g), Place: places.Place{Dir: key, Name: name}})
	}
}

// dirKey is the key of the directory that path lies in.
func (t *Tree) dirKey(path, dir string) (places.Key, bool) {
	if dir == "" {
		return places.Root, true
	}
	if k, known := t.work.keys[dir]; known {
		return k, k != places.Root
	}
	p, err := t.parent(path)
	if err != nil {
		return 0, false
	}
	g, err := t.gfidOf(place{p.dir, ""})
	if err != nil || g.IsZero() {
		t.work.keys[dir] = places.Root // none
		return 0, false
	}
	t.work.keys[dir] = places.KeyOf(g)
	return t.work.keys[dir], true
}

// commitPlaces writes what a group taught.
func (t *Tree) commitPlaces() {
	if err := t.places.Commit(); err != nil && !errors.Is(err, places.ErrClosed) {
		t.log.Warn().Err(err).Msg("remember where inodes are; some may be sent again when they move")
	}
}

// syncAll makes durable all that was written to the slave.
func (t *Tree) syncAll() error {
	written := t.places.Written()
	t.beginSync()
	if err := t.sys.syncfs(t.dir); err != nil {
		return err
	}
	t.endSync()
	if err := t.places.Synced(written); err != nil {
		t.log.Warn().Err(err).Msg("remove an old part of the index of places")
	}
	return nil
}

// placed finds an inode in the tree, of any kind, by what is remembered.
func (t *Tree) placed(g xtime.GFID) (named, bool) { return t.placedIn(g, nil) }

// placedIn is placed that tells of the directory what leadsTo does.
func (t *Tree) placedIn(g xtime.GFID, dir *xtime.GFID) (named, bool) {
	path, ok := t.places.Path(places.KeyOf(g))
	if !ok || !slave.AllowedPath(path) {
		return named{}, false
	}
	return t.leadsTo(g, path, dir)
}

// knownNames gives the names of the inode on record as g, but path, that are remembered and lead to it.
func (t *Tree) knownNames(g xtime.GFID, names []string, path string) []named {
	all := t.verified(g, names, path)
	n, ok := t.placed(g)
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

// forgetPlaces forgets inodes that were deleted, unless they are in the tree again.
func (t *Tree) forgetPlaces(gfids []xtime.GFID) {
	for _, g := range gfids {
		if _, there := t.placed(g); !there {
			t.places.Note(places.Entry{Key: places.KeyOf(g)})
		}
	}
	err := t.places.Commit()
	if err == nil {
		err = t.places.Compact(t.unclosed)
	}
	if err != nil && !errors.Is(err, places.ErrClosed) {
		t.log.Warn().Err(err).Msg("forget where deleted inodes were")
	}
}
