package sftp

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
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
