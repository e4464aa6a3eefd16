package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk/dirty"
	"georep/slave/gfidindex"
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
	// DryRun, for OpenInspector, allows for a root that is nobody's yet, and for Force: to tell what would come of it.
	DryRun  bool
	Logger  zerolog.Logger
	Version string // for Info
	Policy  policy.Policy
	// PolicyNow, if set, tells whether a limit that is reached was raised meanwhile, and Refused is told the first time that one is.
	PolicyNow func() policy.Policy
	Refused   func(error)

	inspect bool // OpenInspector's
}

// Tree is an open slave. It implements slave.Tree. It has no logic of its own: it wires the parts
// and passes calls on. doc.go has what each part does, and the order of their locks. All methods
// may be called from any goroutine.
type Tree struct {
	*reader
	own     *ownership
	census  *census
	finder  *finder
	parents *parents
	park    *park
	bin     *bin
	marks   *dirty.Journal
	links   *links
	uploads *uploads
	cleaner *cleaner
	stager  *stager
	queue   queue

	committer *committer
	once      sync.Once
}

// Compile-time proof of the contract.
var _ slave.Tree = (*Tree)(nil)

// Open takes the slave at o.Path. The errors say in one line what is wrong and wrap
// slave.ErrNoVolume, ErrNotEmpty, ErrForeign, ErrAbsent, ErrBusy or ErrUnfit. The caller closes the
// Tree. A slave that cannot be opened is left as it was found, but for what Create made and what
// Force took. The goroutines that it starts end with Close.
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
		watch.Go(t.own.keepWatch)
		watch.Go(t.census.keep)
		t.committer.loop()
		watch.Wait() // which ends when the committer does
	}()
	return t, nil
}

// newTree makes a Tree that has opened nothing yet. The order follows the parts' dependencies: each
// gets those before it.
func newTree(o Options, hook func(op, name string) error) *Tree {
	t := &Tree{reader: newReader(o, hook)}
	t.own, t.census = &ownership{store: t.store}, &census{store: t.store}
	t.life.release = t.release
	t.finder = &finder{records: t.records}
	t.parents = newParents(t.records)
	t.park, t.bin = newPark(t.records), &bin{records: t.records}
	t.marks = dirty.New(pendingFiles{t.store}, t.prefix)
	t.links = newLinks(t.finder, t.parents, t.park, t.marks)
	t.queue.init()
	t.uploads = newUploads(t.reader)
	t.cleaner = newCleaner(t.park, t.bin, t.finder, t.uploads)
	t.uploads.inRoom = t.cleaner.inRoom
	t.stager = &stager{records: t.records, finder: t.finder, uploads: t.uploads, cleaner: t.cleaner}
	t.committer = t.newCommitter()
	return t
}

// newCommitter wires the committer to the other parts.
func (t *Tree) newCommitter() *committer {
	left := &leftovers{records: t.records, finder: t.finder, links: t.links, park: t.park, candidates: leftoverNames{}}
	pub := &publisher{records: t.records, own: t.own, finder: t.finder, parents: t.parents, park: t.park, links: t.links,
		stager: t.stager, left: left, queue: &t.queue, step: namesAStep}
	return &committer{records: t.records, own: t.own, finder: t.finder, parents: t.parents, marks: t.marks, links: t.links,
		stager: t.stager, cleaner: t.cleaner, publisher: pub, queue: &t.queue}
}

// setup does all of Open but start the committer. What can be refused without a trace is refused before anything is
// made in the root; the lock comes before all that another holder would mind. The caller releases what was opened
// when it fails.
func (t *Tree) setup(o Options) error {
	if err := t.own.openRoot(o); err != nil {
		return err
	}
	if _, _, err := t.own.checkOwner(o); err != nil {
		return err
	}
	if err := t.openBase(o); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.own.takeLock(o); err != nil {
		return err
	}
	// Somebody else may have taken the root before the lock was ours.
	have, anew, err := t.own.checkOwner(o)
	if err != nil {
		return err
	}
	if anew || t.own.lacksJournal(have) {
		if err := t.distrust(o); err != nil {
			return err
		}
	}
	if err := t.openAreas(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.own.writeOwner(o, have, anew); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := t.openRecords(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if t.finder.index, err = gfidindex.Open(t.indexDir, t.sys.before); err != nil {
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
	if err = t.lookAround(o); err == nil {
		err = t.census.limit(o, t.names.Own)
	}
	if err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	return nil
}

// Close ends the session: the group that is being committed is finished, what waits gets ErrClosed,
// and staged files that were not committed are dropped. It is idempotent, and waits for the group
// at work, but not for calls of others; the last of these closes the descriptors.
func (t *Tree) Close() error {
	t.once.Do(func() {
		t.shut()
		<-t.finished
		for _, tk := range t.queue.abandon() {
			t.stager.dropAll(tk)
		}
		t.census.end()
		t.own.unlock()
		t.leave()
	})
	return nil
}

// release closes every descriptor. It may run twice.
func (t *Tree) release() {
	t.uploads.closeAll()
	if t.finder.index != nil {
		t.finder.index.Close()
	}
	t.areas.close()
	t.own.unlock()
}

// trouble makes a *slave.PathError of err; what it already knows of the operation is kept. An error
// that knows its own operation and path keeps them, so nothing is said twice.
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

// Find tells which inodes the slave has, in the tree or parked.
func (t *Tree) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	return t.links.Find(ctx, gfids)
}

// Groups returns inodes whose names are to be checked.
func (t *Tree) Groups(ctx context.Context, limit int) ([]slave.Group, error) {
	return t.links.Groups(ctx, limit)
}

// Begin prepares an upload, or goes on with one.
func (t *Tree) Begin(ctx context.Context, spec *slave.Upload) (slave.UploadState, error) {
	return t.uploads.Begin(ctx, spec)
}

// Sums computes the signature of an upload's basis.
func (t *Tree) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	return t.uploads.Sums(ctx, q, emit)
}

// Write puts a segment in its place.
func (t *Tree) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	return t.uploads.Write(ctx, s)
}

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error
// is ctx's, or the end of the session.
func (t *Tree) Clean(ctx context.Context, olderThan int64) error {
	return t.cleaner.Clean(ctx, olderThan)
}
