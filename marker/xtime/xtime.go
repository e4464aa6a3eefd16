// Package xtime has the formats that everything else stands on: the xtime, the GFID, the volume's UUID and the names
// of the extended attributes that carry them. It owns no state and does no I/O.
//
// The xtime and its attribute are GlusterFS's own, byte for byte (marker translator, xlators/features/marker: two
// big-endian uint32, seconds and microseconds, in trusted.glusterfs.<volume uuid>.xtime).
package xtime

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Size is the length in bytes of an encoded xtime.
const Size = 8

// microsecondsPerSecond bounds the low half of a Time.
const microsecondsPerSecond = 1_000_000

// Time is a moment on the master: seconds since the epoch in the upper 32 bits, microseconds in the lower 32. Times of
// one volume are compared as integers. The zero Time means "none".
type Time uint64

// FromTime converts t, rounding up to the next microsecond, so that the result is never earlier than t. A t before the
// epoch gives the smallest Time that is not zero; one after 2106 the largest.
func FromTime(t time.Time) Time {
	sec, usec := t.Unix(), int64(t.Nanosecond()+999)/1000
	if usec == microsecondsPerSecond {
		sec, usec = sec+1, 0
	}
	switch {
	case sec < 0 || sec == 0 && usec == 0:
		return 1
	case sec > 1<<32-1:
		return Time(1<<32-1)<<32 | (microsecondsPerSecond - 1)
	}
	return Time(sec)<<32 | Time(usec)
}

// Time converts back; the zero Time gives the zero time.Time.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(int64(t>>32), int64(t&(1<<32-1))*1000)
}

// Next returns the smallest Time after t.
func (t Time) Next() Time {
	if t&(1<<32-1) >= microsecondsPerSecond-1 {
		return (t>>32 + 1) << 32
	}
	return t + 1
}

// Bytes encodes t as GlusterFS does.
func (t Time) Bytes() [Size]byte {
	var b [Size]byte
	binary.BigEndian.PutUint64(b[:], uint64(t))
	return b
}

// Parse decodes what Bytes made. Any other length, or a microsecond part of a second or more, is an error.
func Parse(b []byte) (Time, error) {
	if len(b) != Size {
		return 0, fmt.Errorf("xtime of %d bytes, want %d", len(b), Size)
	}
	t := Time(binary.BigEndian.Uint64(b))
	if t&(1<<32-1) >= microsecondsPerSecond {
		return 0, fmt.Errorf("xtime %x has %d microseconds", b, t&(1<<32-1))
	}
	return t, nil
}

// String gives seconds and microseconds as GlusterFS's tools print them.
func (t Time) String() string { return fmt.Sprintf("%d.%06d", t>>32, t&(1<<32-1)) }
