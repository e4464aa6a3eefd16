package agent

import (
	"context"
	"fmt"
	"io"
	"sync"

	"georep/slave"
	"georep/slave/compress"
)

// Opener gives the slave that a client asks for: a slave.Tree, or only a slave.Reader where Hello.Inspect is set. Its error reaches
// the client with its identity if it is, or wraps, one of package slave's.
type Opener func(Hello) (slave.Reader, error)

// Stager is a tree that can take a batch's contents before it applies the batch, so that the next
// batch's contents stream in while this one becomes durable. slave/disk has it; a tree over SFTP is
// never behind an agent.
type Stager interface {
	// Stage reads all contents of the batch, in order, and closes them. Its error ends the session.
	//
	// The returned function applies the batch and waits, as slave.Tree's Apply. It is called once, on another goroutine; or
	// never, when the session ends before all contents are there: no other batch may wait for that one, and the tree's
	// Close, which follows, drops what was staged.
	Stage(b *slave.Batch) (func(context.Context) ([]slave.Result, error), error)
}

// Host is what a slave's host offers to clients. Its functions may be called from several
// goroutines, since streams join at any time.
type Host struct {
	Version string // of its georep, for messages
	Open    Opener
	// Join tells whether the client of this process may have a further stream of a session that another process of this
	// user serves: what a login may not open it may not join. Where it is nil sessions have one stream.
	Join func(Hello) error
	// Confine, where it is set, is called once, when all is open that this process is to serve, or tree is nil and it serves
	// nothing but waits for another process to do so. It takes from this process what it does not need, and returns what the
	// client's operator is told of that.
	Confine func(h *Hello, tree slave.Reader) string
}

// Serve answers the clients of a host that gives each of them one stream.
func Serve(ctx context.Context, rw io.ReadWriteCloser, version string, open Opener) error {
	host := &Host{Version: version, Open: open}
	return host.Serve(ctx, rw)
}

// Serve answers one client over a stream until that ends, ctx is cancelled or the client falls silent. It opens the
// tree that the client asks for and closes it. Trees that implement Stager stage contents as they stream in; for others
// the contents are read by Apply, and such batches are applied one after the other.
//
// A client that asks to join a session gets its stream served by the process of that session; Serve then only waits until
// that process has done with it. For that rw must come from Stdio.
//
// Serve owns rw and closes it; closing must unblock reading and writing. It returns nil when the client has ended the
// session between two messages, and else why it ended: an error that wraps slave.ErrVersion, what Open returned, the
// stream's error. When it returns nothing that it started is running.
//
// A session that ends drops what is staged of batches that did not arrive whole; what arrived is still applied.
func (o *Host) Serve(ctx context.Context, rw io.ReadWriteCloser) error {
	return o.serve(ctx, rw, preface{protocol: Protocol, version: o.Version})
}

