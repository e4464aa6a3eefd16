package inotify

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

const (
	// slack covers what lies between a change's ctime and its event: the tick of the kernel's clock, and a write that was
	// under way.
	slack = 2 * time.Second
	// staleWait is how long a directory may be without a place, while the queue is read to its end, before it counts as
	// gone. One that comes back later is met as a new one, so nothing but work depends on it.
	staleWait = 100 * time.Millisecond
	// dropAtOnce bounds how many watches are removed in one step: each puts an event into the queue.
	dropAtOnce = 512
)

// task is a directory that is watched but was not listed since.
type task struct {
	id ID
	// empty is a moment, before the directory came, when everything in the queue had been read. What is in it and changed
	// since is reported. Zero: nothing is, a scan will follow.
	empty time.Time
	// all: it is new here, or missed a walk, and may have changed elsewhere meanwhile. All that is in it is reported.
	all bool
}

// suspicion is the first and the last epoch in which a directory was not where it should be.
type suspicion struct{ first, last int64 }

// adoption is the work of watching what is new. It is used under Source.mu.
type adoption struct {
	tasks    []task // the last is the next
	waiting  map[ID]task
	places   map[place]time.Time // to be looked at again, with what task.empty will be
	doubts   map[place]*doubt    // a directory was said to be there, was not found, and was not said to be gone
	swamped  bool                // by doubts: a walk is cheaper
	suspects map[ID]suspicion    // could not be opened where they should be
	unread   map[ID]bool         // this user could not read them, or not enter them, when they were to be listed
	dropping []*node             // not in the tree any more
	retried  int64               // the epoch of the last retry
	walking  bool                // all of the tree
	again    bool                // and once more then
	gen      uint32              // of that walk, or of the last one
	stuck    int64               // the epoch since which the walk only waits
	partial  bool                // it ended without what waits
}

// newAdoption has nothing to adopt.
func newAdoption() adoption {
	return adoption{waiting: map[ID]task{}, places: map[place]time.Time{}, doubts: map[place]*doubt{}, suspects: map[ID]suspicion{},
		unread: map[ID]bool{}}
}

// Busy tells whether some directory of the tree may not be watched, or not have been listed: changes may be unseen yet.
func (s *Source) Busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.adopt
	return len(a.tasks)+len(a.waiting)+len(a.places)+len(a.doubts) > 0 || a.walking
}

// Adopt does a part of what is to be done about directories that came or went, and calls fn, which may call Quietly and
// Dir, for what it finds. left tells that there is more that can be done at once. It is to be called until there is not,
// after each end of the queue, and now and then, since some of it waits. An error means that nothing more will come.
func (s *Source) Adopt(fn func(Event)) (left bool, err error) {
	s.mu.Lock()
	s.expire()
	s.dropSome()
	s.retry()
	a := &s.adopt
	if len(a.tasks) == 0 {
		s.endWalk()
		left, err = len(a.dropping) > 0, s.failed
		s.give(fn)
		return left, err
	}
	t := a.tasks[len(a.tasks)-1]
	a.tasks = a.tasks[:len(a.tasks)-1]
	n, d := s.openTask(t)
	err = s.failed
	s.give(fn)
	if d == nil || err != nil {
		return true, err
	}
	return true, s.list(t, n, d, fn)
}

// openTask opens a directory to be listed; nil where it is gone or waits.
func (s *Source) openTask(t task) (*node, *beneath.Dir) {
	n := s.tree.byID[t.id]
	if n == nil {
		return nil, nil
	}
	d, err := s.tree.opened(n)
	if err == nil {
		d, err = d.OpenDir("")
	}
	switch {
	case err == nil:
		return n, d
	case errors.Is(err, ErrStale):
		s.suspect(n)
	case isAny(err, unix.ENOENT) && n != s.tree.root:
		// It is deleted, as an event will tell, or it only seems to be.
	case isAny(err, unix.ENOENT):
		return nil, nil // the root is deleted
	case isAny(err, unix.EACCES) && s.mayNotRead(n):
		s.adopt.unread[n.id] = true
		return nil, nil
	default:
		s.warn(fmt.Errorf("list a new directory, which will be tried again: %w", err))
	}
	s.adopt.waiting[t.id] = t
	return nil, nil
}

// list watches what lies in d, and closes it. It is called without mu.
func (s *Source) list(t task, n *node, d *beneath.Dir, fn func(Event)) error {
	defer d.Close()
	since := t.since()
	err := d.List(func(e beneath.Entry) error { return s.listed(t, n, d, e, since, fn) })
	s.mu.Lock()
	switch {
	case s.failed != nil:
		err = s.failed
	case err == nil && !since.IsZero():
		if st, statErr := d.Stat(""); statErr == nil && changedSince(&st, since) {
			s.reportAll(n.id)
		}
	case err != nil && s.tree.byID[t.id] == n && (n != s.tree.root || !isAny(err, unix.ENOENT)):
		if !isAny(err, unix.ENOENT) { // else it is deleted, as an event will tell, or it only seems to be
			s.warn(fmt.Errorf("list a new directory, which will be tried again: %w", err))
		}
		s.adopt.waiting[t.id] = t
		err = nil
	default:
		err = nil
	}
	s.give(fn)
	return err
}

