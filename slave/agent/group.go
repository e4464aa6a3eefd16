package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"georep/marker/xtime"
	"georep/slave"
)

// bulky is how many bytes of content make a batch one for the further streams, so that stream 0 stays quick for what
// the next step of a crawl waits for.
const bulky = 256 << 10

// GroupOptions say how a Group comes to its streams. Small calls go over stream 0 only. Which
// stream a batch goes over makes no difference to its effect.
type GroupOptions struct {
	// Streams is how many streams the session may have, MaxStreams at most.
	Streams int
	// Open opens a channel that leads to Serve, for the stream of that number. The Group owns what it returns. It is called
	// for stream 0 first, alone, and for others at the same time.
	Open func(ctx context.Context, stream int) (io.ReadWriteCloser, error)
	// OnGrow, if set, is called at most once, when the further streams were opened: with how many there are in all, and
	// what kept one from being opened, if there are fewer than wanted.
	OnGrow func(streams int, err error)
	// Why, if set, makes the error that all calls return of the one by which a stream ended, unless that is Close. It is called
	// once, and may wait a moment for what the far end says of its end.
	Why func(error) error
}

// Group is a slave at the far end of several streams of one session, which only bulk data needs: an SSH channel has a
// window that a long link does not fill. It implements slave.Tree.
//
// It begins with one stream and opens the others when the first batch comes that is bulky or would have to wait, or at the
// word of Grow, so that a session with little to send has one. Where they cannot be opened it goes on with those it has.
// Each stream sends one batch at a time; the results of many may be awaited.
//
// The loss of any stream ends the session: all calls, pending and later, return the same error.
type Group struct {
	main    *Client
	hello   Hello
	options GroupOptions
	wg      sync.WaitGroup

	ctx context.Context // ends with the session; the cause is its error
	end context.CancelCauseFunc
	why func(error) error // GroupOptions.Why, of the first error

	mu      sync.Mutex
	clients []*Client // main first
	idle    []*Client // those that send no batch now
	waiting []*turn   // in the order of coming
	grown   bool      // the further streams are there, or on their way
}

var _ slave.Tree = (*Group)(nil)

// turn is a batch that waits for a stream. It is in waiting until match gives it a stream, or its
// ctx ends.
type turn struct {
	bulky bool
	given chan *Client // has room for one
}

// DialGroup begins a session over its first stream. The context bounds the beginning only. The
// errors are those of Open and of Dial. The caller closes it. Further streams come later, and are
// no condition.
func DialGroup(ctx context.Context, hello Hello, o GroupOptions) (*Group, error) {
	rwc, err := o.Open(ctx, 0)
	if err != nil {
		return nil, err
	}
	main, err := Dial(ctx, rwc, hello)
	if err != nil {
		return nil, err
	}
	g := &Group{main: main, hello: hello, options: o}
	g.ctx, g.end = context.WithCancelCause(context.Background())
	g.why = first(o.Why)
	g.add(main)
	return g, nil
}

// add takes a client, or closes it when the session has ended.
func (g *Group) add(c *Client) {
	g.mu.Lock()
	live := g.ctx.Err() == nil
	if live {
		g.clients, g.idle = append(g.clients, c), append(g.idle, c)
		g.wg.Go(func() {
			<-c.Done()
			g.fail(c.Err())
		})
		g.match()
	}
	g.mu.Unlock()
	if !live {
		_ = c.Close() // which returns nil
	}
}

// first makes a function that answers each call with what why says of the error of the first; of Close nobody has to ask.
func first(why func(error) error) func(error) error {
	var once sync.Once
	var told error
	return func(err error) error {
		once.Do(func() {
			if told = err; why != nil && !errors.Is(err, net.ErrClosed) {
				told = why(err)
			}
		})
		return told
	}
}

// fail ends the session of all streams; the first error is the one that stays. It returns when all
// streams are closed; calls at work have their error by then, or get it at once.
func (g *Group) fail(err error) {
	g.end(g.why(err))
	cause := g.Err()
	g.mu.Lock()
	clients := slices.Clone(g.clients)
	g.mu.Unlock()
	for _, c := range clients {
		c.end(cause) // all of them, before the first that is slow to close
	}
	var closing sync.WaitGroup
	for _, c := range clients {
		closing.Go(func() { c.fail(cause) })
	}
	closing.Wait()
}

// Done is closed when the session has ended, by Close or by itself.
func (g *Group) Done() <-chan struct{} { return g.ctx.Done() }

// Err is nil while the session lives, and then the error that all calls return.
func (g *Group) Err() error { return context.Cause(g.ctx) }

// Streams is how many streams there are now.
func (g *Group) Streams() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.clients)
}

// Close ends the session and unblocks every call; they return an error that wraps net.ErrClosed. It returns when
// nothing of the group runs any more, and always nil.
func (g *Group) Close() error {
	g.fail(fmt.Errorf("session with the slave: %w", net.ErrClosed))
	g.mu.Lock()
	clients := slices.Clone(g.clients) // none is added any more
	g.mu.Unlock()
	for _, c := range clients {
		_ = c.Close() // which returns nil
	}
	g.wg.Wait()
	return nil
}

// Grow has the further streams opened, in the background: much is about to be sent.
func (g *Group) Grow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grow()
}

