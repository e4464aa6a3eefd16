package marker

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/inotify"
	"georep/marker/moment"
	"georep/marker/scan"
	"georep/marker/tree"
	"georep/marker/writers"
)

// This file is about writes that raise no event: by libaio, by a loop device on an image, through a shared mapping, and,
// under inotify, through a descriptor whose name in the tree nobody knows. All of them need the file to be held open. So
// the marker looks every second or so who holds files of the volume open for writing (package writers), and compares what
// these files are with what they were (heldcheck.go). What changed is marked by the usual path. The heartbeat never gets
// beyond the last look at each of these files (invariant 11).

const (
	lookEach  = time.Second            // between two looks, where nothing happens
	lookSoon  = 200 * time.Millisecond // the same after marks: somebody may wait for the heartbeat
	askedPoll = 200 * time.Millisecond // how often a request to look at once is looked for
	// lookRatio and soonRatio times as long as a look had a processor, and flushRatio times as long as the flushing and reading of
	// a mapped file took, is the least pause before the next.
	lookRatio  = 1000
	soonRatio  = 30
	dearRatio  = 100 // where looks are so slow that lookRatio would be too seldom
	flushRatio = 50
)

// heldFiles are the files of the volume that somebody holds open for writing. All but what is marked otherwise is for the
// goroutine that looks.
type heldFiles struct {
	*marker
	find finder
	// tell: the file system gives a file new times when it is written through a mapping for the first time after a flush.
	tell   bool
	remote bool // its times may be by another machine's clock
	every  time.Duration
	poll   time.Duration
	tick   time.Duration // of the clock that files get their times from

	files map[tree.Inode]*held
	marks []due // what the look that is under way found
	round int
	at    moment.Moment // when this look began
	last  moment.Moment // the same of the one before
	all   bool          // this look leaves nothing for later

	looked atomic.Pointer[moment.Moment] // everything written before through what is held is marked; nil before the first look
	unseen hiddenHolders
}

// finder finds the files that are held open for writing; hidden is why there may be more.
type finder interface {
	Look(told bool) (files []writers.File, hidden string, err error)
}

// held is one inode that is held open for writing.
type held struct {
	inode  tree.Inode
	key    beneath.HandleKey // "" where there are no handles
	round  int               // of the last look that met it
	mapped bool              // at that look, or at the one before
	gone   bool              // it is not held any more, and looked at for the last time

	known bool          // st is set
	sure  bool          // whatever was written since gives other times than those of st
	st    beneath.Stat  // at the last look
	path  string        // below the root; advice
	at    moment.Moment // everything written before is marked

	// primed: it was flushed, and its content noted where times do not tell, since it is mapped.
	primed bool
	sum    [32]byte
	next   time.Time // not flushed before

	sought *moment.Moment // when a scan was asked to find its names; nil: it was not
	// elsewhere is how many names it had when no name of it was in the volume.
	elsewhere uint32
}

// due is a file to be marked.
type due struct {
	*held
	st   beneath.Stat
	path string
}

// timesTell has the file systems that give a file new times at the first write through a mapping after a flush, or write
// what they have to a server that does. tmpfs is none of them.
func timesTell(kind int64) bool {
	switch uint32(kind) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return true
	}
	return false
}

// newHeldFiles asks the file system what its times can tell, once. An overlay, and btrfs with its
// subvolumes, show other device numbers to stat than /proc does; for these the superblock's is
// compared.
func newHeldFiles(m *marker) (*heldFiles, error) {
	fs, err := m.Root.Statfs()
	if err != nil {
		return nil, err
	}
	v := writers.Volume{Dev: m.RootStat.Dev, Super: m.RootStat.Dev}
	v.Subvolumes = fs.Type == unix.BTRFS_SUPER_MAGIC || fs.Type == unix.OVERLAYFS_SUPER_MAGIC
	if super, err := writers.Super(m.RootStat.MountID); err == nil {
		v.Super = super
	}
	h := &heldFiles{marker: m, find: writers.New(v), tell: timesTell(fs.Type), files: map[tree.Inode]*held{},
		remote: inotify.Local(m.Root) != nil, every: min(lookEach, m.o.MaxDelay/2), poll: min(askedPoll, m.o.MaxDelay/10)}
	m.scans.Sought.ByNumber = !v.Subvolumes
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return nil, err
	}
	h.tick = time.Duration(ts.Nano())
	return h, nil
}

