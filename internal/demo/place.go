package demo

import (
	"fmt"
	"os"
	"path/filepath"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// place is the demo's temporary directory.
type place struct {
	// dir is absolute and the demo's alone; namespace is where its file system keeps marks.
	dir       string
	namespace xtime.Namespace
}

// path is of one of the demo's own files.
func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) remove() error {
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("demo: remove %s: %w", p.dir, err)
	}
	return nil
}

// findPlace makes a temporary directory on a file system that takes marks: not every /tmp lets ordinary users have
// extended attributes.
func findPlace(dir string) (*place, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = []string{os.TempDir(), "/var/tmp"}
		for _, find := range []func() (string, error){os.UserHomeDir, os.Getwd} {
			if d, err := find(); err == nil {
				dirs = append(dirs, d)
			}
		}
	}
	var why error
	for _, d := range dirs {
		p, err := tryPlace(d)
		if err == nil {
			return p, nil
		}
		if why == nil {
			why = err
		}
	}
	return nil, fmt.Errorf("demo: no place for it: %w; name a directory of yours on another file system with --dir", why)
}

// tryPlace makes a directory below parent, and leaves nothing where it is not fit.
func tryPlace(parent string) (*place, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "georep-demo-")
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir}
	if err := p.make(); err != nil {
		if removed := p.remove(); removed != nil {
			return nil, removed
		}
		return nil, fmt.Errorf("%s: %w", parent, err)
	}
	return p, nil
}

// make makes the trees of both "hosts" and finds out whether marks can be set.
func (p *place) make() error {
	for _, name := range []string{"master", "slave", "state", "slave-state"} {
		if err := os.Mkdir(p.path(name), 0o700); err != nil {
			return err
		}
	}
	root, err := beneath.OpenRoot(p.path("master"), true)
	if err != nil {
		return err
	}
	defer root.Close()
	p.namespace, err = root.ProbeNamespace()
	return err
}
