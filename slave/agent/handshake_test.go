package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"georep/slave"
)

func TestNoiseBeforeTheAgent(t *testing.T) {
	for name, noise := range map[string]string{
		"none": "", "banner": "Welcome to host\r\nLast login: today\n", "part of the magic": magic[:10],
		"64 KiB": strings.Repeat("n", maxNoise), "magic in pieces": strings.Repeat(magic[:len(magic)-1], 3),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := osPipe(t)
			if _, err := io.WriteString(b, noise[:min(len(noise), 4096)]); err != nil {
				t.Fatal(err)
			}
			s := beginOver(t, a, &noisy{ReadWriteCloser: b, noise: noise[min(len(noise), 4096):]}, newFake())
			mustApply(t, s, putOp("a", []byte("b")))
			s.clean(t)
		})
	}
}

// noisy says something before anything else.
type noisy struct {
	io.ReadWriteCloser
	noise string
}

func (n *noisy) Write(p []byte) (int, error) {
	if n.noise != "" {
		if _, err := io.WriteString(n.ReadWriteCloser, n.noise); err != nil {
			return 0, err
		}
		n.noise = ""
	}
	return n.ReadWriteCloser.Write(p)
}

func TestNobodyThere(t *testing.T) {
	for name, c := range map[string]struct{ said, want string }{
		"not found": {"\nsh: georep: \x1b[31mnot found\r\nbye\n", `answered "sh: georep: \x1b[31mnot found\r"`},
		"silent":    {"", "ended without an answer"},
		"chatty":    {strings.Repeat("all work and no play\n", 10_000), `answered "all work and no play"`},
		"old magic": {magic[:len(magic)-1] + "x", "answered"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			go func() {
				io.WriteString(b, c.said)
				b.Close()
			}()
			_, err := Dial(context.Background(), a, testHello())
			if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			if strings.ContainsAny(err.Error(), "\x1b\n\r\x00") {
				t.Errorf("%q holds control characters", err)
			}
			if _, err := a.Write([]byte("x")); err == nil {
				t.Error("the stream was left open")
			}
		})
	}
}

func TestVersionMismatch(t *testing.T) {
	for _, c := range []struct {
		client, server uint32
		want           string
	}{{1, 2, "upgrade georep on the master's host"}, {9, 2, "upgrade georep on the slave's host"}} {
		a, b := netPipe(t)
		served := make(chan error, 1)
		go func() {
			served <- (&Host{}).serve(context.Background(), b, preface{protocol: c.server, version: "s\x1b.1"})
		}()
		hello := testHello()
		_, err := dial(context.Background(), a, &hello, c.client, semaphore.NewWeighted(answerBudget))
		for end, err := range map[string]error{"client": err, "server": <-served} {
			if !errors.Is(err, slave.ErrVersion) {
				t.Errorf("%s: %v is not ErrVersion", end, err)
				continue
			}
			for _, part := range []string{c.want, `georep 1.2.3 (protocol ` + fmt.Sprint(c.client),
				`georep s\x1b.1 (protocol ` + fmt.Sprint(c.server)} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %q lacks %q", end, err, part)
				}
			}
		}
	}
}

func TestRefusalsKeepTheirIdentity(t *testing.T) {
	for _, want := range []error{slave.ErrNoVolume, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrBusy, slave.ErrUnfit,
		slave.ErrVersion, unix.EACCES} {
		for name, pipe := range map[string]endpoints{"net": netPipe, "os": osPipe} {
			a, b := pipe(t)
			served := make(chan error, 1)
			refusal := fmt.Errorf("open volume %q: %w", "v", want)
			go func() {
				served <- Serve(context.Background(), b, "v", func(Hello) (slave.Reader, error) { return nil, refusal })
			}()
			_, err := Dial(context.Background(), a, testHello())
			if !errors.Is(err, want) || !strings.HasSuffix(err.Error(), refusal.Error()) {
				t.Errorf("%s: got %v, want %v", name, err, refusal)
			}
			if err := <-served; !errors.Is(err, want) {
				t.Errorf("%s: Serve returned %v", name, err)
			}
		}
	}
}

