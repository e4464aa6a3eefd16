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
	// These have the calls of slave.Tree, but for Close.
	*reader
	*links
	*uploads
	*cleaner
	*publisher

	changes *changer
	own     *ownership
	park    *park
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
func newTree(o Options, times leaseTimes) *Tree {
	rd := newReader(o)
	ch := newChanger(rd.records, rd.listings)
	own := &ownership{space: rd.space, lease: times}
	k, one := &park{changer: ch}, &busy{}
	ln, ups := newLinks(ch, k), newUploads(rd.space)
	cl := &cleaner{changer: ch, park: k, uploads: ups, roomMaker: roomMaker{age: evictAge}}
	ups.inRoom = cl.inRoom
	sm := newStamper(ch, own)
	lo := &leftovers{changer: ch, busy: one, links: ln, park: k}
	sg := &stager{records: rd.records, uploads: ups, bytes: semaphore.NewWeighted(stagedBytes)}
	pub := &publisher{changer: ch, busy: one, own: own, park: k, links: ln, left: lo, stager: sg, cleaner: cl, stamps: sm}
	return &Tree{reader: rd, links: ln, uploads: ups, cleaner: cl, publisher: pub, changes: ch, own: own, park: k, stamps: sm}
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
