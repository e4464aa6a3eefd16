package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

func TestTreeErrorEndsTheSession(t *testing.T) {
	s := begin(t, netPipe, newFake())
	err := s.Clean(context.Background(), -1)
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("got %v", err)
	}
	if _, again := s.Find(context.Background(), []xtime.GFID{{}}); again != err {
		t.Errorf("the next call returned %v, not the same error", again)
	}
	if s.Err() != err {
		t.Errorf("Err is %v", s.Err())
	}
	s.finish(t)
}

func TestCloseUnblocksAllCalls(t *testing.T) {
	tree := newFake()
	begun := make(chan struct{}, 10)
	tree.onSurvey = func(ctx context.Context, qs []slave.Query) ([]slave.DirState, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := begin(t, osPipe, tree)
	errs := make(chan error)
	for range surveysAtOnce {
		go func() { _, err := s.Survey(context.Background(), []slave.Query{{}}); errs <- err }()
		<-begun
	}
	s.Close()
	for range surveysAtOnce {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a call ended with %v", err)
		}
	}
	s.clean(t)
}

func TestIdleSessionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, netPipe, newFake())
		time.Sleep(24 * time.Hour)
		mustApply(t, s, putOp("a", []byte("b")))
		s.clean(t)
	})
}

func TestSlowDiskIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := newFake()
		tree.onPiece = func(slave.Piece) { time.Sleep(time.Hour) }
		s := begin(t, netPipe, tree)
		if r := mustApply(t, s, putOp("a", pattern(4<<20))); r[0].Err != nil {
			t.Error(r[0].Err)
		}
		s.clean(t)
	})
}

func TestSilenceEndsBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Each end talks to one that says what is due at first, then only listens.
		a, b := net.Pipe()
		go func() {
			info := testInfo()
			b.Write(appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameWelcome},
				func(b []byte) []byte { return appendWelcome(b, &welcome{info: info}) }))
			io.Copy(io.Discard, b)
			b.Close()
		}()
		c, err := Dial(context.Background(), a, testHello())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Survey(context.Background(), []slave.Query{{}}); !errors.Is(err, ErrSilent) {
			t.Errorf("the client ended with %v", err)
		}
		c.Close()

	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		tree := newFake()
		served := make(chan error)
		go func() {
			served <- Serve(context.Background(), b, "v", func(Hello) (slave.Reader, error) { return tree, nil })
		}()
		hello := testHello()
		go io.Copy(io.Discard, a)
		a.Write(appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
			func(b []byte) []byte { return appendHello(b, &hello) }))
		if err := <-served; !errors.Is(err, ErrSilent) {
			t.Errorf("the server ended with %v", err)
		}
		<-tree.closed
	})
}

// deaf loses what is written to it, once it is on.
type deaf struct {
	io.ReadWriteCloser
	on atomic.Bool
}

func (d *deaf) Write(p []byte) (int, error) {
	if d.on.Load() {
		return len(p), nil
	}
	return d.ReadWriteCloser.Write(p)
}

// TestWhoIsNotHeardIsTold: where nothing arrives at the slave any more, but what it says does, it says why it ends.
func TestWhoIsNotHeardIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- Serve(context.Background(), b, "v", func(Hello) (slave.Reader, error) { return newFake(), nil })
		}()
		line := &deaf{ReadWriteCloser: a}
		c, err := Dial(context.Background(), line, testHello())
		if err != nil {
			t.Fatal(err)
		}
		line.on.Store(true)
		begun := time.Now()
		<-c.Done()
		if took := time.Since(begun); took > serverSilence+parting || !strings.Contains(c.Err().Error(), ErrSilent.Error()) {
			t.Errorf("after %v: %v", took, c.Err())
		}
		c.Close()
		if err := <-served; !errors.Is(err, ErrSilent) {
			t.Errorf("the server ended with %v", err)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		a, b := net.Pipe()
		tree := newFake()
		tree.onCommit = func(ctx context.Context) { <-ctx.Done() }
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, b, "v", func(Hello) (slave.Reader, error) { return tree, nil }) }()
		c, err := Dial(context.Background(), a, testHello())
		if err != nil {
			t.Fatal(err)
		}
		go func() { synctest.Wait(); cancel() }()
		if _, err := c.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp("a", nil)}}); err == nil {
			t.Error("Apply did not notice")
		}
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
		c.Close()
	})
}
