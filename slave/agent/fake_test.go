package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

var (
	testMaster  = xtime.UUID{1, 2, 3}
	testSession = xtime.UUID{4, 5, 6}
)

func testHello() Hello {
	return Hello{Version: "1.2.3", Master: testMaster, Session: testSession, Path: "/slave"}
}

func testInfo() slave.Info {
	return slave.Info{Version: "3.2.1", Namespace: xtime.Trusted, Root: true, LinksClean: true, Parked: 7, FreeBytes: 1 << 40,
		Filter: slave.Record{GFID: xtime.GFID{9}, Xtime: 77},
		Path:   "/slave\xff", Identity: slave.Identity{BootID: "boot",
			Ancestors: []beneath.Identity{{GFID: xtime.GFID{1}, FSID: "a"}, {GFID: xtime.GFID{2}, FSID: "b"}}}}
}

// fakeTree is a slave in memory that records what it is asked.
type fakeTree struct {
	mu       sync.Mutex
	files    map[string][]byte
	ends     map[string]slave.End
	ops      []slave.Op
	contents []error // how each content ended, nil for io.EOF
	staged   int     // batches that were staged and neither committed
	dropped  int     // nor dropped, and dropped by Close
	closed   chan struct{}
	once     sync.Once

	onSurvey func(context.Context, []slave.Query) ([]slave.DirState, error)
	onPiece  func(slave.Piece)
	onStage  func()
	onCommit func(context.Context)
	stageErr error
	keep     bool // the data
	segments []slave.Segment
}

func newFake() *fakeTree {
	return &fakeTree{files: map[string][]byte{}, ends: map[string]slave.End{}, closed: make(chan struct{}), keep: true}
}

func (f *fakeTree) Info() slave.Info { return testInfo() }

func (f *fakeTree) Survey(ctx context.Context, qs []slave.Query) ([]slave.DirState, error) {
	if f.onSurvey != nil {
		return f.onSurvey(ctx, qs)
	}
	out := make([]slave.DirState, len(qs))
	for i, q := range qs {
		out[i] = surveyOf(q)
	}
	return out, nil
}

// surveyOf makes an answer that depends on the question.
func surveyOf(q slave.Query) slave.DirState {
	if q.Path == "missing" {
		return slave.DirState{Err: &slave.PathError{Op: "open", Path: q.Path, Err: unix.ENOENT}}
	}
	return slave.DirState{Record: slave.Record{GFID: xtime.GFID{9}, Xtime: xtime.Time(q.Part)}, Total: 1,
		Entries: []slave.EntryState{{Name: "in " + strings.ReplaceAll(q.Path, "/", "."), Kind: slave.File, Mode: 0644, Size: int64(q.Parts)}}}
}

func (f *fakeTree) Find(_ context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	out := make([]slave.Found, len(gfids))
	for i, g := range gfids {
		out[i] = slave.Found{Parked: g[0]%2 == 0, Linked: true, Path: g.String(), Record: slave.Record{GFID: g}}
	}
	return out, nil
}

func (f *fakeTree) Hash(_ context.Context, paths []string) ([]slave.HashResult, error) {
	out := make([]slave.HashResult, len(paths))
	for i, p := range paths {
		copy(out[i].Sum[:], p)
		out[i].Size = int64(len(p))
	}
	return out, nil
}

func (f *fakeTree) Groups(_ context.Context, most int) ([]slave.Group, error) {
	out := make([]slave.Group, most)
	for i := range out {
		out[i] = slave.Group{GFID: xtime.GFID{byte(i)}, Ino: uint64(i)}
	}
	return out, nil
}

func (f *fakeTree) Count(_ context.Context, paths []string, limit int64) ([]int64, error) {
	out := make([]int64, len(paths))
	for i, p := range paths {
		out[i] = min(int64(len(p)), limit)
	}
	return out, nil
}

