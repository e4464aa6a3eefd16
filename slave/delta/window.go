package delta

import (
	"fmt"
	"io"
	"math"
)

// Source returns the next piece of the new file: data of any length and its offset, not before the end of the piece
// before it; what lies between is a hole. The data need be valid only until the following call. After the last piece
// comes io.EOF. Any other error ends the encoding.
type Source func() (off int64, data []byte, err error)

// window is the part of the new file that an encoder has in memory.
//
// The file is taken as runs: data with the zeros of holes between, before and after it, as far as blocks in place reach
// that have data. Between runs lie holes that no such block reaches into, and they are skipped. A run begins and ends
// at a multiple of the block length, unless it reaches the highest offset that there is.
//
// Offsets are those of the new file: the buffer holds [base, end()), of which extents are data and the rest is zeros.
type window struct {
	source Source
	block  int64
	buf    []byte
	base   int64
	// extents are the ranges of data in the buffer from the encoder's first unsent byte on; ascending, not touching.
	extents []extent

	rest  []byte // of the source's last piece, not yet in the buffer
	off   int64  // of rest
	eof   bool   // the source has ended
	fresh bool   // no run has begun since the last one was left
	final bool   // the run gets no more data, only zeros until padTo
	padTo int64  // zeros are to come until there
}

// extent is a range of data [from, to).
type extent struct {
	from, to int64
}

// reset prepares for another file. The buffer is kept if it suffices: MaxData for what is unsent, a block ahead, and as
// much again so that moving it is rare.
func (w *window) reset(source Source, block int) {
	size := 2 * (MaxData + block)
	if cap(w.buf) < size {
		w.buf = make([]byte, 0, size)
	}
	*w = window{source: source, block: int64(block), buf: w.buf[:0], extents: w.extents[:0], fresh: true}
}

func (w *window) end() int64 { return w.base + int64(len(w.buf)) }

// bytes is a part of the buffer.
func (w *window) bytes(from, to int64) []byte { return w.buf[from-w.base : to-w.base] }

// dataEnd is the end of the last data in the buffer that was not sent, the run's beginning if there is none.
func (w *window) dataEnd() int64 {
	if len(w.extents) == 0 {
		return w.base
	}
	return w.extents[len(w.extents)-1].to
}

// closed says that the run is complete in the buffer.
func (w *window) closed() bool { return w.final && w.end() >= w.padTo }

// begin begins the next run, and says io.EOF if there is none.
func (w *window) begin() error {
	if len(w.rest) == 0 {
		if err := w.pull(); err != nil {
			return err
		}
		if w.eof {
			return io.EOF
		}
	}
	w.buf, w.extents = w.buf[:0], w.extents[:0]
	w.base = w.off - w.off%w.block
	w.padTo = w.off
	w.fresh, w.final = false, false
	return nil
}

// fill reads until the buffer reaches to, or to the end of the run. Of what lies before keep nothing is kept.
func (w *window) fill(keep, to int64) error {
	for w.end() < to && !w.closed() {
		switch {
		case w.end() < w.padTo:
			clear(w.grow(keep, w.padTo-w.end()))
		case len(w.rest) == 0:
			if err := w.pull(); err != nil {
				return err
			}
			w.plan()
		default:
			b := w.grow(keep, int64(len(w.rest)))
			w.take(copy(b, w.rest))
		}
	}
	return nil
}

// clip calls do for each range of data before to that was not sent, and forgets it: from now on it is.
func (w *window) clip(to int64, do func(from, to int64)) {
	for len(w.extents) > 0 && w.extents[0].from < to {
		x := &w.extents[0]
		do(x.from, min(x.to, to))
		if x.to > to {
			x.from = to
			return
		}
		w.extents = w.extents[1:]
	}
}

// take notes that the last n bytes of the buffer are the next ones of the source.
func (w *window) take(n int) {
	end := w.end()
	if k := len(w.extents); k > 0 && w.extents[k-1].to == w.off {
		w.extents[k-1].to = end
	} else {
		w.extents = append(w.extents, extent{from: w.off, to: end})
	}
	w.off += int64(n)
	w.rest = w.rest[n:]
}

// pull gets the next piece of the source that is not empty.
func (w *window) pull() error {
	for {
		off, data, err := w.source()
		if err == io.EOF { // not one that wraps it: that is trouble below
			w.eof = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the new content after %d: %w", w.off, err)
		}
		if off < w.off || off > math.MaxInt64-int64(len(data)) {
			return fmt.Errorf("new content of %d bytes at %d, after %d: an impossible range", len(data), off, w.off)
		}
		if len(data) > 0 {
			w.off, w.rest = off, data
			return nil
		}
	}
}

// plan decides how the run goes on with what was pulled: zeros until there if no whole block lies between, else zeros
// until the block in place is full, and its end.
func (w *window) plan() {
	end := w.end()
	full := end
	if past := end % w.block; past != 0 && end <= math.MaxInt64-w.block {
		full += w.block - past
	}
	if !w.eof && w.off-w.off%w.block <= full {
		w.padTo = w.off
		return
	}
	w.final, w.padTo = true, full
}

// grow lengthens the buffer by up to n bytes, at least one, and returns the new part, whatever is in it.
func (w *window) grow(keep, n int64) []byte {
	if int64(cap(w.buf)-len(w.buf)) < n && keep > w.base {
		kept := copy(w.buf, w.buf[keep-w.base:])
		w.buf, w.base = w.buf[:kept], keep
	}
	at := len(w.buf)
	w.buf = w.buf[:min(int64(cap(w.buf)), int64(at)+n)]
	return w.buf[at:]
}
