package disk

import (
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// park is parked/: what has left the tree, and may come back. mu is held by an operation at work, and by whatever takes one
// entry out of the park. It comes before links.mu and parkedIndex.mu.
type park struct {
	*records
	index *parkedIndex
	mu    sync.Mutex
	// cleans is how others notice that names may have gone from the park since they looked.
	cleans atomic.Uint64 // counts beginnings and ends of Clean, and twice whatever else takes names out of the park
	moving atomic.Uint64 // counts beginnings and ends of what moves entries; odd while something does
	twice  twice         // the committer's
}

// newPark makes the park; its directory is opened with the others.
func newPark(r *records) *park { return &park{records: r, index: &parkedIndex{records: r}} }

// parkedAs looks for the name of an inode among the parked ones of its GFID. same tells that it has one; else name is the first
// that is free.
func (k *park) parkedAs(g xtime.GFID, inode beneath.Stat) (name string, same bool, err error) {
	name = g.String()
	for n := 1; ; n++ {
		st, err := k.parked.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, false, nil
		}
		if err != nil {
			return name, false, err
		}
		if sameInode(st, inode) {
			return name, true, nil
		}
		name = g.String() + "." + strconv.Itoa(n)
	}
}

// placeFor makes the place where an entry is to be parked. same tells that the place already is a name of that inode. The name
// that an OpUnpark takes is for the newest of a GFID: older ones, of a directory that was made anew, make way for it.
func (k *park) placeFor(old entry) (p place, same bool, err error) {
	if old.rec.GFID.IsZero() {
		return place{k.parked, "u-" + k.stagingName()}, false, nil
	}
	newest := old.rec.GFID.String()
	name, same, err := k.parkedAs(old.rec.GFID, old.st)
	p = place{k.parked, name}
	if err != nil || same || name == newest {
		return p, same, err
	}
	if err := k.sys.rename(place{k.parked, newest}, p, 0); err != nil {
		return p, false, err
	}
	k.index.renamed(newest, name)
	k.twice.renamed(newest, name)
	return place{k.parked, newest}, false, nil
}

// beside gives a non-directory a name among the parked, so that it can be renamed over without a
// gap. An inode that keeps another name is not lost by that, and needs none. Then the rename
// replaces the name in one step, and no moment is without it. An error leaves the entry in the
// tree.
func (k *park) beside(p place, old entry) error {
	if old.st.Nlink > 1 {
		return nil
	}
	to, same, err := k.placeFor(old)
	if err != nil || same {
		return err
	}
	err = k.sys.link(p, to)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EOPNOTSUPP) {
		// No further names here: then there is a gap.
		return k.move(p, to, old)
	}
	return err
}

// take moves an entry out of the tree. Entries of a directory go with it. to is where it is now.
func (k *park) take(p place, old entry) (to place, err error) {
	to, same, err := k.placeFor(old)
	if err != nil {
		return to, err
	}
	if same {
		return to, k.writable(p.dir, func() error { return k.sys.unlink(p) })
	}
	err = k.move(p, to, old)
	switch {
	case err != nil:
	case old.kind == slave.Dir:
		k.index.note(to.name)
	case old.st.Nlink > 1:
		k.twice.add(parkedName{old.rec.GFID, to.name})
	}
	return to, err
}

// discard moves an entry out of the park, if it was parked at limit or before: half of a directory must not be
// unparked. It gives the kind of what it moved, Unknown where it moved nothing.
func (k *park) discard(name string, limit int64) (slave.Kind, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st, err := k.parked.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Ctime.Sec > limit {
		return slave.Unknown, nil
	}
	if err != nil {
		return slave.Unknown, err
	}
	to, kind := place{k.trash, k.stagingName()}, slave.KindOf(st.Mode)
	if err := k.move(place{k.parked, name}, to, entry{kind: kind}); err != nil {
		return slave.Unknown, err
	}
	return kind, nil
}

// namesOf counts the names that an inode on record as g has among the parked.
func (k *park) namesOf(g xtime.GFID, st beneath.Stat) uint32 {
	if _, same, err := k.parkedAs(g, st); err == nil && same {
		return 1
	}
	return 0
}

// lookForDirs sees whether directories are parked still. None is parked while it looks.
func (k *park) lookForDirs() {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := errors.New("found")
	d, err := k.parked.OpenDir("") // a listing of its own
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
	k.index.dirsParked.Store(err != nil)
}

// unlink takes away a name below a parked directory. One that is gone already is no error.
func (k *park) unlink(path string) error {
	defer k.cleans.Add(2)
	p, done, err := k.index.open(path)
	if err != nil {
		return err
	}
	defer done()
	unlink := func() error { return k.sys.unlink(p) }
	err = unlink()
	if !k.root && errors.Is(err, unix.EACCES) {
		err = k.lifted(p.dir.At(""), unlink)
	}
	return ignoreAbsent(err)
}

// scrap takes away a name in or below parked/.
func (k *park) scrap(path string) error {
	if dir, _ := beneath.Split(path); dir != "" {
		return k.unlink(path)
	}
	defer k.cleans.Add(2)
	temp := place{k.trash, k.stagingName()} // as Clean does
	if err := k.sys.rename(place{k.parked, path}, temp, 0); err != nil {
		return ignoreAbsent(err)
	}
	return k.sys.unlink(temp)
}

// stat looks at a path below parked/.
func (k *park) stat(path string) (beneath.Stat, error) {
	p, done, err := k.index.open(path)
	if err != nil {
		return beneath.Stat{}, err
	}
	defer done()
	return p.dir.Stat(p.name)
}

// evict deletes a parked entry, if it still is the one that was seen; a directory goes to trash/.
// It gives the kind of what went, Unknown where nothing did, and how much room that makes. Unlike
// Clean it does not wait for an age; the caller has checked what the policy allows.
func (k *park) evict(e parkedEntry) (slave.Kind, int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st, err := k.parked.Stat(e.name)
	if absent(err) || err == nil && st.Ctime != e.since {
		return slave.Unknown, 0, nil
	}
	if err != nil {
		return slave.Unknown, 0, err
	}
	p, kind := place{k.parked, e.name}, slave.KindOf(st.Mode)
	if kind == slave.Dir {
		err = k.move(p, place{k.trash, k.stagingName()}, entry{kind: kind})
	} else {
		// Not by way of trash/, which may have no room for a further name.
		k.forgetBeside(p)
		err = k.sys.unlink(p)
	}
	if err != nil {
		return slave.Unknown, 0, err
	}
	if st.Nlink > 1 {
		return kind, 0, nil
	}
	return kind, int64(st.Blocks) * 512, nil
}
