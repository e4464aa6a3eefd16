// Package index keeps what a slave without xattrs cannot keep on its files: for each directory a shard with an entry
// a name. A shard belongs to a number that its directory was given when it was made, and that stands in the entry of
// the directory, so that renaming a directory moves no shard, and no two directories share one.
//
// It owns the shards' form, their cache and the journal. It never looks at the files that it describes: whoever asks
// compares an entry's Size and Mtime seconds with what stands there, and believes neither where they differ.
//
// A shard is a tree of nodes: one is split in sixteen, by a hash of the names, when it outgrows maxNode, so that a
// change in a large directory rewrites little. Nodes are files, each replaced whole or not at all, the parts before
// the node that leads to them. Changes are made in memory and written by Flush. Until they are, the journal tells
// which entries may be wrong: after a cut they are dropped (Recover), which costs a comparison of those files and
// nothing else.
//
// index.go has the nodes in memory, flush.go their way to the store, entry.go their form there, and journal.go the
// journal. A node is absent, loading (ready is open), clean (in lru), dirty, or saving; only clean ones are
// forgotten, so memory is bounded by maxCached and by what Flush has not written. weight.go has how much a node takes.
package index

import (
	"container/list"
	"errors"
	"hash/fnv"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Store is where the nodes are kept. Its methods are called from many goroutines. Nothing is stored but by the names
// that this package makes (nodeKey.file).
type Store interface {
	// Load reads a node; fs.ErrNotExist where there is none. Before it has more than SmallText of one in memory it calls room
	// once with its size, which may wait for other calls of Load to end.
	Load(name string, room func(size int64)) ([]byte, error)
	// Stage brings the new state of a node to the store, durably where it can, beside the old one.
	Stage(name string, text []byte) (Staged, error)
	// Remove removes a node; that there is none is no error.
	Remove(name string) error
}

// Staged is the new state of a node before it is in its place.
type Staged interface {
	// Commit puts it in the place of the old one, whole or not at all.
	Commit() error
	// Drop forgets it.
	Drop()
}

const (
	// maxNode is how many entries a node may have: some 200 KiB.
	maxNode = 2048
	// savesAtOnce bounds the nodes on their way.
	savesAtOnce = 256
)

// Index is one slave's. All methods may be called from many goroutines at once. After an error of the store what was asked
// for is not known; nothing that was there is lost by it.
type Index struct {
	store Store

	// mu guards all below it, and the nodes. It is given up during every call of the store.
	mu     sync.Mutex
	nodes  map[nodeKey]*node
	lru    *list.List // of clean nodes, the one not used for longest at the back
	cached int64      // what they take
	dirty  int        // changes that are not written

	// flushMu is held by Flush and Drop: a shard that is dropped must not be written by a flush that began before.
	flushMu sync.Mutex

	rooms rooms
}

// New makes an index on what the store has.
func New(store Store) *Index {
	return &Index{store: store, nodes: map[nodeKey]*node{}, lru: list.New(), rooms: newRooms()}
}

// deepest is how deep nodes are split at most: there the hash of a name has no more digits.
const deepest = 16

// digits are the sixteen ways down from a node that is split.
const digits = "0123456789abcdef"

// nodeKey names a node: the directory's, and which way down its tree.
type nodeKey struct {
	dir ID
	way string // hexadecimal digits
}

// node is one in memory. All but ready is protected by Index.mu.
type node struct {
	key   nodeKey
	ready chan struct{} // closed when it is loaded
	// err is why it could not be loaded; whoever waited gets it, and the next caller loads again.
	err error
	// split says that the entries are in the nodes below; entries is empty then.
	split   bool
	entries map[string]Entry
	weight  int64 // what the entries take
	dirty   int   // changes since it was saved
	// saving says that a flush has it on its list: it is neither split nor forgotten meanwhile.
	saving bool
	at     *list.Element // in lru, where it is clean
}

// digit is the way of a name at the given depth.
func digit(name string, depth int) byte {
	// FNV spreads its last bytes badly over the high bits, so they are mixed. The form
	// on disk depends on this: another hash would lose what is there.
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	v := h.Sum64()
	v ^= v >> 29
	v *= 0xbf58476d1ce4e5b9
	v ^= v >> 32
	return digits[v>>(4*(depth%16))&15]
}

// leaf finds the node that has, or would have, the name, loaded. x.mu is held, and given up while it loads.
func (x *Index) leaf(dir ID, name string) (*node, error) {
	key := nodeKey{dir: dir}
	for {
		n, err := x.loaded(key)
		if err != nil {
			return nil, err
		}
		if !n.split {
			return n, nil
		}
		key.way += string(digit(name, len(key.way)))
	}
}

// loaded gives a node that is in memory, after loading it if need be. x.mu is held, and given up while it loads.
func (x *Index) loaded(key nodeKey) (*node, error) {
	for {
		n := x.nodes[key]
		if n == nil {
			n = &node{key: key, ready: make(chan struct{})}
			x.nodes[key] = n
			x.mu.Unlock()
			split, entries, err := x.read(key)
			x.mu.Lock()
			n.split, n.entries, n.weight, n.err = split, entries, weightOf(entries), err
			if err != nil {
				delete(x.nodes, key)
			} else {
				x.rest(n)
			}
			close(n.ready)
			return n, err
		}
		select {
		case <-n.ready:
			if n.at != nil {
				x.lru.MoveToFront(n.at)
			}
			return n, n.err
		default:
		}
		x.mu.Unlock()
		<-n.ready
		x.mu.Lock()
		if n.err != nil {
			return nil, n.err
		}
	}
}

// read loads a node. One that is not there, or that is no node, is empty: its names have no records then.
func (x *Index) read(key nodeKey) (split bool, entries map[string]Entry, err error) {
	text, release, err := x.load(key.file())
	defer release()
	if errors.Is(err, fs.ErrNotExist) {
		return false, map[string]Entry{}, nil
	}
	if err != nil {
		return false, nil, err
	}
	split, entries, err = decode(text)
	if err != nil {
		return false, map[string]Entry{}, nil
	}
	return split, entries, nil
}

// rest puts a clean node where it may be forgotten, and forgets those that are too many.
func (x *Index) rest(n *node) {
	n.at = x.lru.PushFront(n)
	x.cached += nodeCost + n.weight
	for x.cached > maxCached && x.lru.Len() > 1 {
		x.forget(x.lru.Back().Value.(*node))
	}
}

// wake takes a node from there.
func (x *Index) wake(n *node) {
	if n.at != nil {
		x.lru.Remove(n.at)
		x.cached -= nodeCost + n.weight
		n.at = nil
	}
}

// forget drops a clean node from memory, or one whose shard is dropped.
func (x *Index) forget(n *node) {
	x.wake(n)
	delete(x.nodes, n.key)
}

// Get gives the entry of a name in a directory.
func (x *Index) Get(dir ID, name string) (e Entry, ok bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := x.leaf(dir, name)
	if err != nil {
		return e, false, err
	}
	e, ok = n.entries[name]
	return e, ok, nil
}

// Set puts an entry in the place of the one that is there.
func (x *Index) Set(dir ID, name string, e Entry) error {
	return x.change(dir, name, func(n *node) bool { n.entries[name] = e; return true })
}

// Delete removes an entry; that there is none is no error.
func (x *Index) Delete(dir ID, name string) error {
	return x.change(dir, name, func(n *node) bool {
		_, ok := n.entries[name]
		delete(n.entries, name)
		return ok
	})
}

// Update changes an entry that is there.
func (x *Index) Update(dir ID, name string, change func(e *Entry)) error {
	return x.change(dir, name, func(n *node) bool {
		e, ok := n.entries[name]
		if ok {
			change(&e)
			n.entries[name] = e
		}
		return ok
	})
}

// change has do change the node that the name belongs in, and counts it if do says that something changed.
func (x *Index) change(dir ID, name string, do func(*node) bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := x.leaf(dir, name)
	if err != nil {
		return err
	}
	x.wake(n)
	before := n.weightOf(name)
	if do(n) {
		n.weight += n.weightOf(name) - before
		n.dirty++
		x.dirty++
	}
	switch {
	case n.dirty == 0 && !n.saving:
		x.rest(n)
	case n.tooLarge() && !n.saving:
		x.divide(n)
	}
	return nil
}

// divide splits a node in memory. All of its parts are dirty, the empty ones too: what a cut left under their names must
// not come back.
func (x *Index) divide(n *node) {
	parts := map[byte]*node{}
	for _, c := range []byte(digits) {
		part := &node{key: nodeKey{n.key.dir, n.key.way + string(c)}, ready: make(chan struct{}), entries: map[string]Entry{},
			dirty: 1}
		close(part.ready)
		parts[c], x.nodes[part.key] = part, part
		x.dirty++
	}
	for name, e := range n.entries {
		part := parts[digit(name, len(n.key.way))]
		part.entries[name] = e
		part.weight += e.weight(name)
	}
	n.split, n.entries, n.weight = true, map[string]Entry{}, 0
}

// Preload has the first node of a directory in memory, as long as there is room.
func (x *Index) Preload(dir ID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, err := x.loaded(nodeKey{dir: dir})
	return err
}

// Each calls do for all entries of a directory, node by node, so that little of a large one is in memory, until do returns
// false. Changes made meanwhile may be seen or not.
func (x *Index) Each(dir ID, do func(name string, e Entry) bool) error {
	_, err := x.each(nodeKey{dir: dir}, do)
	return err
}

// each is Each for one node and those below it. The lock is not held while do runs, so do may call the Index, but not
// Each: who walks through a large node keeps others waiting.
func (x *Index) each(key nodeKey, do func(string, Entry) bool) (more bool, err error) {
	n, done, err := x.walk(key)
	defer done()
	if err != nil {
		x.mu.Unlock()
		return false, err
	}
	type named struct {
		name string
		e    Entry
	}
	split, all := n.split, make([]named, 0, len(n.entries))
	for name, e := range n.entries {
		all = append(all, named{name, e})
	}
	x.mu.Unlock()
	if split {
		for _, c := range digits {
			if more, err := x.each(nodeKey{key.dir, key.way + string(c)}, do); !more || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	for _, one := range all {
		if !do(one.name, one.e) {
			return false, nil
		}
	}
	return true, nil
}

// Drop removes the shard of a directory that is gone.
func (x *Index) Drop(dir ID) error { return x.drop(nodeKey{dir: dir}) }

// drop forgets the nodes first and removes their files then; files that a cut leaves belong to a number that is never
// used again.
func (x *Index) drop(key nodeKey) error {
	x.flushMu.Lock()
	defer x.flushMu.Unlock()
	todo, files := []nodeKey{key}, []string(nil)
	for len(todo) > 0 {
		key := todo[0]
		todo = todo[1:]
		x.mu.Lock()
		n, err := x.loaded(key)
		if err != nil {
			x.mu.Unlock()
			return err
		}
		if n.split {
			for _, c := range digits {
				todo = append(todo, nodeKey{key.dir, key.way + string(c)})
			}
		}
		x.dirty -= n.dirty
		x.forget(n)
		x.mu.Unlock()
		files = append(files, key.file())
	}
	g := new(errgroup.Group)
	g.SetLimit(savesAtOnce)
	for _, f := range files {
		g.Go(func() error { return x.store.Remove(f) })
	}
	return g.Wait()
}

// Dirty is the number of changes that are not written.
func (x *Index) Dirty() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.dirty
}
