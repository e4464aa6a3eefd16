package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// errMalformed is what every violation of the protocol wraps.
var errMalformed = errors.New("malformed message")

// malformed makes an error that ends the session.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...)
}

type frameKind uint8

// The frames. The numbers are part of the protocol.
const (
	frameHello   frameKind = 1
	frameWelcome frameKind = 2
	frameRefuse  frameKind = 3
	frameAlive   frameKind = 4
	frameBye     frameKind = 5

	frameSurvey   frameKind = 16
	frameFind     frameKind = 17
	frameHash     frameKind = 18
	frameBatch    frameKind = 19
	frameGroups   frameKind = 20
	frameCount    frameKind = 21
	frameClean    frameKind = 22
	frameCancel   frameKind = 23
	frameData     frameKind = 24
	frameEnd      frameKind = 25
	frameAbort    frameKind = 26
	frameBegin    frameKind = 27
	frameSign     frameKind = 28
	frameWrite    frameKind = 29
	frameExamine  frameKind = 30
	frameDistrust frameKind = 31

	frameStates     frameKind = 32
	frameFound      frameKind = 33
	frameSums       frameKind = 34
	frameResults    frameKind = 35
	frameGrouped    frameKind = 36
	frameCounted    frameKind = 37
	frameCleaned    frameKind = 38
	frameFailure    frameKind = 39
	frameBegun      frameKind = 40
	frameSigned     frameKind = 41
	frameWritten    frameKind = 42
	frameExamined   frameKind = 43
	frameDistrusted frameKind = 44

	frameDigest frameKind = 45 // a request; frameSums answers it
)

// head is what stands before a frame's body.
type head struct {
	kind frameKind
	more bool // further frames of the same answer follow
	id   uint64
}

// frame is one message, or a part of one. The body is valid until the next frame is read.
type frame struct {
	head
	body []byte
}

const flagMore = 1

// appendFrame appends a whole frame; body appends what it carries and may be nil.
func appendFrame(b []byte, h head, body func([]byte) []byte) []byte {
	at := len(b)
	flags := byte(0)
	if h.more {
		flags = flagMore
	}
	b = append(b, 0, 0, 0, 0, byte(h.kind), flags)
	b = binary.AppendUvarint(b, h.id)
	if body != nil {
		b = body(b)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// parseFrame takes apart what follows a frame's length.
func parseFrame(b []byte) (frame, error) {
	d := decoder{b: b}
	f := frame{head: head{kind: frameKind(d.u8())}}
	flags := d.u8()
	f.id = d.uvarint(math.MaxUint64)
	if d.err != nil {
		return frame{}, d.err
	}
	if flags&^flagMore != 0 {
		return frame{}, malformed("unknown flags %#x in a frame of kind %d", flags, f.kind)
	}
	f.more = flags&flagMore != 0
	f.body = d.b
	return f, nil
}

// decoder takes values off the front of b. The first error stays, and everything after it is zero.
type decoder struct {
	b   []byte
	err error
	// weight is what the items of a request take beyond their bytes; xattrs counts those of a batch.
	weight, xattrs int
}

// fail stops the decoding; what is left is not looked at.
func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.b = nil
}

// end reports the first error, or that something is left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes left over", len(d.b))
	}
	return d.err
}

// more tells whether anything is left to decode.
func (d *decoder) more() bool { return d.err == nil && len(d.b) > 0 }

// u8 takes a byte.
func (d *decoder) u8() byte {
	if len(d.b) == 0 {
		d.fail("cut short")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// uvarint takes a number that is at most limit.
func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("cut short in a number")
		return 0
	}
	if v > limit {
		d.fail("%d where at most %d is allowed", v, limit)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varint takes a number that may be negative.
func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("cut short in a number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// u32 takes a number of 32 bits.
func (d *decoder) u32() uint32 { return uint32(d.uvarint(math.MaxUint32)) }

// size takes a number that fits an int64 and is not negative.
func (d *decoder) size() int64 { return int64(d.uvarint(math.MaxInt64)) }

// raw takes n bytes, which alias the frame.
func (d *decoder) raw(n int) []byte {
	if n > len(d.b) {
		d.fail("%d bytes announced, %d there", n, len(d.b))
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// bytes takes a length and as many bytes, which alias the frame.
func (d *decoder) bytes(limit int) []byte { return d.raw(int(d.uvarint(uint64(limit)))) }

// str is bytes that outlive the frame.
func (d *decoder) str(limit int) string { return string(d.bytes(limit)) }

// id16 takes a GFID or UUID.
func (d *decoder) id16() (v [16]byte) {
	copy(v[:], d.raw(16))
	return v
}

// bits takes a byte of which only the known bits may be set: what this end does not know it must not ignore.
func (d *decoder) bits(known byte) byte {
	v := d.u8()
	if v&^known != 0 {
		d.fail("unknown bits %#x", v)
		return 0
	}
	return v
}

// optionalGFID takes what appendOptionalGFID made.
func (d *decoder) optionalGFID() (g xtime.GFID) {
	if d.bits(1) == 1 {
		g = d.id16()
	}
	return g
}

// record takes a record. An xtime is not judged here: whoever reads it off a disk does.
func (d *decoder) record() (r slave.Record) {
	if d.bits(1) == 0 {
		return r
	}
	r.GFID = d.id16()
	if b := d.raw(xtime.Size); len(b) == xtime.Size {
		r.Xtime = xtime.Time(binary.BigEndian.Uint64(b))
	}
	return r
}

// time takes a file time. Nanoseconds of a second or more mean something else to the kernel (UTIME_NOW), and are refused.
func (d *decoder) time() beneath.Time {
	sec := d.varint()
	return beneath.Time{Sec: sec, Nsec: uint32(d.uvarint(maxNsec))}
}

const maxNsec = 999_999_999

// appendStr appends a length and as many bytes.
func appendStr[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendOptionalGFID saves the 16 bytes where there is no GFID.
func appendOptionalGFID(b []byte, g xtime.GFID) []byte {
	if g.IsZero() {
		return append(b, 0)
	}
	return append(append(b, 1), g[:]...)
}

// appendRecord saves its bytes where there is no record.
func appendRecord(b []byte, r slave.Record) []byte {
	if r == (slave.Record{}) {
		return append(b, 0)
	}
	b = append(append(b, 1), r.GFID[:]...)
	x := r.Xtime.Bytes()
	return append(b, x[:]...)
}

// appendTime appends a file time.
func appendTime(b []byte, t beneath.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Sec), uint64(min(t.Nsec, maxNsec)))
}

// bit gives v where set is true; it keeps the encoders flat.
func bit(set bool, v byte) byte {
	if set {
		return v
	}
	return 0
}

// clip cuts s to limit bytes.
func clip(s string, limit int) string { return s[:min(len(s), limit)] }
