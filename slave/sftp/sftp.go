package sftp

import (
	"context"
	"errors"
	"io"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"georep/marker/xtime"
	"georep/slave"
)

// ErrClosed is what calls give once Close was called.
var ErrClosed = errors.New("the slave is closed")

// Options says which slave to open, and for whom.
type Options struct {
	Path    string     // the slave's root, as the server has it
	Host    string     // for messages
	Master  xtime.UUID // whose records are kept there
	Session xtime.UUID
	Proof   slave.Proof // what the master knows of the slave that it has filled
	Seen    *slave.Seen // counts what a restore has done; may be nil
	Force   bool        // take a root that is not empty, another master's, or not the slave that was filled
	Logger  zerolog.Logger
	Version string // for Info
	// Streams is how many SFTP sessions to begin, and Open gives the stream of one. One of the first has to succeed. The last
	// Late of them are begun once the slave is open, and join the others when they are there.
	Streams, Late int
	Open          func(ctx context.Context, number int) (io.ReadWriteCloser, error)

	inspect bool // OpenInspector's
}

// Bounds of what is under way.
const (
	// stagedBytes bounds the memory of all batches under way together.
	stagedBytes = 64 << 20 // contents in memory on their way
	smallBytes  = 1 << 20  // a content up to this size is read at once
	// hashesAtOnce bounds the files that are read back at a time.
	hashesAtOnce = 16
	asksAtOnce   = 512 // requests of one survey
)

// Tree is an open slave. It implements slave.Tree. Its methods may be called from any goroutine.
type Tree struct {
	*reader
	own     *ownership
	changes *changer
	park    *park
	links   *links
	uploads *uploads
	cleaner *cleaner
	pub     *publisher
	stamps  *stamper
}

// Compile-time proof of the contract.
var _ slave.Tree = (*Tree)(nil)

// Open begins the sessions and takes the slave at o.Path. The errors say in one line what is wrong and wrap
// slave.ErrNoVolume, ErrNotEmpty, ErrForeign, ErrAbsent, ErrBusy or ErrUnfit. The caller closes the Tree.
func Open(ctx context.Context, o Options) (*Tree, error) {
	return open(ctx, o, leaseTimes{leaseStep, leaseTime, leasePoll})
}

// open is Open with the lease's times.
func open(ctx context.Context, o Options, l leaseTimes) (*Tree, error) {
	t := newTree(o, l)
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	if err := t.whileItAnswers(ctx, t.setup); err != nil {
		t.own.dropLease()
		t.hangUp()
		return nil, err
	}
	t.loops.Go(t.stamps.loop)
	t.loops.Go(t.own.keepLease)
	t.watchAll()
	t.beginLate()
	return t, nil
}

// newTree makes a Tree that has opened nothing yet.
func newTree(o Options, l leaseTimes) *Tree {
	t := &Tree{reader: newReader(o)}
	t.own = &ownership{space: t.space, lease: l}
	t.changes = newChanger(t.records, t.listings)
	t.park = &park{changer: t.changes}
	t.links = newLinks(t.changes, t.park)
	t.uploads = newUploads(t.space)
	t.cleaner = &cleaner{changer: t.changes, park: t.park, uploads: t.uploads, roomMaker: roomMaker{age: evictAge}}
	t.uploads.inRoom = t.cleaner.inRoom
	t.stamps = newStamper(t.changes, t.own)
	t.pub = t.newPublisher()
	return t
}

// newPublisher wires the publisher to the other parts.
func (t *Tree) newPublisher() *publisher {
	one := &busy{}
	return &publisher{changer: t.changes, busy: one, own: t.own, park: t.park, links: t.links, cleaner: t.cleaner, stamps: t.stamps,
		left:   &leftovers{changer: t.changes, busy: one, links: t.links, park: t.park},
		stager: &stager{records: t.records, uploads: t.uploads, bytes: semaphore.NewWeighted(stagedBytes)}}
}

// Close writes what of the index is not written, gives the lease back and ends the sessions.
func (t *Tree) Close() error {
	t.end(func() {
		t.uploads.closeAll()
		// Each clears one log of the journal: nothing is doubtful after an end like this.
		if err := errors.Join(t.changes.flush(), t.changes.flush()); err != nil {
			t.log.Warn().Err(err).Msg("write the index")
		}
		t.own.dropLease()
	})
	return nil
}

// Apply carries out a batch: each operation as soon as those before it that it depends on are through, all others at the
// same time.
func (t *Tree) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	return t.pub.Apply(ctx, b)
}

// Find tells which inodes the slave has parked, or knows other names of.
func (t *Tree) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	return t.links.Find(ctx, gfids)
}

// Groups returns inodes whose names are to be checked.
func (t *Tree) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	return t.links.Groups(ctx, most)
}

// Begin prepares an upload, or goes on with one.
func (t *Tree) Begin(ctx context.Context, spec *slave.Upload) (slave.UploadState, error) {
	return t.uploads.Begin(ctx, spec)
}

// Sums has no basis to sign.
func (t *Tree) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	return t.uploads.Sums(ctx, q, emit)
}

// Write puts a segment in its place.
func (t *Tree) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	return t.uploads.Write(ctx, s)
}

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error is
// ctx's, or the end of the session.
func (t *Tree) Clean(ctx context.Context, olderThan int64) error {
	return t.cleaner.Clean(ctx, olderThan)
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
	return &slave.PathError{Op: op, Path: path, Err: err}
}
