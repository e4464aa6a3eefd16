package delta

import (
	"bytes"
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// chunkSize is the number of blocks in each piece of an index, so that growing copies nothing.
const chunkSize = 4096

// Index finds blocks of a basis by their sums. It is filled with Add, in any number of calls, and closed with Seal;
// from then on it is only read, by any number of users at once.
//
// The full blocks are sorted by their sums (order), and a directory by the highest bits of the weak sum, which spreads
// evenly, says where in that order to look. Both are arrays of numbers, and a search is quick also if all sums are
// equal. What has the wrong length to be found by rolling, the short last block, is kept apart.
type Index struct {
	key   Key
	shape Shape
	limit int

	chunks [][]Block // entries in the order of the basis, chunkSize each
	count  int       // entries
	runs   []run     // which blocks they are

	sealed    bool
	full      int      // entries that are full blocks
	order     []uint32 // of them, by weak sum, strong sum, number
	directory []uint32 // order[directory[d]:directory[d+1]] are those whose weak sum begins with d
	shift     int      // weak >> shift is its place in the directory
	filter    filter
}

// filter is a bitmap of 64 bits a block, up to 128, so that most new content goes no further than to one bit of it. A
// weak sum sets two, one by its lowest bits and one by those from secondBit on. The length is a power of two.
type filter []uint64

const (
	secondBit = 15
	// maxFilter is the binary logarithm of the longest filter: 4 MiB, 32 bits a block at MaxBlocks.
	maxFilter = 19
)

func (f filter) set(bit uint64) { f[bit>>6&uint64(len(f)-1)] |= 1 << (bit & 63) }

func (f filter) get(bit uint64) bool { return f[bit>>6&uint64(len(f)-1)]>>(bit&63)&1 != 0 }

// run says that the entries from entry on are the blocks from block on, until the next run.
type run struct {
	block, entry uint32
}

// NewIndex is an empty index for a basis of that shape under that key, that takes at most limit blocks.
func NewIndex(key Key, shape Shape, limit int) (*Index, error) {
	if err := shape.Check(); err != nil {
		return nil, err
	}
	return &Index{key: key, shape: shape, limit: min(limit, MaxBlocks)}, nil
}

// Len is the number of blocks that were added.
func (x *Index) Len() int { return x.count }

// Add adds the blocks with the numbers first, first+1, ...; calls come in ascending order, gaps are allowed. The blocks
// are copied. After an error the index is as before the call.
func (x *Index) Add(first int64, blocks []Block) error {
	n := int64(len(blocks))
	switch {
	case x.sealed:
		return fmt.Errorf("blocks %d to %d come after the signature's end: %w", first, first+n-1, ErrMalformed)
	case n == 0:
		return nil
	case n > int64(x.limit-x.count):
		return fmt.Errorf("signature of more than %d blocks: %w", x.limit, ErrMalformed)
	case first < x.next() || first > x.shape.Blocks()-n:
		return fmt.Errorf("blocks from %d, %d of them, where %d to %d are possible: %w", first, n, x.next(),
			x.shape.Blocks()-1, ErrMalformed)
	}
	if first != x.next() || x.count == 0 {
		x.runs = append(x.runs, run{block: uint32(first), entry: uint32(x.count)})
	}
	for len(blocks) > 0 {
		at := x.count % chunkSize
		if at == 0 {
			x.chunks = append(x.chunks, x.newChunk())
		}
		part := blocks[:min(len(blocks), chunkSize-at)]
		last := &x.chunks[len(x.chunks)-1]
		*last = append(*last, part...)
		x.count += len(part)
		blocks = blocks[len(part):]
	}
	return nil
}

// AddWeak completes blocks of which Add was given the strong sums alone.
func (x *Index) AddWeak(first int64, blocks []Block) error {
	if x.sealed {
		return fmt.Errorf("weak sums from block %d come after the signature's end: %w", first, ErrMalformed)
	}
	for i := range blocks {
		b := x.block(first + int64(i))
		if b == nil {
			return fmt.Errorf("a weak sum of block %d, which has no strong one: %w", first+int64(i), ErrMalformed)
		}
		b.Weak = blocks[i].Weak
	}
	return nil
}

// newChunk is an empty piece. The first grows as it is filled, for most files have few blocks.
func (x *Index) newChunk() []Block {
	if len(x.chunks) == 0 {
		return nil
	}
	return make([]Block, 0, chunkSize)
}

// next is the lowest number that the following block may have.
func (x *Index) next() int64 {
	if len(x.runs) == 0 {
		return 0
	}
	r := x.runs[len(x.runs)-1]
	return int64(r.block) + int64(x.count) - int64(r.entry)
}

// Seal says that the signature is complete. It is idempotent. An Encoder seals its index.
func (x *Index) Seal() {
	if x.sealed {
		return
	}
	x.sealed = true
	x.full = x.count
	if x.tail() != nil {
		x.full--
	}
	if x.full == 0 {
		return
	}
	width := bits.Len(uint(x.full - 1)) // of the directory, in bits: one place a block or up to two
	x.shift = weakBits - width
	x.filter = make(filter, 1<<min(width, maxFilter))
	x.directory = make([]uint32, 1<<width+1)
	x.order = make([]uint32, x.full)
	x.sort()
}

// sort fills the directory, the order and the filter: a counting sort by directory place, then each place by itself.
func (x *Index) sort() {
	for i := range x.full {
		w := x.at(i).Weak
		x.directory[w>>x.shift+1]++
		x.filter.set(w)
		x.filter.set(w >> secondBit)
	}
	for d := 1; d < len(x.directory); d++ {
		x.directory[d] += x.directory[d-1]
	}
	// Each place is filled from its end, which leaves its beginning in the directory one place to the right.
	for i := x.full - 1; i >= 0; i-- {
		at := &x.directory[x.at(i).Weak>>x.shift+1]
		*at--
		x.order[*at] = uint32(i)
	}
	copy(x.directory, x.directory[1:])
	x.directory[len(x.directory)-1] = uint32(x.full)
	for d := range len(x.directory) - 1 {
		if part := x.order[x.directory[d]:x.directory[d+1]]; len(part) > 1 {
			slices.SortFunc(part, func(i, j uint32) int {
				return cmp.Or(x.at(int(i)).compare(x.at(int(j))), cmp.Compare(i, j))
			})
		}
	}
}

func (b *Block) compare(c *Block) int {
	if b.Weak != c.Weak {
		return cmp.Compare(b.Weak, c.Weak)
	}
	return bytes.Compare(b.Strong[:], c.Strong[:])
}

// at is entry i.
func (x *Index) at(i int) *Block {
	return &x.chunks[i/chunkSize][i%chunkSize]
}

// block is block n, nil if it has no entry.
func (x *Index) block(n int64) *Block {
	if n < 0 || n >= x.next() {
		return nil
	}
	// The run is the last that begins at or before n; the block may lie in the gap after it.
	i := sort.Search(len(x.runs), func(i int) bool { return int64(x.runs[i].block) > n }) - 1
	if i < 0 {
		return nil
	}
	entry := int64(x.runs[i].entry) + n - int64(x.runs[i].block)
	if i+1 < len(x.runs) && entry >= int64(x.runs[i+1].entry) {
		return nil
	}
	return x.at(int(entry))
}

// number is that of the block whose entry is i.
func (x *Index) number(i int) int64 {
	r := x.runs[sort.Search(len(x.runs), func(k int) bool { return int(x.runs[k].entry) > i })-1]
	return int64(r.block) + int64(i) - int64(r.entry)
}

// tail is the short last block, nil if there is none.
func (x *Index) tail() *Block {
	if x.shape.tail() == 0 {
		return nil
	}
	return x.block(x.shape.Blocks() - 1)
}

// has says whether a full block has that weak sum.
func (x *Index) has(weak uint64) bool {
	if x.full == 0 || !x.filter.get(weak>>secondBit) {
		return false
	}
	_, ok := x.search(&Block{Weak: weak})
	return ok
}

// find is the number of the first full block with those sums.
func (x *Index) find(sums Block) (int64, bool) {
	if x.full == 0 {
		return 0, false
	}
	i, ok := x.search(&sums)
	if !ok || *x.at(i) != sums {
		return 0, false
	}
	return x.number(i), true
}

// search finds the first entry that is not less than want, and says whether it has want's weak sum.
func (x *Index) search(want *Block) (entry int, ok bool) {
	d := want.Weak >> x.shift
	lo, end := x.directory[d], x.directory[d+1]
	for hi := end; lo < hi; {
		if mid := lo + (hi-lo)/2; x.at(int(x.order[mid])).compare(want) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == end {
		return 0, false
	}
	entry = int(x.order[lo])
	return entry, x.at(entry).Weak == want.Weak
}
