package inotify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/queue"
)

// Kind is what an event asks for.
type Kind int

const (
	// Changed: the entry, or the directory itself where there is no name, is to be marked.
	Changed Kind = iota
	// Lost: changes went unseen. Whatever has a ctime since the last time that all was marked is to be marked.
	Lost
	// Blind: a change may have gone unseen, which is so unlikely that a scan for it can wait.
	Blind
	// Moved: the directory came to where it is, and had been watched before. There is nothing to mark.
	Moved
	// Left: Inode is a directory that is not watched any more, since it is not in the tree. There is nothing to mark.
	Left
)

// Event is one thing to do. It names a directory by its watch, so the name of the directory itself
// plays no part, and may change at any time.
type Event struct {
	Kind Kind
	Dir  ID
	Name string
	// Told is the name in Dir that the change is about where it is not to be marked: what it led to is gone, or is a
	// directory.
	Told string
	// Unclear: what else changed in Dir, nobody can tell by name.
	Unclear bool
	Inode   uint64 // beneath.Stat.Number, by the root's device
}

// mask is what changes a tree. IN_MODIFY tells of a write while the file stays open, IN_CLOSE_WRITE of what was written
// through a mapping; IN_ATTRIB also of xattrs. Deletions and moves of a directory itself are told by the directory above
// it. IN_EXCL_UNLINK is left out: a file that has lost the name it was opened by may have others.
const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY |
	unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_ONLYDIR

// readBuffer holds some thousands of events.
const readBuffer = 64 << 10

// Source is an open event queue and the watches that fill it. One goroutine at a time may wait, read and adopt, and use
// what Dir returns; Quietly, Key, Expect, Busy and Close may be called from any.
type Source struct {
	*queue.Queue
	kernel kernel
	// buf is for one read at a time. What is parsed from it is copied.
	buf []byte
	// Overflowed is called when the kernel dropped events; it may be set before Watch. nil: nobody counts.
	Overflowed func()
	warn       func(error)
	warned     string // what was said last
	skip       string // the xattr that Quietly sets

	// mu guards what follows. It is held over system calls on directories, and never while the
	// queue is waited for.
	mu   sync.Mutex
	tree *nodes
	// out is in the order in which the events are to be marked.
	out []Event // to be given to the caller
	// What was noted in an epoch is certain in a later one: no earlier event is in the queue then.
	epoch int64 // how often the queue was seen empty
	empty time.Time
	adopt adoption
	quiet quiet
	missed
	// failed is given to every later call. The marker then goes over to scans.
	failed error // what makes the source useless
}

// kernel is what tests make fail. The others have the kernel's own.
type kernel struct {
	read   func(b []byte) (int, error)
	add    func(d *beneath.Dir, mask uint32) (ID, error)
	remove func(id ID)
}

// Open makes a queue and watches root, nothing below it yet: that is for Watch. It proves that events come. skip is the
// xattr that marks set. warn is called with trouble that will be tried again. The errors are ErrLimit, wrapped, or that
// the kernel has no inotify. root stays the caller's and must outlive the Source.
func Open(root *beneath.Dir, skip string, warn func(error)) (*Source, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, instancesError(err)
	}
	q, err := queue.New(fd, "inotify")
	if err != nil {
		return nil, err
	}
	s := &Source{Queue: q, buf: make([]byte, readBuffer), tree: newNodes(root), empty: time.Now(), skip: skip,
		adopt: newAdoption(), missed: newMissed()}
	s.warn = func(err error) { s.warnOnce(err, warn) }
	s.kernel = kernel{read: q.Read, add: s.addWatch, remove: s.removeWatch}
	s.tree.proves = s.proves
	if s.quiet, err = newQuiet(); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// warnOnce does not say the same again and again.
func (s *Source) warnOnce(err error, warn func(error)) {
	if text := err.Error(); text != s.warned {
		s.warned = text
		warn(err)
	}
}