// serve is Serve with the preface, for the tests of what happens when the protocols differ.
func (o *Host) serve(ctx context.Context, rw io.ReadWriteCloser, own preface) error {
	s := newServer(ctx, rw)
	defer s.close()
	defer s.stopReading()
	release := context.AfterFunc(ctx, s.close)
	defer release()
	hello, err := s.greet(rw, own)
	switch {
	case err != nil:
	case hello.Stream > 0:
		err = s.handOver(ctx, rw, hello, o)
	default:
		err = s.session(hello, o)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("serve a session: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("serve a session: %w", err)
	}
	return nil
}

// server is one stream of a session at the slave's end. The fields without a lock belong to whoever reads the stream: the
// goroutine of Serve, or an Apply that it waits for.
type server struct {
	*hub         // what the streams of the session share
	close func() // of the stream
	in    *receiver
	out   *sender

	// reading ends when nothing more will be read, and with it all that was asked for but batches; those end with
	// committing, which only Serve's caller cancels.
	reading     context.Context
	stopReading context.CancelFunc
	committing  context.Context

	// requests and commits are waited for in this order: commits first, since Close of the tree
	// then unblocks the requests.
	requests sync.WaitGroup
	commits  sync.WaitGroup

	readErr error         // what ended the reading
	held    holding       // for the frame that was read last
	amid    bool          // the contents of a batch are being read
	applied chan struct{} // closed when the last Apply of a tree that cannot stage has returned

	cancelMu sync.Mutex
	cancels  map[uint64]context.CancelFunc // of the requests under way
}

// newServer makes a server that nothing runs for yet. The caller ends it with stopReading and
// close, both of which may be called again.
func newServer(ctx context.Context, rw io.ReadWriteCloser) *server {
	s := &server{out: newSender(rw, gatherAnswers), cancels: make(map[uint64]context.CancelFunc), committing: ctx,
		applied: make(chan struct{})}
	close(s.applied)
	s.close = sync.OnceFunc(func() { _ = rw.Close() })
	s.in = newReceiver(watch(rw, serverSilence, s.silent))
	s.reading, s.stopReading = context.WithCancel(ctx)
	return s
}

// silent is for a client of whom nothing arrives: it may still hear why the session ends. It closes
// the stream, which ends the read that waited.
func (s *server) silent() {
	err := fmt.Errorf("%w for %v: nothing that the master sends arrives; check the network", ErrSilent, serverSilence)
	s.out.now(outgoing{head: head{kind: frameBye}, body: errorBody(err)})
	s.farewell()
}

// greet exchanges prefaces and reads the hello.
func (s *server) greet(w io.Writer, own preface) (*Hello, error) {
	if _, err := w.Write(own.append(nil)); err != nil {
		return nil, fmt.Errorf("greet the client: %w", err)
	}
	if err := expectMagic(s.in.r); err != nil {
		return nil, err
	}
	theirs, err := readPreface(s.in.r)
	if err != nil {
		return nil, err
	}
	if theirs.protocol != own.protocol {
		return nil, versionError(theirs, own)
	}
	f, err := s.in.next()
	if err != nil {
		return nil, cutShort(err)
	}
	if f.kind != frameHello {
		return nil, malformed("a frame of kind %d in place of the hello", f.kind)
	}
	d := decoder{b: f.body}
	hello := d.hello()
	return &hello, d.end()
}

// session opens the tree and serves it. The sender runs from here on, so that a slow opening is not taken for silence.
func (s *server) session(hello *Hello, host *Host) error {
	defer s.write()()
	tree, err := host.Open(*hello)
	if err != nil {
		s.out.now(outgoing{head: head{kind: frameRefuse}, body: errorBody(err)})
		return err
	}
	s.hub = newHub(s.committing, tree, hello, host)
	return s.hub.serve(s)
}

// write runs the sender, and returns what says farewell and ends it.
func (s *server) write() func() {
	var writing sync.WaitGroup
	writing.Go(func() {
		if s.out.run() != nil {
			s.close() // which the reader notices
		}
	})
	return func() {
		s.farewell()
		writing.Wait()
	}
}

// welcome tells the client that its stream is served. What comes from then on may be in chunks; nothing beyond the hello
// was read yet.
func (s *server) welcome(w *welcome) {
	if s.hub.first.Compressed {
		s.in = newReceiver(compress.NewReader(s.in.r))
	}
	s.in.admit = s.admit
	s.out.now(outgoing{head: head{kind: frameWelcome}, body: func(b []byte) []byte { return appendWelcome(b, w) }})
}

// read serves until the stream ends.
func (s *server) read() error {
	for {
		f, err := s.next()
		if err == io.EOF { // as the receiver says it, and only between two frames
			return nil
		}
		if err == nil {
			err = s.handle(f)
		}
		if err != nil {
			return err
		}
	}
}

// next reads a frame. After the first error there is only that.
func (s *server) next() (frame, error) {
	if s.readErr != nil {
		return frame{}, s.readErr
	}
	f, err := s.in.next()
	s.readErr = err
	return f, err
}

// farewell writes what is left to say, for a while.
func (s *server) farewell() {
	s.out.end()
	ctx, cancel := context.WithTimeout(s.committing, parting)
	defer cancel()
	select {
	case <-s.out.done:
	case <-ctx.Done():
	}
	s.close()
}

// handle takes a frame that is not a batch's content.
func (s *server) handle(f frame) error {
	switch f.kind {
	case frameAlive:
		return nil
	case frameCancel:
		s.cancel(f.id)
		return nil
	case frameBatch:
		return s.batch(f)
	}
	run, weight, err := s.request(f)
	if err != nil {
		return err
	}
	return s.start(f, s.decoded(f, weight), run)
}

// start runs a request on a goroutine of its own.
func (s *server) start(f frame, held holding, run func(*answer) error) error {
	ctx, done, err := s.register(s.reading, f.id)
	if err != nil {
		held.release()
		return err
	}
	s.requests.Go(func() {
		defer held.release()
		defer done()
		a := &answer{out: s.out, room: s.answers, ctx: ctx, head: head{id: f.id}}
		defer a.leave()
		if err := run(a); err != nil && ctx.Err() == nil {
			a.fail(err)
		}
	})
	return nil
}

// register makes a request known, so that it can be cancelled.
func (s *server) register(parent context.Context, id uint64) (ctx context.Context, done func(), err error) {
	s.cancelMu.Lock()
	defer s.cancelMu.Unlock()
	if id == 0 || s.cancels[id] != nil {
		return nil, nil, malformed("request %d is not new", id)
	}
	ctx, cancel := context.WithCancel(parent)
	s.cancels[id] = cancel
	return ctx, func() {
		cancel()
		s.cancelMu.Lock()
		defer s.cancelMu.Unlock()
		delete(s.cancels, id)
	}, nil
}

// cancel cancels a request; it may have been answered already.
func (s *server) cancel(id uint64) {
	s.cancelMu.Lock()
	defer s.cancelMu.Unlock()
	if cancel := s.cancels[id]; cancel != nil {
		cancel()
	}
}
