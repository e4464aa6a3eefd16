package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

// everyPipe runs a test over both kinds of streams and both kinds of trees.
func everyPipe(t *testing.T, f func(t *testing.T, s *session)) {
	for name, pipe := range map[string]endpoints{"net.Pipe": netPipe, "os.Pipe": osPipe} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, pipe, newFake())
			f(t, s)
			s.clean(t)
		})
		t.Run(name+" without staging", func(t *testing.T) {
			tree := newFake()
			s := begin(t, pipe, applyOnly{tree})
			s.tree = tree
			f(t, s)
			s.clean(t)
		})
	}
}

func TestEveryCall(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		ctx := context.Background()
		if got, want := s.Info(), testInfo(); !reflect.DeepEqual(got, want) {
			t.Errorf("Info: got %+v, want %+v", got, want)
		}
		qs := []slave.Query{{Path: "a/b\n\xff"}, {Path: "missing"}, {Path: "", Part: 3, Parts: 4}}
		states, err := s.Survey(ctx, qs)
		want, _ := s.tree.Survey(ctx, qs)
		if err != nil || !reflect.DeepEqual(states, want) {
			t.Errorf("Survey: got %+v, %v, want %+v", states, err, want)
		}
		if !errors.Is(states[1].Err, fs.ErrNotExist) {
			t.Errorf("%v is not fs.ErrNotExist", states[1].Err)
		}
		gfids := []xtime.GFID{{1}, {2}}
		found, err := s.Find(ctx, gfids)
		if want, _ := s.tree.Find(ctx, gfids); err != nil || !reflect.DeepEqual(found, want) {
			t.Errorf("Find: got %+v, %v, want %+v", found, err, want)
		}
		sums, err := s.Hash(ctx, []string{"x", "yy"})
		if want, _ := s.tree.Hash(ctx, []string{"x", "yy"}); err != nil || !reflect.DeepEqual(sums, want) {
			t.Errorf("Hash: got %+v, %v, want %+v", sums, err, want)
		}
		counts, err := s.Count(ctx, []string{"x", "yyyyy"}, 3)
		if err != nil || !reflect.DeepEqual(counts, []int64{1, 3}) {
			t.Errorf("Count: %v, %v", counts, err)
		}
		groups, err := s.Groups(ctx, 3)
		if want, _ := s.tree.Groups(ctx, 3); err != nil || !reflect.DeepEqual(groups, want) {
			t.Errorf("Groups: got %+v, %v, want %+v", groups, err, want)
		}
		if err := s.Clean(ctx, 60); err != nil {
			t.Errorf("Clean: %v", err)
		}
	})
}

func TestApply(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		closed := 0
		big := pattern(3*slave.MaxPiece + 5)
		torn := putOp("torn", nil)
		torn.Open = func() (slave.Content, error) {
			return &memContent{data: pattern(10), piece: 4, hole: 6, torn: true, close: &closed}, nil
		}
		unreadable := putOp("unreadable", nil)
		unreadable.Open = func() (slave.Content, error) { return nil, &fs.PathError{Op: "open", Path: "/m", Err: unix.EACCES} }
		broken := putOp("broken", nil)
		broken.Open = func() (slave.Content, error) {
			return &memContent{data: pattern(10), piece: 4, fail: unix.EIO, close: &closed}, nil
		}
		results := mustApply(t, s,
			slave.Op{Kind: slave.OpMkdir, Entry: slave.Dir, Path: "d"},
			putOp("big", big), putOp("empty", nil), torn, unreadable, putOp("refused", big), broken,
			putOp("half", big), putOp("last", []byte("x")), putOp("refuse", big), slave.Op{Kind: slave.OpPark, Path: "p"})
		for i, want := range []error{0: nil, 1: nil, 2: nil, 3: nil, 4: unix.EACCES, 5: unix.EACCES, 6: unix.EIO,
			7: unix.EIO, 8: nil, 9: unix.EACCES, 10: nil} {
			if !errors.Is(results[i].Err, want) {
				t.Errorf("operation %d: got %v, want %v", i, results[i].Err, want)
			}
		}
		for _, i := range []int{4, 6} {
			if !errors.Is(results[i].Err, slave.ErrSource) {
				t.Errorf("operation %d: %v is not ErrSource", i, results[i].Err)
			}
		}
		if results[7].Err == nil || errors.Is(results[7].Err, slave.ErrSource) || results[5].Torn || !results[3].Torn {
			t.Errorf("results %+v", results)
		}
		if !bytes.Equal(s.tree.files["big"], big) || string(s.tree.files["last"]) != "x" || closed != 2 {
			t.Errorf("contents differ; %d of 2 contents closed", closed)
		}
		if got := s.tree.ends["torn"]; got != (slave.End{Size: 28, Torn: true}) {
			t.Errorf("the torn content ended with %+v", got)
		}
		if got := string(s.tree.files["torn"]); got != "geor\x00\x00\x00\x00\x00\x00ep g\x00\x00\x00\x00\x00\x00eo" {
			t.Errorf("the torn content is %q", got)
		}
	})
}