// start watches the root, after an event that changes nothing has proved that events come.
func (s *Source) start() error {
	st, err := s.tree.dir.Stat("")
	if err != nil {
		return err
	}
	id, err := s.kernel.add(s.tree.dir, unix.IN_OPEN|unix.IN_ONLYDIR)
	if err != nil {
		return s.limit(fmt.Errorf("watch the root: %w", err))
	}
	s.tree.dev = st.Dev
	s.tree.root = &node{id: id, inode: st.Number(st.Dev)}
	s.tree.byID[id], s.tree.ids[s.tree.dir] = s.tree.root, id
	// The kernel queues an event before the system call that made it returns.
	if d, err := s.tree.dir.OpenDir(""); err != nil || d.Close() != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	if n, err := s.Bytes(); err != nil || n == 0 {
		return errors.Join(errors.New("the kernel reports nothing of this file system"), err)
	}
	if _, err := s.kernel.add(s.tree.dir, mask); err != nil {
		return fmt.Errorf("watch the root: %w", err)
	}
	// Whatever else is in the queue lies before the moment from which changes count.
	_, err = s.kernel.read(s.buf)
	return err
}

// Close drops the queue and every watch.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.close()
	return errors.Join(s.quiet.memfd.Close(), s.Queue.Close())
}

// Watch watches all of the tree. What changed before it returns is not reported: a scan that begins afterwards finds it.
// The errors are those of ctx, of reading, and ErrLimit, wrapped.
func (s *Source) Watch(ctx context.Context) error {
	s.mu.Lock()
	s.walkAll()
	s.mu.Unlock()
	drop := func(Event) {}
	for tries := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The queue is read meanwhile, or it would overflow.
		if _, err := s.Read(drop); err != nil {
			return err
		}
		left, err := s.Adopt(drop)
		if err != nil {
			return err
		}
		if !left && !s.Busy() {
			return nil
		}
		if tries++; !left && tries > watchTries {
			return fmt.Errorf("some directories cannot be watched; the log names the reason")
		}
		if !left {
			// What is not where it was is told by events that may still be on their way.
			s.WaitUntil(time.Now().Add(staleWait))
			if err := s.Wait(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
	}
}

// Watched is how many directories are watched.
func (s *Source) Watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tree.byID)
}

// Pending tells how much is in the queue now, in the unit of Read. Every event of the past is in it or was read before.
func (s *Source) Pending() (units int, err error) {
	bytes, err := s.Bytes()
	return bytes / headerSize, err
}

// Read calls fn for what the oldest events of the queue ask for, as many as one system call gives, and tells how much it
// read: one event is at least one unit, with a name two or more. It never waits: an empty queue gives 0. An error means
// that nothing more will come.
func (s *Source) Read(fn func(Event)) (units int, err error) {
	before := time.Now()
	n, err := s.kernel.read(s.buf)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	if n == 0 {
		s.epoch++
		s.empty = before
		s.endEpoch()
	}
	if err := parse(s.buf[:n], s.take); err != nil {
		s.warn(fmt.Errorf("events were lost: %w", err))
		s.overflow()
	}
	err = s.failed
	s.give(fn)
	return n / headerSize, err
}

// give ends the use of s.mu, and calls fn for what came together meanwhile.
func (s *Source) give(fn func(Event)) {
	out := s.out
	s.out = nil
	s.mu.Unlock()
	for _, e := range out {
		fn(e)
	}
}

// report hands out an event of the entry of that name; "" is the directory itself.
func (s *Source) report(dir ID, name string) { s.out = append(s.out, Event{Dir: dir, Name: name}) }

// reportDir reports a directory because of a name in it.
func (s *Source) reportDir(dir ID, name string) { s.out = append(s.out, Event{Dir: dir, Told: name}) }

// reportAll reports a directory of which it is not known what changed in it.
func (s *Source) reportAll(dir ID) { s.out = append(s.out, Event{Dir: dir, Unclear: true}) }

