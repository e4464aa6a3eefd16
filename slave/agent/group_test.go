package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

// far is the slave's host for a group: it serves each stream as a process of its own would.
type far struct {
	*Host
	tree *fakeTree
	wg   sync.WaitGroup
	wrap func(stream int, rwc io.ReadWriteCloser) io.ReadWriteCloser // of the client's end; may be nil

	mu   sync.Mutex
	errs map[int]error              // how the serving of each stream ended
	kill map[int]context.CancelFunc // ends the process of a stream
	grew chan struct{}              // closed when the group has grown
	have int                        // streams, when it had
	why  error                      // there are no more
	ends map[int]io.ReadWriteCloser // the client's, unwrapped
	pipe func(t testing.TB) (a, b io.ReadWriteCloser)
}

func newFar(tree *fakeTree) *far {
	f := &far{tree: tree, errs: map[int]error{}, kill: map[int]context.CancelFunc{}, grew: make(chan struct{}),
		ends: map[int]io.ReadWriteCloser{}, pipe: osPipe}
	f.Host = &Host{Version: "3.2.1", Open: func(Hello) (slave.Reader, error) { return tree, nil },
		Join: func(Hello) error { return nil }}
	return f
}

// FilePipe is a stream that can be handed to another process, for the tests outside the package.
func FilePipe(t testing.TB) (client, server io.ReadWriteCloser) { return osPipe(t) }

// ApplyOver is Apply over a chosen stream.
func (g *Group) ApplyOver(ctx context.Context, b *slave.Batch, number int) ([]slave.Result, error) {
	c := g.clients[number]
	results, err := c.Apply(ctx, b)
	return results, g.reason(c, err)
}

// options open streams to the far host.
func (f *far) options(t testing.TB, streams int) GroupOptions {
	return GroupOptions{Streams: streams,
		Open:   func(_ context.Context, number int) (io.ReadWriteCloser, error) { return f.open(t, number), nil },
		OnGrow: func(have int, err error) { f.have, f.why = have, err; close(f.grew) }}
}

func (f *far) open(t testing.TB, number int) io.ReadWriteCloser {
	a, b := f.pipe(t)
	ctx, cancel := context.WithCancel(context.Background())
	f.mu.Lock()
	f.kill[number], f.ends[number] = cancel, a
	f.mu.Unlock()
	f.wg.Go(func() {
		err := f.Serve(ctx, b)
		cancel()
		f.mu.Lock()
		f.errs[number] = err
		f.mu.Unlock()
	})
	if f.wrap != nil {
		return f.wrap(number, a)
	}
	return a
}

// dial begins a session, lets it grow, and waits for that.
func (f *far) dial(t testing.TB, streams int) *Group {
	t.Helper()
	g, err := DialGroup(context.Background(), testHello(), f.options(t, streams))
	if err != nil {
		t.Fatal(err)
	}
	g.Grow()
	if streams > 1 {
		<-f.grew
	}
	return g
}

// over closes the group and waits for the far end, of which nothing may be left.
func (f *far) over(t testing.TB, g *Group) {
	t.Helper()
	token := g.main.said.token
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	f.wg.Wait()
	select {
	case <-f.tree.closed:
	default:
		t.Error("the tree was left open")
	}
	if conn, err := net.DialUnix("unixpacket", nil, token.address()); err == nil {
		conn.Close()
		t.Error("somebody listens still")
	}
}

// clean is over where nothing may have gone wrong.
func (f *far) clean(t testing.TB, g *Group) {
	t.Helper()
	f.over(t, g)
	for number, err := range f.errs {
		if err != nil {
			t.Errorf("stream %d: Serve: %v", number, err)
		}
	}
}