func TestWhatCannotBeSentFailsAlone(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		results := mustApply(t, s,
			slave.Op{Kind: 99, Path: "kind"},
			slave.Op{Kind: slave.OpMkdir, Path: string(make([]byte, maxPath+1))},
			slave.Op{Kind: slave.OpPut, Path: "no content"},
			slave.Op{Kind: slave.OpMeta, Path: "x", Meta: slave.Meta{Xattrs: []slave.Xattr{{Name: ""}}}},
			slave.Op{Kind: slave.OpMkdir, Path: "../good enough for the wire"})
		for i, r := range results {
			if errors.Is(r.Err, slave.ErrInvalid) != (i < 4) {
				t.Errorf("operation %d: %v", i, r.Err)
			}
		}
		many := mustApply(t, s, make([]slave.Op, slave.MaxOps+1)...)
		if !errors.Is(many[0].Err, slave.ErrInvalid) {
			t.Errorf("too many operations: %v", many[0].Err)
		}
		mustApply(t, s)
	})
}

func TestLargeBatchGoesInParts(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		value := make([]byte, maxValue)
		var ops []slave.Op
		for i := range slave.MaxOps {
			op := putOp(fmt.Sprint(i), fmt.Append(nil, i))
			if i%4 == 0 {
				op.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: value}}
			}
			ops = append(ops, op)
		}
		for i, r := range mustApply(t, s, ops...) {
			if r.Err != nil {
				t.Fatalf("operation %d: %v", i, r.Err)
			}
		}
		if len(s.tree.ops) != slave.MaxOps {
			t.Fatalf("%d operations arrived", len(s.tree.ops))
		}
		for i, op := range s.tree.ops {
			if op.Path != fmt.Sprint(i) || string(s.tree.files[op.Path]) != op.Path || !reflect.DeepEqual(op.Meta, ops[i].Meta) {
				t.Fatalf("operation %d arrived as %q", i, op.Path)
			}
		}
	})
}

func TestLargeSurveyAndLongLists(t *testing.T) {
	tree := newFake()
	tree.onSurvey = func(_ context.Context, qs []slave.Query) ([]slave.DirState, error) {
		out := make([]slave.DirState, len(qs))
		for i, q := range qs {
			out[i] = surveyOf(q)
			for j := 1; j < int(q.Parts); j++ {
				out[i].Entries = append(out[i].Entries, slave.EntryState{Name: fmt.Sprintf("%0250d", j), Kind: slave.File})
			}
		}
		return out, nil
	}
	s := begin(t, osPipe, tree)
	defer s.clean(t)
	const many = 8000 // of which two directories do not go into one answer
	qs := []slave.Query{{Path: "a", Parts: many}, {Path: "b", Parts: 1}, {Path: "c", Parts: many}}
	for i := range 2 * maxItems {
		qs = append(qs, slave.Query{Path: fmt.Sprint(i)})
	}
	var states []slave.DirState
	for asked := 0; len(states) < len(qs); asked++ {
		some, err := s.Survey(context.Background(), qs[len(states):])
		if err != nil || len(some) == 0 || asked == 0 && len(some) != 2 {
			t.Fatalf("%d states, %v", len(some), err)
		}
		states = append(states, some...)
	}
	want, _ := tree.Survey(context.Background(), qs)
	if !reflect.DeepEqual(states, want) {
		t.Error("the survey arrived changed")
	}
	gfids := make([]xtime.GFID, 3*maxItems+1)
	for i := range gfids {
		gfids[i] = xtime.GFID{byte(i), byte(i >> 8)}
	}
	var found []slave.Found
	var err error
	for len(found) < len(gfids) && err == nil {
		var some []slave.Found
		some, err = s.Find(context.Background(), gfids[len(found):])
		found = append(found, some...)
	}
	if err != nil || found[len(gfids)-1].Record.GFID != gfids[len(gfids)-1] {
		t.Errorf("%d found, %v", len(found), err)
	}
}

