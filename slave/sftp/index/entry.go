package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// ID names the shard of a directory.
type ID uint64

// The shards that are always there. Top has one entry, Root's own.
const (
	// Top has the root's entry, since nothing lies above the root; Root is the shard of what lies in it. Parked is
	// the shard of parked/, by names there. Links has what is known of inodes with several names, Pending those of
	// them whose names are to be checked, both by GFID; Touched the directories whose times have to be put back, by
	// path.
	Top ID = iota + 1
	Root
	Parked
	Links
	Pending
	Touched
	firstFree
)

// TopName is the name of the root's entry in Top.
const TopName = "root"

// NewID gives one that no other directory has.
func NewID() ID {
	for {
		if id := ID(rand.Uint64()); id >= firstFree {
			return id
		}
	}
}

// Entry is what is kept of one name.
type Entry struct {
	// Kind is of the entry on the master, and Record which state of which inode it is; Xtime 0: to be compared.
	Kind   slave.Kind
	Record slave.Record
	// Virtual says that the slave cannot have such an entry: nothing stands under its name.
	Virtual bool
	// ID is that of a directory's shard; of a file or link, which inode of the slave it is: names with one ID are one.
	ID ID
	// Size and Seconds are what the file itself shows: size and mtime, of a file or a symbolic link.
	Size    int64
	Seconds uint32
	Meta    slave.Meta // as the master has it
	Links   uint32     // names that the inode has there
	// Ino is the inode's number on the master, by which the crawler finds its other names there.
	Ino   uint64
	Since int64 // in Parked: when it was parked, in seconds since 1970
}

// magic begins every node, and names the version of its form. A node of another one counts as damaged, and so as
// empty.
const magic = "georep index 1\n"

// errDamaged never leaves this package: a node that cannot be read has no entries.
var errDamaged = errors.New("a damaged part of the index")

// file is the name of a node in its store. The last two digits of the number, which is
// random, spread the shards over 256 directories.
func (k nodeKey) file() string {
	s := fmt.Sprintf("%016x", uint64(k.dir))
	name := s[14:] + "/" + s
	if k.way != "" {
		name += "." + k.way
	}
	return name
}

const (
	// flagSplit stands in a node's head, flagVirtual in an entry's flags.
	flagSplit   = 1
	flagVirtual = 1
)

// leastEntry is the least that an entry takes: its name's length, kind and flags, the GFID, the numbers, the target's length and
// the number of xattrs.
const leastEntry = 1 + 2 + 16 + 14 + 1 + 1

// encode gives a node's form: a head, the entries, and a checksum.
func encode(split bool, entries map[string]Entry) []byte {
	b := append(make([]byte, 0, 64+96*len(entries)), magic...)
	head := byte(0)
	if split {
		head = flagSplit
	}
	b = binary.AppendUvarint(append(b, head), uint64(len(entries)))
	for name, e := range entries {
		b = e.append(appendText(b, name))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// appendText writes a length, as a varint, and the bytes.
func appendText[S string | []byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// append encodes an entry: kind, flags, GFID, fourteen numbers as varints, the target, the xattrs. reader.entry is
// its reverse, and has the same order.
func (e *Entry) append(b []byte) []byte {
	flags := byte(0)
	if e.Virtual {
		flags = flagVirtual
	}
	b = append(append(b, byte(e.Kind), flags), e.Record.GFID[:]...)
	for _, v := range []uint64{uint64(e.Record.Xtime), uint64(e.ID), uint64(e.Size), uint64(e.Seconds), uint64(e.Meta.Mode),
		uint64(e.Meta.UID), uint64(e.Meta.GID), uint64(e.Meta.Mtime.Sec), uint64(e.Meta.Mtime.Nsec), uint64(e.Meta.Size),
		e.Meta.Rdev, uint64(e.Links), e.Ino, uint64(e.Since)} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendText(b, e.Meta.Target)
	b = binary.AppendUvarint(b, uint64(len(e.Meta.Xattrs)))
	for i := range e.Meta.Xattrs {
		b = appendText(appendText(b, e.Meta.Xattrs[i].Name), e.Meta.Xattrs[i].Value)
	}
	return b
}

// decode reads what encode wrote; anything else is an error, and takes memory in proportion to the text.
func decode(text []byte) (split bool, entries map[string]Entry, err error) {
	if len(text) < len(magic)+6 || string(text[:len(magic)]) != magic {
		return false, nil, errDamaged
	}
	body := text[:len(text)-4]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(text[len(body):]) {
		return false, nil, errDamaged
	}
	d := reader{b: body[len(magic):]}
	head := d.byte()
	n := d.number()
	if n > uint64(len(body)/leastEntry) || n > maxLoaded {
		return false, nil, errDamaged
	}
	entries = make(map[string]Entry, n)
	for range n {
		name := string(d.text())
		e := d.entry()
		if d.bad {
			return false, nil, errDamaged
		}
		entries[name] = e
	}
	if d.bad || len(d.b) != 0 {
		return false, nil, errDamaged
	}
	return head&flagSplit != 0, entries, nil
}

// reader takes an encoded text apart; after the first thing that is not there everything is zero, and bad set.
type reader struct {
	b   []byte
	bad bool
}

// take gives the next n bytes, which lie in the text.
func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() []byte { return r.take(r.number()) }

func (r *reader) entry() (e Entry) {
	e.Kind = slave.Kind(r.byte())
	e.Virtual = r.byte()&flagVirtual != 0
	copy(e.Record.GFID[:], r.take(16))
	var v [14]uint64
	for i := range v {
		v[i] = r.number()
	}
	e.Record.Xtime = timeOf(v[0])
	e.ID, e.Size, e.Seconds = ID(v[1]), int64(v[2]), uint32(v[3])
	e.Meta = slave.Meta{Mode: uint32(v[4]), UID: uint32(v[5]), GID: uint32(v[6]),
		Mtime: beneath.Time{Sec: int64(v[7]), Nsec: uint32(v[8])}, Size: int64(v[9]), Rdev: v[10]}
	e.Links, e.Ino, e.Since = uint32(v[11]), v[12], int64(v[13])
	e.Meta.Target = string(r.text())
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad = true
		return e
	}
	for range n {
		e.Meta.Xattrs = append(e.Meta.Xattrs, slave.Xattr{Name: string(r.text()), Value: append([]byte{}, r.text()...)})
	}
	return e
}

func timeOf(v uint64) xtime.Time { return xtime.Time(v) }
