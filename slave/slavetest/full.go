package slavetest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// FullSize is the size of the file system that RunFull wants, in bytes.
const FullSize = 64 << 20

// half is the size of its files.
const half = 512 << 10

// RunFull holds a kind of slave, on a file system of FullSize, to making room on it: what is parked goes when there is none left,
// the oldest first and no more than has to, and it is told.
func RunFull(t *testing.T, open Claimer, root string) {
	tree, err := open(t, root, ours)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &Fixture{T: t, Tree: tree, Root: root}
	f.fill("old", 0, 40)
	f.fill("young", 100, 40)
	f.parkAll("old", 0, 40)
	<-time.After(1100 * time.Millisecond) // the least that all slaves tell apart
	f.parkAll("young", 100, 40)
	evicted := f.fill("new", 200, 56)
	if !evicted {
		t.Error("nobody was told that something went before its time")
	}
	for i := range 56 {
		if st, err := os.Stat(f.Path(fmt.Sprintf("new%d", i))); err != nil || st.Size() != half {
			t.Errorf("new%d: %v", i, err)
		}
	}
	if n := f.parked(0, 40); n == 0 || n == 40 {
		t.Errorf("%d of 40 that were removed first are there still", n)
	}
	if n := f.parked(100, 40); n != 40 {
		t.Errorf("%d of 40 that were removed last are there still", n)
	}
}

// fill puts n files, whose inodes are told apart from first on, and tells whether anything was evicted for that.
func (f *Fixture) fill(name string, first, n int) (evicted bool) {
	f.Helper()
	text := strings.Repeat("0123456789abcdef", half/16)
	for i := 0; i < n; i += 8 {
		var ops []slave.Op
		for j := i; j < i+8; j++ {
			ops = append(ops, Put(fmt.Sprint(name, j), Rec(first+j, 1), text))
		}
		for j, r := range f.Apply(ops...) {
			if r.Err != nil {
				f.Fatalf("%s%d: %v", name, i+j, r.Err)
			}
			evicted = evicted || r.Evicted
		}
	}
	return evicted
}

// parkAll removes them again.
func (f *Fixture) parkAll(name string, first, n int) {
	f.Helper()
	var ops []slave.Op
	for i := range n {
		ops = append(ops, Park(fmt.Sprint(name, i), GFID(first+i)))
	}
	f.Must(ops...)
}

// parked counts which of n inodes, from first on, are parked.
func (f *Fixture) parked(first, n int) (count int) {
	f.Helper()
	var gfids []xtime.GFID
	for i := range n {
		gfids = append(gfids, GFID(first+i))
	}
	found, err := f.Tree.Find(context.Background(), gfids)
	if err != nil {
		f.Fatal(err)
	}
	for _, at := range found {
		if at.Parked {
			count++
		}
	}
	return count
}
