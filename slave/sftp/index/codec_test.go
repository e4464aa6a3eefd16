package index

import (
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"slices"
	"testing"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// full is an entry with something in every field.
func full() Entry {
	return Entry{Kind: slave.File, Record: slave.Record{GFID: xtime.GFID{1, 2, 3}, Xtime: 1 << 60}, Virtual: true, ID: 77, Size: 1 << 40,
		Seconds: 1<<32 - 1, Links: 3, Ino: 9, Since: -5, Meta: slave.Meta{Mode: 0o104755, UID: 1, GID: 2, Size: 12, Rdev: 8,
			Mtime: beneath.Time{Sec: -1, Nsec: 999_999_999}, Target: "a\xff\n",
			Xattrs: []slave.Xattr{{Name: "user.a", Value: []byte{}}, {Name: "user.b", Value: []byte("b\x00")}}}}
}

// sealed adds the checksum, without which nothing is looked at.
func sealed(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func FuzzNode(f *testing.F) {
	f.Add([]byte{})
	for _, text := range [][]byte{encode(false, map[string]Entry{"": {}, "name": full()}), encode(true, nil)} {
		f.Add(text[len(magic) : len(text)-4])
	}
	f.Add(binary.AppendUvarint([]byte{0}, 1<<62))
	f.Fuzz(func(t *testing.T, body []byte) {
		split, entries, err := decode(sealed(append([]byte(magic), body...)))
		if err != nil {
			return
		}
		if len(entries) > len(body)/leastEntry {
			t.Fatalf("%d entries in %d bytes", len(entries), len(body))
		}
		again, same, err := decode(encode(split, entries))
		if err != nil || again != split || !reflect.DeepEqual(same, entries) {
			t.Fatalf("%v, %v became %v, %v, %v", split, entries, again, same, err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeIntents(someIntents()))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, b := range [][]byte{text, framed(text)} {
			all := decodeIntents(b)
			if len(all) == 0 {
				continue
			}
			if same := decodeIntents(encodeIntents(all)); !slices.Equal(same, all) {
				t.Fatalf("%v became %v", all, same)
			}
		}
	})
}

// framed makes a whole list of a text.
func framed(text []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(text)), text...)
}

func someIntents() []Intent {
	return []Intent{{Dir: Root, Name: "a", Record: full().Record, ID: 5}, {Dir: 1 << 63, Name: "b\n", Gone: true}}
}

// TestDamaged: what is cut short or changed anywhere is no node.
func TestDamaged(t *testing.T) {
	text := encode(false, map[string]Entry{"name": full()})
	if _, got, err := decode(text); err != nil || !reflect.DeepEqual(got["name"], full()) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range text {
		if _, _, err := decode(text[:i]); err == nil {
			t.Errorf("cut at %d is taken", i)
		}
		bad := slices.Clone(text)
		bad[i] ^= 0x10
		if _, _, err := decode(bad); err == nil {
			t.Errorf("changed at %d is taken", i)
		}
	}
}

// TestTornJournal: lists count as a whole, up to the first that is not.
func TestTornJournal(t *testing.T) {
	first, second := someIntents(), []Intent{{Dir: Parked, Name: "c"}}
	one := encodeIntents(first)
	text := append(slices.Clone(one), encodeIntents(second)...)
	for i := range text {
		want := []Intent(nil)
		if i >= len(one) {
			want = first
		}
		if got := decodeIntents(text[:i]); !slices.Equal(got, want) {
			t.Errorf("cut at %d: %v", i, got)
		}
	}
	if got := decodeIntents(text); !slices.Equal(got, append(slices.Clone(first), second...)) {
		t.Errorf("whole: %v", got)
	}
}
