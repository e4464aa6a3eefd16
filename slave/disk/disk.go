package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/places"
	"georep/slave/policy"
)

// ErrClosed is what calls give once Close was called.
var ErrClosed = errors.New("the slave is closed")

// Options says which slave to open, and for whom.
type Options struct {
	Path    string     // the slave's root
	Master  xtime.UUID // whose records are kept there
	Session xtime.UUID
	Proof   slave.Proof // what the master knows of the slave that it has filled
	Force   bool        // take a root that is not empty, another master's, or not the slave that was filled
	Create  bool        // make the root where it is missing; its parent must be there
	// DryRun, for OpenAside, allows for a root that is nobody's yet, and for Force: to tell what would come of it.
	DryRun  bool
	Logger  zerolog.Logger
	Version string // for Info
	Policy  policy.Policy
	// PolicyNow, if set, tells whether a limit that is reached was raised meanwhile, and Refused is told the first time that one is.
	PolicyNow func() policy.Policy
	Refused   func(error)
}

// Tree is an open slave. It implements slave.Tree.
type Tree struct {
	dir     *beneath.Dir // the root
	base    *beneath.Dir // .georep
	staging *beneath.Dir
	partial *beneath.Dir
	parked  *beneath.Dir
	trash   *beneath.Dir
	links   *beneath.Dir
	pending *beneath.Dir
	where   *beneath.Dir
	records *beneath.Dir
	places  *places.Index
	lock    *os.File

	opened   unix.Stat_t // the root
	rootMark string      // what it is, for the owner's file
	owner    slave.Owner // what that says; the committer's
	name     xtime.UUID  // of the slave
	names    xtime.Names
	masters  map[string]bool // uuids of the volumes that the slave is itself the master of
	policy   policy.Policy
	info     slave.Info
	root     bool
	fresh    shape // what a new file in staging has, created with mode 0777
	log      zerolog.Logger
	sys      sys
	prefix   string        // makes this session's names in staging its own
	serial   atomic.Uint64 // and each of them one of its kind

	uploads uploads
	within  within
	// dirsParked is set while a directory may lie in parked/.
	dirsParked atomic.Bool
	// besides is set while a record may lie beside its entry, in records/, and identifies where one can.
	besides    atomic.Bool
	identifies bool
	room       roomMaker
	queue      queue
	work       committer
	booksMu    sync.Mutex // links/, pending/ and marks
	marks      marks
	shelf      shelf
	cleans     atomic.Uint64 // counts beginnings and ends of Clean, and twice whatever else takes names out of the park
	permMu     sync.Mutex    // modes that are lifted for a moment
	parkMu     sync.Mutex    // an operation at work, or Clean taking one entry out of the park
	moving     atomic.Uint64 // counts beginnings and ends of what moves entries; odd while something does
	cleanMu    sync.Mutex    // Clean, which runs once at a time
	hashing    chan struct{} // a slot each for files being hashed
	closing    chan struct{}
	finished   chan struct{} // the committer has ended
	done       chan struct{} // the root is not at its path any more
	lost       error         // how that was found; set before done is closed
	loseOnce   sync.Once

	closeMu sync.Mutex
	closed  bool
	users   int // calls that use the descriptors
	once    sync.Once
}

// Compile-time proof of the contract.
var _ slave.Tree = (*Tree)(nil)

// Open takes the slave at o.Path. The errors say in one line what is wrong and wrap slave.ErrNoVolume, ErrNotEmpty,
// ErrForeign, ErrAbsent, ErrBusy or ErrUnfit. The caller closes the Tree.
func Open(o Options) (*Tree, error) { return open(o, nil) }

// open is Open with a hook before each change to the file system.
func open(o Options, hook func(op, name string) error) (*Tree, error) {
	t := newTree(o, hook)
	if err := t.setup(o); err != nil {
		t.release()
		return nil, err
	}
	go func() {
		defer close(t.finished)
		var watch sync.WaitGroup
		watch.Go(t.keepWatch)
		watch.Go(t.keepUsage)
		t.runCommitter()
		watch.Wait() // which ends when the committer does
	}()
	return t, nil
}

