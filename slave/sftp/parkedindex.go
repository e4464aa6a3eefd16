package sftp

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
)

// within knows what lies in parked directories, so that what was moved out of a directory before that was removed need not
// be sent again. A parked directory's shards are searched when somebody asks for the first time after it was parked. What
// is remembered is advice: it is looked at again when it is used.
type within struct {
	// mu guards the rest; it is held during a search, so that two callers do not search the same.
	mu sync.Mutex
	// todo are parked directories that are not searched yet, at where an inode was found below parked/, of maxWithin inodes at most.
	todo []parkedShard
	at   map[xtime.GFID][]string
}

type parkedShard struct {
	path string // below parked/
	id   index.ID
}

// maxWithin bounds the entries that are remembered. What is beyond it is sent again.
const maxWithin = 100_000

// add notes a directory that was parked. One without a shard has nothing on record in it.
func (w *within) add(name string, id index.ID) {
	if id == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = append(w.todo, parkedShard{name, id})
}

// renamed notes that a parked entry has another name.
func (w *within) renamed(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, one := range w.todo {
		if top, _ := cut(one.path); top == from {
			w.todo[i].path = to + one.path[len(from):]
		}
	}
	for _, paths := range w.at {
		for i, path := range paths {
			if top, _ := cut(path); top == from {
				paths[i] = to + path[len(from):]
			}
		}
	}
}

// forget forgets everything: what was parked is deleted.
func (w *within) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo, w.at = nil, nil
}

// searchWithin gives the paths below parked directories that an inode was last seen at. full tells that there may be others.
func (k *park) searchWithin(g xtime.GFID) (all []string, full bool, err error) {
	w := &k.within
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[xtime.GFID][]string{}
	}
	for len(w.todo) > 0 && len(w.at) < maxWithin {
		one := w.todo[0]
		w.todo = w.todo[1:]
		err := k.idx.Each(one.id, func(name string, e index.Entry) bool {
			path := one.path + "/" + name
			if e.Kind == slave.Dir && e.ID != 0 {
				w.todo = append(w.todo, parkedShard{path, e.ID})
			}
			if g := e.Record.GFID; !g.IsZero() {
				w.at[g] = append(w.at[g], path)
			}
			return len(w.at) < maxWithin
		})
		if err != nil {
			return nil, true, err
		}
	}
	return slices.Clone(w.at[g]), len(w.at) >= maxWithin, nil
}

// withinPlace finds the place of a path below parked/.
func (k *park) withinPlace(path string) (place, error) {
	if !beneath.ValidPath(path) || path == "" {
		return place{}, slave.ErrInvalid
	}
	id := index.Parked
	dir, name := beneath.Split(path)
	for rest := dir; rest != ""; {
		first, tail := cut(rest)
		e, ok, err := k.idx.Get(id, first)
		if err != nil {
			return place{}, err
		}
		if !ok || e.Kind != slave.Dir || e.ID == 0 {
			return place{}, unix.ENOENT
		}
		id, rest = e.ID, tail
	}
	if err := k.checkDirs(parkedDir + "/" + path); err != nil {
		return place{}, err
	}
	return place{id, parkedDir + "/" + path, name}, nil
}

// cut splits a path behind its first name.
func cut(path string) (first, rest string) {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// unstampWithin takes the stamps off the parked directories above paths, durably, before something is taken out of them:
// they say that all is there, and would be believed when a directory is brought back.
func (k *park) unstampWithin(paths ...string) error {
	changed := false
	for _, path := range paths {
		id := index.Parked
		dir, _ := beneath.Split(path)
		for rest := dir; rest != ""; {
			first, tail := cut(rest)
			e, ok, err := k.idx.Get(id, first)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if e.Record.Xtime != 0 {
				changed = true
				if err := k.idx.Update(id, first, func(e *index.Entry) { e.Record.Xtime = 0 }); err != nil {
					return err
				}
			}
			id, rest = e.ID, tail
		}
	}
	if !changed {
		return nil
	}
	return k.flush()
}

// lookWithin finds an inode below a parked directory: its path there, "" if there is none, and its record.
func (k *park) lookWithin(g xtime.GFID) (path string, rec slave.Record, err error) {
	all, _, err := k.searchWithin(g)
	for i := len(all) - 1; i >= 0 && err == nil; i-- { // what was parked last goes first
		p, perr := k.withinPlace(all[i])
		if perr != nil {
			continue
		}
		if f, ferr := k.look(p); ferr == nil && f.known && f.gfid() == g {
			return all[i], f.entry.Record, nil
		}
	}
	return "", rec, err
}

// allWithin gives a path in each parked directory.
func (k *park) allWithin() (paths []string, err error) {
	for todo := []parkedShard{{"", index.Parked}}; len(todo) > 0; {
		one := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		paths = append(paths, beneath.Join(one.path, slave.Reserved))
		err := k.idx.Each(one.id, func(name string, e index.Entry) bool {
			if e.Kind == slave.Dir && e.ID != 0 {
				todo = append(todo, parkedShard{beneath.Join(one.path, name), e.ID})
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// lookWithinAgain forgets what was remembered of parked directories, of which some are gone now, and has the others searched
// again when somebody asks.
func (k *park) lookWithinAgain() error {
	k.within.forget()
	dirs := map[string]index.ID{} // whoever searches holds on to within while it waits for the index
	err := k.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Kind == slave.Dir {
			dirs[name] = e.ID
		}
		return true
	})
	for name, id := range dirs {
		k.within.add(name, id)
	}
	return err
}
