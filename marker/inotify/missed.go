package inotify

import (
	"fmt"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// missed finds out when a file may have changed unmarked: an event names the directory and the name through which it was
// changed, and when it is read the name may be gone, or another file's, while the inode lives on under other names. It is
// used under Source.mu.
//
// A mark that was made, and after which the queue was seen empty before the name went, is known to have met the right
// inode. So is one of a file that had no other name: there is nothing to miss. Else a scan has to find the inode by its
// ctime: at once, or later where the name was both made and removed meanwhile, which means almost always that the file
// was new.
type missed struct {
	recent map[place]*touch
	linked map[uint64]bool   // inode numbers that were seen with several names
	moves  map[uint32]*touch // by cookie: names that moved, to where is yet to be told
	// vanished are names that a mark did not find, with the epoch of the mark.
	vanished map[place]int64
}

// touch is what is known of a name that was used lately.
type touch struct {
	created, modified bool
	marked            int64  // the epoch of the last mark since it was modified; -1: none
	ino               uint64 // the inode that marks met there
	links             uint32
	met               int64 // the epoch of the first mark that met the inode so
	moved             int64 // the epoch of the move, in missed.moves
}

const (
	keptTouches = 8192    // across the end of the queue
	maxTouches  = 1 << 16 // within
)

// newMissed remembers nothing.
func newMissed() missed {
	return missed{recent: map[place]*touch{}, linked: map[uint64]bool{}, moves: map[uint32]*touch{},
		vanished: map[place]int64{}}
}

// forgetMissed is for when the whole tree is walked, which finds whatever these were kept for.
func (s *Source) forgetMissed() { s.missed = newMissed() }

// follow is told of each event of an entry that is no directory.
func (s *Source) follow(at place, e *raw) {
	m := &s.missed
	switch {
	case e.has(unix.IN_CREATE):
		s.nameGone(m.recent[at])
		m.recent[at] = &touch{created: true, marked: -1, met: s.epoch}
	case e.has(unix.IN_MOVED_TO):
		s.nameGone(m.recent[at])
		if t := m.moves[e.cookie]; t != nil {
			delete(m.moves, e.cookie)
			m.recent[at] = t
		} else {
			delete(m.recent, at)
		}
	case e.has(unix.IN_MOVED_FROM):
		if t := m.recent[at]; t != nil {
			t.moved = s.epoch
			m.moves[e.cookie] = t
			delete(m.recent, at)
		}
	case e.has(unix.IN_DELETE):
		s.nameGone(m.recent[at])
		delete(m.recent, at)
	default:
		t := m.recent[at]
		if t == nil {
			t = &touch{met: s.epoch}
			m.recent[at] = t
		}
		t.modified, t.marked = true, -1
	}
	if len(m.recent)+len(m.linked)+len(m.moves) > maxTouches {
		s.forgetMissed()
		s.ask(Blind)
	}
}

// nameGone asks for a scan if what was changed through a name may live on unmarked.
func (s *Source) nameGone(t *touch) {
	switch {
	case t == nil, !t.modified, t.marked >= 0 && t.marked < s.epoch:
	case t.links == 1 && t.met < s.epoch && !s.linked[t.ino]:
	case t.created:
		s.ask(Blind)
	default:
		s.ask(Lost)
	}
}

// met is told of the inode that a mark meets.
func (s *Source) met(at place, st *beneath.Stat) {
	m := &s.missed
	if st.Nlink > 1 {
		m.linked[st.Ino] = true
	}
	t := m.recent[at]
	if t == nil {
		return
	}
	t.marked = s.epoch
	if t.ino != st.Ino || t.links != st.Nlink {
		t.ino, t.links, t.met = st.Ino, st.Nlink, s.epoch
	}
}

// metNothing is told of a mark that did not find its entry.
func (s *Source) metNothing(at place) {
	if t := s.recent[at]; t != nil && t.modified && t.marked < 0 {
		s.vanished[at] = s.epoch
	}
}

// endEpoch is called when the queue was seen empty.
func (s *Source) endEpoch() {
	m := &s.missed
	for at, epoch := range m.vanished {
		if epoch >= s.epoch-1 {
			continue // the event that tells of it may be on its way
		}
		// It was gone before it changed: a file that is open, and may have other names.
		if t := m.recent[at]; t != nil && t.modified && t.marked < 0 {
			delete(m.recent, at)
			s.ask(Blind)
		}
		delete(m.vanished, at)
	}
	for cookie, t := range m.moves {
		if t.moved < s.epoch-1 {
			// It left the tree.
			delete(m.moves, cookie)
			s.nameGone(t)
		}
	}
	if len(m.recent)+len(m.linked) > keptTouches {
		m.prune(s.epoch)
	}
}

// prune forgets what is not needed for what is in the queue. What is known of links goes as a whole.
func (m *missed) prune(epoch int64) {
	clear(m.linked)
	for at, t := range m.recent {
		t.links = 0
		if !t.modified || t.marked >= 0 && t.marked < epoch {
			delete(m.recent, at)
		}
	}
}

// state is what of an inode's attributes others may change.
func state(st *beneath.Stat) string {
	return fmt.Sprint(st.Mode, st.UID, st.GID, st.Mtime, st.Attrs)
}
