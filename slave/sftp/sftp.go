package sftp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
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
	*host
	log     zerolog.Logger
	o       Options
	idx     *index.Index
	journal *index.Journal
	logs    [2]*logFile
	// info and feat are learnt by Open and do not change.
	info   slave.Info
	owner  slave.Owner  // on record; filterOp's
	parked atomic.Int64 // entries that were found in the park
	feat   features
	lease  leaseTimes
	prefix string // makes this session's names in staging its own
	// serial numbers those names.
	serial atomic.Uint64

	refused   sync.Map // owners that this account may not give files to: owned -> struct{}
	shardDirs sync.Map // directories of index/ that are there; path -> struct{}
	fresh     sync.Map // shards of directories made by this session: what stands in them is known; index.ID -> struct{}
	// idMu is held while a directory is given its shard.
	idMu    sync.Mutex
	booksMu sync.Mutex // links and pending, and what follows
	// settling counts what was settled of inodes with more names than are kept.
	settling map[xtime.GFID]uint32
	flushMu  sync.Mutex   // held by flush
	parkMu   sync.RWMutex // held for writing by Clean, while it takes one entry out of the park

	busyInodes keyed[xtime.GFID]
	busyNames  keyed[name]
	parking    keyed[xtime.GFID]
	leftover   sync.Map    // names in parked/ that a cut left there, and that are not on record; string -> struct{}
	leftMany   atomic.Bool // there were too many names in parked/ to keep them all
	uploads    uploads
	within     within
	twice      twice
	settler    settler
	verdict    verdict
	roomMaker  roomMaker
	listings   listings
	// largeListings has a word for each large directory that is being read.
	largeListings chan struct{}
	bytes         *semaphore.Weighted
	hashing       chan struct{}

	// closing is closed by Close, before it waits for those who use the Tree.
	closing chan struct{}
	done    chan struct{} // the session has ended, or is lost
	// parts are the goroutines that Open began: settle, keepLease and a watch for each session.
	parts    sync.WaitGroup
	once     sync.Once
	failOnce sync.Once
	// mu guards closed and err, and that nobody enters once closed is set; users are those who entered.
	mu     sync.Mutex
	closed bool
	err    error
	users  sync.WaitGroup
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
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	heard := t.whileItAnswers(end)
	stop := context.AfterFunc(ctx, func() { t.hangUp() })
	err := t.setup(ctx)
	heard()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		t.dropLease()
		t.hangUp()
		return nil, err
	}
	t.parts.Go(t.settle)
	t.parts.Go(t.keepLease)
	for _, c := range t.all() {
		t.parts.Go(func() { t.watch(c) })
	}
	t.beginLate()
	return t, nil
}

func newTree(o Options, l leaseTimes) *Tree {
	t := &Tree{lease: l, host: &host{}, largeListings: make(chan struct{}, largeAtOnce), log: o.Logger, o: o, prefix: rand.Text()[:8],
		bytes:   semaphore.NewWeighted(stagedBytes),
		hashing: make(chan struct{}, hashesAtOnce), closing: make(chan struct{}), done: make(chan struct{})}
	t.settler.init()
	t.roomMaker.age = evictAge
	t.uploads.open, t.settling = map[xtime.GFID]*upload{}, map[xtime.GFID]uint32{}
	return t
}

// connect begins the sessions. One is enough: a server may refuse the others, and which of them it takes is its own affair.
func (t *Tree) connect(ctx context.Context) error {
	n := max(t.o.Streams-t.o.Late, 1)
	clients, errs := make([]*wire.Client, n), make([]error, n)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { clients[i], errs[i] = t.begin(ctx, i) })
	}
	all.Wait()
	for _, c := range clients {
		if c != nil {
			t.join(c)
		}
	}
	if len(t.all()) == 0 {
		return fmt.Errorf("begin an SFTP session on %s: %w", t.o.Host, errs[0])
	}
	return nil
}

