package inotify

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// quiet tells the events of our own marks from others'. It is used under Source.mu.
//
// The kernel merges an event with the one before it in the queue if both are equal. So a mark on a file and a chmod right
// after it may be one event in its directory's watch, and to drop one event for each mark would lose the chmod. But where
// both an inode and its directory are watched, each change gives two events in turn, one to each watch, and equal ones
// never meet: the events of the inode's own watch count its changes exactly. Dropping the first as many as we made
// leaves, after any change of somebody else, at least one that is reported: for if one of theirs is dropped instead of
// ours, then ours is still to come.
//
//   - A directory is watched itself, so its marks are counted (node.own), and what the directory above it is told of its
//     attributes is not needed.
//   - A file gets a watch for the time of a mark: a fence. What its directory's watch tells of its attributes before the
//     fence's event happened before the mark, which covers it; what it tells afterwards is reported.
//   - The root has no watched directory above it. Two fences on a file of no name keep the event of a mark apart from
//     those before and after; what others do to the root between the two shows in its attributes. What does not is what
//     somebody changes and changes back within these microseconds.
//   - What may not be watched, because this user may not read it, is told by its ctime.
type quiet struct {
	fences map[ID]*fence // not yet read to their end
	fenced map[place]int // how many marks within fences, at a place, whose event was not read yet
	looks  map[place]beneath.Time
	memfd  *beneath.Dir // the file of no name; opened at the start, since without it no mark of the root could be told
	// inRoot: what is read of the root now lies between two fences.
	inRoot bool
}

// fence is a watch that was there while a mark was made.
type fence struct {
	at   place
	made bool // its mark was made, and the event of that was not read yet
	// begins and ends tell the root's two from each other.
	begins, ends bool
}

// maxLooks bounds what is remembered of entries that may not be watched; forgetting one costs a mark.
const maxLooks = 8192

// newQuiet makes the file in memory that fences are raised on. The caller closes it.
func newQuiet() (quiet, error) {
	fd, err := unix.MemfdCreate("georep-fence", unix.MFD_CLOEXEC)
	if err != nil {
		return quiet{}, fmt.Errorf("memfd_create: %w", err)
	}
	return quiet{fences: map[ID]*fence{}, fenced: map[place]int{}, looks: map[place]beneath.Time{},
		memfd: beneath.FromFd(fd, false)}, nil
}

// Quietly calls set, which sets one xattr of the entry name of d, or of d itself where name is "", or of what it is given
// instead: the same inode, open. What others do to it meanwhile is reported; what set does is not. The error is set's,
// or says that the entry cannot be reached.
func (s *Source) Quietly(d *beneath.Dir, name string, set func(d *beneath.Dir, name string) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.identify(d)
	if name == "" {
		return s.setDir(n, d, set)
	}
	pin, pinErr := d.Pin(name)
	if pinErr != nil {
		if err == nil && notThere(pinErr) {
			s.metNothing(place{n.id, name})
		}
		return pinErr
	}
	defer pin.Close()
	if err != nil {
		return set(pin, "") // in a directory that is not watched: nobody will hear of it
	}
	st, err := pin.Stat("")
	if err != nil {
		return err
	}
	at := place{n.id, name}
	if st.IsDir() {
		if self, err := s.identify(pin); err == nil {
			return s.setDir(self, pin, set)
		}
		return s.setLooking(at, pin, set)
	}
	s.met(at, &st)
	return s.setFenced(at, pin, set)
}

// setDir marks a directory; n is nil where it is not watched.
func (s *Source) setDir(n *node, d *beneath.Dir, set func(*beneath.Dir, string) error) error {
	switch n {
	case nil:
		return set(d, "")
	case s.tree.root:
		return s.setRoot(d, set)
	}
	err := set(d, "")
	if err == nil {
		n.own++
	}
	return err
}

// isOwn tells whether a change of a directory's attributes is a mark of ours.
func (s *Source) isOwn(n *node) bool {
	if n == s.tree.root {
		return s.quiet.inRoot
	}
	if n.own > 0 {
		n.own--
		return true
	}
	return false
}