// bound is up to where the heartbeat may move. Before the first look that is the beginning of time,
// so the heartbeat of a start waits for it.
func (h *heldFiles) bound() *moment.Moment {
	if at := h.looked.Load(); at != nil {
		return at
	}
	return &moment.Moment{}
}

// watch looks again and again until ctx ends. The first look leaves nothing for later: what was
// written while no marker ran has to be known before the heartbeat moves. It returns ctx's error,
// or the clock's, without which nothing can be marked.
func (h *heldFiles) watch(ctx context.Context) error {
	for all := true; ; {
		took, err := h.look(ctx, all)
		if err == nil {
			all, err = h.rest(ctx, took)
		}
		if err != nil {
			return err
		}
	}
}

// rest waits until the next look is due, and tells whether somebody asked for it. A file named by
// lookFile in the runtime directory asks for a look at once; `sync` and `verify` make it. It is
// removed here, and whoever made it waits for the heartbeat and not for an answer.
func (h *heldFiles) rest(ctx context.Context, took time.Duration) (asked bool, err error) {
	late := max(h.every, min(lookRatio*took, h.o.MaxDelay/2), dearRatio*took)
	soon := min(late, max(lookSoon, soonRatio*took))
	ticker := time.NewTicker(h.poll)
	defer ticker.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-ticker.C:
		}
		if unix.Unlink(filepath.Join(h.o.Dir, lookFile)) == nil {
			return true, nil
		}
		waited := time.Since(began)
		if waited >= late || waited >= soon && h.asked.stirred.Load() {
			return false, nil
		}
	}
}

// look looks once at who holds what, and marks what changed. took is the processor time of finding that out: on a busy machine
// a look waits for a long time and costs no more, and must not be put off for that. all leaves nothing for later. The error is
// ctx's, or the clock's.
func (h *heldFiles) look(ctx context.Context, all bool) (took time.Duration, err error) {
	took, seen, err := h.lookOnce(ctx, all)
	if err != nil || !seen {
		return took, errors.Join(err, ctx.Err())
	}
	if err := h.mark(ctx); err != nil {
		return took, err
	}
	h.advance()
	return took, ctx.Err()
}

// lookOnce finds out who holds what, and what of it changed. seen is false where that cannot be seen now.
func (h *heldFiles) lookOnce(ctx context.Context, all bool) (took time.Duration, seen bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, err := usedTime(unix.CLOCK_THREAD_CPUTIME_ID)
	if err != nil {
		return 0, false, err
	}
	h.asked.stirred.Store(false)
	h.last, h.at = h.at, moment.Now()
	h.all, h.marks = all, nil
	h.round++
	// Only fanotify tells of each write to the file system; inotify needs a name in the tree.
	list, hidden, err := h.find.Look(h.how.Load().source == SourceFanotify)
	if err != nil {
		h.Often.Warn().Err(err).Msg("writes that raise no event cannot be seen for now")
		h.at = h.last
		now, err := usedTime(unix.CLOCK_THREAD_CPUTIME_ID)
		return now - began, false, err
	}
	h.unseen.say(&h.Log, hidden, h.at.Wall)
	// Mappings first: whoever is mapped is looked at as such, whatever else holds it.
	for _, mapped := range []bool{true, false} {
		for i := range list {
			if list[i].Mapped == mapped {
				h.meet(ctx, &list[i])
			}
		}
	}
	for _, e := range h.files {
		if e.round != h.round {
			h.leave(ctx, e)
		}
	}
	now, err := usedTime(unix.CLOCK_THREAD_CPUTIME_ID)
	return now - began, true, err
}

// hiddenHolders is why not all who hold files can be seen. It may be used from any goroutine.
type hiddenHolders struct {
	mu  sync.Mutex
	why string
	at  time.Time // when a look last began of which that was true
}

// say notes, and logs once, why not everything can be seen.
func (u *hiddenHolders) say(log *zerolog.Logger, why string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if why != "" && u.why == "" {
		log.Info().Str("why", why).Msg("georep may not see who holds some files open: what is written to them by " +
			"libaio, a loop device or a mapping is found when they are closed, or by a slow scan")
	}
	if u.why = why; why != "" {
		u.at = at
	}
}

