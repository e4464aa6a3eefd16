// Package strip takes away what georep keeps in a directory tree: the marks, which are xattrs of every entry, and the directory
// .georep of a slave. The tree itself stays as it is.
package strip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// ErrInUse: an agent or a session has the slave open. It is told before anything is changed.
var ErrInUse = errors.New("in use")

// Result is what was done. Failed is for people; a script looks at Failing.
type Result struct {
	Entries int64    // that had marks
	Failed  []string // the first of those that keep theirs, and why
	Failing int64    // how many do
}

const maxFailed = 20

// Tree strips the directory root of the marks of these volumes, and of those that only root can
// have made. It does not cross mounts. What cannot be changed is named in the result, and is no
// error. It can be called again where it was cut short. The error is ctx's. Directories are held by
// path and opened anew, so one that is moved meanwhile may be passed over; a second call finds it.
func Tree(ctx context.Context, root *beneath.Dir, volumes ...xtime.UUID) (Result, error) {
	s := &stripper{root: root, names: []xtime.Names{xtime.NamesFor(xtime.Trusted, xtime.UUID{})}}
	for _, u := range volumes {
		s.names = append(s.names, xtime.NamesFor(xtime.Trusted, u))
	}
	s.entry("", root)
	for todo := []string{""}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return s.out, err
		}
		dir := todo[len(todo)-1]
		below, err := s.dir(dir)
		if err != nil {
			s.failed(dir, err)
		}
		todo = append(todo[:len(todo)-1], below...)
	}
	return s.out, nil
}

// stripper is one call of Tree. It is for one goroutine.
type stripper struct {
	root  *beneath.Dir
	names []xtime.Names
	out   Result
}

// dir strips what lies in a directory, and gives the directories among that. The names in .georep
// of the root are left alone: that is for Base.
func (s *stripper) dir(path string) (below []string, err error) {
	d, err := s.root.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = d.List(func(e beneath.Entry) error {
		at := beneath.Join(path, e.Name)
		if at == slave.Reserved {
			return nil
		}
		p, err := d.Pin(e.Name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EXDEV) {
			return nil
		}
		if err != nil {
			s.failed(at, err)
			return nil
		}
		defer p.Close()
		st, err := p.Stat("")
		if err != nil || st.IsMount() {
			return err
		}
		s.entry(at, p)
		if st.IsDir() {
			below = append(below, at)
		}
		return nil
	})
	return below, err
}

// entry strips one that is pinned. Attributes that vanish meanwhile count as removed. After the
// first that cannot be removed the entry is named and left.
func (s *stripper) entry(path string, p *beneath.Dir) {
	attrs, err := p.Listxattr("")
	if err != nil {
		s.failed(path, err)
		return
	}
	found := false
	for _, attr := range attrs {
		own := func(n xtime.Names) bool { return n.Own(attr) }
		if !slices.ContainsFunc(s.names, own) {
			continue
		}
		found = true
		if err := p.Removexattr("", attr); err != nil && !errors.Is(err, unix.ENODATA) {
			s.failed(path, err)
			return
		}
	}
	if found {
		s.out.Entries++
	}
}

// failed counts an entry that keeps its marks, and names the first of them with the reason.
func (s *stripper) failed(path string, err error) {
	s.out.Failing++
	if len(s.out.Failed) < maxFailed {
		s.out.Failed = append(s.out.Failed, fmt.Sprintf("%q: %v", path, err))
	}
}

// Owner reads whose slave the directory at path is; nil where it is nobody's. The directory need
// not be open to anybody, and nothing is locked: the answer is of this moment.
func Owner(path string) (*slave.Owner, error) {
	text, err := os.ReadFile(filepath.Join(path, slave.Reserved, "owner"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read whose slave it is: %w", err)
	}
	return slave.ParseOwner(text)
}
