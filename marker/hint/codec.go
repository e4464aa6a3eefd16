package hint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// ErrMalformed is what a reader gets for bytes that no Server of this version writes.
var ErrMalformed = errors.New("malformed hint")

// preface begins every connection; the byte before the last is the version.
const preface = "georep-hints\r\n\x01\n"

// The kinds of bodies.
const (
	kindHint = 1
	kindGap  = 2
)

const (
	flagWhole = 1
	headSize  = 8 // of a frame: length and checksum
)

// crc is CRC-32C (Castagnoli).
func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// frame puts the head before a body.
func frame(body []byte) []byte {
	b := make([]byte, 0, headSize+len(body))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc(body))
	return append(b, body...)
}

// appendGap gives the body of a gap, up to and including the given number.
func appendGap(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindGap}, seq)
}

// encode gives the body of a hint, or false where it would be larger than MaxFrame.
func encode(h *Hint) ([]byte, bool) {
	b := binary.BigEndian.AppendUint64([]byte{kindHint}, h.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Xtime))
	for i := range h.Dirs {
		b = appendDir(b, &h.Dirs[i])
		if len(b) > MaxFrame {
			return nil, false
		}
	}
	return b, true
}

// appendDir adds one directory. One with more names than MaxNames is told as a whole.
func appendDir(b []byte, d *Dir) []byte {
	b = append(b, d.GFID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(d.Before))
	if d.Whole || len(d.Names) > MaxNames {
		return append(b, flagWhole, 0)
	}
	b = binary.AppendUvarint(append(b, 0), uint64(len(d.Names)))
	for _, n := range d.Names {
		b = append(binary.AppendUvarint(b, uint64(len(n.Name))), n.Name...)
		if n.Dir.IsZero() {
			b = append(b, 0)
		} else {
			b = append(append(b, 1), n.Dir[:]...)
		}
	}
	return b
}

// message is a decoded body: a hint, or a gap where it is nil.
type message struct {
	seq  uint64
	hint *Hint
}

// decode reads a body. Nothing in the result aliases b, and it takes memory in proportion to b only.
func decode(b []byte) (message, error) {
	d := decoder{b: b}
	kind := d.take(1)
	m := message{seq: d.u64()}
	switch {
	case d.bad:
		return m, fmt.Errorf("%w: a body of %d bytes", ErrMalformed, len(b))
	case kind[0] == kindGap && len(d.b) == 0:
		return m, nil
	case kind[0] != kindHint:
		return m, fmt.Errorf("%w: kind %d of %d bytes", ErrMalformed, kind[0], len(b))
	}
	h := &Hint{Seq: m.seq, Xtime: d.xtime()}
	for len(d.b) > 0 && !d.bad {
		h.Dirs = append(h.Dirs, d.dir(h.Xtime))
	}
	if d.bad || h.Xtime == 0 || len(h.Dirs) == 0 {
		return m, fmt.Errorf("%w: a hint of %d bytes", ErrMalformed, len(b))
	}
	m.hint = h
	return m, nil
}

// decoder takes values off a body. After the first that is not there, or not right, bad is set and all are zero.
type decoder struct {
	b   []byte
	bad bool
}

// take gives the next n bytes of the body, which it still shares, or nil if there are not as many.
func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// u64 takes a big-endian number of 8 bytes.
func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// xtime takes one; zero is allowed.
func (d *decoder) xtime() xtime.Time {
	b := d.take(xtime.Size)
	if b == nil {
		return 0
	}
	t, err := xtime.Parse(b)
	d.bad = d.bad || err != nil
	return t
}

// uvarint takes a number, and refuses one beyond limit, so that no length leads to more than the
// body has.
func (d *decoder) uvarint(limit uint64) int {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > limit {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

// gfid takes one; zero is allowed.
func (d *decoder) gfid() (g xtime.GFID) {
	copy(g[:], d.take(len(g)))
	return g
}

// dir takes a directory, marked at t: which must be later than what it had before, or nothing can be concluded.
func (d *decoder) dir(t xtime.Time) Dir {
	out := Dir{GFID: d.gfid(), Before: d.xtime()}
	flags := d.take(1)
	d.bad = d.bad || flags[0]&^flagWhole != 0 || out.GFID.IsZero() || out.Before >= t
	if d.bad {
		return Dir{}
	}
	out.Whole = flags[0] == flagWhole
	for n := d.uvarint(MaxNames); n > 0 && !d.bad; n-- {
		out.Names = append(out.Names, d.name())
	}
	return out
}

// name takes an entry. A name with a slash, or one of the dots, is refused here, before anything
// looks it up.
func (d *decoder) name() Name {
	n := Name{Name: string(d.take(d.uvarint(255)))}
	if is := d.take(1); is != nil && is[0] == 1 {
		n.Dir = d.gfid()
	} else if is != nil && is[0] != 0 {
		d.bad = true
	}
	d.bad = d.bad || !beneath.ValidName(n.Name)
	return n
}

// reader takes frames off a connection.
type reader struct {
	r   io.Reader
	buf bytes.Buffer
}

// next returns the next message. Its buffer grows with what arrives, not by what is announced.
func (r *reader) next() (message, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return message{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxFrame {
		return message{}, fmt.Errorf("%w: a frame of %d bytes", ErrMalformed, size)
	}
	r.buf.Reset()
	if _, err := io.CopyN(&r.buf, r.r, int64(size)); err != nil {
		return message{}, err
	}
	if crc(r.buf.Bytes()) != binary.BigEndian.Uint32(head[4:]) {
		return message{}, fmt.Errorf("%w: the checksum is wrong", ErrMalformed)
	}
	return decode(r.buf.Bytes())
}