// listed is one entry of a directory that is being listed.
func (s *Source) listed(t task, n *node, d *beneath.Dir, e beneath.Entry, since time.Time, fn func(Event)) error {
	if e.Type == unix.DT_DIR || e.Type == unix.DT_UNKNOWN {
		s.mu.Lock()
		gone := s.tree.byID[t.id] != n
		found := absent
		if !gone {
			if found = s.lookIn(n, d, e.Name, t.empty, false); found == absent && e.Type == unix.DT_DIR {
				s.adopt.doubt(place{n.id, e.Name}, t.empty)
			}
		}
		err := s.failed
		if gone && err == nil {
			err = unix.ENOENT
		}
		s.give(fn)
		if err != nil || found == present || found == absent && e.Type == unix.DT_DIR {
			return err
		}
	}
	if since.IsZero() {
		return nil
	}
	if st, err := d.Stat(e.Name); err == nil && changedSince(&st, since) {
		fn(Event{Dir: n.id, Name: e.Name})
	}
	return nil
}

// since is from which ctime on entries count as changed, whichever way the wall clock was set meanwhile.
func (t *task) since() time.Time {
	if t.empty.IsZero() {
		return time.Time{}
	}
	if t.all {
		return time.Unix(0, 0)
	}
	then, counted := t.empty.Round(0), time.Now().Round(0).Add(-time.Since(t.empty))
	if counted.Before(then) {
		then = counted
	}
	return then.Add(-slack)
}

// changedSince goes by the ctime, so an equal moment counts as changed.
func changedSince(st *beneath.Stat, since time.Time) bool {
	return !time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)).Before(since)
}

// finding is what is at a place.
type finding int

const (
	absent  finding = iota // no directory of this file system
	present                // one that is watched
	denied                 // one that this user may not watch
	unknown                // what is there is to be found out later
)

// look finds out which directory is at a place, or leaves it for later where the way there is not known. onlyAttr: the
// event was a change of attributes, and it was no directory that is watched.
func (s *Source) look(at place, onlyAttr bool) finding {
	p := s.tree.byID[at.dir]
	if p == nil {
		return unknown
	}
	empty, waits := s.adopt.places[at]
	if !waits {
		empty = s.empty
	}
	d, err := s.tree.opened(p)
	switch {
	case errors.Is(err, ErrStale):
		s.suspect(p)
		s.deferPlace(at, empty)
	case err != nil:
		s.warn(fmt.Errorf("look at a directory, which will be tried again: %w", err))
		s.deferPlace(at, empty)
	default:
		found := s.lookIn(p, d, at.name, empty, true)
		if found == denied && onlyAttr {
			s.report(p.id, at.name)
		}
		return found
	}
	return unknown
}

// lookIn watches the directory name in p, open as d, and puts it in its place in our tree. A new one, and one that came
// from elsewhere, is reported; a new one is to be listed. told: an event told of that place, and it may have been elsewhere
// meanwhile.
func (s *Source) lookIn(p *node, d *beneath.Dir, name string, empty time.Time, told bool) finding {
	at := place{p.id, name}
	n, fresh, found, err := s.watch(d, at)
	if err != nil {
		if s.limit(err); s.failed == nil {
			s.warn(fmt.Errorf("watch a directory, which will be tried again: %w", err))
			s.deferPlace(at, empty)
		}
		return unknown
	}
	delete(s.adopt.places, at)
	if found != present {
		if old := s.tree.at[at]; old != nil {
			s.tree.lose(old, s.now())
		}
		return found
	}
	moved := s.tree.link(p, name, n, s.now())
	if !fresh && (moved || told) {
		s.out = append(s.out, Event{Kind: Moved, Dir: n.id})
	}
	if moved && !fresh {
		s.adopt.listUnread(n, s.tree, s.empty)
	}
	// One that the last walk did not meet was out of the tree then. What was still to be asked of it was dropped for that walk,
	// and the scan that followed may have missed it, too.
	missed := n.gen != s.adopt.gen
	all := fresh || missed && !s.adopt.walking
	switch {
	case !moved || empty.IsZero():
	case all:
		s.reportAll(n.id)
	default:
		s.report(n.id, "") // it was watched all the time, so every name is told
	}
	if fresh || missed {
		n.gen = s.adopt.gen
		s.adopt.tasks = append(s.adopt.tasks, task{n.id, empty, all})
	}
	return present
}