// newTree makes a Tree that has opened nothing yet.
func newTree(o Options, hook func(op, name string) error) *Tree {
	t := &Tree{
		log: o.Logger, policy: o.Policy, root: os.Geteuid() == 0, prefix: rand.Text()[:8], sys: sys{hook: hook},
		hashing: make(chan struct{}, 2), closing: make(chan struct{}), finished: make(chan struct{}),
		done: make(chan struct{}),
	}
	t.queue.init()
	t.marks.init()
	t.room.age = evictAge
	t.uploads.open = map[xtime.GFID]*upload{}
	return t
}

// setup does all of Open but start the committer. What can be refused without a trace is refused before anything is
// made in the root; the lock comes before all that another holder would mind. The caller releases what was opened
// when it fails.
func (t *Tree) setup(o Options) error {
	if err := t.openRoot(o); err != nil {
		return err
	}
	if _, _, err := t.checkOwner(o); err != nil {
		return err
	}
	if err := t.openBase(o); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.takeLock(o); err != nil {
		return err
	}
	// Somebody else may have taken the root before the lock was ours.
	have, anew, err := t.checkOwner(o)
	if err != nil {
		return err
	}
	if anew || t.lacksBooks(have) {
		if err := t.distrust(o); err != nil {
			return err
		}
	}
	if err := t.openAreas(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.writeOwner(o, have, anew); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.openRecords(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if t.places, err = places.Open(t.where, t.sys.before); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	ns, err := t.base.ProbeNamespace()
	if err != nil {
		return fmt.Errorf("slave %s: its file system takes no extended attributes: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	t.names = xtime.NamesFor(ns, o.Master)
	if err := t.findVolumes(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	for _, last := range []func(Options) error{t.lookAround, t.limitUsage} {
		if err := last(o); err != nil {
			return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
		}
	}
	return nil
}

// Info tells what was found when the slave was opened.
func (t *Tree) Info() slave.Info { return t.info }

// Close ends the session: the group that is being committed is finished, what waits gets ErrClosed, and staged files
// that were not committed are dropped.
func (t *Tree) Close() error {
	t.once.Do(func() {
		t.closeMu.Lock()
		t.closed = true
		t.users++ // until the end of this
		t.closeMu.Unlock()
		close(t.closing)
		<-t.finished
		for _, tk := range t.queue.abandon() {
			t.dropAll(tk)
		}
		t.endUsage()
		if t.lock != nil {
			t.lock.Close()
		}
		t.leave()
	})
	return nil
}

// enter is called by whatever uses the descriptors outside the committer; leave must follow when it gives nil.
func (t *Tree) enter() error {
	t.closeMu.Lock()
	defer t.closeMu.Unlock()
	if t.closed {
		return ErrClosed
	}
	if err := t.Err(); err != nil {
		return err
	}
	t.users++
	return nil
}

// leave closes the descriptors when Close could not, because this call was still at work.
func (t *Tree) leave() {
	t.closeMu.Lock()
	t.users--
	last := t.closed && t.users == 0
	t.closeMu.Unlock()
	if last {
		<-t.finished
		t.release()
	}
}

// release closes every descriptor. It may run twice.
func (t *Tree) release() {
	t.closeUploads()
	if t.places != nil {
		t.places.Close()
	}
	for _, d := range []*beneath.Dir{t.records, t.where, t.pending, t.links, t.trash, t.parked, t.partial, t.staging, t.base, t.dir} {
		if d != nil {
			d.Close()
		}
	}
	if t.lock != nil {
		t.lock.Close()
	}
}

// live gives the error that ends a long call: ctx's, or ErrClosed.
func (t *Tree) live(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.done:
		return t.lost
	case <-t.closing:
		return ErrClosed
	default:
		return nil
	}
}

// trouble makes a *slave.PathError of err; what it already knows of the operation is kept.
func trouble(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var se *slave.PathError
	if errors.As(err, &se) {
		return err
	}
	var pe *os.PathError
	if errors.As(err, &pe) && err == error(pe) {
		op, err = pe.Op, pe.Err
	}
	return &slave.PathError{Op: op, Path: path, Err: err}
}

// unclosed tells whether the Tree is still open.
func (t *Tree) unclosed() bool { return t.live(context.Background()) == nil }
