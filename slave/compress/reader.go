package compress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Reader reads what a Writer has written. It has one user at a time, but its counters may be read by others at any
// time. It trusts nothing that arrives: a chunk is never held as a whole, and the memory is that of the package comment
// whatever the chunks announce.
type Reader struct {
	in       *bufio.Reader
	err      error // the first one; it stays
	payload  payload
	due      int           // bytes that a packed chunk has yet to decode to
	unpacker *zstd.Decoder // nil until the first packed chunk; reads the payload

	raw, wire atomic.Int64
}

// NewReader makes a Reader of r, which stays the caller's to close. It reads ahead, so nobody else can read from r any
// more. A *bufio.Reader of at least 32 KiB is used as it is, with what it has read ahead already.
func NewReader(r io.Reader) *Reader {
	s := &Reader{in: bufio.NewReaderSize(r, readAhead)}
	s.payload.r = s
	return s
}

// Raw is how many bytes Read has given.
func (r *Reader) Raw() int64 { return r.raw.Load() }

// Wire is how many bytes of the underlying reader that took.
func (r *Reader) Wire() int64 { return r.wire.Load() }

// Read gives what is there of the current chunk, at most len(p) bytes. It returns io.EOF where the stream ends between
// chunks, io.ErrUnexpectedEOF where it ends within one, the underlying reader's error as it is, and otherwise an
// error that wraps ErrMalformed. The first error stays.
func (r *Reader) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 && r.err == nil {
		switch {
		case r.due > 0:
			n, r.err = r.unpack(p)
		case r.payload.left > 0:
			n, r.err = r.payload.Read(p)
		default:
			r.err = r.next()
		}
	}
	r.raw.Add(int64(n))
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// next reads the header of a chunk.
func (r *Reader) next() error {
	n, err := r.number()
	if err != nil {
		return err
	}
	length := n &^ packedBit
	if length == 0 || length > maxChunk {
		return malformed("a chunk of %d bytes", length)
	}
	if n&packedBit != 0 {
		if n, err = r.number(); err != nil {
			return cutShort(err)
		}
		if n == 0 || n > maxChunk {
			return malformed("a chunk that is to decode to %d bytes", n)
		}
		r.due = int(n)
	}
	r.payload.left = int(length)
	return nil
}

// number reads one of the numbers of a header. It gives io.EOF only where not a byte of it is there.
func (r *Reader) number() (uint32, error) {
	var b [headerSize]byte
	n, err := io.ReadFull(r.in, b[:])
	r.wire.Add(int64(n))
	return binary.BigEndian.Uint32(b[:]), err
}

// unpack decodes a part of the current chunk. If its last block decodes to more than the chunk says, which no Writer
// does, the rest is taken for the beginning of the next packed chunk.
func (r *Reader) unpack(p []byte) (int, error) {
	if r.unpacker == nil {
		// One window's worth of memory. A frame that asks for more is refused.
		d, err := zstd.NewReader(&r.payload, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(window))
		if err != nil {
			return 0, fmt.Errorf("start the decompressor: %w", err)
		}
		r.unpacker = d
	}
	n, err := r.unpacker.Read(p[:min(len(p), r.due)])
	r.due -= n
	switch {
	case r.payload.err != nil: // the stream's own trouble, which the decompressor may have called something else
		return n, r.payload.err
	case err != nil:
		// Not wrapped: it may be io.EOF, which nobody must take for the end of the stream.
		return n, malformed("decompress: %v", err)
	case r.due == 0 && r.payload.left > 0:
		return n, malformed("%d bytes left over in a chunk", r.payload.left)
	}
	return n, nil
}

// errShort is what the decompressor meets at the end of a chunk that is to decode to more.
var errShort = errors.New("the chunk ends too soon")

// payload is what is left of the current chunk's payload. The first error of the stream stays in err.
type payload struct {
	r    *Reader
	left int
	err  error
}

func (p *payload) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, errShort
	}
	n, err := p.r.in.Read(b[:min(len(b), p.left)])
	p.left -= n
	p.r.wire.Add(int64(n))
	if err != nil {
		p.err = cutShort(err)
		return n, p.err
	}
	return n, nil
}

// cutShort is for an error within a chunk.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
