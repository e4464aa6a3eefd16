package sftp

import (
	"sync"
	"sync/atomic"
	"time"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
)

// park is parked/: what has left the tree, and may come back. Its entries are on record in the
// shard Parked, under their names there: the GFID for what an OpUnpark takes, and others for
// further copies.
type park struct {
	*changer
	mu      sync.RWMutex // held for writing while an entry is taken out, or a directory moves; by operations for reading
	parking keyed[xtime.GFID]
	count   atomic.Int64 // entries that were found there when the slave was opened
	// leftover are names that a cut left there, and that are not on record; string -> struct{}. leftMany says that there were too many
	// names to keep them all.
	leftover sync.Map
	leftMany atomic.Bool
	inDirs   parkedIndex
	twice    twice
}

// parkPlace finds where an entry is parked; the caller has lockParked until it is there. same tells
// that the very state of that inode is parked there already. The name that an OpUnpark takes is for
// the newest copy of a directory: an older one makes way for it.
func (k *park) parkPlace(old index.Entry) (p place, same bool, err error) {
	name := "u-" + k.unique()
	if g := old.Record.GFID; !g.IsZero() {
		name = g.String()
		there, ok, err := k.idx.Get(index.Parked, name)
		if err != nil {
			return p, false, err
		}
		if ok {
			same = old.Kind != slave.Dir && there.Record == old.Record && there.Record.Xtime != 0 && there.Virtual == old.Virtual
			if same {
				f, err := k.look(parkedPlace(name))
				if err != nil {
					return p, false, err
				}
				same = f.known
			}
			switch {
			case same:
			case old.Kind == slave.Dir && k.makeWay(name, there):
			default:
				name += "." + k.unique()
			}
		} else if left, err := k.isLeft(name); err != nil {
			return p, false, err
		} else if left {
			name += "." + k.unique() // maybe a further name of this very inode: a rename to that would do nothing
		}
	}
	return parkedPlace(name), same, nil
}

// makeWay gives a parked entry another name, and tells whether it could. What is remembered of the
// old name follows.
func (k *park) makeWay(name string, old index.Entry) bool {
	to := parkedPlace(name + "." + k.unique())
	if err := k.move(parkedPlace(name), to, old, old); err != nil {
		return false
	}
	k.inDirs.renamed(name, to.name)
	k.twice.renamed(name, to.name)
	return true
}

// parkedPlace is the place of a name in parked/.
func parkedPlace(name string) place { return place{index.Parked, parkedDir + "/" + name, name} }

// parkBeside gives a non-directory a name among the parked, so that it can be renamed over without
// a gap; where the server makes no links it is moved there, and there is a gap.
func (k *park) parkBeside(p place, old index.Entry) (to place, err error) {
	defer k.lockParked(old.Record.GFID)()
	to, same, err := k.parkPlace(old)
	if err != nil || same {
		return to, err
	}
	e := asParked(old)
	if old.Virtual || !k.first().CanLink() || old.Kind != slave.File {
		return k.moveOut(p, to, old)
	}
	err = k.change(to, &e, func() error { return k.any().Link(k.abs(p.path), k.abs(to.path)) })
	switch {
	case err == nil || noFile(err):
		return to, nil // where it is gone there is nothing to park
	case k.first().Err() != nil:
		return to, err
	}
	return k.moveOut(p, to, old)
}

// moveOut moves an entry into the park. What a cut left there, which is not on record, may stand in its way: then it gets
// another name.
func (k *park) moveOut(from, to place, old index.Entry) (place, error) {
	err := k.move(from, to, old, asParked(old))
	if err == nil || noFile(err) || !certain(err) {
		return to, err
	}
	to = parkedPlace(to.name + "." + k.unique())
	return to, k.move(from, to, old, asParked(old))
}

// asParked is the entry there: as it was, with the moment, which Clean goes by.
func asParked(e index.Entry) index.Entry {
	e.Since = time.Now().Unix()
	return e
}

// move renames an entry, in the index too, under one note in the journal.
func (k *park) move(from, to place, old, e index.Entry) error {
	return k.changes([]step{{from, nil}, {to, &e}}, func() error {
		if old.Virtual {
			return nil
		}
		return k.rename(from.path, to.path)
	})
}

// isLeft tells whether there is something in the park under a name that is not on record. It asks
// the server only where there were too many names to remember.
func (k *park) isLeft(name string) (bool, error) {
	if _, left := k.leftover.Load(name); left || !k.leftMany.Load() {
		return left, nil
	}
	_, err := k.lstat(parkedDir + "/" + name)
	if noFile(err) {
		return false, nil
	}
	return err == nil, err
}

// noteLeftover notes which of the names in the park are not on record: a cut came between. It is
// called once, by Open.
func (k *park) noteLeftover(inPark []string) error {
	for _, name := range inPark {
		_, ok, err := k.idx.Get(index.Parked, name)
		if err != nil {
			return err
		}
		if !ok {
			k.leftover.Store(name, struct{}{})
		}
	}
	return nil
}

// lockParked lets one name of an inode at a time go to the park. What is replaced has nobody's lockInode but that of the inode that
// replaces it, so another of its names may be parked meanwhile. Both would be given one name there, and a rename to a further
// name of the same inode does nothing: the old name would stay. It comes after lockName.
func (k *park) lockParked(g xtime.GFID) (unlock func()) {
	if g.IsZero() {
		return func() {} // its name in the park is nobody else's
	}
	return k.parking.lock(g)
}
