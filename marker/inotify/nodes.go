package inotify

import (
	"errors"
	"strings"
	"time"

	"georep/internal/beneath"
)

// ID is a watch, and so a directory for as long as it lives and is watched. IDs are not used again.
type ID int32

// node is a watched directory. It is kept small: there is one for every directory of the tree.
type node struct {
	id    ID
	own   int32  // marks of ours on it whose event was not read yet
	inode uint64 // beneath.Stat.Number, by the root's device
	gen   uint32 // the last walk that met it
	// parent and name are its place; no parent is the root, or a directory that is not where it was (nodes.lost).
	parent            *node
	name              string
	first, prev, next *node // its children, and its neighbours among its parent's
}

// place is a name in a watched directory.
type place struct {
	dir  ID
	name string
}

// ErrStale means that a directory is not where it was last seen, or that its way there is not known now: events that
// tell are under way.
var ErrStale = errors.New("the directory has moved or is gone")

// cachedDirs is how many directories are held open.
const cachedDirs = 256

// nodes is the tree of watched directories. It is used under Source.mu. It is guarded by Source.mu.
type nodes struct {
	root  *node
	dir   *beneath.Dir // the root's
	dev   uint64       // the root's
	byID  map[ID]*node
	at    map[place]*node
	lost  map[ID]lostAt // those without a place
	open  map[ID]*beneath.Dir
	ids   map[*beneath.Dir]ID // of open, and the root
	order []ID                // of open, oldest first
	// proves tells with ErrStale that an open directory, which has the inode number of n, is another.
	proves func(n *node, d *beneath.Dir) error
}

// lostAt is when a directory lost its place.
type lostAt struct {
	time  time.Time
	epoch int64
}

// newNodes begins with a tree that has no nodes, below dir, which stays the caller's.
func newNodes(dir *beneath.Dir) *nodes {
	return &nodes{dir: dir, byID: map[ID]*node{}, at: map[place]*node{}, lost: map[ID]lostAt{},
		open: map[ID]*beneath.Dir{}, ids: map[*beneath.Dir]ID{}}
}

// close gives back the descriptors that are kept. The watches end with the inotify descriptor.
func (t *nodes) close() {
	for _, d := range t.open {
		d.Close()
	}
	t.open, t.ids, t.order = nil, nil, nil
}

// link puts n at name in p, and tells whether that is another place than before. Who was there loses its place. So does
// what lies between n and p, where n is known as above p: it cannot be there any more.
func (t *nodes) link(p *node, name string, n *node, now lostAt) (moved bool) {
	if n.parent == p && n.name == name || n == t.root {
		return false
	}
	for up := p; up != nil; up = up.parent {
		if up.parent == n {
			t.lose(up, now)
			break
		}
	}
	if n == p {
		return false // not even a race makes a directory its own entry
	}
	t.detach(n)
	delete(t.lost, n.id)
	if old := t.at[place{p.id, name}]; old != nil {
		t.lose(old, now)
	}
	n.parent, n.name = p, name
	n.prev, n.next = nil, p.first
	if p.first != nil {
		p.first.prev = n
	}
	p.first = n
	t.at[place{p.id, name}] = n
	return true
}

// detach takes n, with what lies below it, out of its place.
func (t *nodes) detach(n *node) {
	if n.parent == nil {
		return
	}
	delete(t.at, place{n.parent.id, n.name})
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		n.parent.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.parent, n.prev, n.next, n.name = nil, nil, nil, ""
}

// lose notes that n is not where it was. It keeps its watch for a while: its new place may yet be told.
func (t *nodes) lose(n *node, now lostAt) {
	if n == t.root {
		return
	}
	t.detach(n)
	t.lost[n.id] = now
}

// forget removes n. Its children lose their places.
func (t *nodes) forget(n *node, now lostAt) {
	for n.first != nil {
		t.lose(n.first, now)
	}
	t.detach(n)
	delete(t.byID, n.id)
	delete(t.lost, n.id)
	if d := t.open[n.id]; d != nil {
		delete(t.ids, d)
		delete(t.open, n.id)
		d.Close()
	}
}

// top is the root, or the lost directory that n lies below, or is.
func top(n *node) *node {
	for n.parent != nil {
		n = n.parent
	}
	return n
}

// path is n's, relative to the root.
func (t *nodes) path(n *node) (string, bool) {
	var names []string
	for ; n.parent != nil; n = n.parent {
		names = append(names, n.name)
	}
	if n != t.root {
		return "", false
	}
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		names[i], names[j] = names[j], names[i]
	}
	return strings.Join(names, "/"), true
}

// opened gives n open, and proves that it is n. The result is good until the next call, or until n is forgotten. The
// error is ErrStale, or one that says nothing of where n lies.
func (t *nodes) opened(n *node) (*beneath.Dir, error) {
	if n == t.root {
		return t.dir, nil
	}
	if d := t.open[n.id]; d != nil {
		return d, nil
	}
	d, err := t.reopen(n)
	if err == nil {
		t.remember(n.id, d)
	}
	return d, err
}

// reopen opens n, as opened does. The result is the caller's.
func (t *nodes) reopen(n *node) (*beneath.Dir, error) {
	path, ok := t.path(n)
	if !ok {
		return nil, ErrStale
	}
	d, err := t.dir.OpenPath(path)
	if notThere(err) {
		return nil, ErrStale
	}
	if err != nil {
		return nil, err
	}
	st, err := d.Stat("")
	if err == nil && st.Number(t.dev) != n.inode {
		err = ErrStale
	}
	if err == nil {
		err = t.proves(n, d)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// remember keeps a directory open, for the next who asks, and closes the oldest one beyond
// cachedDirs. d is the tree's from then on.
func (t *nodes) remember(id ID, d *beneath.Dir) {
	for len(t.order) >= cachedDirs {
		oldest := t.order[0]
		t.order = t.order[1:]
		if old := t.open[oldest]; old != nil {
			delete(t.ids, old)
			delete(t.open, oldest)
			old.Close()
		}
	}
	t.open[id], t.ids[d], t.order = d, id, append(t.order, id)
}
