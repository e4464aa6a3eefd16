package scan

import (
	"path/filepath"
	"testing"
)

// TestNotesStaySmall: the notes of what is there, and not of all that has been.
func TestNotesStaySmall(t *testing.T) {
	c := &Times{Path: filepath.Join(t.TempDir(), "times"), Warn: func(err error) { t.Error(err) }}
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	list := func(n uint64) (out []seen) {
		for i := range uint64(1000) {
			out = append(out, seen{i, i*n + 1})
		}
		return out
	}
	for n := range uint64(1000) {
		for dir := range uint64(3) {
			c.list(dir, c.entries(dir), list(n+1))
			c.SetSelf(dir, n+1)
		}
		c.Scanned(func(number uint64) bool { return number < 2 })
	}
	if c.size > 2*compactAfter {
		t.Errorf("%d bytes", c.size)
	}
	for range 2 {
		for dir := range uint64(2) {
			if got := c.entries(dir); len(got) != 1000 || timesIn(got, 999) != 999*1000+1 || timesIn(got, 1000) != 0 {
				t.Errorf("%d notes, %v", len(got), got[:min(3, len(got))])
			}
			if c.self(dir) != 1000 || !c.complete() {
				t.Errorf("%d, %v", c.self(dir), c.complete())
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		again := &Times{Path: c.Path, Warn: c.Warn}
		if err := again.Open(); err != nil {
			t.Fatal(err)
		}
		c = again
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
