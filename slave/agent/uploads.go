package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"georep/slave"
)

// appendUpload encodes what an upload begins with.
func appendUpload(b []byte, u *slave.Upload) []byte {
	b = append(append(b, u.GFID[:]...), u.Version[:]...)
	return appendStr(binary.AppendUvarint(b, uint64(u.Size)), u.Basis)
}

// upload decodes what appendUpload made.
func (d *decoder) upload() (u slave.Upload) {
	u.GFID, u.Version = d.id16(), d.id16()
	u.Size, u.Basis = d.size(), d.str(maxPath)
	return u
}

// appendUploadState encodes what the slave has of an upload; the ranges are the rest of the frames.
func appendUploadState(b []byte, s *slave.UploadState) []byte {
	b = binary.AppendUvarint(b, uint64(max(s.BasisSize, 0)))
	b = binary.AppendUvarint(b, uint64(max(s.BlockSize, 0)))
	return appendError(b, s.Err)
}

// uploadState decodes the beginning of the answer; its ranges follow.
func (d *decoder) uploadState() (s slave.UploadState) {
	s.BasisSize = d.size()
	s.BlockSize = int(d.uvarint(maxBlock))
	s.Err = d.error()
	return s
}

// appendRange encodes a range, its end included as where the next begins.
func appendRange(b []byte, r slave.Range) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Off)), uint64(r.End))
}

// rangeCost is what a range takes while a list of them grows.
const rangeCost = 48

// nextRange decodes a range, which must lie behind the one before it.
func (d *decoder) nextRange(at int64) (r slave.Range) {
	r.Off, r.End = d.size(), d.size()
	if d.err == nil && (r.Off < at || r.End < r.Off) {
		d.fail("a range from %d to %d behind %d", r.Off, r.End, at)
	}
	return r
}

// appendSumsQuery encodes what a signature is asked of, and which of its sums.
func appendSumsQuery(b []byte, q slave.SumsQuery) []byte {
	return append(append(append(append(b, q.GFID[:]...), q.Version[:]...), q.Key[:]...), q.Which)
}

// sumsQuery decodes what appendSumsQuery made.
func (d *decoder) sumsQuery() (q slave.SumsQuery) {
	q.GFID, q.Version, q.Key, q.Which = d.id16(), d.id16(), d.id16(), d.u8()
	return q
}

// An answer to a Sign is a list of pieces of the signature, each with the number of its first block, and then a result.
const (
	sumsPiece  = 1
	sumsResult = 2
)

const (
	partData = 1
	partCopy = 2
)

