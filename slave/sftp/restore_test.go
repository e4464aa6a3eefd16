package sftp

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/slavetest"
)

// TestRestoreStaysInside: the index lies with somebody else. Names in it that lead out of the copy are told of, and nothing
// is made there.
func TestRestoreStaysInside(t *testing.T) {
	path := memory(t)
	tree, err := Open(t.Context(), options(t, path, program, 1))
	if err != nil {
		t.Fatal(err)
	}
	link := index.Entry{Kind: slave.Symlink, Virtual: true, Meta: slave.Meta{Mode: 0o777, Target: "/etc"}}
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	top, _, err := tree.idx.Get(index.Top, index.TopName)
	if err != nil {
		t.Fatal(err)
	}
	if top.ID == 0 {
		if top.ID, err = tree.ensureID(""); err != nil {
			t.Fatal(err)
		}
	}
	for name, e := range map[string]index.Entry{"../planted": link, "a/../../planted": link, "..": link, "": link, "fine": link} {
		if err := tree.idx.Set(top.ID, name, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "copy")
	out, err := Restore(t.Context(), options(t, path, program, 1), dest)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "fine"} {
		if _, err := os.Lstat(filepath.Join(dest, name)); err != nil {
			t.Error(err)
		}
	}
	if list, err := os.ReadDir(filepath.Dir(dest)); err != nil || len(list) != 1 {
		t.Errorf("beside the copy there are %v, %v", list, err)
	}
	bad := 0
	for _, err := range out.Kept {
		if strings.Contains(err.Error(), "no name") {
			bad++
		}
	}
	if bad != 4 {
		t.Errorf("%d names are told of, want 4: %v", bad, out.Kept)
	}
}

// far is a stream over which answers come only when whoever asks has nothing more to ask: its rounds are the round trips
// that were waited for, one after another.
type far struct {
	io.ReadWriteCloser
	asked  chan struct{}
	rounds *atomic.Int64
}

func (f *far) Write(p []byte) (int, error) {
	select {
	case f.asked <- struct{}{}:
	default:
	}
	return f.ReadWriteCloser.Write(p)
}

func (f *far) Read(p []byte) (int, error) {
	select {
	case <-f.asked: // else it is more of what came
		f.rounds.Add(1)
		for quiet := false; !quiet; {
			select {
			case <-f.asked:
			case <-time.After(10 * time.Millisecond):
				quiet = true
			}
		}
	default:
	}
	return f.ReadWriteCloser.Read(p)
}

// TestRestoreAsksAhead: directories and files are restored many at a time, not one round trip after another.
func TestRestoreAsksAhead(t *testing.T) {
	const dirs, files = 40, 5
	path := memory(t)
	tree, err := Open(t.Context(), options(t, path, program, 1))
	if err != nil {
		t.Fatal(err)
	}
	f := &slavetest.Fixture{T: t, Tree: tree, Root: path}
	for d := range dirs {
		name := fmt.Sprint(d)
		f.Must(slavetest.Mkdir(name, slavetest.Rec(1000+d, 1)))
		for i := range files {
			f.Must(slavetest.Put(fmt.Sprintf("%s/%d", name, i), slavetest.Rec(10*d+i, 1), "content"))
		}
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	var rounds atomic.Int64
	start := func(t testing.TB) (io.ReadWriteCloser, error) {
		s, err := program(t)
		return &far{s, make(chan struct{}, 1), &rounds}, err
	}
	out, err := Restore(t.Context(), options(t, path, start, 1), filepath.Join(t.TempDir(), "copy"))
	if err != nil || out.Entries != dirs*files || out.Unknown != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	t.Logf("%d round trips", rounds.Load())
	if n := rounds.Load(); n > 3*dirs { // three are the least for a directory alone
		t.Errorf("%d round trips for %d directories", n, dirs)
	}
}
