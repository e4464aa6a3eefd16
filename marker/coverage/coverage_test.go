package coverage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"georep/internal/beneath"
	"georep/marker/statefile"
)

// TestCoverage: what is saved is read, and what is damaged is not believed.
func TestCoverage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	c := New(dir, statefile.FS{})
	load := func() *Coverage {
		l := New(dir, statefile.FS{})
		if err := l.Load(); err != nil {
			t.Fatal(err)
		}
		return l
	}
	check := func(what string, c *Coverage, want ...bool) {
		t.Helper()
		for i, w := range want {
			if c.Has(uint64(i)) != w {
				t.Errorf("%s: %d is covered: %v", what, i, !w)
			}
		}
	}
	save := func() {
		t.Helper()
		if err := c.Save(); err != nil {
			t.Fatal(err)
		}
	}
	check("no file", load(), false, false)
	c.CoverAll()
	c.Leave(1)
	save()
	check("all but one", load(), true, false, true)
	c.Begin()
	c.Meet(1)
	c.Meet(3)
	c.Leave(3)
	c.End(Parts)
	save()
	check("one more, and one less", load(), true, true, true, false)
	c.Begin()
	c.Meet(2)
	c.End(Nothing)
	check("nothing", c, true, true, true, false)
	c.Begin()
	c.Meet(2)
	c.Meet(4)
	c.Leave(4)
	c.End(Whole)
	save()
	check("a whole scan", load(), false, false, true, false, false)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range content {
		for _, damaged := range [][]byte{append(append(slices.Clone(content[:i]), content[i]^1), content[i+1:]...), content[:i]} {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			check("damaged", load(), false, false, false, false, false)
		}
	}
	c.LeaveAll()
	save()
	check("nobody knows", load(), false, false, false)
}

// TestBumps: what is saved is read, and where it is damaged any directory may be one.
func TestBumps(t *testing.T) {
	dir := t.TempDir()
	root, err := beneath.OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	st, err := root.Stat("")
	if err != nil {
		t.Fatal(err)
	}
	load := func() bool {
		b := newBumps(dir, statefile.FS{})
		if err := b.Load(); err != nil {
			t.Fatal(err)
		}
		return b.Has(root, st.Dev)
	}
	b := newBumps(dir, statefile.FS{})
	if b.Add(st.Number(st.Dev) + 1); b.Save() != nil || load() {
		t.Error("another directory than was saved")
	}
	if b.Add(st.Number(st.Dev)); b.Save() != nil || !load() {
		t.Error("not the one that was saved")
	}
	content, err := (statefile.FS{}).Read(b.path)
	if err != nil {
		t.Fatal(err)
	}
	if b.Clear(); b.Save() != nil || load() {
		t.Error("saved after it was cleared")
	}
	content[0]++
	if err := (statefile.FS{}).Replace(b.path, content, false); err != nil || !load() {
		t.Errorf("damaged: %v, has %v", err, load())
	}
}
