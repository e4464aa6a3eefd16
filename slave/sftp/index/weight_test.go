package index

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"georep/slave"
)

// TestNodesAreSplitByWeight: nodes of long xattrs are small in the store, and one that an earlier version wrote is taken as it is.
func TestNodesAreSplitByWeight(t *testing.T) {
	m := newMemory()
	x := New(m)
	of := func(i int) Entry {
		return Entry{Kind: slave.File, ID: ID(100 + i), Meta: slave.Meta{Xattrs: []slave.Xattr{{Name: "user.x", Value: make([]byte, 60_000+i)}}}}
	}
	const n = 400
	for i := range n {
		if err := x.Set(Root, name(i), of(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Flush(nil); err != nil {
		t.Fatal(err)
	}
	for name, text := range m.nodes {
		if len(text) > maxWeight+64<<10 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
	for i := range n {
		if e, ok, err := New(m).Get(Root, name(i)); err != nil || !ok || len(e.Meta.Xattrs[0].Value) != 60_000+i {
			t.Fatalf("%q: %v, %v", name(i), ok, err)
		}
	}
	if weight := weightIn(x); x.cached != weight || weight > maxCached {
		t.Errorf("%d bytes are cached, and counted as %d", weight, x.cached)
	}
}

// weightIn is what the clean nodes take.
func weightIn(x *Index) (all int64) {
	for e := x.lru.Front(); e != nil; e = e.Next() {
		n := e.Value.(*node)
		all += nodeCost + weightOf(n.entries)
	}
	return all
}

// TestLargeNodesOfEarlierVersions: they had what came within a flush, and whatever of xattrs.
func TestLargeNodesOfEarlierVersions(t *testing.T) {
	for what, c := range map[string]struct{ n, xattr int }{"entries": {40_000, 0}, "xattrs": {2048, 8 << 10}} {
		t.Run(what, func(t *testing.T) {
			m, entries := newMemory(), map[string]Entry{}
			for i := range c.n {
				e := version(i, 1)
				if c.xattr > 0 {
					e.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: make([]byte, c.xattr)}}
				}
				entries[fmt.Sprint(i)] = e
			}
			key := nodeKey{dir: Root}
			m.nodes[key.file()] = encode(false, entries)
			x := New(m)
			if got := all(t, m, Root); len(got) != c.n {
				t.Fatalf("%d of %d entries", len(got), c.n)
			}
			if err := x.Set(Root, "another", version(0, 2)); err != nil {
				t.Fatal(err)
			}
			if err := x.Flush(nil); err != nil {
				t.Fatal(err)
			}
			if got := all(t, m, Root); len(got) != c.n+1 {
				t.Errorf("%d of %d entries after a change", len(got), c.n+1)
			}
			for name, text := range m.nodes {
				if _, entries, err := decode(text); err != nil || len(entries) > maxNode || len(text) > maxWeight+64<<10 {
					t.Errorf("%s: %d entries in %d bytes, %v", name, len(entries), len(text), err)
				}
			}
		})
	}
}

// TestNodeIsSplitBeforeItIsWalked: a node that is split while a walk waits for room has nothing to hold room for, and its parts get
// theirs.
func TestNodeIsSplitBeforeItIsWalked(t *testing.T) {
	x := New(newMemory())
	set := func(i int) {
		t.Helper()
		e := Entry{Kind: slave.File, ID: ID(100 + i), Meta: slave.Meta{Xattrs: []slave.Xattr{{Name: "user.x", Value: make([]byte, 1<<20)}}}}
		if err := x.Set(Root, name(i), e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range leastToSplit - 1 {
		set(i)
	}
	if !x.rooms.walked.TryAcquire(maxWalked) {
		t.Fatal("somebody walks")
	}
	seen, ended := 0, make(chan error, 1)
	go func() { ended <- x.Each(Root, func(string, Entry) bool { seen++; return true }) }()
	waits := func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("semaphore.(*Weighted).Acquire"))
	}
	for end := time.Now().Add(time.Minute); !waits(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the walk does not wait for room")
		}
	}
	set(leastToSplit)
	x.rooms.walked.Release(maxWalked)
	select {
	case err := <-ended:
		if err != nil || seen != leastToSplit {
			t.Errorf("%d of %d entries, %v", seen, leastToSplit, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the walk waits for room that it has")
	}
}
