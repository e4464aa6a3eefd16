package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
)

// areaNames are the directories in .georep that are cleared when the slave is taken anew. What is parked stays, for as long
// as the slave's host says.
var areaNames = []string{apply.Staging, apply.Partial, "links", "pending", "places", "records"}

// distrust makes sure that what is on record in the tree vouches for nothing any more: the xtimes
// of our master go, which makes the crawler compare what is there (invariant 16). The GFIDs stay,
// for what only moved. The owner goes on record afterwards: until then a crash leaves a slave that
// nobody owns. It costs a walk over the whole tree, and ends with a sync: only then may an owner
// say that what is on record counts.
func (t *Tree) distrust(o Options) error {
	if err := t.clearAreas(); err != nil {
		return fmt.Errorf("slave %s: clear %s: %w: %w", o.Path, slave.Reserved, slave.ErrUnfit, err)
	}
	if n, err := t.stripXtimes(o.Master); err != nil {
		return fmt.Errorf("slave %s: remove the records there: %w: %w", o.Path, slave.ErrUnfit, err)
	} else if n > 0 {
		t.log.Warn().Str("slave", o.Path).Int("entries", n).Msg("this is not the slave that was filled, or others have changed it: " +
			"its records are not believed, and all of it is compared")
	}
	return t.sys.syncfs(t.dir)
}

// clearAreas deletes what a slave kept in .georep beside the tree. They go to trash/ in one step
// each, so a crash leaves them either whole or gone.
func (t *Tree) clearAreas() error {
	err := ignoreAbsent(t.sys.unlink(place{t.base, usageFile}))
	if err != nil {
		return err
	}
	if t.trash, err = t.area(t.base, apply.Trash); err != nil {
		return err
	}
	for _, name := range areaNames {
		err := t.sys.rename(place{t.base, name}, place{t.trash, t.stagingName()}, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err = t.bin.empty(context.Background())
	t.trash.Close()
	t.trash = nil
	return err
}

// stripXtimes takes the xtimes of a master's records off the whole tree, and off what is parked,
// and counts them. An entry that cannot be stripped is an error, and the slave is not taken: its
// record would vouch for something.
func (t *Tree) stripXtimes(master xtime.UUID) (n int, err error) {
	spaces := []xtime.Namespace{xtime.User}
	if t.root && !inNamespace() { // where such names can be neither read nor set
		spaces = append(spaces, xtime.Trusted)
	}
	strip := func(i *beneath.Inode, kind slave.Kind) error {
		for _, ns := range spaces {
			if !kind.CarriesRecord(ns) {
				continue
			}
			err := t.sys.removexattr(i, xtime.NamesFor(ns, master).Xtime)
			switch {
			case err == nil:
				n++
			case errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, fs.ErrNotExist):
			default:
				return err
			}
		}
		return nil
	}
	if err := strip(t.dir.At(""), slave.Dir); err != nil {
		return n, err
	}
	for todo := []string{"", slave.Reserved + "/" + apply.Parked}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		below, err := t.eachIn(dir, strip)
		if err != nil {
			return n, fmt.Errorf("%q: %w", dir, err)
		}
		todo = append(todo, below...)
	}
	return n, nil
}

// eachIn calls do for what lies in a directory of the tree, and gives the directories among that.
// What has vanished, or is mounted, is passed over. Trouble with one entry ends it, with its name
// in the error.
func (s *store) eachIn(dir string, do func(*beneath.Inode, slave.Kind) error) (dirs []string, err error) {
	d, err := s.openList(dir)
	if errors.Is(err, unix.EXDEV) || absent(err) {
		return nil, nil // another file system is mounted there, or it is gone
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = d.List(func(e beneath.Entry) error {
		if dir == "" && e.Name == slave.Reserved {
			return nil
		}
		kind := slave.Kind(e.Type)
		if kind == slave.Unknown {
			st, err := d.Stat(e.Name)
			if err != nil {
				return err
			}
			kind = slave.KindOf(st.Mode)
		}
		if kind == slave.Dir {
			dirs = append(dirs, beneath.Join(dir, e.Name))
		}
		err := do(d.At(e.Name), kind)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%q: %w; it may be immutable (chattr -i), or another user's", e.Name, err)
		}
		return err
	})
	return dirs, err
}

// lacksJournal tells whether somebody took away the one part of .georep that is more than advice,
// after stamps relied on it. A slave of an earlier version, which has no name, never had it.
func (w *ownership) lacksJournal(have *slave.Owner) bool {
	if have == nil || have.Slave.IsZero() {
		return false
	}
	_, err := w.base.Stat("pending")
	return errors.Is(err, fs.ErrNotExist)
}
