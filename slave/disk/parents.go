package disk

import (
	"georep/internal/beneath"
	"georep/slave/gfidindex"
)

// parents are the directories that the group at work changes names in. They stay open from one
// operation to the next, until the group has ended or a directory was moved. The committer owns
// them. An open directory stays the same directory when it is renamed, and then its path is wrong:
// so whoever moves a directory calls forget.
type parents struct {
	*records
	dirs map[string]*beneath.Dir
	keys map[string]gfidindex.Key // of directories, as long as dirs has what is above them
}

// newParents has none open.
func newParents(r *records) *parents {
	return &parents{records: r, dirs: map[string]*beneath.Dir{}, keys: map[string]gfidindex.Key{}}
}

// maxDirs bounds the parents that are kept open from one operation to the next.
const maxDirs = 64

// open opens the directory that path lies in, and keeps it open for the rest of the group. The
// place is good until the next forget, and not the caller's to close. All of path but the last name
// is resolved beneath the root.
func (up *parents) open(path string) (place, error) {
	dir, name := beneath.Split(path)
	if d := up.dirs[dir]; d != nil {
		return place{d, name}, nil
	}
	d, err := up.dir.OpenPath(dir)
	if err != nil {
		return place{}, err
	}
	up.dirs[dir] = d
	return place{d, name}, nil
}

// forget closes the parents: the group has ended, or a directory was moved.
func (up *parents) forget() {
	for path, d := range up.dirs {
		d.Close()
		delete(up.dirs, path)
	}
	clear(up.keys)
}

// key is the key of the directory that path lies in. False: the directory has no GFID on record, so
// names in it are known by path alone.
func (up *parents) key(path, dir string) (gfidindex.Key, bool) {
	if dir == "" {
		return gfidindex.Root, true
	}
	if k, known := up.keys[dir]; known {
		return k, k != gfidindex.Root
	}
	p, err := up.open(path)
	if err != nil {
		return 0, false
	}
	g, err := up.gfidOf(place{p.dir, ""})
	if err != nil || g.IsZero() {
		up.keys[dir] = gfidindex.Root // none
		return 0, false
	}
	up.keys[dir] = gfidindex.KeyOf(g)
	return up.keys[dir], true
}