// appendSegment encodes a segment that has passed checkSegment.
func appendSegment(b []byte, s *slave.Segment) []byte {
	b = appendRange(append(append(b, s.GFID[:]...), s.Version[:]...), s.Range)
	for i := range s.Parts {
		p := &s.Parts[i]
		if p.Data != nil {
			b = appendStr(binary.AppendUvarint(append(b, partData), uint64(p.Off)), p.Data)
			continue
		}
		b = append(b, partCopy)
		for _, v := range [...]int64{p.Off, p.Len, p.From} {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	return b
}

// segment decodes a segment. The data alias the frame. Whether it fits the upload is for the tree to say.
func (d *decoder) segment() (s slave.Segment) {
	s.GFID, s.Version = d.id16(), d.id16()
	s.Range = d.nextRange(0)
	data := 0
	for d.more() {
		p := d.part()
		data += len(p.Data)
		if s.Parts = append(s.Parts, p); len(s.Parts) > slave.MaxSegmentParts || data > slave.MaxSegmentData || p.Size() == 0 {
			d.fail("a segment of %d parts with %d bytes, or an empty part", len(s.Parts), data)
		}
	}
	return s
}

// part decodes a part of a segment: bytes, or where on the slave they are copied from.
func (d *decoder) part() (p slave.Part) {
	switch kind := d.u8(); kind {
	case partData:
		p.Off, p.Data = d.size(), d.bytes(slave.MaxSegmentData)
	case partCopy:
		p.Off, p.Len, p.From = d.size(), d.size(), d.size()
	default:
		d.fail("a part of kind %d", kind)
	}
	return p
}

// partsOf counts the parts of an encoded segment, as far as they are allowed.
func partsOf(b []byte) (n int) {
	d := decoder{b: b}
	d.raw(2 * 16)
	for d.nextRange(0); d.more() && n <= slave.MaxSegmentParts; n++ {
		d.part()
	}
	return n
}

// checkSegment tells what keeps a segment from being sent.
func checkSegment(s *slave.Segment) error {
	data := 0
	for i := range s.Parts {
		p := &s.Parts[i]
		data += len(p.Data)
		if p.Off < 0 || p.From < 0 || p.Size() <= 0 {
			return fmt.Errorf("%w: a part of %d bytes at %d", slave.ErrInvalid, p.Size(), p.Off)
		}
	}
	if len(s.Parts) > slave.MaxSegmentParts || data > slave.MaxSegmentData || s.Off < 0 || s.End < s.Off {
		return fmt.Errorf("%w: a segment of %d parts with %d bytes", slave.ErrInvalid, len(s.Parts), data)
	}
	return nil
}

// maxBlock bounds the length of a signature's blocks.
const maxBlock = 1 << 30

// once asks something whose answer is taken by accept, and waits for it.
func (c *Client) once(ctx context.Context, ask, answer frameKind, body func([]byte) []byte, accept func(*decoder, bool) error) error {
	k := c.begin(answer, accept)
	if err := c.ask(ctx, k, outgoing{head: head{kind: ask}, body: body}); err != nil {
		return err
	}
	return c.wait(ctx, k)
}

// Begin prepares an upload, or goes on with one.
func (c *Client) Begin(ctx context.Context, u *slave.Upload) (slave.UploadState, error) {
	if len(u.Basis) > maxPath || u.Size < 0 {
		return slave.UploadState{Err: &slave.PathError{Op: "upload", Path: u.Basis, Err: slave.ErrInvalid}}, nil
	}
	release, err := c.reserve(ctx, errorCost+slave.MaxRanges*rangeCost)
	if err != nil {
		return slave.UploadState{}, err
	}
	defer release()
	var state slave.UploadState
	begun, at := false, int64(0)
	err = c.once(ctx, frameBegin, frameBegun, func(b []byte) []byte { return appendUpload(b, u) },
		func(d *decoder, _ bool) error {
			if !begun {
				state, begun = d.uploadState(), true
			}
			for d.more() {
				r := d.nextRange(at)
				if at = r.End; d.err == nil && (r.End > u.Size || r.End == r.Off) {
					d.fail("a range from %d to %d of %d bytes", r.Off, r.End, u.Size)
				}
				if state.Have = append(state.Have, r); len(state.Have) > slave.MaxRanges {
					d.fail("the answer to a begin is beyond %d ranges", slave.MaxRanges)
				}
			}
			return d.err
		})
	if err != nil {
		return slave.UploadState{}, err
	}
	return state, nil
}

// Sums asks for the signature of an upload's basis. emit is called on the goroutine that reads the stream, so it must not
// wait.
func (c *Client) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	var result slave.Result
	var stopped error
	over := false
	err := c.once(ctx, frameSign, frameSigned, func(b []byte) []byte { return appendSumsQuery(b, q) },
		func(d *decoder, last bool) error {
			for d.more() && !over {
				switch item := d.u8(); item {
				case sumsPiece:
					first, sums := d.size(), d.bytes(slave.MaxSums)
					if d.err == nil && stopped == nil {
						stopped = emit(first, sums)
					}
				case sumsResult:
					result, over = d.result(), true
				default:
					d.fail("item %d of a signature", item)
				}
			}
			return complete(d, last, over)
		})
	if err != nil {
		return slave.Result{}, err
	}
	if stopped != nil {
		return slave.Result{Err: stopped}, nil
	}
	return result, nil
}

// Write sends a segment and waits until it is in its place.
func (c *Client) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	return c.writeSegment(ctx, s, func() {})
}

