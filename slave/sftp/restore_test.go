package sftp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/slave"
	"georep/slave/sftp/index"
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
