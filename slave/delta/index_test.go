package delta

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

func testBlocks(n int, seed uint64, kinds int) []Block {
	r := rand.New(rand.NewPCG(seed, 1))
	blocks := make([]Block, n)
	for i := range blocks {
		k := uint64(r.IntN(kinds))
		blocks[i] = Block{Weak: k / 3 * 0x9e3779b97f4a7c15 & weakMask, Strong: [StrongSize]byte{byte(k), byte(k >> 8), byte(k >> 16)}}
	}
	return blocks
}

// TestIndexFinds compares with a map: all different, many equal, all equal; in pieces, and with gaps.
func TestIndexFinds(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 100, chunkSize - 1, chunkSize, chunkSize + 1, 20_000} {
		for _, kinds := range []int{1, 2, 7, 300, 1 << 22} {
			for _, gaps := range []bool{false, true} {
				checkIndex(t, testBlocks(n, uint64(n), kinds), gaps)
			}
		}
	}
}

func checkIndex(t *testing.T, blocks []Block, gaps bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 5))
	x, err := NewIndex(testKey, Shape{Size: MaxBlocks * 16, Block: 16}, MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	want := map[Block]int64{}
	numbers := map[int64]Block{}
	next := int64(0)
	for rest := blocks; len(rest) > 0; {
		part := rest[:1+r.IntN(min(len(rest), 3000))]
		if gaps {
			next += r.Int64N(5)
		}
		if err := x.Add(next, part); err != nil {
			t.Fatal(err)
		}
		for _, b := range part {
			if _, ok := want[b]; !ok {
				want[b] = next
			}
			numbers[next] = b
			next++
		}
		rest = rest[len(part):]
	}
	x.Seal()
	x.Seal()
	if x.Len() != len(blocks) {
		t.Fatalf("%d blocks, expected %d", x.Len(), len(blocks))
	}
	for b, n := range want {
		if got, ok := x.find(b); !ok || got != n || !x.has(b.Weak) {
			t.Fatalf("block %d of %d: found %d, %v", n, len(blocks), got, ok)
		}
		if !x.filter.get(b.Weak) {
			t.Fatalf("block %d is not in the filter", n)
		}
		b.Strong[StrongSize-1] = 1
		if _, ok := x.find(b); ok {
			t.Fatal("found what is not there")
		}
	}
	for range 1000 {
		if w := r.Uint64N(1 << weakBits); x.has(w) && !slices.ContainsFunc(blocks, func(b Block) bool { return b.Weak == w }) {
			t.Fatal("has a sum that is not there")
		}
	}
	for n := int64(-2); n < next+3; n++ {
		want, ok := numbers[n]
		if got := x.block(n); (got != nil) != ok || ok && *got != want {
			t.Fatalf("block %d: %v", n, got)
		}
	}
}

// TestIndexErrors expects that what cannot be is refused and changes nothing.
func TestIndexErrors(t *testing.T) {
	x, err := NewIndex(testKey, Shape{Size: 100*16 + 1, Block: 16}, 90)
	if err != nil {
		t.Fatal(err)
	}
	blocks := testBlocks(200, 1, 1000)
	good := func(first int64, n int) {
		t.Helper()
		if err := x.Add(first, blocks[:n]); err != nil {
			t.Error(err)
		}
	}
	bad := func(first int64, n int) {
		t.Helper()
		before := x.Len()
		if err := x.Add(first, blocks[:n]); !errors.Is(err, ErrMalformed) || x.Len() != before {
			t.Errorf("%d blocks from %d: %v", n, first, err)
		}
	}
	bad(0, 91)
	bad(-1, 1)
	bad(101, 1)
	bad(100, 2)
	bad(1<<63-1, 1)
	bad(-1<<63, 1)
	good(5, 10)
	bad(14, 1)
	bad(0, 1)
	good(15, 1)
	good(1<<62, 0)
	good(20, 78)
	good(100, 1) // the short one, and the 90th
	bad(101, 1)
	x.Seal()
	bad(0, 1)
	if x.tail() == nil || x.full != 89 {
		t.Errorf("%d full blocks, tail %v", x.full, x.tail())
	}
	var empty *Index
	if empty, err = NewIndex(testKey, Shape{Size: 100, Block: 16}, 0); err != nil {
		t.Fatal(err)
	}
	if err := empty.Add(0, blocks[:1]); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// TestIndexMemory holds the largest index to what the package's documentation says.
func TestIndexMemory(t *testing.T) {
	var before, after runtime.MemStats
	blocks := make([]Block, 1000)
	runtime.GC()
	runtime.ReadMemStats(&before)
	x, err := NewIndex(testKey, Shape{Size: 1 << 62, Block: MaxBlockSize}, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for n := int64(0); n < MaxBlocks; {
		part := blocks[:min(int64(len(blocks)), MaxBlocks-n)]
		for i := range part {
			part[i].Weak = r.Uint64N(1 << weakBits)
		}
		if err := x.Add(n, part); err != nil {
			t.Fatal(err)
		}
		n += int64(len(part))
	}
	x.Seal()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 40<<20 {
		t.Errorf("%d bytes for %d blocks", used, x.Len())
	}
	if err := x.Add(MaxBlocks, blocks[:1]); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	runtime.KeepAlive(x)
}

// TestWeakSumsLater: an index of strong sums that gets the weak ones later is the one of both.
func TestWeakSumsLater(t *testing.T) {
	basis := random(100*64+10, 1)
	shape := Shape{Size: int64(len(basis)), Block: 64}
	later, err := NewIndex(testKey, shape, MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	hole := func(off int64) (int64, int64, error) { // blocks 10 to 19
		if off < 640 {
			return off, 640, nil
		}
		return max(off, 1280), shape.Size, nil
	}
	sign := func(which Which, emit func(int64, []Block) error) {
		t.Helper()
		s := Signer{Key: testKey, Shape: shape, Basis: bytes.NewReader(basis), Which: which, Every: 7, Emit: emit, Extent: hole}
		if err := s.Sign(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	both, err := NewIndex(testKey, shape, MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	sign(Both, both.Add)
	sign(OnlyStrong, later.Add)
	if b := later.block(5); b.Weak != 0 || b.Strong != both.block(5).Strong {
		t.Errorf("of strong sums: %v", b)
	}
	sign(OnlyWeak, later.AddWeak)
	for n := range shape.Blocks() {
		a, b := both.block(n), later.block(n)
		if (a == nil) != (n >= 10 && n < 20) || (b == nil) != (a == nil) || a != nil && *a != *b {
			t.Errorf("block %d: %v and %v", n, a, b)
		}
	}
	if err := later.AddWeak(12, []Block{{Weak: 1}}); !errors.Is(err, ErrMalformed) {
		t.Errorf("the weak sum of a hole: %v", err)
	}
	if err := later.AddWeak(shape.Blocks()-1, make([]Block, 2)); !errors.Is(err, ErrMalformed) {
		t.Errorf("the weak sum of what lies behind the end: %v", err)
	}
	later.Seal()
	if err := later.AddWeak(0, []Block{{Weak: 1}}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a weak sum behind the end: %v", err)
	}
}
