package compress

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Mode says whether a Writer compresses.
type Mode int

// The modes.
const (
	Auto   Mode = iota // what gets the bytes out sooner, as far as can be measured
	Off                // never
	Always             // whatever is not tiny
)

// Writer writes chunks. It has one user at a time, but its counters may be read by others at any time.
type Writer struct {
	w    io.Writer
	mode Mode
	err  error // the first one; it stays

	policy policy
	now    func() time.Time
	ended  time.Time // when the last write below returned; zero before the first

	buf    []byte        // one chunk; reused
	packer *zstd.Encoder // nil until the first packed chunk; appends to buf

	raw, wire atomic.Int64
}

// NewWriter makes a Writer that writes to w, which stays the caller's to close.
func NewWriter(w io.Writer, mode Mode) *Writer {
	return &Writer{w: w, mode: mode, policy: newPolicy(), now: time.Now}
}

// Raw is how many bytes were taken by Write and passed on.
func (w *Writer) Raw() int64 { return w.raw.Load() }

// Wire is how many bytes that made on the underlying writer.
func (w *Writer) Wire() int64 { return w.wire.Load() }

// Write passes p on in one or more chunks, and returns when the underlying writer has taken them. The first error
// stays: the stream may have been cut within a chunk, so nothing more can be written. With an error, n counts the bytes
// whose chunks were written whole.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) && w.err == nil {
		part := p[n:min(n+piece, len(p))]
		if w.err = w.chunk(part); w.err == nil {
			n += len(part)
		}
	}
	return n, w.err
}

// chunk writes one chunk in the way that the mode or the policy asks for.
func (w *Writer) chunk(p []byte) error {
	started := w.now()
	measured := w.mode == Auto && len(p) >= tooSmall
	packed := w.mode == Always && len(p) >= tooSmall || measured && w.policy.wantsPacked()
	if err := w.encode(p, packed); err != nil {
		return err
	}
	encoded := w.now()
	if err := w.flush(); err != nil {
		return err
	}
	ended := w.now()
	if measured {
		s := sample{raw: len(p), wire: len(w.buf), packing: encoded.Sub(started), writing: ended.Sub(encoded)}
		if !w.ended.IsZero() {
			s.gap = started.Sub(w.ended)
		}
		w.policy.done(s)
	}
	w.ended = ended
	w.raw.Add(int64(len(p)))
	return nil
}

// encode puts the chunk of p into buf.
func (w *Writer) encode(p []byte, packed bool) error {
	// Packed bytes are at most a few more than raw ones: the headers of zstd's frame and block.
	w.buf = slices.Grow(w.buf[:0], len(p)+64)
	if !packed {
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(p)))
		w.buf = append(w.buf, p...)
		return nil
	}
	if w.packer == nil {
		if err := w.start(); err != nil {
			return fmt.Errorf("start the compressor: %w", err)
		}
	}
	w.buf = append(w.buf, make([]byte, 2*headerSize)...)
	if _, err := w.packer.Write(p); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if err := w.packer.Flush(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	binary.BigEndian.PutUint32(w.buf, packedBit|uint32(len(w.buf)-2*headerSize))
	binary.BigEndian.PutUint32(w.buf[headerSize:], uint32(len(p)))
	return nil
}

// start makes the compressor. Its level is the fastest: the default one makes Go source smaller by 8 percent more, for
// 1.3 times the time and twice the memory. There is no checksum, for SSH, below, has a better one.
func (w *Writer) start() (err error) {
	w.packer, err = zstd.NewWriter((*appender)(&w.buf), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false))
	return err
}

// flush writes buf.
func (w *Writer) flush() error {
	n, err := w.w.Write(w.buf)
	w.wire.Add(int64(n))
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	return err
}

// appender is a slice that can be written to.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