// grow opens the further streams in the background, the first time that it is called. The caller holds the lock.
func (g *Group) grow() {
	if g.grown || g.options.Streams <= 1 || g.ctx.Err() != nil {
		return
	}
	g.grown = true
	g.wg.Go(func() {
		err := g.openAll()
		if g.options.OnGrow != nil && g.ctx.Err() == nil {
			g.options.OnGrow(g.Streams(), err)
		}
	})
}

// openAll opens the further streams at the same time. Its error is why there are fewer than wanted.
// A stream that cannot be opened is no trouble of the session, which goes on with fewer.
func (g *Group) openAll() error {
	if err := g.main.said.noMore; err != nil {
		return err
	}
	errs := make([]error, min(g.options.Streams, MaxStreams))
	var wg sync.WaitGroup
	for number := 1; number < len(errs); number++ {
		wg.Go(func() { errs[number] = g.join(number) })
	}
	wg.Wait()
	// One reason is enough for a message; most often all are the same.
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// join opens one further stream.
func (g *Group) join(number int) error {
	rwc, err := g.options.Open(g.ctx, number)
	if err != nil {
		return err
	}
	hello := g.hello
	hello.Stream, hello.Token = uint32(number), g.main.said.token
	c, err := dial(g.ctx, rwc, &hello, Protocol, g.main.answers)
	if err != nil {
		return err
	}
	c.said = welcome{} // stream 0 has it
	g.add(c)
	return nil
}

// take waits for a stream that may send a batch. It is given back when the batch was sent. An error
// is ctx's, or the session's.
func (g *Group) take(ctx context.Context, bulky bool) (*Client, error) {
	t := &turn{bulky: bulky, given: make(chan *Client, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, t)
	g.match()
	if bulky || slices.Contains(g.waiting, t) {
		g.grow()
	}
	g.mu.Unlock()
	select {
	case c := <-t.given:
		return c, nil
	case <-ctx.Done():
	case <-g.ctx.Done():
	}
	g.mu.Lock()
	g.waiting = slices.DeleteFunc(g.waiting, func(w *turn) bool { return w == t })
	g.mu.Unlock()
	select {
	case c := <-t.given: // meanwhile
		g.give(c)
	default:
	}
	if err := g.Err(); err != nil {
		return nil, err
	}
	return nil, ctx.Err()
}

// give takes a stream back.
func (g *Group) give(c *Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = append(g.idle, c)
	g.match()
}

// match gives the idle streams to those that wait. The caller holds the lock.
func (g *Group) match() {
	g.waiting = slices.DeleteFunc(g.waiting, func(t *turn) bool {
		i := slices.IndexFunc(g.idle, func(c *Client) bool { return (c == g.main) != t.bulky })
		if i < 0 && (!t.bulky || len(g.clients) == 1) {
			// A small batch takes what there is. A bulky one stays off stream 0 where there are others.
			i = len(g.idle) - 1
		}
		if i < 0 {
			return false
		}
		t.given <- g.idle[i]
		g.idle = slices.Delete(g.idle, i, i+1)
		return true
	})
}

// Apply sends a batch over a stream that sends no other, and waits for the results. A batch with
// much content keeps off the stream that everything else goes over.
func (g *Group) Apply(ctx context.Context, batch *slave.Batch) ([]slave.Result, error) {
	c, err := g.take(ctx, contentOf(batch) > bulky)
	if err != nil {
		return nil, err
	}
	results, err := c.apply(ctx, batch, func() { g.give(c) })
	return results, g.reason(c, err)
}

// contentOf is how many bytes of content a batch has, as far as is known.
func contentOf(batch *slave.Batch) (n int64) {
	for i := range batch.Ops {
		if op := &batch.Ops[i]; op.Streams() {
			n += max(op.Meta.Size, 0)
		}
	}
	return n
}

// reason makes the error of a stream that has ended that of the session. So a caller never sees
// which stream it was.
func (g *Group) reason(c *Client, err error) error {
	if err == nil || c.Err() == nil {
		return err
	}
	g.fail(c.Err())
	return g.Err()
}

// Info tells what the agent found when the session began.
func (g *Group) Info() slave.Info { return g.main.Info() }

// Survey reads the state of directories.
func (g *Group) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	states, err := g.main.Survey(ctx, queries)
	return states, g.reason(g.main, err)
}

// Find tells where the slave has inodes.
func (g *Group) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	found, err := g.main.Find(ctx, gfids)
	return found, g.reason(g.main, err)
}

// Hash digests files.
func (g *Group) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	sums, err := g.main.Hash(ctx, paths)
	return sums, g.reason(g.main, err)
}

// Groups returns inodes of which names may be missing, 65,536 at most.
func (g *Group) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	groups, err := g.main.Groups(ctx, most)
	return groups, g.reason(g.main, err)
}

// Count counts entries at and below paths.
func (g *Group) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	counts, err := g.main.Count(ctx, paths, limit)
	return counts, g.reason(g.main, err)
}

// Clean deletes what was parked long enough ago.
func (g *Group) Clean(ctx context.Context, olderThan int64) error {
	return g.reason(g.main, g.main.Clean(ctx, olderThan))
}
