package crawler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
)

var lock sync.Mutex // of what the wrapped trees count

// segments counts, and may stop, what is sent ahead.
type segments struct {
	slave.Tree
	limit         int // segments that are let through; -1: all
	data, reused  int64
	begun, signed int
	cut           error
}

func (s *segments) Begin(ctx context.Context, u *slave.Upload) (slave.UploadState, error) {
	lock.Lock()
	s.begun++
	lock.Unlock()
	return s.Tree.Begin(ctx, u)
}

func (s *segments) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	lock.Lock()
	s.signed++
	lock.Unlock()
	return s.Tree.Sums(ctx, q, emit)
}

func (s *segments) Write(ctx context.Context, g *slave.Segment) (slave.Result, error) {
	lock.Lock()
	defer lock.Unlock()
	if s.limit == 0 {
		return slave.Result{}, s.cut
	}
	s.limit--
	for _, p := range g.Parts {
		s.data += int64(len(p.Data))
		if p.Data == nil {
			s.reused += p.Len
		}
	}
	return s.Tree.Write(ctx, g)
}

// counted is a world whose segments are counted.
func counted(t *testing.T) (*world, func() *segments) {
	w := newWorld(t)
	var last *segments
	w.wrap = func(inner slave.Tree) slave.Tree {
		last = &segments{Tree: inner, limit: -1, cut: errors.New("the connection is cut")}
		return last
	}
	w.connect()
	return w, func() *segments { return last }
}

