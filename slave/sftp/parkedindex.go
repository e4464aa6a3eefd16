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

// parkedIndex is what lies in parked directories, so that what was moved out of a directory before
// that was removed need not be sent again. A parked directory's shards are searched when somebody
// asks for the first time after it was parked. What is remembered is advice: it is looked at again
// when it is used.
type parkedIndex struct {
	// mu guards the rest; it is held during a search, so that two callers do not search the same.
	mu sync.Mutex
	// todo are parked directories that are not searched yet, at where an inode was found below parked/, of maxIndexed inodes at most.
	todo []parkedShard
	at   map[xtime.GFID][]string
}

// parkedShard is a parked directory, or one in it, and its shard.
type parkedShard struct {
	path string // below parked/
	id   index.ID
}

// maxIndexed bounds the entries that are remembered. What is beyond it is sent again.
const maxIndexed = 100_000

// add notes a directory that was parked. One without a shard has nothing on record in it.
func (x *parkedIndex) add(name string, id index.ID) {
	if id == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.todo = append(x.todo, parkedShard{name, id})
}

// renamed notes that a parked entry has another name.
func (x *parkedIndex) renamed(from, to string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, one := range x.todo {
		if top, _ := cut(one.path); top == from {
			x.todo[i].path = to + one.path[len(from):]
		}
	}
	for _, paths := range x.at {
		for i, path := range paths {
			if top, _ := cut(path); top == from {
				paths[i] = to + path[len(from):]
			}
		}
	}
}

// forget forgets everything: what was parked is deleted.
func (x *parkedIndex) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.todo, x.at = nil, nil
}

// indexed gives the paths below parked directories that an inode was last seen at. It searches what
// nobody has searched yet, which reads shards of the index and asks the server for nothing else.
// full tells that there may be other paths.
func (k *park) indexed(g xtime.GFID) (all []string, full bool, err error) {
	x := &k.inDirs
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at == nil {
		x.at = map[xtime.GFID][]string{}
	}
	for len(x.todo) > 0 && len(x.at) < maxIndexed {
		one := x.todo[0]
		x.todo = x.todo[1:]
		err := k.idx.Each(one.id, func(name string, e index.Entry) bool {
			path := one.path + "/" + name
			if e.Kind == slave.Dir && e.ID != 0 {
				x.todo = append(x.todo, parkedShard{path, e.ID})
			}
			if g := e.Record.GFID; !g.IsZero() {
				x.at[g] = append(x.at[g], path)
			}
			return len(x.at) < maxIndexed
		})
		if err != nil {
			return nil, true, err
		}
	}
	return slices.Clone(x.at[g]), len(x.at) >= maxIndexed, nil
}

// placeBelow finds the place of a path below parked/, by the index, and looks at the directories
// down to it. ENOENT says that it is none any more.
func (k *park) placeBelow(path string) (place, error) {
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

// unstampAbove takes the stamps off the parked directories above paths, durably, before something
// is taken out of them: they say that all is there, and would be believed when a directory is
// brought back. An error leaves what was to be taken where it is.
func (k *park) unstampAbove(paths ...string) error {
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

// findBelow finds an inode below a parked directory: its path there, "" if there is none, and its
// record. What was parked last goes first.
func (k *park) findBelow(g xtime.GFID) (path string, rec slave.Record, err error) {
	all, _, err := k.indexed(g)
	for i := len(all) - 1; i >= 0 && err == nil; i-- { // what was parked last goes first
		p, perr := k.placeBelow(all[i])
		if perr != nil {
			continue
		}
		if f, ferr := k.look(p); ferr == nil && f.known && f.gfid() == g {
			return all[i], f.entry.Record, nil
		}
	}
	return "", rec, err
}

// allIndexed gives a path in each parked directory, for unstampAbove.
func (k *park) allIndexed() (paths []string, err error) {
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

// reindex forgets what was remembered of parked directories, of which some are gone now, and has the others searched
// again when somebody asks.
func (k *park) reindex() error {
	k.inDirs.forget()
	dirs := map[string]index.ID{} // whoever searches holds on to within while it waits for the index
	err := k.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Kind == slave.Dir {
			dirs[name] = e.ID
		}
		return true
	})
	for name, id := range dirs {
		k.inDirs.add(name, id)
	}
	return err
}