// fill is for the status.
func (u *hiddenHolders) fill(s *Status) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.Hidden, s.HiddenAt = u.why, u.at
}

// advance lets the heartbeat come up to what was looked at. It is the earliest of this look and of
// the files that could not be looked at, so one unreadable file holds it back.
func (h *heldFiles) advance() {
	at := h.at
	for k, e := range h.files {
		if e.gone {
			delete(h.files, k)
		} else if e.at.Boot() < at.Boot() {
			at = e.at
		}
	}
	h.looked.Store(&at)
	if h.all {
		h.beats.urgent.Store(true)
	}
}

// mark marks what the look found. Where there are events it is the goroutine of the events that
// marks, so that a file and its events get one xtime. Elsewhere each file is marked as by a scan.
func (h *heldFiles) mark(ctx context.Context) error {
	if len(h.marks) == 0 {
		return nil
	}
	done, err := h.markLive(ctx)
	if err != nil {
		return err
	}
	for i := range h.marks {
		one := &h.marks[i]
		if done == nil {
			if err := h.markOne(one); err != nil {
				return err
			}
		} else if done[i] {
			h.marked(one.held, &one.st)
		} else {
			one.failed()
		}
	}
	return nil
}

// markOne marks a file where there are no events, as a scan does.
func (h *heldFiles) markOne(one *due) error {
	dir, name := beneath.Split(one.path)
	d, err := h.Root.OpenPath(dir)
	if err != nil {
		one.failed()
		return nil
	}
	defer d.Close()
	incomplete, err := h.MarkChain(d, []scan.Found{{Name: name, Stat: one.st}})
	if err != nil {
		return err
	}
	if incomplete {
		one.failed()
	} else {
		h.marked(one.held, &one.st)
	}
	return nil
}

// request is what the goroutine of the events is asked to mark. done has room for the answer:
// whoever marks does not wait for whoever asked, who may have ended meanwhile.
type request struct {
	files []due
	done  chan []bool // which of them are marked, or will be
}

// markLive has the files marked together with what events tell. It returns nil where there are no
// events. It waits until the answer comes, ctx ends, or the marker goes over to scans; in the last
// case the request is withdrawn, and nil tells the caller to mark by itself.
func (h *heldFiles) markLive(ctx context.Context) ([]bool, error) {
	if !h.follows() {
		return nil, nil
	}
	r := &request{files: h.marks, done: make(chan []bool, 1)}
	h.asked.files.Store(r)
	ticker := time.NewTicker(askedPoll)
	defer ticker.Stop()
	for {
		select {
		case done := <-r.done:
			return done, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
			if !h.follows() && h.asked.files.CompareAndSwap(r, nil) {
				return nil, nil
			}
		}
	}
}

// takeRequest puts the files that a look found into the batch. After the mark answer is to be called.
func (l *live) takeRequest() (answer func()) {
	r := l.asked.files.Swap(nil)
	if r == nil {
		return func() {}
	}
	done := make([]bool, len(r.files))
	l.core.mu.Lock()
	defer l.core.mu.Unlock()
	for i := range r.files {
		done[i] = l.takeFile(&r.files[i])
	}
	return func() { r.done <- done }
}

// takeFile puts one file into the batch, if it still has its name. It is called with the core's mu held.
func (l *live) takeFile(f *due) bool {
	dir, name := beneath.Split(f.path)
	d, err := l.Root.OpenPath(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	st, err := d.Stat(name)
	if err != nil || f.inode != tree.InodeOf(&st) {
		return false
	}
	key, err := l.tree.key(d)
	if err != nil {
		return false
	}
	inodeKey := beneath.HandleKey("")
	if l.rootKey != "" {
		inodeKey = f.key
	}
	l.batch.addInode(placeOf(key, name), inodeKey)
	return true
}

// isGone tells the errors of a holder that ended, or of a file that is not there any more.
func isGone(err error) bool {
	return tree.IsAny(err, unix.ENOENT, unix.ESRCH, unix.ENOTDIR, unix.ESTALE)
}

var errOtherFile = errors.New("another file is there")
