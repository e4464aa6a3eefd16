package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds a file: what is larger is no configuration.
const maxFile = 4 << 20

// Load reads a file and what it includes. Known has the paths of the volumes that the registry has,
// by name. The error is Problems where something is wrong, and wraps fs.ErrNotExist where the file
// is not there. It does not look whether the directories are there: see Missing. All mistakes are
// found at once, and nothing is returned as long as there is one.
func Load(path string, known map[string]string) (Desired, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Desired{}, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Desired{}, fmt.Errorf("there is no %s: write it (docs/operating.md has an example), or name another file with "+
			"--config or GEOREP_CONFIG: %w", path, fs.ErrNotExist)
	}
	l := &loader{seen: map[string]bool{path: true}}
	main := l.read(path)
	l.take(main)
	for _, t := range main {
		if e := t.find("include"); t.kind == "" && e != nil {
			l.include(e)
		}
	}
	m := &meaning{known: known}
	m.all(l.tables)
	if wrong := append(l.wrong, m.wrong...); len(wrong) > 0 {
		l.sort(wrong)
		return Desired{}, wrong
	}
	return m.out, nil
}

// loader gathers the tables of all files.
type loader struct {
	files  []string
	seen   map[string]bool
	tables []*table
	wrong  Problems
}

// sort puts problems into the order of the files.
func (l *loader) sort(wrong Problems) {
	slices.SortStableFunc(wrong, func(a, b Problem) int {
		if a.File != b.File {
			return slices.Index(l.files, a.File) - slices.Index(l.files, b.File)
		}
		return a.Line - b.Line
	})
}

// read gives the tables of one file.
func (l *loader) read(path string) []*table {
	l.files = append(l.files, path)
	data, err := trusted(path)
	if err != nil {
		l.wrong = append(l.wrong, Problem{Place{File: path}, err.Error()})
		return nil
	}
	tables, wrong := scan(path, data)
	l.wrong = append(l.wrong, wrong...)
	return tables
}

// take keeps the tables in the order of the files.
func (l *loader) take(tables []*table) { l.tables = append(l.tables, tables...) }

// include reads the files that match the patterns, each once, by name.
func (l *loader) include(e *entry) {
	patterns := e.values
	if e.kind == unstable.String {
		patterns = []string{e.value}
	}
	for _, pattern := range patterns {
		full := pattern
		if !filepath.IsAbs(full) {
			full = filepath.Join(filepath.Dir(e.File), full)
		}
		found, err := filepath.Glob(full)
		if err != nil {
			l.wrong = append(l.wrong, Problem{e.Place, fmt.Sprintf("include %q is no pattern of file names: %v", pattern, err)})
		} else if len(found) == 0 {
			l.wrong = append(l.wrong, Problem{e.Place, fmt.Sprintf("include %q matches nothing: put a file there (%s), or take the "+
				"pattern out", pattern, full)})
		}
		for _, path := range found {
			l.included(path)
		}
	}
}

// included reads one such file; included files include no others.
func (l *loader) included(path string) {
	if l.seen[path] {
		return
	}
	l.seen[path] = true
	tables := l.read(path)
	l.take(tables)
	for _, t := range tables {
		if e := t.find("include"); t.kind == "" && e != nil {
			l.wrong = append(l.wrong, Problem{e.Place, "include counts in the first file only: name these files there"})
		}
	}
}

// trusted reads a file that nobody but its owner may write: what is in it becomes root's sessions, and says what they send where.
func trusted(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	switch {
	case info.IsDir():
		return nil, errors.New("it is a directory: name the files in it, such as conf.d/*.toml")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it has more than %d MiB: it is no configuration", maxFile>>20)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("others may write it (mode %04o), and could redirect data: chmod go-w %s", info.Mode().Perm(), path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("it belongs to user %d, who could redirect data: chown root %s", st.Uid, path)
	}
	data, err := os.ReadFile(path)
	return data, cause(err)
}

// cause takes the path out of an error: the place names it already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
