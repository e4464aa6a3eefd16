package delta

import (
	"errors"
	"fmt"
	"math"
)

// Bounds. The wire's other end may be of another version, but has the same.
const (
	MinBlockSize = 2 << 10
	MaxBlockSize = 8 << 20
	// MaxBlocks bounds the blocks of one signature. What a basis has beyond them is not signed.
	MaxBlocks = 1 << 20
	// MaxData bounds the data of one instruction, in bytes.
	MaxData = 256 << 10
	// MaxCopy bounds the range that one instruction takes from the basis, so that the slave's end has something to do
	// while the master's is still reading an unchanged file.
	MaxCopy = 64 << 20
)

// usualBlockSize is where blocks stop growing with the file, until there would be too many.
const usualBlockSize = 128 << 10

// ErrMalformed is wrapped by errors about what the peer sent: sums, signatures and instructions that cannot be.
var ErrMalformed = errors.New("malformed delta")

// BlockSize is the length of the blocks for a basis of size bytes: a power of two, at least its root times sqrt(2).
func BlockSize(size int64) int {
	b := int64(MinBlockSize)
	for b < usualBlockSize && b*b < 2*min(size, math.MaxInt64/2) {
		b *= 2
	}
	for b < MaxBlockSize && size/b >= MaxBlocks {
		b *= 2
	}
	return int(b)
}

// Shape is a basis cut into blocks: block n begins at n*Block. All have that length but the last, which ends where the
// basis does.
type Shape struct {
	Size  int64 // of the basis, in bytes
	Block int   // length of a block, in bytes
}

// NewShape cuts a basis of size bytes as BlockSize says.
func NewShape(size int64) Shape {
	return Shape{Size: size, Block: BlockSize(size)}
}

// Check says whether there is such a shape. One that came over a wire must be checked.
func (s Shape) Check() error {
	if s.Size < 0 || s.Block < 1 || s.Block > MaxBlockSize {
		return fmt.Errorf("a basis of %d bytes in blocks of %d: %w", s.Size, s.Block, ErrMalformed)
	}
	return nil
}

// Blocks is the number of blocks that have a signature.
func (s Shape) Blocks() int64 {
	n := s.Size / int64(s.Block)
	if s.Size%int64(s.Block) != 0 {
		n++
	}
	return min(n, MaxBlocks)
}

// length is that of block n, in bytes, for 0 <= n < Blocks().
func (s Shape) length(n int64) int {
	return int(min(int64(s.Block), s.Size-n*int64(s.Block)))
}

// tail is the length of the last block, if that is a short one and has a signature, else 0.
func (s Shape) tail() int {
	if n := s.Blocks(); n > 0 {
		if l := s.length(n - 1); l < s.Block {
			return l
		}
	}
	return 0
}