// watch asks the kernel which directory is at a place.
func (s *Source) watch(d *beneath.Dir, at place) (n *node, fresh bool, found finding, err error) {
	child, err := d.OpenPath(at.name)
	switch {
	case notThere(err):
		return nil, false, absent, nil
	case isAny(err, unix.EACCES, unix.EPERM) && refuses(d, "", unix.X_OK):
		s.adopt.unread[at.dir] = true
		return nil, false, denied, nil
	case err != nil:
		return nil, false, absent, err
	}
	defer child.Close()
	st, err := child.Stat("")
	if err != nil {
		return nil, false, absent, err
	}
	id, err := s.kernel.add(child, mask)
	if isAny(err, unix.EACCES, unix.EPERM) && refuses(child, "", unix.R_OK) {
		// It may be watched since before it became unreadable.
		if old := s.tree.at[at]; old != nil && old.inode == st.Number(s.tree.dev) {
			return old, false, present, nil
		}
		return nil, false, denied, nil
	}
	if err != nil {
		return nil, false, absent, err
	}
	if n = s.tree.byID[id]; n == nil {
		n, fresh = &node{id: id, inode: st.Number(s.tree.dev)}, true
		s.tree.byID[id] = n
	}
	return n, fresh, present, nil
}

// maxPlaces bounds what waits; beyond it a walk is cheaper.
const maxPlaces = 1 << 16

// deferPlace has a name looked at later, when it was empty at that moment. Beyond maxPlaces of them
// the whole tree is walked instead, which finds them all at a bounded cost.
func (s *Source) deferPlace(at place, empty time.Time) {
	s.adopt.places[at] = empty
	if len(s.adopt.places) > maxPlaces {
		clear(s.adopt.places)
		s.walkAll()
	}
}

// doubt is a place at which a directory was announced, by an event or by the listing of its directory, and not found.
type doubt struct {
	looks int       // that found nothing since
	empty time.Time // what task.empty will be
}

// doubtLooks is how often such a place is looked at again, each time after another end of the queue.
const doubtLooks = 3

// doubt has a place looked at again once the queue was seen empty, unless an event tells before that the directory has left.
// Whoever announced it was right, so a look that did not find it says nothing of it: it has left again, or the file system
// failed to find what it has. Without a second look nobody would watch it, and nothing else tells of it.
func (a *adoption) doubt(at place, empty time.Time) {
	if len(a.doubts) >= maxPlaces {
		a.swamped = true
		return
	}
	if a.doubts[at] == nil {
		a.doubts[at] = &doubt{empty: empty}
	}
}

// resolve has look look again at what is in doubt. Unknown is asked again, as often as it takes.
func (a *adoption) resolve(look func(at place, empty time.Time) finding) {
	for at, was := range a.doubts {
		switch look(at, was.empty) {
		case unknown:
		case absent:
			if was.looks++; was.looks >= doubtLooks {
				delete(a.doubts, at)
			}
		default:
			delete(a.doubts, at)
		}
	}
}

// suspect notes that a directory is not where it should be. Twice the end of the queue later no event will tell where it
// is: something went unseen, and all is walked.
func (s *Source) suspect(n *node) {
	was, have := s.adopt.suspects[n.id]
	if !have || s.epoch-was.last > 3 {
		was.first = s.epoch
	}
	was.last = s.epoch
	if len(s.adopt.suspects) > maxPlaces {
		clear(s.adopt.suspects)
	}
	s.adopt.suspects[n.id] = was
	if s.epoch-was.first >= 3 && top(n) == s.tree.root && !s.adopt.walking {
		s.walkAll()
	}
}

// retry looks again at what waits, once after each end of the queue.
func (s *Source) retry() {
	a := &s.adopt
	if a.swamped {
		s.walkAll()
	}
	if a.retried == s.epoch {
		return
	}
	a.retried = s.epoch
	for id, t := range a.waiting {
		a.tasks = append(a.tasks, t)
		delete(a.waiting, id)
	}
	for at := range a.places {
		if s.tree.byID[at.dir] == nil {
			delete(a.places, at)
			continue
		}
		if empty := a.places[at]; s.look(at, false) == absent {
			a.doubt(at, empty)
		}
	}
	a.resolve(func(at place, empty time.Time) finding {
		p := s.tree.byID[at.dir]
		if p == nil || s.tree.at[at] != nil {
			return present
		}
		d, err := s.tree.opened(p)
		if err != nil {
			if errors.Is(err, ErrStale) {
				s.suspect(p)
			}
			return unknown
		}
		return s.lookIn(p, d, at.name, empty, true)
	})
}

// expire gives up directories that have been without a place for long.
func (s *Source) expire() {
	for id, at := range s.tree.lost {
		if s.epoch-at.epoch >= 2 && time.Since(at.time) >= staleWait {
			n := s.tree.byID[id]
			delete(s.tree.lost, id)
			s.adopt.dropping = append(s.adopt.dropping, n)
		}
	}
}

// dropSome ends watches of what is not in the tree any more.
func (s *Source) dropSome() {
	a := &s.adopt
	for budget := dropAtOnce; budget > 0 && len(a.dropping) > 0; budget-- {
		n := a.dropping[len(a.dropping)-1]
		a.dropping = a.dropping[:len(a.dropping)-1]
		if s.tree.byID[n.id] != n || n.parent != nil {
			continue // ended by itself, or come back
		}
		for child := n.first; child != nil; child = n.first {
			s.tree.detach(child)
			a.dropping = append(a.dropping, child)
		}
		s.kernel.remove(n.id)
		s.out = append(s.out, Event{Kind: Left, Inode: n.inode})
		s.tree.forget(n, s.now())
	}
}