// writeCounter counts writes of a client.
type writeCounter struct {
	io.ReadWriteCloser
	writes atomic.Int64
}

func (w *writeCounter) Write(p []byte) (int, error) {
	w.writes.Add(1)
	return w.ReadWriteCloser.Write(p)
}

func TestSmallFilesCostFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		counted := &writeCounter{ReadWriteCloser: a}
		s := beginOver(t, counted, b, newFake())
		var ops []slave.Op
		for i := range 256 {
			op := putOp(fmt.Sprint(i), pattern(4096))
			open := op.Open
			op.Open = func() (slave.Content, error) {
				synctest.Wait() // so that whatever may be written has been
				return open()
			}
			ops = append(ops, op)
		}
		before := counted.writes.Load()
		mustApply(t, s, ops...)
		if n := counted.writes.Load() - before; n > 6 {
			t.Errorf("256 files of 4 KiB took %d writes", n)
		}
		s.clean(t)
	})
}

// A tree that cannot stage holds up the stream only until its contents are through.
func TestOtherCallsPassWhileApplyWaits(t *testing.T) {
	tree := newFake()
	gate := make(chan struct{})
	begun := make(chan struct{}, 2)
	tree.onCommit = func(context.Context) { begun <- struct{}{}; <-gate }
	s := begin(t, netPipe, applyOnly{tree})
	s.tree = tree
	var wg sync.WaitGroup
	wg.Go(func() { mustApply(t, s, putOp("a", []byte("x")), putOp("b", []byte("y"))) })
	<-begun
	wg.Go(func() { mustApply(t, s, slave.Op{Kind: slave.OpMkdir, Path: "d"}) })
	for range 10 {
		if _, err := s.Survey(context.Background(), []slave.Query{{}}); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	wg.Wait()
	s.clean(t)
}

func TestManyCallsAtOnce(t *testing.T) {
	s := begin(t, osPipe, newFake())
	defer s.clean(t)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			path := fmt.Sprint(i)
			if i%3 == 0 {
				r, err := s.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp(path, []byte(path))}})
				if err != nil || r[0].Err != nil {
					t.Error(r, err)
				}
				return
			}
			states, err := s.Survey(context.Background(), []slave.Query{{Path: path}})
			if err != nil || states[0].Entries[0].Name != "in "+path {
				t.Error(states, err)
			}
		})
	}
	wg.Wait()
	for path, data := range s.tree.files {
		if string(data) != path {
			t.Errorf("%q holds %q", path, data)
		}
	}
	if len(s.tree.files) != 334 {
		t.Errorf("%d files arrived", len(s.tree.files))
	}
}

// endless gives n pieces and counts them.
type endless struct {
	left int64
	off  int64
	data []byte
	sent *atomic.Int64
}

func (e *endless) Next() (slave.Piece, error) {
	if e.left == 0 {
		return slave.Piece{}, io.EOF
	}
	p := slave.Piece{Off: e.off, Data: e.data}
	e.left--
	e.off += int64(len(e.data))
	e.sent.Add(int64(len(e.data)))
	return p, nil
}

func (e *endless) End() slave.End { return slave.End{Size: e.off} }
func (e *endless) Close() error   { return nil }

func TestBigContentInBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, bound = 64 << 20, 2 << 20
		var sent, got atomic.Int64
		gate := make(chan struct{})
		tree := newFake()
		tree.keep = false
		tree.onPiece = func(p slave.Piece) {
			<-gate
			got.Add(int64(len(p.Data)))
		}
		s := begin(t, netPipe, tree)
		op := putOp("big", nil)
		op.Open = func() (slave.Content, error) {
			return &endless{left: size / slave.MaxPiece, data: make([]byte, slave.MaxPiece), sent: &sent}, nil
		}
		done := make(chan []slave.Result)
		go func() { done <- mustApply(t, s, op) }()
		for range size / slave.MaxPiece {
			synctest.Wait()
			if flying := sent.Load() - got.Load(); flying > bound {
				t.Fatalf("%d bytes in flight", flying)
			}
			gate <- struct{}{}
		}
		if r := <-done; r[0].Err != nil || tree.ends["big"].Size != size || got.Load() != size {
			t.Errorf("%+v, %d bytes", r, got.Load())
		}
		s.clean(t)
	})
}

func TestOtherCallsPassWhileContentStalls(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		gate := make(chan struct{})
		op := putOp("slow", nil)
		op.Open = func() (slave.Content, error) { <-gate; return &memContent{data: []byte("x"), piece: 1}, nil }
		done := make(chan []slave.Result)
		go func() { done <- mustApply(t, s, putOp("first", pattern(1<<20)), op) }()
		for range 100 {
			if _, err := s.Survey(context.Background(), []slave.Query{{Path: "d"}}); err != nil {
				t.Fatal(err)
			}
		}
		close(gate)
		for _, r := range <-done {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
	})
}

func TestNextBatchStreamsWhileOneCommits(t *testing.T) {
	tree := newFake()
	first, staged := make(chan struct{}), make(chan struct{}, 2)
	tree.onCommit = func(context.Context) { <-first }
	tree.onPiece = func(slave.Piece) { staged <- struct{}{} }
	s := begin(t, netPipe, tree)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		wg.Go(func() { mustApply(t, s, putOp(name, []byte(name))) })
	}
	<-staged
	<-staged // although neither has been committed
	close(first)
	wg.Wait()
	s.clean(t)
}

func TestBatchesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := newFake()
		var stagedBatches atomic.Int64
		gate := make(chan struct{})
		tree.onStage = func() { stagedBatches.Add(1) }
		tree.onCommit = func(context.Context) { <-gate }
		s := begin(t, netPipe, tree)
		var wg sync.WaitGroup
		for i := range 2 * maxBatches {
			wg.Go(func() { mustApply(t, s, putOp(fmt.Sprint(i), []byte("x"))) })
		}
		synctest.Wait()
		if n := stagedBatches.Load(); n != maxBatches {
			t.Errorf("%d batches staged unanswered, want %d", n, maxBatches)
		}
		close(gate)
		wg.Wait()
		if len(tree.files) != 2*maxBatches {
			t.Errorf("%d files arrived", len(tree.files))
		}
		s.clean(t)
	})
}

func TestCancelOneCall(t *testing.T) {
	tree := newFake()
	begun, ended := make(chan struct{}), make(chan struct{})
	tree.onSurvey = func(ctx context.Context, qs []slave.Query) ([]slave.DirState, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	s := begin(t, netPipe, tree)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-begun; cancel() }()
	if _, err := s.Survey(ctx, []slave.Query{{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled call returned %v", err)
	}
	<-ended
	mustApply(t, s, putOp("a", []byte("b")))
	if err := s.Err(); err != nil {
		t.Errorf("the session ended: %v", err)
	}
	s.clean(t)
}

func TestCancelApplyWithinContent(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		ctx, cancel := context.WithCancel(context.Background())
		op := putOp("cut", nil)
		op.Open = func() (slave.Content, error) {
			cancel()
			var sent atomic.Int64
			return &endless{left: 1 << 30, data: make([]byte, slave.MaxPiece), sent: &sent}, nil
		}
		_, err := s.Apply(ctx, &slave.Batch{Ops: []slave.Op{putOp("a", pattern(100)), op, putOp("never", pattern(100))}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled call returned %v", err)
		}
		mustApply(t, s, putOp("after", []byte("x")))
		if s.tree.files["cut"] != nil || s.tree.files["never"] != nil || string(s.tree.files["after"]) != "x" {
			t.Errorf("files: %q", s.tree.files)
		}
	})
}