// begin gives one session, nil with an error.
func (t *Tree) begin(ctx context.Context, number int) (*wire.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, silent("", time.Now()))
	defer cancel()
	stream, err := t.o.Open(ctx, number)
	var c *wire.Client
	if err == nil {
		c, err = wire.New(ctx, stream)
	}
	if err != nil {
		t.log.Debug().Err(err).Int("session", number).Msg("one SFTP session less")
		return nil, err
	}
	return c, nil
}

// ErrSilent: the server holds the connection, and does nothing that it is asked.
var ErrSilent = errors.New("the SFTP server says nothing")

func silent(request string, since time.Time) error {
	if request == "" {
		request = "begin a session"
	}
	return fmt.Errorf("%w: it has answered nothing since %s (asked: %s): look at its host's disk, and try again; a session that was "+
		"started does so by itself", ErrSilent, since.UTC().Format(time.RFC3339), request)
}

// openingLooks is how often is looked whether the server answers while the slave is opened.
const openingLooks = 5 * time.Second

// whileItAnswers gives the opening up once the server answers nothing, until the returned function is called.
func (t *Tree) whileItAnswers(giveUp func(error)) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(openingLooks):
			}
			if request, since := t.Unanswered(); !since.IsZero() {
				giveUp(silent(request, since))
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// beginLate begins the sessions that the opening did not wait for. The end of the Tree ends them.
func (t *Tree) beginLate() {
	ctx, cancel := context.WithCancel(context.Background())
	t.parts.Go(func() {
		<-t.done
		cancel()
	})
	for i := max(t.o.Streams-t.o.Late, 1); i < t.o.Streams; i++ {
		t.parts.Go(func() {
			c, err := t.begin(ctx, i)
			if err != nil {
				return
			}
			defer c.Close() // it may have come after the others were hung up
			t.join(c)
			t.watch(c)
		})
	}
}

// hangUp ends the sessions, and with them every call.
func (t *Tree) hangUp() {
	for _, c := range t.all() {
		c.Close()
	}
}

// watch ends the Tree when one of its sessions ends.
func (t *Tree) watch(c *wire.Client) {
	select {
	case <-c.Done():
		t.fail(fmt.Errorf("the connection to %s: %w", t.o.Host, c.Err()))
	case <-t.done:
	}
}

// fail ends the session with this reason.
func (t *Tree) fail(why error) {
	t.failOnce.Do(func() {
		t.mu.Lock()
		t.err = why
		t.mu.Unlock()
		close(t.done)
	})
}

// Done is closed when the session is lost or closed; Err tells why.
func (t *Tree) Done() <-chan struct{} { return t.done }

// Err is why the session ended; nil while it goes on.
func (t *Tree) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Info tells what was found when the slave was opened.
func (t *Tree) Info() slave.Info { return t.info }

// Close writes what of the index is not written, gives the lease back and ends the sessions.
func (t *Tree) Close() error {
	t.once.Do(func() {
		t.mu.Lock()
		t.closed = true
		lost := t.err
		t.mu.Unlock()
		close(t.closing)
		if lost == nil {
			t.users.Wait()
			t.uploads.closeAll()
			// Each clears one log of the journal: nothing is doubtful after an end like this.
			if err := errors.Join(t.flush(), t.flush()); err != nil {
				t.log.Warn().Err(err).Msg("write the index")
			}
			t.dropLease()
		}
		t.fail(ErrClosed)
		t.hangUp()
		t.users.Wait()
		t.parts.Wait()
	})
	return nil
}

// enter is called by whatever uses the sessions; leave must follow when it gives nil.
func (t *Tree) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	if t.err != nil {
		return t.err
	}
	t.users.Add(1)
	return nil
}

func (t *Tree) leave() { t.users.Done() }

// live gives the error that ends a long call: ctx's, or the session's end.
func (t *Tree) live(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.closing:
		return ErrClosed
	case <-t.done:
		return t.Err()
	default:
		return nil
	}
}

// stagingName gives a name in staging that was never used.
func (t *Tree) stagingName() string {
	return stagingDir + "/" + t.unique()
}

// unique is a name that no session has used: prefix is random, serial counts.
func (t *Tree) unique() string { return t.prefix + "-" + strconv.FormatUint(t.serial.Add(1), 36) }

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
