package disk

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// parkedIndex knows what lies in parked directories, so that what was moved out of a directory before that was removed need
// not be sent again. A parked directory is searched when somebody asks for the first time after it was parked, which
// costs about what its removal costs. What is remembered is advice: it is looked at again when it is used.
type parkedIndex struct {
	*records
	// dirsParked is set while a directory may lie in parked/.
	dirsParked atomic.Bool

	mu   sync.Mutex // guards what follows; it comes behind park.mu, and nothing is locked under it
	todo []string   // names in parked/ that were not searched yet
	// at has paths below parked/, in the order in which they were found.
	at map[xtime.GFID][]string
	// full tells that some of what was parked is not remembered.
	full bool
}

// maxWithin bounds the entries that are remembered, those of directories parked later before those of others. What is beyond
// it is sent again.
const maxWithin = 100_000

// note notes a directory that was parked.
func (w *parkedIndex) note(name string) {
	w.dirsParked.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = append(w.todo, name)
}

// renamed notes that a parked entry has another name.
func (w *parkedIndex) renamed(from, to string) {
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

// forget forgets what lay in parked directories that are deleted.
func (w *parkedIndex) forget(dirs map[string]bool) {
	if len(dirs) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = slices.DeleteFunc(w.todo, func(name string) bool { return dirs[name] })
	for g, paths := range w.at {
		left := slices.DeleteFunc(paths, func(path string) bool {
			top, _, _ := strings.Cut(path, "/")
			return dirs[top]
		})
		if w.at[g] = left; len(left) == 0 {
			delete(w.at, g)
		}
	}
}

// find finds an inode below a parked directory: its path there.
func (w *parkedIndex) find(g xtime.GFID) (path string, e entry, ok bool) {
	all, _ := w.search(g)
	for i := len(all) - 1; i >= 0 && !ok; i-- { // what was parked last goes first
		path = all[i]
		e, ok = w.leads(g, path)
	}
	if !ok {
		return "", entry{}, false
	}
	return path, e, true
}

// search gives the paths below parked directories that an inode was last seen at. full tells that
// there may be others. The first call after something was parked searches it, with mu held. That
// takes as long as listing it does.
func (w *parkedIndex) search(g xtime.GFID) (all []string, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.todo) > 0 && w.unclosed() {
		name := w.todo[0]
		w.todo = w.todo[1:]
		w.searchDir(name)
	}
	return slices.Clone(w.at[g]), w.full
}

// leads tells whether an inode on record as g lies at a path below parked/.
func (w *parkedIndex) leads(g xtime.GFID, path string) (entry, bool) {
	p, done, err := w.open(path)
	if err != nil {
		return entry{}, false
	}
	defer done()
	e, err := w.look(p)
	return e, err == nil && e.there && e.rec.GFID == g
}

// open opens the directory that path, below parked/, lies in. done closes it.
func (w *parkedIndex) open(path string) (p place, done func(), err error) {
	if !beneath.ValidPath(path) || path == "" {
		return place{}, nil, slave.ErrInvalid
	}
	dir, name := beneath.Split(path)
	d, err := w.parked.OpenPath(dir)
	if err != nil {
		return place{}, nil, err
	}
	return place{d, name}, func() { d.Close() }, nil
}

// unstampAbove takes the stamps off the parked directories above paths, before these are taken out
// of them: they say that all is there, and would be believed when a directory is brought back. That
// they are gone is durable before the move is, or a power cut could undo the one and not the other.
// An error means that nothing may be taken out. It is called with park.mu held.
func (w *parkedIndex) unstampAbove(paths ...string) error {
	changed, done := false, map[string]bool{}
	for _, path := range paths {
		for dir, _ := beneath.Split(path); dir != "" && !done[dir]; dir, _ = beneath.Split(dir) {
			had, err := w.unstamp(dir)
			if err != nil {
				return err
			}
			changed, done[dir] = changed || had, true
		}
	}
	if !changed {
		return nil
	}
	return w.sys.syncfs(w.dir)
}

// unstamp takes the stamp off a parked directory, and tells whether it had one.
func (w *parkedIndex) unstamp(dir string) (had bool, err error) {
	d, err := w.parked.OpenPath(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	remove := func() error { return w.sys.removexattr(d.At(""), w.names.Xtime) }
	err = remove()
	if !w.root && errors.Is(err, unix.EACCES) {
		err = w.lifted(d.At(""), remove)
	}
	if errors.Is(err, unix.ENODATA) {
		return w.unstampBeside(place{d, ""})
	}
	return err == nil, err
}

// searchDir remembers where the entries below a parked directory are. What cannot be read is left out. parkedIndex.mu is
// held.
func (w *parkedIndex) searchDir(name string) {
	if w.at == nil || len(w.at) >= maxWithin {
		w.full = len(w.at) > 0
		w.at = map[xtime.GFID][]string{}
	}
	full := errors.New("enough")
	todo := []string{name}
	for len(todo) > 0 && len(w.at) < maxWithin && w.unclosed() {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := w.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			path := beneath.Join(dir, e.Name)
			if slave.Kind(e.Type) == slave.Dir {
				todo = append(todo, path)
			}
			if g, err := w.gfidOf(place{d, e.Name}); err == nil && !g.IsZero() {
				w.at[g] = append(w.at[g], path)
			}
			if len(w.at) >= maxWithin {
				w.full = true
				return full
			}
			return nil
		})
		d.Close()
		if err != nil {
			w.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
}

// all gives a path in each parked directory. The path need not be there: what counts is the
// directory that it lies in.
func (w *parkedIndex) all() (paths []string) {
	for todo := []string{""}; len(todo) > 0 && w.unclosed(); {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := w.parked.OpenDir(dir)
		if err != nil {
			continue
		}
		paths = append(paths, beneath.Join(dir, slave.Reserved))
		err = d.List(func(e beneath.Entry) error {
			if slave.Kind(e.Type) == slave.Dir {
				todo = append(todo, beneath.Join(dir, e.Name))
			}
			return nil
		})
		d.Close()
		if err != nil {
			w.log.Debug().Str("dir", dir).Err(err).Msg("not searched")
		}
	}
	return paths
}
