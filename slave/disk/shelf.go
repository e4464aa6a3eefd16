package disk

import (
	"iter"
	"slices"
	"sync"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
	"georep/slave/places"
)

// This file keeps the books of links/ in memory while a group is published. An inode may have thousands of names, and a book
// that is read and written anew for each of them costs the square of their number. So a book is written once for all
// operations of a group, and then it is decided, once, whether its inode has all names. Nothing rests on a book: a kill before
// that leaves the inode's mark, and so it is checked.

// Bounds of what stays in memory from one group to the next.
const (
	shelfBooks = 4096
	shelfNames = 32 * apply.MaxNames
)

// shelf has the books that were used lately. Nobody changes the names of a book that is on it; further ones may stand behind
// them.
// The zero value is ready.
type shelf struct {
	mu    sync.Mutex
	books map[xtime.GFID]index
	names int
}

// note is what an operation saw of an inode.
type note struct {
	st     beneath.Stat
	path   string
	cleans uint64 // of park.cleans: what was seen holds as long as that is so
}

func (s *shelf) get(g xtime.GFID) (index, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	idx, ok := s.books[g]
	return idx, ok
}

func (s *shelf) put(g xtime.GFID, idx index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.books == nil {
		s.books = map[xtime.GFID]index{}
	}
	s.names += len(idx.names) - len(s.books[g].names)
	s.books[g] = idx
}

// forget makes room, if there are many books. All of them are written.
func (s *shelf) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.books) > shelfBooks || s.names > shelfNames {
		s.books, s.names = nil, 0
	}
}

// toBeWritten puts a book on the shelf. mu is held.
func (l *links) toBeWritten(g xtime.GFID, idx index) {
	l.shelf.put(g, idx)
	l.dirty[g] = true
}

// toBeDecided keeps in mind that it is to be decided whether an inode has all names. addMark takes that back: what comes
// behind it decides. mu is held.
func (l *links) toBeDecided(g xtime.GFID, n note) {
	l.notes[g] = n
}

// flush writes what is on the shelf, and decides what is to be decided. The books are advice, so trouble with them is
// logged only; a search finds what they lack.
func (l *links) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.dirty {
		idx, _ := l.shelf.get(g)
		if err := l.writeIndex(g, idx); err != nil {
			l.log.Warn().Stringer("gfid", g).Err(err).Msg("note the names of an inode")
		}
	}
	clear(l.dirty)
	for g, n := range l.notes {
		if err := l.decide(g, n); err != nil {
			l.log.Warn().Stringer("gfid", g).Err(err).Msg("note whether an inode has all names")
		}
	}
	clear(l.notes)
	l.shelf.forget()
}

// decide is notePending for what was noted. An inode that lost names to Clean since is looked at again. mu is held.
func (l *links) decide(g xtime.GFID, n note) error {
	idx := l.readIndex(g)
	if n.cleans%2 == 0 && n.cleans == l.park.cleans.Load() {
		return l.notePending(g, idx, n.st)
	}
	now, ok := l.verify(g, n.path)
	if !ok {
		return l.marks.Add(g, dirty.Mark{Ino: idx.Ino})
	}
	return l.notePending(g, idx, now.st)
}

// openBook reads a book to change it. mu is held, and what is read stays on the shelf until the end of the group.
func (l *links) openBook(g xtime.GFID) index {
	idx := l.readBook(g)
	l.shelf.put(g, idx)
	return idx
}

// without is the book less one name.
func (idx index) without(i int) index {
	idx.names, idx.dirs = slices.Delete(slices.Clone(idx.names), i, i+1), slices.Delete(slices.Clone(idx.dirs), i, i+1)
	return idx
}

// find looks for a name, by its directory where that is known, and else by its path, which the book may have from before
// its directory moved.
func (idx *index) find(path string, dir places.Key) int {
	_, base := beneath.Split(path)
	for i, name := range idx.names {
		if name == path {
			return i
		}
		if dir != places.Root && idx.dirs[i] == dir {
			if _, b := beneath.Split(name); b == base {
				return i
			}
		}
	}
	return -1
}

// bookedNames gives the names in a book, one after the other, where their directories are by now. One may come twice.
func (l *links) bookedNames(g xtime.GFID) iter.Seq[string] {
	return func(yield func(string) bool) {
		idx := l.readBook(g)
		for i := range idx.names {
			if !yield(l.nameNow(&idx, i)) {
				return
			}
		}
	}
}
