package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
)

// errDiffers means that master and slave are not equal.
var errDiffers = errors.New("demo: master and slave differ")

// own is the slave's directory for georep itself.
const own = ".georep"

// entry is what is compared of one name. It is a second opinion, on purpose: it shares no code with what replicates.
type entry struct {
	mode    fs.FileMode
	size    int64 // of a regular file
	mtime   int64 // ns
	content string
	links   uint64 // of what is no directory
}

// compare finds out whether the slave has exactly what the master has, and how many entries that is.
func compare(master, slave string) (int, error) {
	want, err := read(master)
	if err != nil {
		return 0, err
	}
	got, err := read(slave)
	if err != nil {
		return 0, err
	}
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			return 0, fmt.Errorf("%w: the slave lacks %q", errDiffers, name)
		}
		if what := w.differs(g); what != "" {
			return 0, fmt.Errorf("%w: the %s of %q", errDiffers, what, name)
		}
	}
	for name := range maps.Keys(got) {
		if _, ok := want[name]; !ok {
			return 0, fmt.Errorf("%w: the slave has %q, which the master has not", errDiffers, name)
		}
	}
	return len(want), nil
}

// differs names what is not the same.
func (e entry) differs(o entry) string {
	switch {
	case e.mode.Type() != o.mode.Type():
		return "kind"
	case e.mode != o.mode:
		return "mode"
	case e.size != o.size:
		return "size"
	case e.content != o.content:
		return "content"
	case e.mtime != o.mtime:
		return "mtime"
	case e.links != o.links:
		return "number of names"
	}
	return ""
}

// read reads a whole, small tree. The root itself is not among the entries.
func read(root string) (map[string]entry, error) {
	out := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == own {
			return fs.SkipDir
		}
		out[name], err = readEntry(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("demo: compare: %w", err)
	}
	return out, nil
}

// readEntry has the whole content in memory: the demo's files are small.
func readEntry(path string) (entry, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	e := entry{mode: fi.Mode(), mtime: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && !fi.IsDir() {
		e.links = uint64(st.Nlink)
	}
	switch {
	case fi.Mode().IsRegular():
		text, err := os.ReadFile(path)
		e.size, e.content = fi.Size(), string(text)
		return e, err
	case fi.Mode()&fs.ModeSymlink != 0:
		e.content, err = os.Readlink(path)
	}
	return e, err
}
