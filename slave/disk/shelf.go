package disk

import (
	"iter"
	"slices"
	"sync"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave/places"
)

// This file keeps the books of links/ in memory while a group is published. An inode may have thousands of names, and a book
// that is read and written anew for each of them costs the square of their number. So a book is written once for all
// operations of a group, and then it is decided, once, whether its inode has all names. Nothing rests on a book: a kill before
// that leaves the inode's mark, and so it is checked.

// Bounds of what stays in memory from one group to the next.
const (
	shelfBooks = 4096
	shelfNames = 32 * maxNames
)

// shelf has the books that were used lately. Nobody changes the names of a book that is on it; further ones may stand behind
// them.
// The zero value is ready.
type shelf struct {
	mu    sync.Mutex
	books map[xtime.GFID]index
	names int

	// What follows is guarded by Tree.booksMu.
	dirty map[xtime.GFID]bool // not written yet
	notes map[xtime.GFID]note // inodes of which it is to be decided whether they have all names
}

// note is what an operation saw of an inode.
type note struct {
	st     beneath.Stat
	path   string
	cleans uint64 // of Tree.cleans: what was seen holds as long as that is so
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

// toBeWritten puts a book on the shelf. booksMu is held.
func (t *Tree) toBeWritten(g xtime.GFID, idx index) {
	t.shelf.put(g, idx)
	if t.shelf.dirty == nil {
		t.shelf.dirty = map[xtime.GFID]bool{}
	}
	t.shelf.dirty[g] = true
}

// toBeDecided keeps in mind that it is to be decided whether an inode has all names. setMark takes that back: what comes
// behind it decides. booksMu is held.
func (t *Tree) toBeDecided(g xtime.GFID, n note) {
	if t.shelf.notes == nil {
		t.shelf.notes = map[xtime.GFID]note{}
	}
	t.shelf.notes[g] = n
}

// flushBooks writes what is on the shelf, and decides what is to be decided. The books are advice, so trouble with them is
// logged only; a search finds what they lack.
func (t *Tree) flushBooks() {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	for g := range t.shelf.dirty {
		idx, _ := t.shelf.get(g)
		if err := t.writeIndex(g, idx); err != nil {
			t.log.Warn().Stringer("gfid", g).Err(err).Msg("note the names of an inode")
		}
	}
	clear(t.shelf.dirty)
	for g, n := range t.shelf.notes {
		if err := t.decide(g, n); err != nil {
			t.log.Warn().Stringer("gfid", g).Err(err).Msg("note whether an inode has all names")
		}
	}
	clear(t.shelf.notes)
	t.shelf.forget()
}

// decide is notePending for what was noted. An inode that lost names to Clean since is looked at again. booksMu is held.
func (t *Tree) decide(g xtime.GFID, n note) error {
	idx := t.readIndex(g)
	if n.cleans%2 == 0 && n.cleans == t.cleans.Load() {
		return t.notePending(g, idx, n.st)
	}
	now, ok := t.verify(g, n.path)
	if !ok {
		return t.setMark(g, mark{ino: idx.ino})
	}
	return t.notePending(g, idx, now.st)
}

// openBook reads a book to change it. booksMu is held, and what is read stays on the shelf until the end of the group.
func (t *Tree) openBook(g xtime.GFID) index {
	idx := t.readBook(g)
	t.shelf.put(g, idx)
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
func (t *Tree) bookedNames(g xtime.GFID) iter.Seq[string] {
	return func(yield func(string) bool) {
		idx := t.readBook(g)
		for i := range idx.names {
			if !yield(t.nameNow(&idx, i)) {
				return
			}
		}
	}
}

// nameNow is a name in a book as it is by now.
func (t *Tree) nameNow(idx *index, i int) string {
	name := idx.names[i]
	if idx.dirs[i] != places.Root {
		if dir, ok := t.places.DirPath(idx.dirs[i]); ok {
			_, base := beneath.Split(name)
			name = beneath.Join(dir, base)
		}
	}
	return name
}