func bytesOf(n int, seed uint64) []byte {
	b, rnd := make([]byte, n), rand.New(rand.NewPCG(seed, 9))
	for i := 0; i+8 <= n; i += 8 {
		v := rnd.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

func TestLargeFilesGoAhead(t *testing.T) {
	w, seen := counted(t)
	const size = 9<<20 + 12345
	text := bytesOf(size, 1)
	w.ok(os.WriteFile(w.at("new"), text, 0o640))
	w.ok(os.WriteFile(w.at("small"), text[:1000], 0o640))
	w.ok(os.WriteFile(w.at("sparse"), nil, 0o600))
	w.ok(os.Truncate(w.at("sparse"), 300<<20))
	f, err := os.OpenFile(w.at("sparse"), os.O_WRONLY, 0)
	w.ok(err)
	_, err = f.WriteAt(text[:1<<20], 100<<20)
	w.ok(errors.Join(err, f.Close()))
	w.mark("")
	w.inStep()
	if s := seen(); s.begun != 2 || s.signed != 0 || s.data > size+2<<20 {
		t.Fatalf("%+v", s)
	}
	// A byte in the middle, and some at the front.
	text[size/2]++
	w.ok(os.WriteFile(w.at("new"), append([]byte("front"), text...), 0o640))
	w.mark("new")
	w.inStep()
	if s := seen(); s.signed != 1 || s.reused < size-3*(128<<10) || s.data > size+2<<20+3*(128<<10) {
		t.Fatalf("%+v", s)
	}
	if n := w.counters.Reused.Load(); n != seen().reused {
		t.Errorf("counted %d of %d", n, seen().reused)
	}
	// Saved as another inode: the old content is the basis all the same.
	before := seen().data
	w.ok(os.WriteFile(w.at("tmp"), append(text, "end"...), 0o640))
	w.ok(os.Rename(w.at("tmp"), w.at("new")))
	w.mark("new")
	w.inStep()
	if n := seen().data - before; n > 3*(128<<10) {
		t.Errorf("%d bytes were sent for an atomic save", n)
	}
	// Other metadata alone.
	before = seen().data
	w.ok(os.Chmod(w.at("new"), 0o600))
	w.mark("new")
	w.inStep()
	// It shrinks below what is sent ahead, and grows out of nothing.
	w.ok(os.Truncate(w.at("new"), 100))
	w.mark("new")
	w.inStep()
	w.ok(os.Truncate(w.at("new"), 5<<20))
	w.mark("new")
	w.inStep()
	if n := seen().data - before; n > 4096 { // the page that has the hundred bytes
		t.Errorf("%d bytes were sent", n)
	}
}

// TestUploadGoesOn cuts the session after n segments, for every n: what has arrived is not sent again.
func TestUploadGoesOn(t *testing.T) {
	const size = 2 << 20 // eight segments
	for _, changed := range []bool{false, true} {
		for n := range 10 {
			t.Run(fmt.Sprintf("%d changed %v", n, changed), func(t *testing.T) {
				w, seen := counted(t)
				if changed {
					w.ok(os.WriteFile(w.at("f"), bytesOf(size, 4), 0o644))
					w.mark("")
					w.inStep()
				}
				text := bytesOf(size, 5)
				w.ok(os.WriteFile(w.at("f"), text, 0o644))
				w.mark("f")
				seen().limit = n
				before := seen().data
				_, err := w.crawler.Pass(t.Context())
				if (err == nil) != (n >= 8) || err != nil && !errors.Is(err, seen().cut) {
					t.Fatalf("after %d segments: %v", n, err)
				}
				sent := seen().data - before
				w.connect()
				w.inStep()
				if sent += seen().data; sent > size {
					t.Errorf("%d bytes were sent for %d", sent, size)
				}
				if b, err := os.ReadFile(w.there("f")); err != nil || !bytes.Equal(b, text) {
					t.Fatal("another content", err)
				}
			})
		}
	}
}

// TestUploadFails: a segment that the slave cannot write fails the file alone, and it is tried again.
func TestUploadFails(t *testing.T) {
	w := newWorld(t)
	fail := unix.ENOSPC
	w.wrap = func(inner slave.Tree) slave.Tree { return &refusing{inner, &fail} }
	w.connect()
	w.ok(os.WriteFile(w.at("big"), bytesOf(3<<20, 6), 0o644))
	w.write("small", "content")
	w.mark("")
	if out := w.pass(); out.Stime != 0 {
		t.Fatal("stamped")
	}
	if list, n := w.crawler.Failures(5); n != 1 || list[0].Path != "big" || !errors.Is(list[0].Err, fail) || w.crawler.Full() == nil {
		t.Fatalf("%v", list)
	}
	if b, err := os.ReadFile(w.there("small")); err != nil || string(b) != "content" {
		t.Fatal("its sibling is missing", err)
	}
	fail = 0
	waitFor(t, w.crawler.NextRetry())
	w.inStep()
}

type refusing struct {
	slave.Tree
	fail *unix.Errno
}

func (r *refusing) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	lock.Lock()
	defer lock.Unlock()
	if *r.fail != 0 && s.Off > 0 {
		return slave.Result{Err: &slave.PathError{Op: "write", Path: "x", Err: *r.fail}}, nil
	}
	return r.Tree.Write(ctx, s)
}

// TestChangedWhileItIsSentAhead: the copy is torn, has no xtime on record, and comes again.
func TestChangedWhileItIsSentAhead(t *testing.T) {
	w := newWorld(t)
	changed := false
	w.wrap = func(inner slave.Tree) slave.Tree {
		return &onWrite{inner, func() {
			if !changed {
				changed = true
				f, err := os.OpenFile(w.at("f"), os.O_WRONLY, 0)
				w.ok(err)
				_, err = f.WriteAt([]byte("changed"), 1<<20)
				w.ok(errors.Join(err, f.Truncate(2<<20), f.Close()))
			}
		}}
	}
	w.connect()
	w.ok(os.WriteFile(w.at("f"), bytesOf(30<<20, 6), 0o644))
	w.mark("f")
	w.pass()
	w.mark("f")
	w.inStep()
}

type onWrite struct {
	slave.Tree
	call func()
}

func (o *onWrite) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	lock.Lock()
	defer lock.Unlock()
	o.call()
	return o.Tree.Write(ctx, s)
}

// TestLargeFilesWithSeveralNames are sent once.
func TestLargeFilesWithSeveralNames(t *testing.T) {
	w, seen := counted(t)
	const size = 2 << 20
	w.write("a/f", string(bytesOf(size, 3)))
	w.ok(os.Mkdir(w.at("b"), 0o755))
	for i := range 20 {
		w.ok(os.Link(w.at("a/f"), w.at("b", fmt.Sprint(i))))
	}
	w.mark("")
	w.inStep()
	if s := seen(); s.data != size || s.begun != 1 {
		t.Fatalf("%+v", s)
	}
	w.write("b/7", string(bytesOf(size, 8)))
	w.mark("b/7")
	w.inStep()
	if s := seen(); s.begun != 2 {
		t.Fatalf("%+v", s)
	}
}
