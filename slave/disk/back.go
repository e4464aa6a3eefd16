package disk

import (
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/gfidindex"
)

// backBelow remembers the names in a directory that came back to path, of inodes that are marked,
// or of which other names are parked. They were forgotten when it left (leavingBelow), and such an
// inode may have no other name by now: without this one it would not be compared, nor found where
// it moves, nor would what is parked of it be known to be there twice. It costs a listing of all
// that came back, so it is done only where any inode is dirty or has names in the park twice. What
// cannot be listed is logged; the inode is then found by a search.
func (l *links) backBelow(path string) error {
	if any, err := l.anyDirty(); err != nil || !any && l.park.twice.count == 0 {
		return err
	}
	for todo := []string{path}; len(todo) > 0 && l.unclosed(); {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := l.dir.OpenDir(dir)
		if err != nil {
			l.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
			continue
		}
		self, err := l.gfidOf(place{d, ""})
		if err == nil && !self.IsZero() {
			err = d.List(func(e beneath.Entry) error {
				below := beneath.Join(dir, e.Name)
				if slave.Kind(e.Type) == slave.Dir {
					todo = append(todo, below)
				} else if g, err := l.gfidOf(place{d, e.Name}); err == nil && !g.IsZero() {
					l.backName(g, below, gfidindex.KeyOf(self))
				}
				return nil
			})
		}
		d.Close()
		if err != nil {
			l.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
	return nil
}

// backName is backBelow for one name, which dir has.
func (l *links) backName(g xtime.GFID, path string, dir gfidindex.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.pending.Stat(g.String())
	if err != nil && len(l.park.twice.names[g]) == 0 {
		return
	}
	_, name := beneath.Split(path)
	l.index.Note(gfidindex.Entry{Key: gfidindex.KeyOf(g), Place: gfidindex.Place{Dir: dir, Name: name}})
	row := l.rowToChange(g)
	known := len(row.names)
	if err != nil || row.find(path, dir) >= 0 || known == apply.MaxNames {
		return
	}
	row.add(path, dir)
	if known == 0 {
		row.Want = max(row.Want, 2) // how many there should be went with the last of them
	}
	l.put(g, row)
}

// unclaimed gives those inodes of whose names none is in the tree of which nothing is claimed any
// more either. One that lies in a parked directory may come back with that, and may have changed
// through a name that is gone. So the directories there lose their stamps first: then a crawl comes
// to it. Where it is not known what lies in parked directories, all of them do. park.mu is held
// over the whole of it, so that no directory comes back with a stamp that is about to be taken off.
// Where the stamps cannot be taken off, none of the inodes is given: they stay dirty, and the next
// crawl asks again.
func (l *links) unclaimed(list []*pendingGroup) []*pendingGroup {
	var paths []string
	unknown := false
	for _, p := range list {
		if p.mark.Here == 0 {
			continue // it lacks names, and has none: nobody has taken one away
		}
		at, full := l.park.index.search(p.GFID)
		for _, path := range at {
			if _, ok := l.park.index.leads(p.GFID, path); ok {
				paths = append(paths, path)
			}
		}
		unknown = unknown || full
	}
	l.park.mu.Lock()
	defer l.park.mu.Unlock()
	if unknown {
		paths = append(paths, l.park.index.all()...)
	}
	if err := l.park.index.unstampAbove(paths...); err != nil {
		l.log.Warn().Err(err).Msg("remove the stamps of parked directories")
		return nil
	}
	return list
}
