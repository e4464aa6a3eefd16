package crawler

import (
	"errors"
	"io"

	"georep/crawler/source"
	"georep/slave"
	"georep/slave/delta"
)

// Of a large basis the strong sums come first, which are a third of the work at the slave and mostly all that is needed. What
// they leave is not worth the rest of the signature where it is little: so much, and that part of the file.
const (
	strongFirst = 32 << 20
	littleLeft  = 2 << 20
	littlePart  = 256
)

// What a signature takes in memory is bounded for all uploads of a session together: that of the largest that there is goes alone. A
// block weighs so much, and the comparison has buffers of some blocks.
const (
	blockWeight  = 24
	blockBuffers = 4
)

// sendDeltas sends the ranges that are missing, of which the basis may have parts. What is unchanged in place goes while
// the signature still comes.
func (s *sending) sendDeltas(ranges []slave.Range) error {
	q := slave.SumsQuery{GFID: s.spec.GFID, Version: s.spec.Version, Key: delta.NewKey()}
	shape := delta.Shape{Size: s.state.BasisSize, Block: s.state.BlockSize}
	sums, err := delta.NewGrowing(q.Key, shape)
	if err != nil {
		return err
	}
	blocks := min(shape.Blocks()+blockBuffers*int64(shape.Block)/blockWeight, delta.MaxBlocks)
	if err := s.w.c.blocks.Acquire(s.ctx, blocks); err != nil {
		return err
	}
	defer s.w.c.blocks.Release(blocks)
	inPlace := s.comparable()
	if inPlace && s.state.BasisSize >= s.w.c.large {
		q.Which = uint8(delta.OnlyStrong)
	}
	s.group.Go(func() error { return s.fetchAll(q, sums) })
	if inPlace {
		if ranges, err = s.sendInPlace(sums); err != nil {
			return err
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	index, err := sums.Index(s.ctx)
	if err != nil {
		return err
	}
	if delta.Which(q.Which) == delta.OnlyStrong {
		left := int64(0)
		for _, r := range ranges {
			left += r.End - r.Off
		}
		if left <= min(littleLeft, s.spec.Size/littlePart) {
			return s.sendAll(ranges)
		}
		q.Which = uint8(delta.OnlyWeak)
		if err := s.fetch(q, index.AddWeak); err != nil {
			return err
		}
	}
	for _, r := range ranges {
		if err := s.sendDelta(r, index); err != nil {
			return err
		}
	}
	return nil
}

// fetchAll gets a signature of the basis.
func (s *sending) fetchAll(q slave.SumsQuery, sums *delta.Growing) error {
	err := s.fetch(q, sums.Add)
	sums.End(err)
	return err
}

// fetch gets a signature of the basis, piece by piece.
func (s *sending) fetch(q slave.SumsQuery, add func(first int64, blocks []delta.Block) error) error {
	var blocks []delta.Block
	r, err := s.w.c.opts.Tree.Sums(s.ctx, q, func(first int64, text []byte) error {
		var err error
		if blocks, err = delta.Which(q.Which).ParseBlocks(blocks[:0], text); err != nil {
			return err
		}
		return add(first, blocks)
	})
	if err != nil {
		return &sessionError{err}
	}
	return r.Err
}

// sendDelta sends a range of which the basis may have parts.
func (s *sending) sendDelta(r slave.Range, index *delta.Index) error {
	e, err := delta.NewEncoder(index, (&runs{src: s.src, at: r.Off, end: r.End}).next)
	if err != nil {
		return err
	}
	out := &segmenter{s: s, at: r.Off}
	for {
		i, err := e.Next()
		if errors.Is(err, io.EOF) {
			return out.flush(r.End)
		}
		if err != nil {
			return sourceError(err)
		}
		if err := out.instruction(i); err != nil {
			return err
		}
	}
}

// instruction takes what the encoder says. Its data are copied, in as many parts as they need.
func (g *segmenter) instruction(i delta.Instruction) error {
	if err := g.hole(i.Off); err != nil {
		return err
	}
	if i.Data == nil {
		if _, err := g.room(); err != nil {
			return err
		}
		return g.add(slave.Part{Off: i.Off, Len: i.Len, From: i.From})
	}
	for off, data := i.Off, i.Data; len(data) > 0; {
		b, err := g.room()
		if err != nil {
			return err
		}
		n := copy(b, data)
		if err := g.add(slave.Part{Off: off, Data: b[:n]}); err != nil {
			return err
		}
		off, data = off+int64(n), data[n:]
	}
	return nil
}

// runs gives the encoder a range of a file, run by run of data.
type runs struct {
	src     source.File
	at, end int64
	buf     []byte
}

// next is a delta.Source. A file that has become shorter reads as zeros from there on: it is torn, and comes back.
func (r *runs) next() (int64, []byte, error) {
	start, end, err := r.src.Data(r.at, r.end)
	if err != nil {
		return 0, nil, err
	}
	if start >= r.end {
		return 0, nil, io.EOF
	}
	if r.buf == nil {
		r.buf = make([]byte, slave.MaxPiece)
	}
	b := r.buf[:min(int64(len(r.buf)), end-start)]
	n, err := r.src.ReadAt(b, start)
	if err != nil {
		return 0, nil, err
	}
	clear(b[n:])
	r.at = start + int64(len(b))
	return start, b, nil
}