// ask hands out what is no change of one entry, such as that a scan is needed.
func (s *Source) ask(k Kind) { s.out = append(s.out, Event{Kind: k}) }

// now is this moment, with the epoch that it falls into.
func (s *Source) now() lostAt { return lostAt{time.Now(), s.epoch} }

// take does what one event asks for. It is called with mu held.
func (s *Source) take(e *raw) {
	if e.has(unix.IN_Q_OVERFLOW) {
		s.warn(errors.New("the kernel's event queue overflowed; looking for the lost changes"))
		if s.Overflowed != nil {
			s.Overflowed()
		}
		s.overflow()
		return
	}
	if s.takeFence(e) {
		return
	}
	n := s.tree.byID[e.watch]
	switch {
	case n == nil: // It was watched once.
	case e.has(unix.IN_IGNORED):
		s.tree.forget(n, s.now())
	case e.name == "":
		if e.has(unix.IN_ATTRIB) && !s.isOwn(n) {
			s.adopt.listUnread(n, s.tree, s.empty)
			s.report(n.id, "")
		}
	case e.has(unix.IN_ISDIR):
		s.takeDir(n, e)
	default:
		s.takeFile(n, e)
	}
}

// takeDir is about a directory in n. Which one it is now, the kernel has to say.
func (s *Source) takeDir(n *node, e *raw) {
	at := place{n.id, e.name}
	if e.has(unix.IN_ATTRIB) {
		// One that is watched tells itself, and exactly. One that is not may have become readable.
		if s.tree.at[at] == nil && !s.isOwnLook(n, e.name) {
			s.look(at, true)
		}
		return
	}
	s.reportDir(n.id, e.name)
	if e.has(unix.IN_DELETE | unix.IN_MOVED_FROM) {
		delete(s.adopt.doubts, at)
	}
	if empty := s.empty; s.look(at, false) == absent && e.has(unix.IN_CREATE|unix.IN_MOVED_TO) {
		s.adopt.doubt(at, empty)
	}
}

// takeFile is about an entry of n that is no directory.
func (s *Source) takeFile(n *node, e *raw) {
	at := place{n.id, e.name}
	if e.mask&unix.IN_ALL_EVENTS == unix.IN_ATTRIB && (s.isFenced(at) || s.isOwnLook(n, e.name)) {
		return
	}
	s.follow(at, e)
	if e.has(unix.IN_DELETE | unix.IN_MOVED_FROM) {
		s.reportDir(n.id, e.name)
		return
	}
	s.report(n.id, e.name)
}

// watchTries bounds how often Watch tries again what cannot be watched.
const watchTries = 50

// overflow begins anew: what is known of the tree and of our own marks may be wrong.
func (s *Source) overflow() {
	s.forgetOwn()
	s.forgetMissed()
	s.walkAll()
}

// limit notes that the kernel gives no more, which makes the source useless.
func (s *Source) limit(err error) error {
	if isAny(err, unix.ENOSPC, unix.ENOMEM) {
		err = watchesError(len(s.tree.byID), max(len(s.tree.byID), count(s.tree.dir)), err)
		s.failed = err
	}
	return err
}

// Expect is told of an open directory of the tree, and begins a walk if it is not watched: it may have lain under a mount
// point, whose end no event tells.
func (s *Source) Expect(d *beneath.Dir) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.identify(d); errors.Is(err, ErrStale) && !s.adopt.walking {
		s.walkAll()
	}
}

// Key is the ID of an open directory.
func (s *Source) Key(d *beneath.Dir) (ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.identify(d)
	if err != nil {
		return 0, err
	}
	return n.id, nil
}

// identify finds out which of the watched directories d is: the kernel gives one watch for one inode.
func (s *Source) identify(d *beneath.Dir) (*node, error) {
	if id, ok := s.tree.ids[d]; ok {
		if n := s.tree.byID[id]; n != nil {
			return n, nil
		}
		return nil, ErrStale // the root, and it was removed
	}
	id, err := s.kernel.add(d, mask)
	if err != nil {
		return nil, err
	}
	if n := s.tree.byID[id]; n != nil {
		return n, nil
	}
	s.kernel.remove(id)
	return nil, ErrStale
}

