package sftp

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// dirs knows of the directories that a batch works in whether they are there, and are directories
// and no links to elsewhere (invariant 13). Each is looked at once in a batch, and again after
// something above it was moved. It may be used by all operations of the batch at the same time.
type dirs struct {
	r     *records
	mu    sync.Mutex
	known map[string]*dirState
}

// dirState is one look. attrs and err are there once done is closed.
type dirState struct {
	done  chan struct{}
	attrs wire.Attrs // no Flags where they are not known
	err   error
}

// ask begins to look at the directories above the path of an operation, and at the one that it
// finishes, so that the answers are there when the operation needs them. It does not wait.
func (d *dirs) ask(op *slave.Op) {
	if op.Kind == slave.OpFinish {
		d.start(op.Path)
	}
	for path := op.Path; path != ""; {
		path, _ = beneath.Split(path)
		d.start(path)
	}
}

// start begins to look at one directory, if nobody did.
func (d *dirs) start(dir string) *dirState {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.known[dir]
	if s == nil {
		s = &dirState{done: make(chan struct{})}
		d.known[dir] = s
		go func() {
			defer close(s.done)
			s.attrs, s.err = d.r.isDir(dir)
		}()
	}
	return s
}

// check tells whether the directories down to dir are there. The error is that of the uppermost
// that is not.
func (d *dirs) check(dir string) error {
	_, err := d.look(dir)
	return err
}

// look is check, and gives what is known of the last of them.
func (d *dirs) look(dir string) (*dirState, error) {
	for end := 0; ; end++ {
		i := strings.IndexByte(dir[end:], '/')
		if dir == "" || i < 0 {
			break
		}
		end += i
		if s := d.start(dir[:end]); s != nil {
			<-s.done
			if s.err != nil {
				return s, s.err
			}
		}
	}
	s := d.start(dir)
	<-s.done
	return s, s.err
}

// made notes a directory that is there now, because an operation of the batch made it.
func (d *dirs) made(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &dirState{done: make(chan struct{})}
	close(s.done)
	d.known[dir] = s
}

// moved forgets what lies at and below a path, since other directories may have those names from
// now on.
func (d *dirs) moved(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := range d.known {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			delete(d.known, dir)
		}
	}
}

// isDir looks at one directory; the root may be whatever the operator named, a link as well. ELOOP
// says that a link has its name, ENOTDIR anything else.
func (r *records) isDir(path string) (wire.Attrs, error) {
	a, err := r.lstat(path)
	switch {
	case path == "":
		return a, nil
	case err != nil:
		return a, err
	case kindOf(a) == slave.Symlink:
		return a, unix.ELOOP
	case kindOf(a) != slave.Dir:
		return a, unix.ENOTDIR
	}
	return a, nil
}

// checkDirs is dirs.check for what lies above a path alone, all of it at once.
func (r *records) checkDirs(path string) error {
	d := dirs{r: r, known: map[string]*dirState{}}
	d.ask(&slave.Op{Path: path})
	dir, _ := beneath.Split(path)
	return d.check(dir)
}
