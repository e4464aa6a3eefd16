package marker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/moment"
)

const (
	coalesce     = 4 * time.Millisecond   // from the first event of a batch to its mark
	idleWake     = 200 * time.Millisecond // how often an idle source moves the heartbeat on
	busyWake     = 5 * time.Millisecond   // the same once after events: a burst is over as soon as it is marked
	restAfter    = time.Second
	retryFirst   = 100 * time.Millisecond
	retryLongest = 30 * time.Second
)

// source is a queue of events. An implementation has one user at a time, but for Interrupt, which
// any goroutine may call to end a Wait.
type source interface {
	Wait() error
	WaitUntil(t time.Time)
	Interrupt()
	// Pending tells how much is in the queue, in the unit of live.read.
	Pending() (int, error)
	Close() error
}

// live marks what the kernel reports.
type live struct {
	*core
	src   source
	beats *beats
	// read takes what one system call gives, and tells how much that was; 0: the queue is empty.
	read func() (int, error)
	// more takes what the source finds besides events, and tells whether there may be more. Until there is not, what
	// happened may be unmarked. nil: the source has nothing but events.
	more func() (bool, error)
	// unsure tells that the source waits for something without which changes may be unseen. nil: it never does.
	unsure func() bool
	// lost and blind wake the scanner: events were lost, or came without a place.
	lost, blind func()

	// rootKey is "" under inotify, whose places are watches and have no handles.
	rootKey beneath.HandleKey
	pid     int32
	idle    time.Duration
	batch   *batch
	// load tells how soon to wake up, drain when the heartbeat may move, retries when to try again
	// what failed.
	load    load
	drain   drain
	retries retries
}

// load is whether anything happens.
type load struct {
	busy bool      // the last step read events
	at   time.Time // when one did last; zero: nothing has happened since rest let go
}

// drain is a moment, at which the queue held need events more than have been read since.
type drain struct {
	from moment.Moment
	need int
}

// retries is when to try again what failed, and how much later the next time.
type retries struct {
	at      time.Time
	backoff time.Duration
}

// run marks until ctx ends, and then once more what is in the queue. An error is the source's, or
// the clock's; trouble with single entries is tried again and no error. After it the source may
// have events that nobody read, so the next marker scans.
func (l *live) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.src.Interrupt)()
	for ctx.Err() == nil {
		if err := l.step(ctx); err != nil {
			return err
		}
	}
	return l.last()
}

// newLive leaves to the caller what is particular to a source: read, more, unsure, and whom to
// wake.
func newLive(c *core, src source, b *beats) *live {
	return &live{core: c, src: src, beats: b, pid: int32(os.Getpid()), idle: idleWake, batch: newBatch(), retries: retries{backoff: retryFirst}}
}

// listen makes a handler of fanotify's events.
func listen(c *core, src *fanotify.Source, b *beats) (*live, error) {
	t, err := newHandles(c.Root)
	if err != nil {
		return nil, err
	}
	c.tree = t
	l := newLive(c, src, b)
	l.rootKey = t.rootKey
	l.read = func() (int, error) { return src.Read(l.take) }
	return l, nil
}

// probeWait is how long an event that must come may take.
const probeWait = 2 * time.Second

