package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"georep/slave"
)

// Opener gives the tree that a client asks for. Its error reaches the client with its identity if it is, or wraps, one
// of package slave's.
type Opener func(Hello) (slave.Tree, error)

// Stager is a tree that can take a batch's contents before it applies the batch, so that the next batch's contents
// stream in while this one becomes durable.
type Stager interface {
	// Stage reads all contents of the batch, in order, and closes them. Its error ends the session.
	//
	// The returned function applies the batch and waits, as slave.Tree's Apply. Batches take effect in the order of the
	// calls of Stage. It is called once, on another goroutine; or never, when the session ends before all contents are
	// there: then the tree's Close, which follows, drops what was staged.
	Stage(b *slave.Batch) (func(context.Context) ([]slave.Result, error), error)
}

// Serve answers one client over a stream until that ends, ctx is cancelled or the client falls silent. It opens the
// tree that the client asks for and closes it. Trees that implement Stager stage contents as they stream in; for others
// the contents are read by Apply, and such batches are applied one after the other.
//
// Serve owns rw and closes it; closing must unblock reading and writing. It returns nil when the client has ended the
// session between two messages, and else why it ended: an error that wraps slave.ErrVersion, what open returned, the
// stream's error. When it returns nothing that it started is running.
//
// A session that ends drops what is staged of batches that did not arrive whole; what arrived is still applied.
func Serve(ctx context.Context, rw io.ReadWriteCloser, version string, open Opener) error {
	return serve(ctx, rw, preface{protocol: Protocol, version: version}, open)
}

// serve is Serve with the preface, for the tests of what happens when the protocols differ.
func serve(ctx context.Context, rw io.ReadWriteCloser, own preface, open Opener) error {
	s := newServer(ctx, rw)
	defer s.close()
	defer s.stopReading()
	release := context.AfterFunc(ctx, s.close)
	defer release()
	hello, err := s.greet(rw, own)
	if err == nil {
		err = s.session(hello, own, open)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("serve a session: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("serve a session: %w", err)
	}
	return nil
}

// server is one session at the slave's end. The fields without a lock belong to whoever reads the stream: the goroutine
// of Serve, or an Apply that it waits for.
type server struct {
	tree  slave.Tree
	close func() // of the stream
	in    *receiver
	out   *sender

	// reading ends when nothing more will be read, and with it all that was asked for but batches; those end with
	// committing, which only Serve's caller cancels.
	reading     context.Context
	stopReading context.CancelFunc
	committing  context.Context

	budget   *semaphore.Weighted // bytes of requests not yet answered
	batches  *semaphore.Weighted // batches not yet answered
	surveys  *semaphore.Weighted
	requests sync.WaitGroup
	commits  sync.WaitGroup

	readErr error         // what ended the reading
	applied chan struct{} // closed when the last Apply of a tree that cannot stage has returned

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc // of the requests under way
}

// newServer makes a server that nothing runs for yet.
func newServer(ctx context.Context, rw io.ReadWriteCloser) *server {
	s := &server{out: newSender(rw), cancels: make(map[uint64]context.CancelFunc), committing: ctx,
		budget: semaphore.NewWeighted(requestBudget), batches: semaphore.NewWeighted(maxBatches),
		surveys: semaphore.NewWeighted(surveysAtOnce), applied: make(chan struct{})}
	close(s.applied)
	s.close = sync.OnceFunc(func() { _ = rw.Close() })
	s.in = newReceiver(watch(rw, serverSilence, s.close))
	s.reading, s.stopReading = context.WithCancel(ctx)
	return s
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
func (s *server) session(hello *Hello, own preface, open Opener) error {
	var writing sync.WaitGroup
	writing.Go(func() {
		if s.out.run() != nil {
			s.close() // which the reader notices
		}
	})
	defer writing.Wait()
	defer s.farewell()
	tree, err := open(*hello)
	if err != nil {
		s.out.now(outgoing{head: head{kind: frameRefuse}, body: errorBody(err)})
		return err
	}
	s.tree = tree
	info := tree.Info()
	if info.Version == "" {
		info.Version = own.version
	}
	s.out.now(outgoing{head: head{kind: frameWelcome}, body: func(b []byte) []byte { return appendInfo(b, &info) }})
	err = s.read()
	s.finish(err)
	return err
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

// finish tells the client why it is over, lets what has begun come to its end and closes the tree.
func (s *server) finish(err error) {
	s.stopReading()
	if err != nil && (s.readErr == nil || errors.Is(err, errMalformed)) {
		s.out.now(outgoing{head: head{kind: frameBye}, body: errorBody(err)})
	} else {
		s.close()
	}
	s.commits.Wait()
	// Closing unblocks the calls that do not heed their context. Its error tells nothing that a result did not.
	_ = s.tree.Close()
	s.requests.Wait()
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
	run, err := s.request(f)
	if err != nil {
		return err
	}
	return s.start(f, run)
}

// start runs a request on a goroutine of its own. It waits while too much is unanswered.
func (s *server) start(f frame, run func(*answer) error) error {
	cost := int64(len(f.body) + requestCost)
	if err := s.budget.Acquire(s.reading, cost); err != nil {
		return err
	}
	ctx, done, err := s.register(s.reading, f.id)
	if err != nil {
		s.budget.Release(cost)
		return err
	}
	s.requests.Go(func() {
		defer s.budget.Release(cost)
		defer done()
		a := &answer{out: s.out, ctx: ctx, head: head{id: f.id}}
		if err := run(a); err != nil && ctx.Err() == nil {
			a.fail(err)
		}
	})
	return nil
}

// register makes a request known, so that it can be cancelled.
func (s *server) register(parent context.Context, id uint64) (ctx context.Context, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 0 || s.cancels[id] != nil {
		return nil, nil, malformed("request %d is not new", id)
	}
	ctx, cancel := context.WithCancel(parent)
	s.cancels[id] = cancel
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cancels, id)
	}, nil
}

// cancel cancels a request; it may have been answered already.
func (s *server) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.cancels[id]; cancel != nil {
		cancel()
	}
}
