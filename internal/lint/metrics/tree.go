package metrics

import (
	"io/fs"
	"path/filepath"
	"strings"
)

// Source is the files of a tree, by package directory relative to its root. Within a directory they are in
// the order of their names.
type Source struct {
	Code  map[string][]*File
	Tests map[string][]*File // files named _test.go
}

// ReadTree measures all Go files below root but those in testdata and in directories whose names begin with a dot. The
// first file that cannot be read or parsed ends it with an error.
func ReadTree(root string) (*Source, error) {
	s := &Source{Code: map[string][]*File{}, Tests: map[string][]*File{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := Read(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			s.Tests[dir] = append(s.Tests[dir], f)
		} else {
			s.Code[dir] = append(s.Code[dir], f)
		}
		return nil
	})
	return s, err
}

// Total adds the lines of files. The share of the sum is that of all lines, not the mean of the files' shares.
func Total(files []*File) (l Lines) {
	for _, f := range files {
		l.Add(f.Lines)
	}
	return l
}

// Receivers are the types of one package, by name, over all of its files. Files of several packages must not be mixed: types of
// the same name would be added up.
func Receivers(files []*File) map[string]*Receiver {
	all := map[string]*Receiver{}
	for _, f := range files {
		for name, r := range f.Receivers {
			sum := all[name]
			if sum == nil {
				sum = &Receiver{Files: map[string]bool{}}
				all[name] = sum
			}
			sum.Methods, sum.Fields = sum.Methods+r.Methods, sum.Fields+r.Fields
			for file := range r.Files {
				sum.Files[file] = true
			}
		}
	}
	return all
}
