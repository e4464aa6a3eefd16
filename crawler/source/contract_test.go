package source_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"georep/crawler/source"
	"georep/crawler/source/sourcetest"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// marked is a tree of this host that is marked by hand.
type marked struct {
	*testing.T
	root   *beneath.Dir
	names  xtime.Names
	now    xtime.Time
	config *source.Config
}

// newMarked makes one below dir. Marks are later than every ctime of the test.
func newMarked(t *testing.T, dir string, ns xtime.Namespace) *marked {
	t.Helper()
	m := &marked{T: t, names: xtime.NamesFor(ns, xtime.NewUUID()), now: xtime.FromTime(time.Now().Add(time.Hour))}
	var err error
	if m.root, err = beneath.OpenRoot(dir, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.root.Close() })
	m.mark()
	id, err := m.root.Identity()
	if err != nil {
		t.Fatal(err)
	}
	m.config = &source.Config{Root: m.root, Path: dir, Identity: id, Names: m.names, VolumeMark: m.now, Record: ns,
		Mounts: func() map[string]map[string]bool { return nil }}
	return m
}

// mark does what the marker does after changes at paths: one xtime, entries first, the root last.
func (m *marked) mark(paths ...string) {
	m.Helper()
	m.now = m.now.Next()
	for _, p := range paths {
		for p != "" {
			dir, name := beneath.Split(p)
			if d, err := m.root.OpenPath(dir); err == nil {
				err = d.SetXtime(name, &m.names, m.now)
				d.Close()
				if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
					m.Fatal(err)
				}
			}
			p = dir
		}
	}
	if err := m.root.SetXtime("", &m.names, m.now); err != nil {
		m.Fatal(err)
	}
}

// TestContract: a tree of this host is a Source.
func TestContract(t *testing.T) {
	for ns, name := range map[xtime.Namespace]string{xtime.Trusted: "trusted", xtime.User: "user"} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Run(t, sourcetest.Kind{New: func(t *testing.T) sourcetest.Master {
				dir := t.TempDir()
				m := newMarked(t, dir, ns)
				return sourcetest.Master{Path: dir, Marked: m.mark,
					Begin: func() source.Source {
						s, err := source.OpenLocal(m.config)
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
					Away: func() {
						if err := os.Rename(dir, dir+".away"); err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { os.RemoveAll(dir + ".away") })
					}}
			}})
		})
	}
}
