package delta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Block holds the sums of one block.
type Block struct {
	Weak   uint64 // below 2^40
	Strong [StrongSize]byte
}

// Which of the sums a signature has.
type Which uint8

// The strong sums alone tell what is unchanged in place, for a third of the work; the weak ones alone are the rest
// (Index.AddWeak).
const (
	Both Which = iota
	OnlyStrong
	OnlyWeak
)

// EncodedSize is the length of a Block on the wire, in bytes: the weak sum, big-endian, and the strong one, as far as the
// signature has them.
func (w Which) EncodedSize() int { return w.weakSize() + w.strongSize() }

func (w Which) weakSize() int {
	if w == OnlyStrong {
		return 0
	}
	return weakBits / 8
}

func (w Which) strongSize() int {
	if w == OnlyWeak {
		return 0
	}
	return StrongSize
}

// Check says with ErrMalformed that w is none of the constants.
func (w Which) Check() error {
	if w > OnlyWeak {
		return fmt.Errorf("a signature of sums of kind %d: %w", w, ErrMalformed)
	}
	return nil
}

// AppendBlocks appends the blocks' wire form to b.
func (w Which) AppendBlocks(b []byte, blocks []Block) []byte {
	for i := range blocks {
		var weak [8]byte
		binary.BigEndian.PutUint64(weak[:], blocks[i].Weak)
		b = append(b, weak[8-w.weakSize():]...)
		b = append(b, blocks[i].Strong[:w.strongSize()]...)
	}
	return b
}

// ParseBlocks appends the blocks of which b is the wire form to blocks. They keep no part of b; a sum that the signature
// lacks is zero.
func (w Which) ParseBlocks(blocks []Block, b []byte) ([]Block, error) {
	size, weakSize := w.EncodedSize(), w.weakSize()
	if len(b)%size != 0 {
		return blocks, fmt.Errorf("%d bytes of block sums, not a multiple of %d: %w", len(b), size, ErrMalformed)
	}
	for ; len(b) > 0; b = b[size:] {
		var weak [8]byte
		copy(weak[8-weakSize:], b[:weakSize])
		block := Block{Weak: binary.BigEndian.Uint64(weak[:])}
		copy(block.Strong[:], b[weakSize:size])
		blocks = append(blocks, block)
	}
	return blocks, nil
}

// Signer computes the signature of a basis.
type Signer struct {
	Key   Key
	Shape Shape
	Basis io.ReaderAt
	// Which sums are computed; the others are zero.
	Which Which
	// Every bounds the blocks given to one call of Emit; 0 means 1024.
	Every int
	// Emit is given the sums of blocks first, first+1, ... in ascending order; they are its own only until it returns.
	// An error of it ends the signing and is returned as it is.
	Emit func(first int64, blocks []Block) error
	// Extent, if there is one, finds the next range [start, end) of data at or after an offset, as SEEK_DATA and
	// SEEK_HOLE do, or says io.EOF if there is none. Blocks without data are then left out.
	Extent func(off int64) (start, end int64, err error)
}

// readSize is how much of a basis is read at once, if a block is not longer.
const readSize = 256 << 10

// signing is a Signer at work.
type signing struct {
	Signer
	sums   *sums
	buf    []byte
	first  int64   // number of blocks[0]
	blocks []Block // not yet emitted
}

// Sign reads the basis once, in order, and returns when all of it is signed. A basis that is shorter than its shape
// says is an error that wraps io.ErrUnexpectedEOF. The context is looked at before each read.
func (s Signer) Sign(ctx context.Context) error {
	if err := errors.Join(s.Which.Check(), s.Shape.Check()); err != nil {
		return err
	}
	sums, err := newSums(s.Key)
	if err != nil {
		return err
	}
	if s.Every <= 0 {
		s.Every = 1024
	}
	g := &signing{Signer: s, sums: sums}
	perRead := int64(max(1, readSize/s.Shape.Block))
	total := s.Shape.Blocks()
	for n, end := int64(0), int64(0); ; {
		if n >= end {
			if n, end, err = g.extent(n, total); err != nil {
				return err
			}
			if n >= end {
				return g.flush()
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		count := min(perRead, end-n)
		if err := g.read(n, count); err != nil {
			return err
		}
		n += count
	}
}

// extent is the next range of blocks, at or after n, that have data; an empty one if there is none.
func (g *signing) extent(n, total int64) (from, to int64, err error) {
	if g.Extent == nil || n >= total {
		return n, total, nil
	}
	size := int64(g.Shape.Block)
	start, end, err := g.Extent(n * size)
	if err == io.EOF {
		return n, n, nil
	}
	if err != nil {
		return n, n, fmt.Errorf("find data of the basis from %d: %w", n*size, err)
	}
	if start < n*size || end <= start {
		return n, n, fmt.Errorf("data of the basis from %d: an impossible range %d to %d", n*size, start, end)
	}
	from = min(start/size, total)
	return from, min((end-1)/size+1, total), nil
}

// read signs count blocks from n on.
func (g *signing) read(n, count int64) error {
	off := n * int64(g.Shape.Block)
	length := min(count*int64(g.Shape.Block), g.Shape.Size-off)
	if int64(len(g.buf)) < length {
		g.buf = make([]byte, length)
	}
	b := g.buf[:length]
	if got, err := g.Basis.ReadAt(b, off); got < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes of the basis at %d: %w", len(b), off, err)
	}
	for ; len(b) > 0; n++ {
		block := b[:g.Shape.length(n)]
		b = b[len(block):]
		var sum Block
		if g.Which != OnlyStrong {
			sum.Weak = g.sums.weak(block)
		}
		if g.Which != OnlyWeak {
			sum.Strong = g.sums.strong(block)
		}
		if err := g.add(n, sum); err != nil {
			return err
		}
	}
	return nil
}

// add appends block n to those to be emitted, and emits them if they are enough or n does not follow on them.
func (g *signing) add(n int64, block Block) error {
	if len(g.blocks) == g.Every || n != g.first+int64(len(g.blocks)) {
		if err := g.flush(); err != nil {
			return err
		}
	}
	if len(g.blocks) == 0 {
		g.first = n
	}
	g.blocks = append(g.blocks, block)
	return nil
}

func (g *signing) flush() error {
	if len(g.blocks) == 0 {
		return nil
	}
	err := g.Emit(g.first, g.blocks)
	g.blocks = g.blocks[:0]
	return err
}
