package disk

import (
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/places"
)

// backBelow remembers the names in a directory that came back to path, of inodes that are marked, or of which other names are
// parked. They were forgotten when it left (leavingBelow), and such an inode may have no other name by now: without this one it
// would not be compared, nor found where it moves, nor would what is parked of it be known to be there twice.
func (t *Tree) backBelow(path string) error {
	if any, err := t.hasMarks(); err != nil || !any && t.work.twice.count == 0 {
		return err
	}
	for todo := []string{path}; len(todo) > 0 && t.unclosed(); {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := t.dir.OpenDir(dir)
		if err != nil {
			t.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
			continue
		}
		self, err := t.gfidOf(place{d, ""})
		if err == nil && !self.IsZero() {
			err = d.List(func(e beneath.Entry) error {
				below := beneath.Join(dir, e.Name)
				if slave.Kind(e.Type) == slave.Dir {
					todo = append(todo, below)
				} else if g, err := t.gfidOf(place{d, e.Name}); err == nil && !g.IsZero() {
					t.backName(g, below, places.KeyOf(self))
				}
				return nil
			})
		}
		d.Close()
		if err != nil {
			t.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
	return nil
}

// backName is backBelow for one name, which dir has.
func (t *Tree) backName(g xtime.GFID, path string, dir places.Key) {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	_, err := t.pending.Stat(g.String())
	if err != nil && len(t.work.twice.names[g]) == 0 {
		return
	}
	_, name := beneath.Split(path)
	t.places.Note(places.Entry{Key: places.KeyOf(g), Place: places.Place{Dir: dir, Name: name}})
	idx := t.openBook(g)
	known := len(idx.names)
	if err != nil || idx.find(path, dir) >= 0 || known == maxNames {
		return
	}
	idx.add(path, dir)
	if known == 0 {
		idx.want = max(idx.want, 2) // how many there should be went with the last of them
	}
	t.toBeWritten(g, idx)
}

// unclaimed gives those inodes of whose names none is in the tree of which nothing is claimed any more either. One that lies in
// a parked directory may come back with that, and may have changed through a name that is gone. So the directories there lose
// their stamps first: then a crawl comes to it. Where it is not known what lies in parked directories, all of them do.
func (t *Tree) unclaimed(list []*pendingGroup) []*pendingGroup {
	var paths []string
	unknown := false
	for _, p := range list {
		if p.mark.here == 0 {
			continue // it lacks names, and has none: nobody has taken one away
		}
		at, full := t.searchWithin(p.GFID)
		for _, path := range at {
			if _, ok := t.leadsWithin(p.GFID, path); ok {
				paths = append(paths, path)
			}
		}
		unknown = unknown || full
	}
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	if unknown {
		paths = append(paths, t.allWithin()...)
	}
	if err := t.unstampWithin(paths...); err != nil {
		t.log.Warn().Err(err).Msg("take the stamps off parked directories")
		return nil
	}
	return list
}

// allWithin gives a path in each parked directory.
func (t *Tree) allWithin() (paths []string) {
	for todo := []string{""}; len(todo) > 0 && t.unclosed(); {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := t.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		paths = append(paths, beneath.Join(dir, slave.Reserved))
		err = d.List(func(e beneath.Entry) error {
			if slave.Kind(e.Type) == slave.Dir {
				todo = append(todo, beneath.Join(dir, e.Name))
			}
			return nil
		})
		d.Close()
		if err != nil {
			t.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
	return paths
}