// writeSegment is Write that calls sent once the segment is on its way, or will never be.
func (c *Client) writeSegment(ctx context.Context, s *slave.Segment, sent func()) (slave.Result, error) {
	sent = sync.OnceFunc(sent)
	defer sent()
	if err := checkSegment(s); err != nil {
		return slave.Result{Err: &slave.PathError{Op: "write", Err: err}}, nil
	}
	var result slave.Result
	k := c.begin(frameWritten, func(d *decoder, _ bool) error { result = d.result(); return d.err })
	body := func(b []byte) []byte { return appendSegment(b, s) }
	if err := c.ask(ctx, k, outgoing{head: head{kind: frameWrite}, body: body}); err != nil {
		return slave.Result{}, err
	}
	sent()
	if err := c.wait(ctx, k); err != nil {
		return slave.Result{}, err
	}
	return result, nil
}

// Begin prepares an upload, or goes on with one.
func (g *Group) Begin(ctx context.Context, u *slave.Upload) (slave.UploadState, error) {
	state, err := g.main.Begin(ctx, u)
	return state, g.reason(g.main, err)
}

// Sums asks for the signature of an upload's basis.
func (g *Group) Sums(ctx context.Context, q slave.SumsQuery, emit func(int64, []byte) error) (slave.Result, error) {
	r, err := g.main.Sums(ctx, q, emit)
	return r, g.reason(g.main, err)
}

// Write sends a segment over a stream that sends no batch, and waits until it is in its place.
func (g *Group) Write(ctx context.Context, s *slave.Segment) (slave.Result, error) {
	c, err := g.take(ctx, true)
	if err != nil {
		return slave.Result{}, err
	}
	r, err := c.writeSegment(ctx, s, func() { g.give(c) })
	return r, g.reason(c, err)
}

// begin answers a Begin.
func (s *server) begin(u slave.Upload) func(*answer) error {
	return func(a *answer) error {
		tree, err := s.changed()
		if err != nil {
			return err
		}
		if err := s.finding.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.finding.Release(1)
		state, err := tree.Begin(a.ctx, &u)
		if err != nil {
			return err
		}
		a.kind = frameBegun
		if err := a.add(func(b []byte) []byte { return appendUploadState(b, &state) }); err != nil {
			return err
		}
		return reply(a, frameBegun, state.Have[:min(len(state.Have), slave.MaxRanges)], appendRange)
	}
}

// sums answers a Sums, piece by piece.
func (s *server) sums(q slave.SumsQuery) func(*answer) error {
	return func(a *answer) error {
		tree, err := s.changed()
		if err != nil {
			return err
		}
		a.kind = frameSigned
		result, err := tree.Sums(a.ctx, q, func(first int64, sums []byte) error {
			return a.add(func(b []byte) []byte {
				return appendStr(binary.AppendUvarint(append(b, sumsPiece), uint64(first)), sums)
			})
		})
		if err != nil {
			return err
		}
		if err := a.add(func(b []byte) []byte { return appendResult(append(b, sumsResult), &result) }); err != nil {
			return err
		}
		return a.end()
	}
}

// segments keeps the buffers of segments that were written.
var segments = sync.Pool{New: func() any { return new([]byte) }}

// fewParts are as many parts of a segment as take no budget of their own.
const fewParts = 16

// writeSegment takes a segment off its frame and answers when it is in its place.
func (s *server) writeSegment(d *decoder) func(*answer) error {
	buf := segments.Get().(*[]byte)
	*buf = append((*buf)[:0], d.b...)
	var parts holding
	if n := partsOf(*buf); n > fewParts {
		if parts, d.err = hold(s.reading, s.parts, int64(n*partCost)); d.err != nil {
			return nil
		}
	}
	own := decoder{b: *buf}
	segment := own.segment()
	d.b, d.err = own.b, own.err
	return func(a *answer) error {
		defer parts.release()
		defer segments.Put(buf)
		tree, err := s.changed()
		if err != nil {
			return err
		}
		result, err := tree.Write(a.ctx, &segment)
		if err != nil {
			return err
		}
		a.kind = frameWritten
		return reply(a, frameWritten, []slave.Result{result}, func(b []byte, r slave.Result) []byte { return appendResult(b, &r) })
	}
}
