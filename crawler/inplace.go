package crawler

import (
	"math"

	"georep/slave"
	"georep/slave/delta"
)

// Bounds of the comparison in place.
const (
	inPlaceMisses = 64      // one more than there were matches, by so much, and the rest is left to the encoder
	inPlaceGaps   = 4096    // kept in memory
	inPlaceCopy   = 8 << 20 // the most that one part takes from the basis: the slave is to copy while this end reads
	inPlaceRead   = slave.MaxPiece
)

// inPlace goes through a file block by block, at the same offsets as the basis, while the signature comes: what is
// unchanged is sent on its way at once, and what is left, of which an encoder may find parts elsewhere, is returned. It
// gives up soon where little is in place, since an encoder reads that again.
type inPlace struct {
	s     *sending
	sums  *delta.Growing
	block int64
	buf   []byte

	run        slave.Range // unchanged, and not yet sent
	gaps       []slave.Range
	hits, miss int
}

// comparable tells whether a comparison in place makes sense: nothing has been sent yet, and there are no holes, of which
// the encoder knows.
func (s *sending) comparable() bool {
	return len(s.state.Have) == 0 && !s.src.Sparse() && s.spec.Size > 0
}

// sendInPlace sends what is unchanged, and returns the rest.
func (s *sending) sendInPlace(sums *delta.Growing) ([]slave.Range, error) {
	p := &inPlace{s: s, sums: sums, block: int64(s.state.BlockSize)}
	p.buf = make([]byte, max(p.block, inPlaceRead/p.block*p.block))
	for off := int64(0); off < s.spec.Size; {
		n, err := p.read(off)
		if err != nil {
			return nil, err
		}
		off += n
		shorter := n < min(int64(len(p.buf)), s.spec.Size-off+n) // torn, as the encoder will find
		if off < s.spec.Size && (shorter || p.miss > p.hits+inPlaceMisses || len(p.gaps) >= inPlaceGaps) {
			p.gap(slave.Range{Off: off, End: s.spec.Size})
			break
		}
	}
	return p.gaps, p.flush()
}

// read compares the blocks of one buffer from off on, and tells how much that was.
func (p *inPlace) read(off int64) (int64, error) {
	b := p.buf[:min(int64(len(p.buf)), p.s.spec.Size-off)]
	got, err := p.s.src.ReadAt(b, off)
	if err != nil {
		return 0, sourceError(err)
	}
	b = b[:got]
	for at := off; len(b) > 0; {
		content := b[:min(p.block, int64(len(b)))]
		same, err := p.sums.Same(p.s.ctx, at/p.block, content)
		if err != nil {
			return 0, err
		}
		r := slave.Range{Off: at, End: at + int64(len(content))}
		if err := p.put(r, same); err != nil {
			return 0, err
		}
		at, b = r.End, b[len(content):]
	}
	return int64(got), nil
}

// put takes the next range.
func (p *inPlace) put(r slave.Range, same bool) error {
	if !same {
		p.miss++
		p.gap(r)
		return p.flush()
	}
	p.hits++
	if p.run.End != r.Off || r.End-p.run.Off > inPlaceCopy {
		if err := p.flush(); err != nil {
			return err
		}
		p.run.Off = r.Off
	}
	p.run.End = r.End
	return nil
}

// gap leaves a range to the encoder.
func (p *inPlace) gap(r slave.Range) {
	if k := len(p.gaps) - 1; k >= 0 && p.gaps[k].End == r.Off {
		p.gaps[k].End = r.End
		return
	}
	p.gaps = append(p.gaps, r)
}

// flush sends the run.
func (p *inPlace) flush() error {
	r := p.run
	p.run = slave.Range{Off: math.MaxInt64, End: -1}
	if r.End <= r.Off {
		return nil
	}
	out := &segmenter{s: p.s, at: r.Off}
	if err := out.instruction(delta.Instruction{Off: r.Off, Len: r.End - r.Off, From: r.Off}); err != nil {
		return err
	}
	return out.flush(r.End)
}
