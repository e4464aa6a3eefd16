package disk

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// within knows what lies in parked directories, so that what was moved out of a directory before that was removed need
// not be sent again. A parked directory is searched when somebody asks for the first time after it was parked, which
// costs about what its removal costs. What is remembered is advice: it is looked at again when it is used.
type within struct {
	mu   sync.Mutex
	todo []string // names in parked/ that were not searched yet
	at   map[xtime.GFID][]string
	// full tells that some of what was parked is not remembered.
	full bool
}

// maxWithin bounds the entries that are remembered, those of directories parked later before those of others. What is beyond
// it is sent again.
const maxWithin = 100_000

// parkedDir notes a directory that was parked.
func (t *Tree) parkedDir(name string) {
	t.dirsParked.Store(true)
	t.within.mu.Lock()
	defer t.within.mu.Unlock()
	t.within.todo = append(t.within.todo, name)
}

// renamedParked notes that a parked entry has another name.
func (t *Tree) renamedParked(from, to string) {
	w := &t.within
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.todo, from); i >= 0 {
		w.todo[i] = to
	}
	for _, paths := range w.at {
		for i, path := range paths {
			if top, _, _ := strings.Cut(path, "/"); top == from {
				paths[i] = to + path[len(from):]
			}
		}
	}
}

// lookForDirs sees whether directories are parked still. None is parked while it looks.
func (t *Tree) lookForDirs() {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	found := errors.New("found")
	d, err := t.parked.OpenDir("") // a listing of its own
	if err != nil {
		return
	}
	defer d.Close()
	err = d.List(func(e beneath.Entry) error {
		if k := slave.Kind(e.Type); k == slave.Dir || k == slave.Unknown {
			return found
		}
		return nil
	})
	t.dirsParked.Store(err != nil)
}

// forgetWithin forgets what lay in parked directories that are deleted.
func (t *Tree) forgetWithin(dirs map[string]bool) {
	if len(dirs) == 0 {
		return
	}
	t.within.mu.Lock()
	defer t.within.mu.Unlock()
	t.within.todo = slices.DeleteFunc(t.within.todo, func(name string) bool { return dirs[name] })
	for g, paths := range t.within.at {
		left := slices.DeleteFunc(paths, func(path string) bool {
			top, _, _ := strings.Cut(path, "/")
			return dirs[top]
		})
		if t.within.at[g] = left; len(left) == 0 {
			delete(t.within.at, g)
		}
	}
}

// findWithin finds an inode below a parked directory: its path there.
func (t *Tree) findWithin(g xtime.GFID) (path string, e entry, ok bool) {
	all, _ := t.searchWithin(g)
	for i := len(all) - 1; i >= 0 && !ok; i-- { // what was parked last goes first
		path = all[i]
		e, ok = t.leadsWithin(g, path)
	}
	if !ok {
		return "", entry{}, false
	}
	return path, e, true
}

// searchWithin gives the paths below parked directories that an inode was last seen at. full tells that there may be others.
func (t *Tree) searchWithin(g xtime.GFID) (all []string, full bool) {
	t.within.mu.Lock()
	defer t.within.mu.Unlock()
	for len(t.within.todo) > 0 && t.unclosed() {
		name := t.within.todo[0]
		t.within.todo = t.within.todo[1:]
		t.searchParked(name)
	}
	return slices.Clone(t.within.at[g]), t.within.full
}

// leadsWithin tells whether an inode on record as g lies at a path below parked/.
func (t *Tree) leadsWithin(g xtime.GFID, path string) (entry, bool) {
	p, done, err := t.parkedPlace(path)
	if err != nil {
		return entry{}, false
	}
	defer done()
	e, err := t.look(p)
	return e, err == nil && e.there && e.rec.GFID == g
}

// parkedPlace opens the directory that path, below parked/, lies in. done closes it.
func (t *Tree) parkedPlace(path string) (p place, done func(), err error) {
	if !beneath.ValidPath(path) || path == "" {
		return place{}, nil, slave.ErrInvalid
	}
	dir, name := beneath.Split(path)
	d, err := t.parked.OpenPath(dir)
	if err != nil {
		return place{}, nil, err
	}
	return place{d, name}, func() { d.Close() }, nil
}

// unstampWithin takes the stamps off the parked directories above paths, before these are taken out of them: they say
// that all is there, and would be believed when a directory is brought back. That they are gone is durable before the
// move is, or a power cut could undo the one and not the other.
func (t *Tree) unstampWithin(paths ...string) error {
	changed, done := false, map[string]bool{}
	for _, path := range paths {
		for dir, _ := beneath.Split(path); dir != "" && !done[dir]; dir, _ = beneath.Split(dir) {
			had, err := t.unstamp(dir)
			if err != nil {
				return err
			}
			changed, done[dir] = changed || had, true
		}
	}
	if !changed {
		return nil
	}
	return t.sys.syncfs(t.dir)
}

// unstamp takes the stamp off a parked directory, and tells whether it had one.
func (t *Tree) unstamp(dir string) (had bool, err error) {
	d, err := t.parked.OpenPath(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	remove := func() error { return t.sys.removexattr(d.At(""), t.names.Xtime) }
	err = remove()
	if !t.root && errors.Is(err, unix.EACCES) {
		err = t.lifted(d.At(""), remove)
	}
	if errors.Is(err, unix.ENODATA) {
		return t.unstampBeside(place{d, ""})
	}
	return err == nil, err
}

// searchParked remembers where the entries below a parked directory are. What cannot be read is left out. within.mu is
// held.
func (t *Tree) searchParked(name string) {
	if t.within.at == nil || len(t.within.at) >= maxWithin {
		t.within.full = len(t.within.at) > 0
		t.within.at = map[xtime.GFID][]string{}
	}
	full := errors.New("enough")
	todo := []string{name}
	for len(todo) > 0 && len(t.within.at) < maxWithin && t.unclosed() {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := t.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			path := beneath.Join(dir, e.Name)
			if slave.Kind(e.Type) == slave.Dir {
				todo = append(todo, path)
			}
			if g, err := t.gfidOf(place{d, e.Name}); err == nil && !g.IsZero() {
				t.within.at[g] = append(t.within.at[g], path)
			}
			if len(t.within.at) >= maxWithin {
				t.within.full = true
				return full
			}
			return nil
		})
		d.Close()
		if err != nil {
			t.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
}