// descriptors counts this process's.
func descriptors(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestGroupSpreadsBatches(t *testing.T) {
	descriptorsFirst(t)
	for _, streams := range []int{1, 2, 3, 8, MaxStreams} {
		before := descriptors(t)
		f := newFar(newFake())
		var opened atomic.Int32
		var written [MaxStreams]atomic.Int64
		f.wrap = func(stream int, rwc io.ReadWriteCloser) io.ReadWriteCloser {
			opened.Add(1)
			return &meter{rwc, &written[stream]}
		}
		g := f.dial(t, streams)
		if g.Streams() != streams || int(opened.Load()) != streams || streams > 1 && (f.have != streams || f.why != nil) {
			t.Fatalf("%d streams of %d, %d were opened: %v", g.Streams(), streams, opened.Load(), f.why)
		}
		var wg sync.WaitGroup
		content := pattern(1 << 20)
		for i := range 4 * streams {
			wg.Go(func() { mustApply(t, g, putOp(fmt.Sprint(i), content), putOp(fmt.Sprint("small ", i), []byte("x"))) })
			wg.Go(func() {
				if _, err := g.Survey(context.Background(), []slave.Query{{Path: "a"}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range 4 * streams {
			if !bytes.Equal(f.tree.files[fmt.Sprint(i)], content) || string(f.tree.files[fmt.Sprint("small ", i)]) != "x" {
				t.Errorf("file %d differs", i)
			}
		}
		for k := 1; k < streams; k++ {
			if written[k].Load() < int64(len(content)) {
				t.Errorf("stream %d of %d carried %d bytes", k, streams, written[k].Load())
			}
		}
		if streams > 1 && written[0].Load() > bulky {
			t.Errorf("stream 0 of %d carried %d bytes", streams, written[0].Load())
		}
		f.clean(t, g)
		if after := descriptors(t); after > before {
			t.Errorf("%d streams: %d descriptors before, %d after", streams, before, after)
		}
	}
}

// descriptorsFirst makes the runtime open what it opens once.
func descriptorsFirst(t testing.TB) {
	f := newFar(newFake())
	f.clean(t, f.dial(t, 2))
}

// meter counts what is written.
type meter struct {
	io.ReadWriteCloser
	written *atomic.Int64
}

func (m *meter) Write(p []byte) (int, error) {
	m.written.Add(int64(len(p)))
	return m.ReadWriteCloser.Write(p)
}

// A session that has little to send keeps to one stream; the first bulky batch brings the others.
func TestGroupGrowsWhenThereIsNeed(t *testing.T) {
	f := newFar(newFake())
	g, err := DialGroup(context.Background(), testHello(), f.options(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		mustApply(t, g, putOp("small", pattern(bulky)))
	}
	if n := g.Streams(); n != 1 {
		t.Errorf("%d streams for small batches", n)
	}
	mustApply(t, g, putOp("large", pattern(bulky+1)))
	<-f.grew
	if n := g.Streams(); n != 4 {
		t.Errorf("%d streams after a large batch", n)
	}
	f.clean(t, g)
}

func TestGroupGrowsWhenABatchWaits(t *testing.T) {
	f := newFar(newFake())
	g, err := DialGroup(context.Background(), testHello(), f.options(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	op := putOp("held", nil)
	held, release := make(chan struct{}), make(chan struct{})
	op.Open = func() (slave.Content, error) { close(held); <-release; return &memContent{}, nil }
	var wg sync.WaitGroup
	wg.Go(func() { mustApply(t, g, op) })
	<-held
	mustApply(t, g, putOp("other", nil)) // must not wait for the first
	if n := g.Streams(); n < 2 {
		t.Errorf("%d streams", n)
	}
	close(release)
	wg.Wait()
	<-f.grew
	f.clean(t, g)
}

// While all further streams send large files, what is small gets through, and bulk waits for a further stream.
func TestGroupKeepsTheFirstStreamQuick(t *testing.T) {
	f := newFar(newFake())
	g := f.dial(t, 3)
	release := make(chan struct{})
	var wg sync.WaitGroup
	var begun atomic.Int32
	large := func(path string) slave.Op {
		op := putOp(path, pattern(bulky+1))
		open := op.Open
		op.Open = func() (slave.Content, error) { begun.Add(1); <-release; return open() }
		return op
	}
	for i := range 5 {
		wg.Go(func() { mustApply(t, g, large(fmt.Sprint(i))) })
	}
	for {
		g.mu.Lock()
		waiting := len(g.waiting)
		g.mu.Unlock()
		if waiting == 3 && begun.Load() == 2 {
			break
		}
		<-time.After(time.Millisecond)
	}
	mustApply(t, g, putOp("small", []byte("x")))
	ctx, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan error)
	go func() {
		_, err := g.Apply(ctx, &slave.Batch{Ops: []slave.Op{large("never")}})
		gaveUp <- err
	}()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up while it waited: %v", err)
	}
	if n := begun.Load(); n != 2 {
		t.Errorf("%d large batches are being sent over 2 streams", n)
	}
	close(release)
	wg.Wait()
	if len(f.tree.files) != 6 {
		t.Errorf("%d files", len(f.tree.files))
	}
	f.clean(t, g)
}

// What keeps streams from joining costs no more than these streams.
func TestGroupGoesOnWithFewer(t *testing.T) {
	errNo := errors.New("no such thing")
	for name, c := range map[string]struct {
		change func(f *far, o *GroupOptions)
		want   string
		have   int
	}{
		"one stream a session":      {func(f *far, _ *GroupOptions) { f.Join = nil }, "one stream", 1},
		"the login may not":         {func(f *far, _ *GroupOptions) { f.Join = func(Hello) error { return errNo } }, "no such thing", 1},
		"streams that are no files": {func(f *far, _ *GroupOptions) { f.pipe = netPipe }, "cannot be handed", 1},
		"channels are refused": {func(_ *far, o *GroupOptions) {
			open := o.Open
			o.Open = func(ctx context.Context, number int) (io.ReadWriteCloser, error) {
				if number > 2 {
					return nil, errNo
				}
				return open(ctx, number)
			}
		}, "no such thing", 3},
		"somebody else answers": {func(_ *far, o *GroupOptions) {
			open := o.Open
			o.Open = func(ctx context.Context, number int) (io.ReadWriteCloser, error) {
				if number == 0 {
					return open(ctx, number)
				}
				a, b := net.Pipe()
				go func() { b.Write([]byte("This account is currently not available.\n")); b.Close() }()
				return a, nil
			}
		}, "currently not available", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFar(newFake())
			o := f.options(t, 5)
			c.change(f, &o)
			g, err := DialGroup(context.Background(), testHello(), o)
			if err != nil {
				t.Fatal(err)
			}
			mustApply(t, g, putOp("large", pattern(2*bulky)))
			<-f.grew
			if f.have != c.have || f.why == nil || !strings.Contains(f.why.Error(), c.want) {
				t.Errorf("%d streams, because %v", f.have, f.why)
			}
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() { mustApply(t, g, putOp(fmt.Sprint(i), pattern(2*bulky))) })
			}
			wg.Wait()
			if len(f.tree.files) != 11 {
				t.Errorf("%d files", len(f.tree.files))
			}
			f.over(t, g)
			if err := f.errs[0]; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// join says hello as a further stream, and returns the answer.
func join(t *testing.T, f *far, hello Hello) error {
	t.Helper()
	c, err := Dial(context.Background(), f.open(t, 100), hello)
	if err == nil {
		c.Close()
	}
	return err
}

func TestStrangersDoNotJoin(t *testing.T) {
	f, other := newFar(newFake()), newFar(newFake())
	g, theirs := f.dial(t, 3), other.dial(t, 3)
	good := testHello()
	good.Stream, good.Token = 7, g.main.said.token
	for name, change := range map[string]func(h *Hello){
		"no such token":        func(h *Hello) { h.Token[3] ^= 1 },
		"another session":      func(h *Hello) { h.Session[0]++ },
		"another master":       func(h *Hello) { h.Master[0]++ },
		"another directory":    func(h *Hello) { h.Path += "/x" },
		"a volume":             func(h *Hello) { h.Path, h.Volume = "", "v" },
		"a stream that is had": func(h *Hello) { h.Stream = 2 },
		"a path for no kernel": func(h *Hello) { h.Path = strings.Repeat("x", maxJoin) },
	} {
		h := good
		change(&h)
		err := join(t, f, h)
		if err == nil || errors.Is(err, ErrNoAgent) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Both sessions live, and the one with the right words may.
	mustApply(t, g, putOp("a", pattern(2*bulky)))
	mustApply(t, theirs, putOp("a", pattern(2*bulky)))
	if theirs.main.said.token == g.main.said.token {
		t.Error("two sessions have the same token")
	}
	other.clean(t, theirs)
	if err := join(t, f, good); err != nil {
		t.Errorf("a stream that may join: %v", err)
	}
	f.over(t, g)
}

// What is sent to the socket of a session by a process that is not as it should be harms nobody.
func TestJoinMessages(t *testing.T) {
	f := newFar(newFake())
	g := f.dial(t, 2)
	hello := testHello()
	hello.Stream, hello.Token = 5, g.main.said.token
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd := int(r.Fd())
	message := appendJoin(nil, &hello)
	later := bytes.Clone(message)
	later[3]++
	before := descriptors(t)
	for name, c := range map[string]struct {
		message []byte
		fds     []int
		want    error
	}{
		"empty":             {[]byte{0}, []int{fd, fd}, errMalformed},
		"no descriptors":    {message, nil, errMalformed},
		"one descriptor":    {message, []int{fd}, errMalformed},
		"three descriptors": {message, []int{fd, fd, fd}, nil},
		"too long":          {append(bytes.Clone(message), make([]byte, maxJoin)...), []int{fd, fd}, errMalformed},
		"cut short":         {message[:len(message)-1], []int{fd, fd}, errMalformed},
		"another version":   {later, []int{fd, fd}, slave.ErrVersion},
		"stream 0":          {appendJoin(nil, &Hello{Master: testMaster, Session: testSession, Path: "/slave"}), []int{fd, fd}, errMalformed},
		"nothing at all":    {nil, nil, nil},
	} {
		conn, err := net.DialUnix("unixpacket", nil, hello.Token.address())
		if err != nil {
			t.Fatal(err)
		}
		if c.message != nil {
			var rights []byte
			if c.fds != nil {
				rights = unix.UnixRights(c.fds...)
			}
			if _, _, err := conn.WriteMsgUnix(c.message, rights, nil); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, maxJoin)
			n, err := conn.Read(answer)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			d := decoder{b: answer[:n]}
			if err := d.error(); err == nil || c.want != nil && !errors.Is(err, c.want) && !strings.Contains(err.Error(), c.want.Error()) {
				t.Errorf("%s: answered %v", name, err)
			}
		}
		conn.Close()
	}
	mustApply(t, g, putOp("a", pattern(2*bulky)))
	// The other end closes its own in its own time.
	for deadline := time.Now().Add(time.Minute); descriptors(t) > before; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors before, %d after", before, descriptors(t))
		}
	}
	f.clean(t, g)
}

// A session ends though somebody has a connection to its socket and says nothing.
func TestSilentJoinDoesNotHoldUpTheEnd(t *testing.T) {
	f := newFar(newFake())
	g := f.dial(t, 2)
	for range 4 * MaxStreams {
		conn, err := net.DialUnix("unixpacket", nil, g.main.said.token.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	mustApply(t, g, putOp("a", pattern(2*bulky)))
	began := time.Now()
	f.clean(t, g)
	if time.Since(began) >= joinTime {
		t.Error("the end waited for them")
	}
}

const nobodyToken = "GEOREP_TEST_NOBODY_TOKEN"

// TestAnotherUserDoesNotJoin lets an ordinary user, who somehow knows the token, try to join a session of root's, and
// one of root's processes to join a session of theirs.
func TestAnotherUserDoesNotJoin(t *testing.T) {
	if text := os.Getenv(nobodyToken); text != "" {
		asNobody(t, text)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	dir, err := os.MkdirTemp("", "georep")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "agent.test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	f := newFar(newFake())
	g := f.dial(t, 2)
	token := g.main.said.token
	cmd := exec.Command(program, "-test.run=^TestAnotherUserDoesNotJoin$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), fmt.Sprintf("%s=%x", nobodyToken, token[:]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	theirs := Token{0: 99, 1: 1}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 4096)
	n, _ := io.ReadAtLeast(out, said, len("listening"))
	for !strings.Contains(string(said[:n]), "listening") {
		more, err := out.Read(said[n:])
		if err != nil {
			t.Fatalf("it said %q", said[:n])
		}
		n += more
	}
	hello := testHello()
	hello.Stream, hello.Token = 1, theirs
	if err := join(t, f, hello); !errors.Is(err, unix.EACCES) {
		t.Errorf("a stream of root's for a process of nobody's: %v", err)
	}
	in.Close()
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, said[:n], rest)
	}
	mustApply(t, g, putOp("a", pattern(2*bulky)))
	f.over(t, g)
}

func asNobody(t *testing.T, text string) {
	var token []byte
	if _, err := fmt.Sscanf(text, "%x", &token); err != nil {
		t.Fatal(err)
	}
	hello := testHello()
	hello.Stream, hello.Token = 9, Token(token)
	a, b := osPipe(t)
	defer a.Close()
	defer b.Close()
	for name, check := range map[string]func(*net.UnixConn) error{
		"as a process of georep would": func(c *net.UnixConn) error { return bring(c, &hello, b.(*pair)) },
		"without looking": func(c *net.UnixConn) error {
			_ = send(c, &hello, b.(*pair)) // they may have hung up
			_, err := c.Read(make([]byte, 1))
			return err
		},
	} {
		conn, err := net.DialUnix("unixpacket", nil, Token(token).address())
		if err != nil {
			t.Fatal(err)
		}
		if err := check(conn); err == nil || name[0] == 'a' && !errors.Is(err, unix.EACCES) {
			t.Errorf("joined %s: %v", name, err)
		}
		conn.Close()
	}
	l, err := net.ListenUnix("unixpacket", Token{0: 99, 1: 1}.address())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Println("listening")
	_, _ = io.ReadAll(os.Stdin)
}

// everyCall returns the errors of all of a tree's calls.
func everyCall(g slave.Tree) (errs []error) {
	ctx := context.Background()
	_, err := g.Survey(ctx, []slave.Query{{}})
	errs = append(errs, err)
	_, err = g.Find(ctx, []xtime.GFID{{}})
	errs = append(errs, err)
	_, err = g.Hash(ctx, []string{"a"})
	errs = append(errs, err)
	_, err = g.Groups(ctx, 1)
	errs = append(errs, err)
	_, err = g.Count(ctx, []string{"a"}, 1)
	errs = append(errs, err)
	_, err = g.Apply(ctx, &slave.Batch{Ops: []slave.Op{putOp("a", nil)}})
	errs = append(errs, err)
	_, err = g.Apply(ctx, &slave.Batch{Ops: []slave.Op{putOp("a", pattern(2*bulky))}})
	return append(errs, err, g.Clean(ctx, 1))
}

// The loss of any stream is the end of the session, with the same error everywhere.
func TestLossOfAStreamEndsTheSession(t *testing.T) {
	for name, lose := range map[string]func(f *far, stream int){
		"the channel":                 func(f *far, stream int) { f.ends[stream].Close() },
		"the process that it came by": func(f *far, stream int) { f.kill[stream]() },
	} {
		for stream := range 3 {
			t.Run(fmt.Sprint(name, " ", stream), func(t *testing.T) {
				before := descriptors(t)
				f := newFar(newFake())
				g := f.dial(t, 3)
				var wg sync.WaitGroup
				var mu sync.Mutex
				var errs []error
				for i := range 12 {
					wg.Go(func() {
						for g.Err() == nil {
							_, err := g.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp(fmt.Sprint(i), pattern(2*bulky))}})
							if err != nil {
								mu.Lock()
								errs = append(errs, err)
								mu.Unlock()
							}
						}
					})
				}
				lose(f, stream)
				wg.Wait()
				<-g.Done()
				for _, err := range append(errs, everyCall(g)...) {
					if err != g.Err() || err == nil {
						t.Errorf("a call returned %v, another %v", err, g.Err())
					}
				}
				f.over(t, g)
				if after := descriptors(t); after > before {
					t.Errorf("%d descriptors before, %d after", before, after)
				}
			})
		}
	}
}

// What a server finds wrong on a further stream, or what goes wrong in its tree there, reaches the client.
func TestErrorsOfAFurtherStream(t *testing.T) {
	t.Run("of the tree", func(t *testing.T) {
		tree := newFake()
		f := newFar(tree)
		g := f.dial(t, 3)
		tree.stageErr = slave.ErrUnfit
		_, err := g.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp("a", pattern(2*bulky))}})
		if !errors.Is(err, slave.ErrUnfit) {
			t.Errorf("got %v", err)
		}
		f.over(t, g)
		if err := f.errs[0]; !errors.Is(err, slave.ErrUnfit) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Run("of the protocol", func(t *testing.T) {
		f := newFar(newFake())
		g := f.dial(t, 3)
		g.clients[1].out.now(outgoing{head: head{kind: 99, id: 1}})
		<-g.Done()
		if err := g.Err(); !strings.Contains(err.Error(), errMalformed.Error()) {
			t.Errorf("got %v", err)
		}
		f.over(t, g)
		if err := f.errs[0]; !errors.Is(err, errMalformed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Run("more than a hello", func(t *testing.T) {
		f := newFar(newFake())
		g := f.dial(t, 2)
		hello := testHello()
		hello.Stream, hello.Token = 3, g.main.said.token
		a := f.open(t, 3)
		words := appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
			func(b []byte) []byte { return appendHello(b, &hello) })
		a.Write(appendFrame(words, head{kind: frameAlive}, nil))
		if said := readAll(t, a); len(said) != 1 || said[0] != frameRefuse {
			t.Errorf("the server said %v", said)
		}
		a.Close()
		f.over(t, g)
	})
}

// faulty fails the n-th read or write, and everything after it, in both directions.
type faulty struct {
	io.ReadWriteCloser
	left atomic.Int64
	read bool
}

func (f *faulty) Read(p []byte) (int, error) {
	if f.read && f.left.Add(-1) < 0 {
		f.Close()
		return 0, errBoom
	}
	return f.ReadWriteCloser.Read(p)
}

func (f *faulty) Write(p []byte) (int, error) {
	if !f.read && f.left.Add(-1) < 0 {
		f.Close()
		return 0, errBoom
	}
	return f.ReadWriteCloser.Write(p)
}

// TestGroupFailsAnywhere fails the first, second, third ... read or write of each stream. A stream that fails before it
// joined is done without; after that the session is over. Either way nothing is left, and nothing half is applied.
func TestGroupFailsAnywhere(t *testing.T) {
	const streams = 3
	for stream := range streams {
		for _, read := range []bool{false, true} {
			failed := false
			for n := int64(0); ; n++ {
				done, hit := failAt(t, streams, stream, n, read)
				failed = failed || !done
				if !hit {
					break
				}
				if n > 2000 {
					t.Fatal("there is no end to it")
				}
			}
			if !failed {
				t.Errorf("no failure of stream %d ended a session", stream)
			}
		}
	}
}

// failAt tells whether the session did all it had to, and whether the fault was met.
func failAt(t *testing.T, streams, stream int, n int64, read bool) (done, hit bool) {
	f := newFar(newFake())
	var fault *faulty
	f.wrap = func(number int, rwc io.ReadWriteCloser) io.ReadWriteCloser {
		if number != stream {
			return rwc
		}
		fault = &faulty{ReadWriteCloser: rwc, read: read}
		fault.left.Store(n)
		return fault
	}
	g, err := DialGroup(context.Background(), testHello(), f.options(t, streams))
	if err != nil {
		f.wg.Wait()
		return false, true
	}
	g.Grow()
	select {
	case <-f.grew:
	case <-g.Done():
	}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = g.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp(fmt.Sprint(i), pattern(bulky*(i%2+1)))}})
		})
	}
	wg.Wait()
	errs = append(errs, g.Clean(context.Background(), 1))
	for _, err := range errs {
		if err != nil && err != g.Err() {
			t.Errorf("stream %d, operation %d: a call returned %v, the session %v", stream, n, err, g.Err())
		}
	}
	done = !slices.ContainsFunc(errs, func(err error) bool { return err != nil })
	f.over(t, g)
	for path, data := range f.tree.files {
		if len(data)%bulky != 0 || len(data) == 0 {
			t.Errorf("stream %d, operation %d: %q has %d bytes", stream, n, path, len(data))
		}
	}
	return done, fault == nil || fault.left.Load() < 0
}