// setFenced marks an entry that is no directory while it is watched.
func (s *Source) setFenced(at place, pin *beneath.Dir, set func(*beneath.Dir, string) error) error {
	id, err := s.kernel.add(pin, unix.IN_ATTRIB|unix.IN_MASK_CREATE)
	if err != nil {
		_ = s.limit(err)
		return s.setLooking(at, pin, set)
	}
	if err = set(pin, ""); err == nil {
		s.quiet.fences[id] = &fence{at: at, made: true}
		s.quiet.fenced[at]++
	}
	s.kernel.remove(id)
	return err
}

// takeFence is for events of fences.
func (s *Source) takeFence(e *raw) bool {
	f := s.quiet.fences[e.watch]
	if f == nil {
		return false
	}
	if f.made {
		f.made = false
		if s.quiet.fenced[f.at]--; s.quiet.fenced[f.at] == 0 {
			delete(s.quiet.fenced, f.at)
		}
	}
	if e.has(unix.IN_IGNORED) {
		delete(s.quiet.fences, e.watch)
		if f.begins || f.ends {
			s.quiet.inRoot = f.begins
		}
	}
	return true
}

// isFenced tells whether an event of the directory's watch lies before a mark of the same entry, which covers it.
func (s *Source) isFenced(at place) bool { return s.quiet.fenced[at] > 0 }

// setLooking marks what cannot be watched, and remembers the ctime that this gives it.
func (s *Source) setLooking(at place, pin *beneath.Dir, set func(*beneath.Dir, string) error) error {
	err := set(pin, "")
	if err != nil {
		return err
	}
	if len(s.quiet.looks) >= maxLooks {
		clear(s.quiet.looks)
	}
	if st, err := pin.Stat(""); err == nil {
		s.quiet.looks[at] = st.Ctime
	}
	return nil
}

// isOwnLook tells whether the entry's last change is a mark that setLooking made.
func (s *Source) isOwnLook(n *node, name string) bool {
	at := place{n.id, name}
	ctime, have := s.quiet.looks[at]
	if !have {
		return false
	}
	if d, err := s.tree.opened(n); err == nil {
		if st, err := d.Stat(name); err == nil && st.Ctime == ctime {
			return true
		}
	}
	delete(s.quiet.looks, at)
	return false
}

// setRoot marks the root between two fences.
func (s *Source) setRoot(d *beneath.Dir, set func(*beneath.Dir, string) error) error {
	before, err := s.rootState()
	if err != nil {
		return err
	}
	if !s.rootFence(&fence{begins: true}) {
		return set(d, "")
	}
	err = set(d, "")
	if !s.rootFence(&fence{ends: true}) {
		s.quiet.inRoot = false
		for id, f := range s.quiet.fences {
			if f.begins {
				delete(s.quiet.fences, id)
			}
		}
	}
	if after, stateErr := s.rootState(); stateErr != nil || after != before {
		s.adopt.listUnread(s.tree.root, s.tree, s.empty)
		s.report(s.tree.root.id, "")
	}
	return err
}

// rootFence puts an event of its own into the queue.
func (s *Source) rootFence(f *fence) bool {
	id, err := s.kernel.add(s.quiet.memfd, unix.IN_ATTRIB|unix.IN_MASK_CREATE)
	if err != nil {
		_ = s.limit(err)
		return false
	}
	s.quiet.fences[id] = f
	s.kernel.remove(id)
	return true
}

// rootState is all that a change of the root's attributes shows in, but for its xtime.
func (s *Source) rootState() (string, error) {
	d := s.tree.dir
	st, err := d.Stat("")
	if err != nil {
		return "", err
	}
	names, err := d.Listxattr("")
	slices.Sort(names)
	parts := []string{state(&st), fmt.Sprint(err)}
	for _, name := range names {
		if name == s.skip {
			continue
		}
		// One that cannot be read is no reason not to mark.
		value, err := d.Getxattr("", name)
		parts = append(parts, name, string(value), fmt.Sprint(err))
	}
	return strings.Join(parts, "\x00"), nil
}

// forgetOwn is for when events of our marks were lost: those that are still in the queue will be reported.
func (s *Source) forgetOwn() {
	clear(s.quiet.fences)
	clear(s.quiet.fenced)
	clear(s.quiet.looks)
	s.quiet.inRoot = false
	for _, n := range s.tree.byID {
		n.own = 0
	}
}