func (f *fakeTree) Clean(_ context.Context, olderThan int64) error {
	if olderThan < 0 {
		return fmt.Errorf("clean: %w", unix.EIO)
	}
	return nil
}

func (f *fakeTree) Close() error {
	f.once.Do(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dropped, f.staged = f.staged, 0
		close(f.closed)
	})
	return nil
}

func (f *fakeTree) Begin(_ context.Context, u *slave.Upload) (slave.UploadState, error) {
	if strings.HasPrefix(u.Basis, "refuse") {
		return slave.UploadState{Err: &slave.PathError{Op: "upload", Path: u.Basis, Err: unix.EDQUOT}}, nil
	}
	state := slave.UploadState{BasisSize: 7, BlockSize: 2048}
	for off := int64(0); off+2 <= u.Size; off += 4 {
		state.Have = append(state.Have, slave.Range{Off: off, End: off + 2})
	}
	return state, nil
}

func (f *fakeTree) Sums(_ context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	for i := range 5 {
		if err := emit(int64(i), bytes.Repeat([]byte{q.Key[0] + q.Which}, slave.MaxSums-i)); err != nil {
			return slave.Result{}, err
		}
	}
	return slave.Result{Err: &slave.PathError{Op: "sign", Path: "x", Err: slave.ErrConflict}}, nil
}

func (f *fakeTree) Write(_ context.Context, s *slave.Segment) (slave.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	parts := make([]slave.Part, len(s.Parts))
	for i, p := range s.Parts {
		p.Data = bytes.Clone(p.Data)
		parts[i] = p
	}
	f.segments = append(f.segments, slave.Segment{GFID: s.GFID, Version: s.Version, Range: s.Range, Parts: parts})
	return slave.Result{}, nil
}

func (f *fakeTree) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	commit, err := f.Stage(b)
	if err != nil {
		return nil, err
	}
	return commit(ctx)
}

