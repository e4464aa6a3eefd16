package sftp

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

// TestUploadGoesOn: what of a large file a session that was cut off had noted need not be sent again; what came after that is
// not believed.
func TestUploadGoesOn(t *testing.T) {
	const size, sent, step = 20 << 20, 18 << 20, 1 << 20
	text := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{1}).Read(text); err != nil {
		t.Fatal(err)
	}
	spec := &slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: size}
	begin := func(t *testing.T, tree *Tree) []slave.Range {
		t.Helper()
		state, err := tree.Begin(t.Context(), spec)
		if err != nil || state.Err != nil {
			t.Fatal(state.Err, err)
		}
		return state.Have
	}
	write := func(t *testing.T, tree *Tree, from, to int64) {
		t.Helper()
		for off := from; off < to; off += step {
			r, err := tree.Write(t.Context(), &slave.Segment{GFID: spec.GFID, Version: spec.Version,
				Range: slave.Range{Off: off, End: off + step}, Parts: []slave.Part{{Off: off, Data: text[off : off+step]}}})
			if err != nil || r.Err != nil {
				t.Fatal(r.Err, err)
			}
		}
	}
	for name, start := range servers() {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			tree, err := open(t.Context(), options(t, root, start, 2), quickLease)
			if err != nil {
				t.Fatal(err)
			}
			begin(t, tree)
			write(t, tree, 0, sent)
			tree.hangUp()
			<-tree.Done()
			tree.Close()
			if tree, err = open(t.Context(), options(t, root, start, 2), quickLease); err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			have := begin(t, tree)
			if len(have) != 1 || have[0] != (slave.Range{End: noteStep}) {
				t.Fatalf("it goes on from %v, want %d", have, noteStep)
			}
			write(t, tree, have[0].End, size)
			op := slavetest.Put("large", slavetest.Rec(1, 1), "")
			op.Open, op.Uploaded, op.Version, op.Meta.Size = nil, true, spec.Version, size
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
			f.Must(op)
			if got, err := os.ReadFile(filepath.Join(root, "large")); err != nil || !bytes.Equal(got, text) {
				t.Errorf("another content, %v", err)
			}
		})
	}
}

// TestUploadIsNotSentAgain cuts the connection at each request of the operation that publishes an upload: the file is in its
// place then, or what was noted of it is still there.
func TestUploadIsNotSentAgain(t *testing.T) {
	const size = noteStep + 4096
	text := bytes.Repeat([]byte("georep! "), size/8)
	spec := &slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: size}
	op := slavetest.Put("large", slavetest.Rec(1, 1), "")
	op.Open, op.Uploaded, op.Version, op.Meta.Size, op.Meta.Mode = nil, true, spec.Version, size, 0o400
	as := func(s server) func(testing.TB, string) server { return func(testing.TB, string) server { return s } }
	for name, how := range map[string]func(testing.TB, string) server{"OpenSSH": as(program), "bare": as(bare), "ordinary": ordinary} {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); ; n++ {
				root := memory(t)
				start := how(t, root)
				var count, at atomic.Int64
				at.Store(math.MaxInt64)
				tree, err := open(t.Context(), options(t, root, func(t testing.TB) (io.ReadWriteCloser, error) {
					inner, err := start(t)
					if err != nil {
						return nil, err
					}
					return newOdd(inner, false, func(kind byte) (bool, bool) { return false, kind != typeRead && count.Add(1) >= at.Load() }), nil
				}, 1), quickLease)
				if err != nil {
					t.Fatal(err)
				}
				if s, err := tree.Begin(t.Context(), spec); err != nil || s.Err != nil {
					t.Fatal(s.Err, err)
				}
				for off := int64(0); off < size; off += 1 << 20 {
					end := min(off+1<<20, size)
					r, err := tree.Write(t.Context(), &slave.Segment{GFID: spec.GFID, Version: spec.Version,
						Range: slave.Range{Off: off, End: end}, Parts: []slave.Part{{Off: off, Data: text[off:end]}}})
					if err != nil || r.Err != nil {
						t.Fatal(r.Err, err)
					}
				}
				at.Store(count.Load() + n)
				_, err = tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{op}})
				whole := err == nil && count.Load() < at.Load()
				tree.Close()
				if whole {
					t.Logf("%d requests", n)
					break
				}
				if tree, err = open(t.Context(), options(t, root, start, 1), quickLease); err != nil {
					t.Fatal(err)
				}
				state, err := tree.Begin(t.Context(), spec)
				if err != nil || state.Err != nil {
					tree.Close()
					t.Fatal(state.Err, err)
				}
				got, err := os.ReadFile(filepath.Join(root, "large"))
				if published := err == nil && bytes.Equal(got, text); !published && (len(state.Have) != 1 || state.Have[0].End < noteStep) {
					t.Errorf("cut at %d: nothing is there, and it goes on from %v", n, state.Have)
				}
				tree.Close()
			}
		})
	}
}
