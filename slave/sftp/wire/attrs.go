package wire

import (
	"encoding/binary"
	"errors"
)

// Which of an Attrs' fields are set.
const (
	// The bits are the protocol's (SSH_FILEXFER_ATTR_*).
	HasSize  = 1
	HasOwner = 2
	HasMode  = 4
	HasTimes = 8
	// hasMore stands for pairs of strings that extensions add; they are read and thrown away.
	hasMore = 1 << 31
)

// Attrs are what the protocol knows of a file. Times are seconds since 1970.
type Attrs struct {
	// Flags says which of the others are set, in what is sent and in what has come; the rest is zero.
	Flags        uint32
	Size         int64
	UID, GID     uint32
	Mode         uint32 // st_mode
	Atime, Mtime uint32
}

// Name is an entry of a directory.
type Name struct {
	Name string
	Attrs
}

// append encodes the attributes.
func (a *Attrs) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, a.Flags)
	if a.Flags&HasSize != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(a.Size))
	}
	for _, f := range []struct {
		flag uint32
		v    [2]uint32
		n    int
	}{{HasOwner, [2]uint32{a.UID, a.GID}, 2}, {HasMode, [2]uint32{a.Mode}, 1}, {HasTimes, [2]uint32{a.Atime, a.Mtime}, 2}} {
		if a.Flags&f.flag == 0 {
			continue
		}
		for _, v := range f.v[:f.n] {
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	return b
}

// errShort is a packet that ends too early.
var errShort = errors.New("a packet of the server is cut short")

// decoder takes a packet apart; after the first thing that is not there everything is zero, and err set.
type decoder struct {
	b   []byte
	err error
}

// take gives the next n bytes, which lie in the packet; nil where they are not there.
func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || len(d.b) < n {
		d.err = errShort
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes is a string of the protocol; it lies in the packet.
func (d *decoder) bytes() []byte {
	n := d.uint32()
	if n > maxPacket {
		d.err = errShort
	}
	return d.take(int(n))
}

func (d *decoder) attrs() (a Attrs) {
	a.Flags = d.uint32()
	if a.Flags&HasSize != 0 {
		a.Size = int64(d.uint64())
	}
	if a.Flags&HasOwner != 0 {
		a.UID, a.GID = d.uint32(), d.uint32()
	}
	if a.Flags&HasMode != 0 {
		a.Mode = d.uint32()
	}
	if a.Flags&HasTimes != 0 {
		a.Atime, a.Mtime = d.uint32(), d.uint32()
	}
	if a.Flags&hasMore != 0 {
		// A number that is too large ends with the packet.
		for n := d.uint32(); n > 0 && d.err == nil; n-- {
			d.bytes()
			d.bytes()
		}
	}
	return a
}

// appendString encodes a string: its length in four bytes, then its bytes.
func appendString[S string | []byte](b []byte, s S) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