func TestHelloArrivesWhole(t *testing.T) {
	want := Hello{Version: "v", Master: testMaster, Session: testSession, Volume: "vol", Force: true, Create: true}
	a, b := netPipe(t)
	got := make(chan Hello, 1)
	served := make(chan error, 1)
	go func() {
		served <- Serve(context.Background(), b, "v", func(h Hello) (slave.Reader, error) { got <- h; return newFake(), nil })
	}()
	c, err := Dial(context.Background(), a, want)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if h := <-got; h != want {
		t.Errorf("got %+v, want %+v", h, want)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDialRejectsABadHello(t *testing.T) {
	for _, h := range []Hello{{}, {Master: testMaster, Session: testSession},
		{Master: testMaster, Session: testSession, Volume: "v", Path: "/p"}, {Session: testSession, Path: "/p"},
		{Master: testMaster, Session: testSession, Path: "/p", Stream: 1},
		{Master: testMaster, Session: testSession, Path: "/p", Stream: MaxStreams, Token: Token{1}}} {
		a, _ := net.Pipe()
		if _, err := Dial(context.Background(), a, h); !errors.Is(err, errMalformed) {
			t.Errorf("%+v: %v", h, err)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("the stream was left open")
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := net.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		go func() { synctest.Wait(); cancel() }()
		if _, err := Dial(ctx, a, testHello()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// A far end that says nothing at all.
		a, _ = net.Pipe()
		if _, err := Dial(context.Background(), a, testHello()); !errors.Is(err, ErrSilent) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAgentRunByHand(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		io.CopyN(io.Discard, a, int64(len(magic)+6))
		io.WriteString(a, "hello there, what do you do?")
	}()
	if err := Serve(context.Background(), b, "v", nil); !errors.Is(err, errMalformed) {
		t.Errorf("got %v", err)
	}
}

// cutter ends the stream, in both directions, after so many bytes were written to it or read from it.
type cutter struct {
	io.ReadWriteCloser
	left *atomic.Int64
	read bool // count what is read, not what is written
}

func (c *cutter) Write(p []byte) (int, error) {
	if !c.read {
		return c.do(p, c.ReadWriteCloser.Write)
	}
	return c.ReadWriteCloser.Write(p)
}

func (c *cutter) Read(p []byte) (int, error) {
	if c.read {
		return c.do(p, c.ReadWriteCloser.Read)
	}
	return c.ReadWriteCloser.Read(p)
}

func (c *cutter) do(p []byte, f func([]byte) (int, error)) (int, error) {
	left := c.left.Load()
	n, err := f(p[:min(int64(len(p)), max(left, 0))])
	if c.left.Add(-int64(n)) <= 0 {
		c.ReadWriteCloser.Close()
		if err == nil && n < len(p) && !c.read {
			err = io.ErrClosedPipe
		}
	}
	return n, err
}

// script uses every call and returns the first error.
func script(c *Client) error {
	ctx := context.Background()
	_, err := c.Survey(ctx, []slave.Query{{Path: "a"}, {Path: "missing"}})
	if err != nil {
		return err
	}
	broken := putOp("broken", nil)
	broken.Open = func() (slave.Content, error) { return nil, errBoom }
	for range 2 {
		ops := []slave.Op{putOp("one", pattern(100)), broken, putOp("two", pattern(900)), {Kind: slave.OpMkdir, Path: "d"}}
		if _, err := c.Apply(ctx, &slave.Batch{Ops: ops}); err != nil {
			return err
		}
	}
	if _, err := c.Hash(ctx, []string{"a"}); err != nil {
		return err
	}
	return c.Clean(ctx, 1)
}

// cutAfter runs the script over a stream that is cut, and tells whether it came to its end before.
func cutAfter(t *testing.T, n int64, read bool) (done bool) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		left := &atomic.Int64{}
		left.Store(n)
		tree := newFake()
		served := make(chan error, 1)
		go func() {
			served <- Serve(context.Background(), b, "v", func(Hello) (slave.Reader, error) { return tree, nil })
		}()
		c, err := Dial(context.Background(), &cutter{ReadWriteCloser: a, left: left, read: read}, testHello())
		if err == nil {
			err = script(c)
			done = err == nil
			if sticky := c.Err(); err != nil && sticky != err {
				t.Errorf("cut after %d: Err is %v, the call returned %v", n, sticky, err)
			}
			if _, again := c.Groups(context.Background(), 1); !done && again != err {
				t.Errorf("cut after %d: the next call returned %v, not %v", n, again, err)
			}
			c.Close()
		}
		<-served
		for path, data := range tree.files {
			if len(data) != map[string]int{"one": 100, "two": 900}[path] {
				t.Errorf("cut after %d: %q has %d bytes", n, path, len(data))
			}
		}
	}) // which fails if a goroutine is left
	return done
}

func TestCutAnywhere(t *testing.T) {
	for _, read := range []bool{false, true} {
		for n := int64(0); ; n++ {
			if cutAfter(t, n, read) {
				if n < 300 {
					t.Errorf("the whole script took %d bytes", n)
				}
				break
			}
			if n > 300 {
				n += 6
			}
		}
	}
}

func TestClientDiesWithinContent(t *testing.T) {
	for name, hide := range map[string]bool{"staging": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			a, b := osPipe(t)
			tree := newFake()
			var served slave.Tree = tree
			if hide {
				served = applyOnly{tree}
			}
			s := beginOver(t, a, b, served)
			s.tree = tree
			op := putOp("cut", nil)
			op.Open = func() (slave.Content, error) {
				return &dying{die: func() { a.Close() }}, nil
			}
			whole := putOp("whole", pattern(10))
			if _, err := s.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{whole, op, whole}}); err == nil {
				t.Error("Apply did not notice")
			}
			if err := s.finish(t); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Serve returned %v", err)
			}
			if len(tree.contents) != 3 || tree.contents[0] != nil || !errors.Is(tree.contents[1], io.ErrUnexpectedEOF) ||
				!errors.Is(tree.contents[2], io.ErrUnexpectedEOF) || errors.Is(tree.contents[1], slave.ErrSource) {
				t.Errorf("the contents ended with %v", tree.contents)
			}
			if !hide && (tree.dropped != 1 || len(tree.ops) != 0) {
				t.Errorf("%d batches dropped, %d operations applied", tree.dropped, len(tree.ops))
			}
			if _, there := tree.files["cut"]; there {
				t.Error("half a file was applied")
			}
		})
	}
}

// dying gives a few pieces, and the connection dies.
type dying struct {
	memContent
	pieces int
	die    func()
}

func (d *dying) Next() (slave.Piece, error) {
	if d.pieces++; d.pieces > 8 {
		d.die()
	}
	return slave.Piece{Off: int64(d.pieces) << 20, Data: make([]byte, slave.MaxPiece)}, nil
}
