package index

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// This file bounds what nodes take in memory, whatever they have in them: names, targets and xattrs may be long, and the nodes lie with
// somebody else, who may have put others in their places.

const (
	// SmallText is how long a node's text may be without further ado: what most are.
	SmallText = 32 << 10
	// maxCached bounds what nodes take that are kept in memory although they are written: of ordinary entries some 80,000. maxTexts
	// bounds the texts that are being read, and maxWalked what nodes take that are walked through. One that is larger than these has
	// its turn alone.
	maxCached = 28 << 20
	maxTexts  = 12 << 20
	maxWalked = 12 << 20
	// maxWeight is what a node may take before it is split, as long as there is something to split.
	maxWeight    = 2 << 20
	leastToSplit = 16
	// maxLoaded bounds the entries of a node in the store. No node is written with more than maxNode; earlier versions wrote those that
	// came within a flush besides, of 20,000 changes or a little more.
	maxLoaded = 1 << 16

	smallWeight = 128 << 10
	entryCost   = 320 // of an entry, besides its texts
	nodeCost    = 400
	xattrCost   = 48
)

// weight is roughly what an entry takes in memory.
func (e *Entry) weight(name string) int64 {
	n := entryCost + len(name) + len(e.Meta.Target)
	for i := range e.Meta.Xattrs {
		n += xattrCost + len(e.Meta.Xattrs[i].Name) + len(e.Meta.Xattrs[i].Value)
	}
	return int64(n)
}

func weightOf(entries map[string]Entry) (all int64) {
	for name, e := range entries {
		all += e.weight(name)
	}
	return all
}

// weightOf is what the entry of a name takes; 0 where there is none.
func (n *node) weightOf(name string) int64 {
	e, ok := n.entries[name]
	if !ok {
		return 0
	}
	return e.weight(name)
}

// tooLarge tells whether a node is to be split.
func (n *node) tooLarge() bool {
	return len(n.key.way) < deepest && (len(n.entries) > maxNode || n.weight > maxWeight && len(n.entries) >= leastToSplit)
}

// rooms bound what is in memory for a moment.
type rooms struct {
	texts, walked *semaphore.Weighted
	decoding      chan struct{}
}

const decodedAtOnce = 4

func newRooms() rooms {
	return rooms{semaphore.NewWeighted(maxTexts), semaphore.NewWeighted(maxWalked), make(chan struct{}, decodedAtOnce)}
}

// take waits for room for so much, or for all there is. It is given back by what it returns.
func take(room *semaphore.Weighted, n, most int64) (giveBack func()) {
	n = min(n, most)
	_ = room.Acquire(context.Background(), n) // whoever has some gives it back once a call of the store ends
	return func() { room.Release(n) }
}

// load reads a node's text. release is to be called once it was taken apart.
func (x *Index) load(name string) (text []byte, release func(), err error) {
	giveBack := func() {}
	text, err = x.store.Load(name, func(size int64) { giveBack = take(x.rooms.texts, size, maxTexts) })
	x.rooms.decoding <- struct{}{}
	return text, func() {
		<-x.rooms.decoding
		giveBack()
	}, err
}

// walk gives a node of which the entries are to be walked through, with the lock held. Those of large ones wait for their turn, and have
// nothing in memory until then. done is to be called after the walk.
func (x *Index) walk(key nodeKey) (n *node, done func(), err error) {
	x.mu.Lock()
	n, err = x.loaded(key)
	if err != nil || n.weight <= smallWeight {
		return n, func() {}, err
	}
	weight := n.weight
	x.mu.Unlock()
	done = take(x.rooms.walked, weight, maxWalked)
	x.mu.Lock()
	if n, err = x.loaded(key); err == nil && n.split {
		done() // meanwhile: its parts want room of their own, for which nobody may wait who has some
		done = func() {}
	}
	return n, done, err
}
