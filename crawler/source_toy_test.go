package crawler_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/crawler/source/sourcetest"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// loud is a toy: a master whose contents are those of a local tree, in capitals.
type loud struct{ source.Source }

func openLoud(c *source.Config) (source.Source, error) {
	m, err := source.OpenLocal(c)
	if err != nil {
		return nil, err
	}
	return loud{m}, nil
}

func (l loud) OpenContent(d *beneath.Dir, listed *plan.Entry) (slave.Content, error) {
	c, err := l.Source.OpenContent(d, listed)
	if err != nil {
		return nil, err
	}
	return capitals{c}, nil
}

type capitals struct{ slave.Content }

func (c capitals) Next() (slave.Piece, error) {
	p, err := c.Content.Next()
	p.Data = bytes.ToUpper(p.Data)
	return p, err
}

// TestNewSource: a new kind of master is a package that implements source.Source, and one line.
func TestNewSource(t *testing.T) {
	w := newWorld(t)
	w.source = openLoud
	w.connect()
	w.write("a/f", "one")
	w.write("g", "two")
	w.mark("")
	if out := w.pass(); out.Stime == 0 {
		t.Fatal("not in step")
	}
	for path, want := range map[string]string{"a/f": "ONE", "g": "TWO"} {
		got, err := os.ReadFile(filepath.Join(w.slave, path))
		if err != nil || string(got) != want {
			t.Errorf("%s has %q, want %q: %v", path, got, want, err)
		}
	}
}

// TestNewSourceContract: the toy does all that is asked of a Source.
func TestNewSourceContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{Content: strings.ToUpper, New: func(t *testing.T) sourcetest.Master {
		w := newMaster(t, t.TempDir(), "")
		id, err := w.root.Identity()
		w.ok(err)
		c := &source.Config{Root: w.root, Path: w.master, Identity: id, Names: w.names, VolumeMark: w.volume, Record: xtime.Trusted,
			Mounts: func() map[string]map[string]bool { return nil }}
		return sourcetest.Master{Path: w.master, Marked: w.mark,
			Begin: func() source.Source {
				m, err := openLoud(c)
				w.ok(err)
				return m
			},
			Away: func() {
				w.ok(os.Rename(w.master, w.master+".away"))
				t.Cleanup(func() { os.RemoveAll(w.master + ".away") })
			}}
	}})
}
