package slave

import (
	"slices"

	"georep/marker/xtime"
)

// Version tells one state of a file's content on the master from every other, as far as size and times can tell.
type Version [16]byte

// Upload is a content that goes to the slave ahead of the OpPut that publishes it (Op.Uploaded), because it is too large
// to travel in a batch, or because the slave has an older one of which parts are still good. What was received stays
// there when a session ends, so that the next one goes on from it.
type Upload struct {
	GFID    xtime.GFID // whose content it is; there is one upload of an inode at a time
	Version Version    // what was received of another version is no part of this one
	Size    int64
	Basis   string // a file on the slave that may have parts of it; "" for none
}

// UploadState is what the slave has when an upload begins.
type UploadState struct {
	Err  error   // *PathError
	Have []Range // received already, ascending and apart
	// Where there is a basis: its size, and the length of the blocks of which Sums gives the signature. The basis may be
	// another file than the one asked for: what was received of an earlier version.
	BasisSize int64
	BlockSize int
}

// Range is [Off, End) of a content.
type Range struct {
	Off int64
	End int64
}

// AddRange puts r among ascending ranges that do not touch, and gives what has become of them; have is not to be used any more.
func AddRange(have []Range, r Range) []Range {
	if r.Off == r.End {
		return have
	}
	first, _ := slices.BinarySearchFunc(have, r.Off, func(h Range, off int64) int {
		if h.End < off {
			return -1
		}
		return 1
	})
	last := first
	for last < len(have) && have[last].Off <= r.End {
		r.Off, r.End = min(r.Off, have[last].Off), max(r.End, have[last].End)
		last++
	}
	return slices.Replace(have, first, last, r)
}

// SumsQuery asks for the signature of an upload's basis.
type SumsQuery struct {
	GFID    xtime.GFID
	Version Version
	Key     [16]byte // of the signature (package delta)
	Which   uint8    // of the sums: delta.Which
}

// MaxSums bounds the bytes that one call of a signature's receiver gets.
const MaxSums = 256 << 10

// Segment is a range of an upload's content: data, parts of the basis, and holes between them.
type Segment struct {
	GFID    xtime.GFID
	Version Version
	Range
	Parts []Part // ascending
}

// Part is a run of data, or of Len bytes of the basis at From. Data is the caller's again when the call returns.
type Part struct {
	Off  int64
	Data []byte // nil for a part of the basis
	Len  int64  // of a part of the basis
	From int64
}

// Size is how much of the content the part is.
func (p *Part) Size() int64 {
	if p.Data != nil {
		return int64(len(p.Data))
	}
	return p.Len
}

// Bounds of a Segment.
const (
	MaxSegmentData  = 1 << 20
	MaxSegmentParts = 8192
)

// Valid tells whether an upload that a master sent can be begun.
func (u *Upload) Valid() bool { return !u.GFID.IsZero() && u.Size >= 0 && AllowedPath(u.Basis) }

// Valid tells whether a segment that a master sent lies within a content of this size, and each of its parts within the segment, and
// within a basis of that size. Where there is no basis, 0, there are parts with data alone.
func (s *Segment) Valid(size, basis int64) bool {
	if s.Off < 0 || s.End < s.Off || s.End > size || len(s.Parts) > MaxSegmentParts {
		return false
	}
	at := s.Off
	for i := range s.Parts {
		p := &s.Parts[i]
		n := p.Size()
		if n <= 0 || p.Off < at || n > s.End-p.Off {
			return false
		}
		if p.Data == nil && (p.From < 0 || n > basis-p.From) {
			return false
		}
		at = p.Off + n
	}
	return true
}
