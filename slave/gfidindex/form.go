package gfidindex

import (
	"encoding/binary"
	"math/bits"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Key stands for a GFID. Two GFIDs may have the same one: then one of them is not found. Half the
// size of a GFID halves the index; the one that is not found is looked for the long way.
type Key uint64

// Root is the key of the slave's root, whatever its GFID.
const Root Key = 0

// KeyOf gives the key of a GFID, never Root. Keys are spread evenly.
func KeyOf(g xtime.GFID) Key {
	x := binary.BigEndian.Uint64(g[:8]) ^ bits.RotateLeft64(binary.BigEndian.Uint64(g[8:]), 29)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return Key(max(x^x>>31, 1))
}

// Place is where an inode is. One without a name says that it is not known (any more).
type Place struct {
	Dir  Key
	Name string
}

// Entry is an inode and its place. A later entry of the same key replaces an earlier one.
type Entry struct {
	Key Key
	Place
}

// An entry takes one slot or, if its name is long, several behind each other: key, directory (8 bytes each, big endian),
// length of the whole name, number of the slot in the entry, and a part of the name.
const (
	slotSize = 64
	nameAt   = 18
	partSize = slotSize - nameAt
	maxSlots = (255 + partSize - 1) / partSize
)

// append adds the entry's slots to b.
func (e *Entry) append(b []byte) []byte {
	for part := 0; part == 0 || part*partSize < len(e.Name); part++ {
		var s [slotSize]byte
		binary.BigEndian.PutUint64(s[:], uint64(e.Key))
		binary.BigEndian.PutUint64(s[8:], uint64(e.Dir))
		s[16], s[17] = byte(len(e.Name)), byte(part)
		copy(s[nameAt:], e.Name[part*partSize:])
		b = append(b, s[:]...)
	}
	return b
}

// keyAt is the key of the slot that b begins with.
func keyAt(b []byte) Key { return Key(binary.BigEndian.Uint64(b)) }

// cut reads the entry that b begins with, and tells how many bytes to go on. Where there is none, or half of one, it is a
// slot, and ok is false. b holds at least a slot.
func cut(b []byte) (e Entry, n int, ok bool) {
	e.Key, e.Dir = keyAt(b), keyAt(b[8:])
	length := int(b[16])
	slots := max(1, (length+partSize-1)/partSize)
	if len(b) < slots*slotSize || e.Key == Root {
		return Entry{}, slotSize, false
	}
	name := make([]byte, 0, length)
	for part := range slots {
		s := b[part*slotSize : (part+1)*slotSize]
		if keyAt(s) != e.Key || keyAt(s[8:]) != e.Dir || int(s[16]) != length || int(s[17]) != part {
			return Entry{}, slotSize, false
		}
		name = append(name, s[nameAt:nameAt+min(partSize, length-part*partSize)]...)
	}
	e.Name = string(name)
	if length > 0 && !beneath.ValidName(e.Name) {
		return Entry{}, slotSize, false
	}
	return e, slots * slotSize, true
}
