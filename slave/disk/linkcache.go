package disk

import (
	"iter"
	"sync"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
)

// This file keeps rows of the link table in memory while a group is published. An inode may have thousands of names, and a row
// that is read and written anew for each of them costs the square of their number. So a row is written once for all
// operations of a group, and then it is decided, once, whether its inode has all names. Nothing rests on a row: a kill before
// that leaves the inode's mark, and so it is checked.

// Bounds of what stays in memory from one group to the next.
const (
	cachedRows  = 4096
	cachedNames = 32 * apply.MaxNames
)

// linkCache has the rows that were used lately. Nobody changes the names of a row that is in it; further ones may stand behind
// them.
// The zero value is ready.
type linkCache struct {
	mu    sync.Mutex
	rows  map[xtime.GFID]linkRow
	names int
}

// note is what an operation saw of an inode.
type note struct {
	st   beneath.Stat
	path string
	// An odd number says that names were being taken away at that moment, so nothing can be
	// concluded.
	cleans uint64 // of park.cleans: what was seen holds as long as that is so
}

// get gives a row, which is shared: its names are not to be changed in place.
func (s *linkCache) get(g xtime.GFID) (linkRow, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.rows[g]
	return row, ok
}

// put replaces a row, or takes it in.
func (s *linkCache) put(g xtime.GFID, row linkRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = map[xtime.GFID]linkRow{}
	}
	s.names += len(row.names) - len(s.rows[g].names)
	s.rows[g] = row
}

// forget makes room, if there are many rows. All of them are written.
func (s *linkCache) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rows) > cachedRows || s.names > cachedNames {
		s.rows, s.names = nil, 0
	}
}

// put has a row written at the end of the group. mu is held.
func (l *links) put(g xtime.GFID, row linkRow) {
	l.cache.put(g, row)
	l.changed[g] = true
}

// toBeDecided keeps in mind that it is to be decided whether an inode has all names. addMark takes that back: what comes
// behind it decides. mu is held.
func (l *links) toBeDecided(g xtime.GFID, n note) {
	l.notes[g] = n
}

// flush writes the rows that were changed, and decides what is to be decided. They are advice, so
// trouble with them is logged only; a search finds what they lack. It is called at the end of each
// group, and before Groups looks at what is pending.
func (l *links) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.changed {
		row, _ := l.cache.get(g)
		if err := l.write(g, row); err != nil {
			l.log.Warn().Stringer("gfid", g).Err(err).Msg("note the names of an inode")
		}
	}
	clear(l.changed)
	for g, n := range l.notes {
		if err := l.decide(g, n); err != nil {
			l.log.Warn().Stringer("gfid", g).Err(err).Msg("note whether an inode has all names")
		}
	}
	clear(l.notes)
	l.cache.forget()
}

// decide is notePending for what was noted. An inode that lost names to Clean since is looked at again. mu is held.
func (l *links) decide(g xtime.GFID, n note) error {
	row := l.rowNow(g)
	if n.cleans%2 == 0 && n.cleans == l.park.cleans.Load() {
		return l.notePending(g, row, n.st)
	}
	now, ok := l.verify(g, n.path)
	if !ok {
		return l.marks.Add(g, dirty.Mark{Ino: row.Ino})
	}
	return l.notePending(g, row, now.st)
}

// rowToChange reads a row to change it. mu is held, and what is read stays in the cache until the
// end of the group. The caller changes its copy and puts it back with put.
func (l *links) rowToChange(g xtime.GFID) linkRow {
	row := l.row(g)
	l.cache.put(g, row)
	return row
}

// namesOf gives the names in a row, one after the other, where their directories are by now. One may come twice.
func (l *links) namesOf(g xtime.GFID) iter.Seq[string] {
	return func(yield func(string) bool) {
		row := l.row(g)
		for i := range row.names {
			if !yield(l.nameNow(&row, i)) {
				return
			}
		}
	}
}
