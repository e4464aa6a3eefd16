package sftp

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// order knows which operations of a batch have to wait for which: those about the same path, about one above or below it,
// and about the same inode.
type order struct {
	at    map[string]*item   // the last about a path or inode
	below map[string][]*item // those about paths below, since then
}

// newOrder is for one batch, by one goroutine.
func newOrder() *order { return &order{at: map[string]*item{}, below: map[string][]*item{}} }

// add finds out what it has to wait for among those that were added before.
func (o *order) add(it *item) {
	op := it.op
	o.path(it, op.Path)
	if op.Kind == slave.OpLink && op.From != "" {
		o.path(it, op.From)
	}
	g := op.Record.GFID
	if op.Kind == slave.OpPark {
		g = op.Expect
	}
	if g.IsZero() || op.Kind == slave.OpFinish || op.Kind == slave.OpMkdir {
		return
	}
	// A path has no NUL, so GFIDs and paths share the map.
	o.put(it, "\x00"+string(g[:]))
}

// put waits for the last about the key, and takes its place.
func (o *order) put(it *item, key string) {
	if last := o.at[key]; last != nil && last != it {
		it.after = append(it.after, last)
	}
	o.at[key] = it
}

// path waits for the last about the path itself, for those below it since, and for the last about each directory
// above.
func (o *order) path(it *item, path string) {
	o.put(it, path)
	for _, b := range o.below[path] {
		if b != it {
			it.after = append(it.after, b)
		}
	}
	delete(o.below, path)
	for dir := path; dir != ""; {
		dir, _ = beneath.Split(dir)
		if last := o.at[dir]; last != nil && last != it {
			it.after = append(it.after, last)
		}
		o.below[dir] = append(o.below[dir], it)
	}
}

// dirs knows of the directories that a batch works in whether they are there, and are directories and no links to
// elsewhere. Each is looked at once in a batch, and again after something above it was moved.
type dirs struct {
	t     *Tree
	mu    sync.Mutex
	known map[string]*dirState
}

// attrs and err are there once done is closed.
type dirState struct {
	done  chan struct{}
	attrs wire.Attrs // no Flags where they are not known
	err   error
}

// ask begins to look at the directories above the path of an operation, and at the one that it finishes.
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
			s.attrs, s.err = d.t.isDir(dir)
		}()
	}
	return s
}

// check tells whether the directories down to dir are there.
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

// made notes a directory that is there now.
func (d *dirs) made(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &dirState{done: make(chan struct{})}
	close(s.done)
	d.known[dir] = s
}

// moved forgets what lies at and below a path.
func (d *dirs) moved(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := range d.known {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			delete(d.known, dir)
		}
	}
}

// isDir looks at one directory; the root may be whatever the operator named.
func (t *Tree) isDir(path string) (wire.Attrs, error) {
	a, err := t.lstat(path)
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
func (t *Tree) checkDirs(path string) error {
	d := dirs{t: t, known: map[string]*dirState{}}
	d.ask(&slave.Op{Path: path})
	dir, _ := beneath.Split(path)
	return d.check(dir)
}