func (f *fakeTree) Stage(b *slave.Batch) (func(context.Context) ([]slave.Result, error), error) {
	if f.onStage != nil {
		f.onStage()
	}
	if f.stageErr != nil {
		return nil, f.stageErr
	}
	results := make([]slave.Result, len(b.Ops))
	data := make([][]byte, len(b.Ops))
	for i := range b.Ops {
		op := &b.Ops[i]
		switch {
		case strings.HasPrefix(op.Path, "refuse"):
			results[i].Err = &slave.PathError{Op: op.Kind.String(), Path: op.Path, Err: unix.EACCES}
		case op.Streams():
			data[i], results[i] = f.stage(op)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged++
	return func(ctx context.Context) ([]slave.Result, error) { return f.commit(ctx, b, data, results) }, nil
}

func (f *fakeTree) commit(ctx context.Context, b *slave.Batch, data [][]byte, results []slave.Result) ([]slave.Result, error) {
	if f.onCommit != nil {
		f.onCommit(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged--
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range b.Ops {
		f.ops = append(f.ops, b.Ops[i])
		if b.Ops[i].Kind == slave.OpPut && results[i].Err == nil {
			f.files[b.Ops[i].Path] = data[i]
		}
	}
	return results, nil
}

func (f *fakeTree) stage(op *slave.Op) ([]byte, slave.Result) {
	data, end, err := f.readAll(op)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.contents = append(f.contents, err)
	if err != nil {
		return nil, slave.Result{Err: &slave.PathError{Op: "put", Path: op.Path, Err: err}}
	}
	f.ends[op.Path] = end
	return data, slave.Result{Torn: end.Torn, Parked: op.Links > 1, Lost: slave.LostOwner}
}

func (f *fakeTree) readAll(op *slave.Op) ([]byte, slave.End, error) {
	c, err := op.Open()
	if err != nil {
		return nil, slave.End{}, err
	}
	defer c.Close()
	var data []byte
	for {
		p, err := c.Next()
		if err == io.EOF {
			return data, c.End(), nil
		}
		if err != nil {
			return nil, slave.End{}, err
		}
		if f.onPiece != nil {
			f.onPiece(p)
		}
		if strings.HasPrefix(op.Path, "half") {
			return nil, slave.End{}, unix.EIO
		}
		if f.keep {
			data = append(data, make([]byte, p.Off-int64(len(data)))...)
			data = append(data, p.Data...)
		}
	}
}

// applyOnly hides that a tree can stage.
type applyOnly struct{ slave.Tree }

// memContent is a content in memory, in pieces of the given length with a hole of as much after each.
type memContent struct {
	data  []byte
	at    int
	piece int
	hole  int64
	off   int64
	torn  bool
	fail  error // instead of the end
	close *int
}

func (m *memContent) Next() (slave.Piece, error) {
	if m.at == len(m.data) {
		if m.fail != nil {
			return slave.Piece{}, m.fail
		}
		return slave.Piece{}, io.EOF
	}
	n := min(m.piece, len(m.data)-m.at)
	p := slave.Piece{Off: m.off, Data: m.data[m.at : m.at+n]}
	m.at += n
	m.off += int64(n) + m.hole
	return p, nil
}

func (m *memContent) End() slave.End { return slave.End{Size: m.off, Torn: m.torn} }

func (m *memContent) Close() error {
	if m.close != nil {
		*m.close++
	}
	return nil
}

func putOp(path string, data []byte) slave.Op {
	return slave.Op{Kind: slave.OpPut, Entry: slave.File, Path: path, Meta: slave.Meta{Mode: 0644, Size: int64(len(data))},
		Open: func() (slave.Content, error) { return &memContent{data: data, piece: slave.MaxPiece}, nil }}
}

// session is both ends at work.
type session struct {
	*Client
	tree  *fakeTree
	serve chan error
}

type endpoints func(testing.TB) (client, server io.ReadWriteCloser)

func netPipe(testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) { return net.Pipe() }

func osPipe(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) {
	r1, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return &pair{in: r1, out: w2}, &pair{in: r2, out: w1}
}

// duplex is two one-way streams as one.
type duplex struct {
	io.Reader
	io.Writer
	closers []io.Closer
}

func (d *duplex) Close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// begin starts a session between a client and a tree; its end is checked when the test ends.
func begin(t testing.TB, pipe endpoints, tree slave.Tree) *session {
	t.Helper()
	a, b := pipe(t)
	return beginOver(t, a, b, tree)
}

func beginOver(t testing.TB, a, b io.ReadWriteCloser, tree slave.Tree) *session {
	t.Helper()
	s := &session{serve: make(chan error, 1)}
	s.tree, _ = tree.(*fakeTree)
	go func() {
		s.serve <- Serve(context.Background(), b, "3.2.1", func(Hello) (slave.Reader, error) { return tree, nil })
	}()
	c, err := Dial(context.Background(), a, testHello())
	if err != nil {
		t.Fatal(err)
	}
	s.Client = c
	return s
}

// finish closes the client and returns what Serve returned.
func (s *session) finish(t testing.TB) error {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	err := <-s.serve
	if s.tree != nil {
		select {
		case <-s.tree.closed:
		default:
			t.Error("the tree was left open")
		}
	}
	return err
}

// clean is finish where nothing may have gone wrong.
func (s *session) clean(t testing.TB) {
	t.Helper()
	if err := s.finish(t); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func pattern(n int) []byte {
	b := bytes.Repeat([]byte("georep "), n/7+1)
	return b[:n]
}

func mustApply(t testing.TB, c slave.Tree, ops ...slave.Op) []slave.Result {
	t.Helper()
	results, err := c.Apply(context.Background(), &slave.Batch{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(ops) {
		t.Fatalf("%d results for %d operations", len(results), len(ops))
	}
	return results
}

var errBoom = errors.New("boom")