// probe proves that events arrive, by an xattr that comes and goes on the root. Other events it meets are kept.
func (l *live) probe(src *fanotify.Source, attr string) error {
	if err := errors.Join(l.Root.Setxattr("", attr, []byte("georep")), l.Root.Removexattr("", attr)); err != nil {
		return err
	}
	seen := false
	src.WaitUntil(time.Now().Add(probeWait))
	for !seen {
		if err := src.Wait(); err != nil {
			return fmt.Errorf("the kernel reports no changes of this file system: %w", err)
		}
		_, err := src.Read(func(ev *fanotify.Event) {
			seen = seen || ev.PID == l.pid && ev.At.Dir == l.rootKey
			l.take(ev)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// step waits for events, lets a few milliseconds of them come together, and marks them.
func (l *live) step(ctx context.Context) error {
	wake := l.idle
	if l.load.busy {
		wake = min(wake, busyWake)
	}
	l.src.WaitUntil(time.Now().Add(wake))
	if err := l.src.Wait(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for events: %w", err)
	}
	if n, err := l.src.Pending(); err == nil && n > 0 && n < maxBatch/4 {
		// The end of ctx is for run to see.
		_ = pause(ctx, coalesce)
	}
	return l.markQueue()
}

// last drains the queue as it is when the marker is told to end, so that the next start has nothing to look for.
func (l *live) last() error {
	l.drain.need = 0
	if err := l.markQueue(); err != nil {
		return err
	}
	for l.drain.need > 0 {
		if err := l.markQueue(); err != nil {
			return err
		}
	}
	return nil
}

// markQueue reads one batch from the queue and marks it. Once as many events were read as the queue held at drain.from,
// everything that happened before drain.from is marked: also under a load that never lets the queue run empty.
func (l *live) markQueue() error {
	if l.drain.need <= 0 {
		l.drain.from = moment.Now()
		n, err := l.src.Pending()
		if err != nil {
			return err
		}
		l.drain.need = n
	}
	if err := l.readBatch(); err != nil {
		return err
	}
	if err := l.readMore(); err != nil {
		return err
	}
	l.addRetries()
	answer := l.takeRequest()
	if err := l.markBatch(); err != nil {
		return err
	}
	answer()
	l.nextRetry()
	l.rest()
	if l.drain.need <= 0 && (l.unsure == nil || !l.unsure()) {
		l.beats.drained(l.drain.from, l.clock.Last())
		l.scans.UpTo.Move(l.drain.from)
	}
	return nil
}

// rest lets go of directories once nothing has happened for a while. Whoever is in one that was removed, and changes
// something from there, has it opened anew after it was let go.
func (l *live) rest() {
	switch {
	case l.load.busy:
		l.load.at = time.Now()
	case !l.load.at.IsZero() && time.Since(l.load.at) >= restAfter:
		l.load.at = time.Time{}
		l.core.mu.Lock()
		l.tree.letGo(true)
		l.core.mu.Unlock()
	}
}

// markBatch marks what was gathered and begins a new batch. If the clock fails, what was gathered
// is kept to be tried again.
func (l *live) markBatch() error {
	if l.batch.size() == 0 {
		return nil
	}
	if err := l.mark(l.batch); err != nil {
		return err
	}
	l.batch = newBatch()
	l.asked.stirred.Store(true)
	return nil
}

// readMore takes all that the source finds besides events. Meanwhile the queue is read, lest it overflow.
func (l *live) readMore() error {
	for more := l.more != nil; more; {
		var err error
		if more, err = l.more(); err != nil || !more {
			return err
		}
		if err := l.markFull(); err != nil {
			return err
		}
		n, err := l.read()
		l.drain.need -= n
		l.load.busy = l.load.busy || n > 0
		if err != nil {
			return err
		}
	}
	return nil
}

// markFull marks the batch once it is full.
func (l *live) markFull() error {
	if l.batch.size() < maxBatch {
		return nil
	}
	return l.markBatch()
}

// readBatch reads until the batch is full or the queue is empty. Events that cannot be parsed count
// as lost, and a scan looks for them.
func (l *live) readBatch() error {
	l.load.busy = false
	for l.batch.size() < maxBatch {
		n, err := l.read()
		l.drain.need -= n
		l.load.busy = l.load.busy || n > 0
		if errors.Is(err, fanotify.ErrMalformed) {
			l.Log.Error().Err(err).Msg("events were lost")
			l.lost()
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			// An empty queue has nothing from before drain.from either.
			l.drain.need = 0
			return nil
		}
	}
	return nil
}

// take turns one event into places to mark. An event names the directory and the entry; the inode
// under that name may be another one by now. So a place is noted, and looked at when the batch is
// marked. Our own marks raise events as well, which are known by the process that made them.
func (l *live) take(ev *fanotify.Event) {
	const gone, came = unix.FAN_DELETE | unix.FAN_ONDIR, unix.FAN_CREATE | unix.FAN_RENAME
	switch {
	case ev.Overflow():
		l.Log.Warn().Msg("the kernel's event queue overflowed; scanning for the lost changes")
		l.counts.overflows.Add(1)
		l.lost()
		return
	case ev.PID == l.pid:
		return // Our own mark.
	case ev.Mask&unix.FAN_RENAME != 0 && ev.IsDir():
		l.takeMove(ev)
	case ev.Mask&gone == gone:
		l.batch.removed[ev.Target] = ev.At.Dir
	case ev.Mask&unix.FAN_CREATE != 0 && ev.IsDir():
		l.batch.begun[ev.Target] = struct{}{}
	}
	if ev.From.Dir != "" {
		l.batch.add(fanotify.Place{Dir: ev.From.Dir})
		l.batch.tell(ev.From)
		l.left(ev.From) // the new name is young in its place, if it is below the root
	}
	if ev.Mask&(unix.FAN_DELETE|came) != 0 {
		l.left(ev.At)
	}
	if ev.Mask&came != 0 && !ev.IsDir() {
		l.batch.made[ev.At] = struct{}{}
	}
	switch {
	case ev.At.Dir == "":
		// A change of content without a name comes from a file opened by handle, as NFS servers do. A change of the link
		// count alone, the other reason, concerns no entry that still exists.
		if ev.From.Dir == "" && ev.Mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) != 0 {
			l.blind()
		}
	case ev.Mask&^gone == 0, ev.At.Name == ".", ev.At.Name == "":
		l.batch.add(fanotify.Place{Dir: ev.At.Dir})
		l.batch.tell(ev.At)
	case ev.IsDir() && ev.Target != "":
		// A directory is marked in its turn, after what lies in it, not among the entries.
		l.batch.add(fanotify.Place{Dir: ev.At.Dir})
		l.batch.add(fanotify.Place{Dir: ev.Target})
		l.batch.tell(ev.At)
		if ev.Mask&unix.FAN_RENAME != 0 {
			l.batch.moved(ev.Target, ev.From.Dir)
		}
	default:
		l.batch.addInode(ev.At, ev.Target)
	}
}

// takeMove is about a directory that moved. What is remembered of where directories lie is dropped.
// A scan that is under way is told, since the directory may have moved past it. Where the kernel
// did not say which directory moved, everything counts as lost.
func (l *live) takeMove(ev *fanotify.Event) {
	l.core.mu.Lock()
	l.tree.moved()
	l.core.mu.Unlock()
	met := l.scans.Moving.Add(ev.Target)
	if ev.Target == "" {
		l.scans.Cover.LeaveAll()
		l.lost()
		return
	}
	l.batch.moves = append(l.batch.moves, dirMove{dir: ev.Target, from: ev.From.Dir, to: ev.At.Dir, met: met})
}

// left looks after the inode that lost a young name, if it was one.
func (l *live) left(p fanotify.Place) {
	if k := l.detached.young.take(p); k != "" {
		l.batch.lose(detachedInode{dir: p.Dir, inode: k})
	}
}

// addRetries puts into the batch what is due to be tried again.
func (l *live) addRetries() {
	if l.counts.retrying.Load() == 0 || time.Now().Before(l.retries.at) {
		return
	}
	if b := l.takeRetry(); b.size() > 0 {
		l.batch.addAll(b)
	}
}

// nextRetry sets the time for what failed: sooner at first, and at once given up for a scan where it is too much.
func (l *live) nextRetry() {
	switch n := l.counts.retrying.Load(); {
	case n == 0:
		l.retries.backoff, l.retries.at = retryFirst, time.Time{}
	case n > maxRetries:
		l.takeRetry()
		l.lost()
	case !time.Now().Before(l.retries.at):
		l.retries.at = time.Now().Add(l.retries.backoff)
		l.retries.backoff = min(2*l.retries.backoff, retryLongest)
	}
}
