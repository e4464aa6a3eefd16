package sftp

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"georep/slave"
	"georep/slave/slavetest"
)

// held is a stream that keeps back the first request that is asked for, until it is released.
type held struct {
	io.ReadWriteCloser
	mu            sync.Mutex // of writes
	is            func(request []byte) bool
	came, release chan struct{}
}

// keep has the next such request kept back.
func (h *held) keep(is func(request []byte) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.is = is
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.is == nil || !h.is(p) {
		return h.ReadWriteCloser.Write(p)
	}
	h.is = nil
	p = bytes.Clone(p)
	go func() {
		close(h.came)
		<-h.release
		h.mu.Lock()
		defer h.mu.Unlock()
		_, _ = h.ReadWriteCloser.Write(p) // the session may have ended
	}()
	return len(p), nil
}

// TestNameOfAnotherInode: while a change of an inode is brought to all its names, one of them becomes another inode's. That
// one keeps it as it is.
func TestNameOfAnotherInode(t *testing.T) {
	const setstat, extended = 9, 200
	file := slavetest.Put("b", slavetest.Rec(2, 9), "other")
	special := slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: "b", Record: file.Record, Meta: file.Meta}
	content := slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 9), "new"), 2)
	meta := slavetest.Linked(slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "a", Record: slavetest.Rec(1, 9),
		Expect: slavetest.GFID(1), Meta: slavetest.MetaOf(0o600)}, 2)
	for name, c := range map[string]struct {
		server       server
		kind         byte   // of the request during which the other operation comes
		path         string // that it is about
		first, other slave.Op
	}{
		"content, then a file":       {program, extended, "/a", content, file},
		"content, then a special":    {program, extended, "/a", content, special},
		"meta, then a file":          {program, setstat, "/b", meta, file},
		"meta of copies, and a file": {bare, setstat, "/b", meta, file},
	} {
		t.Run(name, func(t *testing.T) {
			f, h := holding(t, c.server)
			f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 1), "old"), 2))
			f.Must(slavetest.Link("b", "a", slavetest.Rec(1, 1), 2))
			path := []byte(f.Path("") + c.path)
			h.keep(func(p []byte) bool { return len(p) > 4 && p[4] == c.kind && bytes.Contains(p, path) })
			first := begin(f, c.first)
			select {
			case <-h.came:
			case <-first: // it asks for no such thing
			}
			other := begin(f, c.other)
			for !closed(other) && !nameIsWaitedFor(f) {
				time.Sleep(time.Millisecond)
			}
			close(h.release)
			<-first
			<-other
			is := f.Record("b")
			if is != c.other.Record {
				t.Errorf("b is on record as %v, want %v", is, c.other.Record)
			}
			if c.other.Kind == slave.OpNode {
				f.Gone("b")
				return
			}
			f.Content("b", "other")
			if mode := f.Stat("b").Mode & 0o777; mode != 0o644 {
				t.Errorf("b has mode %o", mode)
			}
		})
	}
}

// holding opens a slave whose requests may be held.
func holding(t *testing.T, start server) (*slavetest.Fixture, *held) {
	t.Helper()
	h := &held{came: make(chan struct{}), release: make(chan struct{})}
	root := memory(t)
	tree, err := Open(t.Context(), options(t, root, func(t testing.TB) (s io.ReadWriteCloser, err error) {
		h.ReadWriteCloser, err = start(t)
		return h, err
	}, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return &slavetest.Fixture{T: t, Tree: tree, Root: root}, h
}

// begin begins a batch of one operation; the channel is closed when that has succeeded, or failed the test.
func begin(f *slavetest.Fixture, op slave.Op) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := f.Tree.Apply(f.Context(), &slave.Batch{Ops: []slave.Op{op}})
		if err != nil || r[0].Err != nil {
			f.Errorf("%v %s: %v, %+v", op.Kind, op.Path, err, r)
		}
	}()
	return done
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// nameIsWaitedFor tells whether an operation waits for a name that another one works on.
func nameIsWaitedFor(f *slavetest.Fixture) bool { return f.Tree.(*Tree).busy.names.waitedFor() }
