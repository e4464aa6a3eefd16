package marker

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

const (
	cachedParents = 32 << 10 // twice so many at most
	cachedDirs    = 512      // descriptors
)

// handles knows where directories lie, by handle, and keeps the latest of them open, so that a busy directory, in the
// volume or outside it, costs a look into a map. It is used by one goroutine at a time.
type handles struct {
	root    *beneath.Dir
	rootKey beneath.HandleKey
	// young and old are two generations of one cache: directory -> its parent, or "" for one that is not below the root.
	young, old map[beneath.HandleKey]beneath.HandleKey
	open       map[beneath.HandleKey]*beneath.Dir
	order      []beneath.HandleKey // of open, oldest first
}

// newHandles fails where directories cannot be opened by handle. The probe opens the root by its
// own handle: it needs a capability, and a file system that has handles.
func newHandles(root *beneath.Dir) (*handles, error) {
	key, err := root.Key("")
	if err != nil {
		return nil, err
	}
	probe, err := root.OpenKey(key)
	if err != nil {
		return nil, err
	}
	probe.Close()
	t := &handles{root: root, rootKey: key, open: map[beneath.HandleKey]*beneath.Dir{}}
	t.flush()
	return t, nil
}

// flush forgets where directories lie: one of them moved.
func (t *handles) flush() { t.young, t.old = map[beneath.HandleKey]beneath.HandleKey{}, nil }

// Every way that led through the directory is wrong now, and nobody knows which did.
func (t *handles) moved() { t.flush() }

// There is nothing to prepare for a new directory.
func (*handles) expect(*beneath.Dir) {} // all of the file system is listened to

// top is the key of the volume's root.
func (t *handles) top() beneath.HandleKey { return t.rootKey }

// gfid needs no look: the GFID is a digest of the handle.
func (*handles) gfid(k beneath.HandleKey, _ *beneath.Dir) xtime.GFID { return k.GFID() }

// key is the handle of an open directory.
func (t *handles) key(d *beneath.Dir) (beneath.HandleKey, error) { return d.Key("") }

// close closes every directory that is kept open. The cache of parents needs nothing.
func (t *handles) close() {
	for _, d := range t.open {
		d.Close()
	}
	t.open, t.order = nil, nil
}

// letGo closes directories that were removed since: as long as one is open its file system cannot become read-only. all:
// the others as well.
func (t *handles) letGo(all bool) {
	t.order = slices.DeleteFunc(t.order, func(k beneath.HandleKey) bool {
		d := t.open[k]
		if st, err := d.Stat(""); !all && err == nil && st.Nlink > 0 {
			return false
		}
		d.Close()
		delete(t.open, k)
		return true
	})
}

// dir opens a directory, or finds it open. The result is the tree's, and good until the next call.
func (t *handles) dir(k beneath.HandleKey) (*beneath.Dir, error) {
	if d := t.open[k]; d != nil {
		return d, nil
	}
	d, err := t.root.OpenKey(k)
	if err != nil {
		return nil, err
	}
	if len(t.order) >= cachedDirs {
		t.open[t.order[0]].Close()
		delete(t.open, t.order[0])
		t.order = t.order[1:]
	}
	t.open[k], t.order = d, append(t.order, k)
	return d, nil
}

// number knows nothing: a handle does not tell the inode's number.
func (*handles) number(beneath.HandleKey) (uint64, bool) { return 0, false }

// reopen opens k anew, by its handle, with a position of its own, so that it can be listed beside
// other users of k.
func (t *handles) reopen(k beneath.HandleKey) (*beneath.Dir, error) {
	d, err := t.root.OpenKey(k)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.OpenDir("")
}

// chain returns the directory k and those above it, the root last; nil when k does not lie below the root.
func (t *handles) chain(k beneath.HandleKey) ([]beneath.HandleKey, error) {
	var chain []beneath.HandleKey
	for {
		chain = append(chain, k)
		if k == t.rootKey {
			return chain, nil
		}
		up, ok := t.parent(k)
		if !ok {
			if err := t.locate(k); err != nil {
				return nil, err
			}
			// What locate found may have left the cache again only if the chain is longer than the cache.
			if up, ok = t.parent(k); !ok {
				return nil, unix.ELOOP
			}
		}
		if up == "" {
			return nil, nil
		}
		k = up
	}
}

// locate walks up from k until it meets what is known, and remembers the way.
func (t *handles) locate(k beneath.HandleKey) error {
	d, err := t.root.OpenKey(k)
	if err != nil {
		return err
	}
	defer func() { d.Close() }()
	for {
		up, err := d.Parent()
		if errors.Is(err, unix.EXDEV) {
			t.remember(k, "")
			return nil
		}
		if err != nil {
			return err
		}
		d.Close()
		d = up
		key, err := d.Key("")
		if err != nil {
			return err
		}
		if key == k {
			t.remember(k, "")
			return nil
		}
		t.remember(k, key)
		if _, known := t.parent(key); known || key == t.rootKey {
			return nil
		}
		k = key
	}
}

// parent is the directory that k lies in, as far as is remembered.
func (t *handles) parent(k beneath.HandleKey) (beneath.HandleKey, bool) {
	if up, ok := t.young[k]; ok {
		return up, true
	}
	up, ok := t.old[k]
	if ok {
		t.remember(k, up)
	}
	return up, ok
}

// remember notes the parent of k, "" for none below the root. A full generation pushes out the
// older one, so what is in use stays, at the cost of a copy.
func (t *handles) remember(k, parent beneath.HandleKey) {
	if len(t.young) >= cachedParents {
		t.young, t.old = map[beneath.HandleKey]beneath.HandleKey{}, t.young
	}
	t.young[k] = parent
}