// proves is nodes.proves: the kernel uses the number of an inode again at once, but not a watch. Where this user may not read
// the directory, nothing more can be learnt.
func (s *Source) proves(n *node, d *beneath.Dir) error {
	got, err := s.identify(d)
	switch {
	case err == nil && got != n:
		return ErrStale
	case isAny(err, unix.EACCES, unix.EPERM) && refuses(d, "", unix.R_OK):
		return nil
	}
	return s.limit(err)
}

// Dir opens a directory, or finds it open. The result is the Source's, and good until the next call of Dir, Read or
// Adopt. ESTALE means that it is not in the tree any more. Other errors may be over soon, that its place is not known
// now among them.
func (s *Source) Dir(id ID) (*beneath.Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.byID[id]
	if n == nil {
		return nil, unix.ESTALE
	}
	d, err := s.tree.opened(n)
	if errors.Is(err, ErrStale) {
		s.suspect(n)
	}
	return d, err
}

// Open opens a directory to be listed. The result is the caller's. ESTALE means that it is not in the tree any more, or that
// this user may not read it; ErrStale that its place is not known now. Other errors may be over soon. It may be called from
// any goroutine.
func (s *Source) Open(id ID) (*beneath.Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.byID[id]
	if n == nil {
		return nil, unix.ESTALE
	}
	at := s.tree.dir
	if n != s.tree.root {
		d, err := s.tree.reopen(n)
		if isAny(err, unix.EACCES) {
			if d, err = s.tree.reopen(n); isAny(err, unix.EACCES) {
				return nil, unix.ESTALE
			}
		}
		if err != nil {
			return nil, err
		}
		defer d.Close()
		at = d
	}
	d, err := at.OpenDir("")
	if isAny(err, unix.EACCES, unix.EPERM) && refuses(at, "", unix.R_OK|unix.X_OK) {
		err = unix.ESTALE
	}
	return d, err
}

// Number is beneath.Stat.Number of a directory, by the root's device. It may be called from any goroutine.
func (s *Source) Number(id ID) (n uint64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.tree.byID[id]; at != nil {
		return at.inode, true
	}
	return 0, false
}

// Chain returns a directory and those above it, the root last; nil when it does not lie in the tree any more. An error
// means that it moved and its new place is not known yet.
func (s *Source) Chain(id ID) ([]ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.byID[id]
	if n == nil {
		return nil, nil
	}
	if top(n) != s.tree.root {
		return nil, ErrStale
	}
	var chain []ID
	for ; n != nil; n = n.parent {
		chain = append(chain, n.id)
	}
	return chain, nil
}

// Parent is the directory that id lies in, as far as events have told; the root has none.
func (s *Source) Parent(id ID) (up ID, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.tree.byID[id]; n != nil && n.parent != nil {
		return n.parent.id, true
	}
	return 0, false
}

// Root is the ID of the root.
func (s *Source) Root() ID { return s.tree.root.id } // which never changes

// addWatch watches a directory, or changes the mask of the watch that it has. The kernel gives a
// directory one number however often it is asked. ENOSPC says that this user has no watch left.
func (s *Source) addWatch(d *beneath.Dir, mask uint32) (id ID, err error) {
	// Through the descriptor: no path is walked, and none is too long.
	path := "/proc/self/fd/" + strconv.Itoa(d.Fd())
	ctlErr := s.Control(func(fd int) {
		wd, addErr := unix.InotifyAddWatch(fd, path, mask)
		id, err = ID(wd), addErr
	})
	return id, errors.Join(ctlErr, err)
}

// removeWatch ends a watch; one that the kernel has ended already needs nothing.
func (s *Source) removeWatch(id ID) {
	_ = s.Control(func(fd int) { _, _ = unix.InotifyRmWatch(fd, uint32(id)) })
}
