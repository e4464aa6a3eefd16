// Package share cuts a directory that is too large for one answer of the slave. It is pure.
package share

import "georep/slave"

// A directory that is too large for one answer is worked on in shares: those of its entries with PartOf(name, parts) == part. Of how
// many there are in the beginning, base, the number of entries decides. A share that is too large still, by the names or the
// targets of its links, is halved: what is in (part, parts) is in (part, 2*parts) and (part+parts, 2*parts), and in no other.

// Entries is how many entries of a large directory are worked on at once.
const Entries = slave.MaxEntries / 2

// Max bounds how small shares get. A slave that calls even those too large is not believed.
const Max = 1 << 20

// many bounds into how many shares a directory is cut at once.
const many = 1 << 16

// Parts is how many shares a directory with so many entries has in the beginning, 2 at least.
func Parts(total int64) uint32 { return uint32(min(max(total/Entries+1, 2), many)) }

// Next is the share to be worked on behind (part, parts). There is one as long as part+1 < parts.
func Next(part, parts, base uint32) (uint32, uint32) {
	for parts > base && part >= parts/2 { // the second half of another
		part, parts = part-parts/2, parts/2
	}
	if parts > base {
		return part + parts/2, parts
	}
	return part + 1, parts
}

// Smaller asks in shares for what was too large for one answer; none where that makes no sense any more.
func Smaller(q slave.Query, total int64) (out []slave.Query) {
	if q.Parts > 1 {
		if q.Parts < Max {
			out = append(out, slave.Query{Path: q.Path, Part: q.Part, Parts: 2 * q.Parts},
				slave.Query{Path: q.Path, Part: q.Part + q.Parts, Parts: 2 * q.Parts})
		}
		return out
	}
	parts := Parts(total)
	for i := range parts {
		out = append(out, slave.Query{Path: q.Path, Part: i, Parts: parts})
	}
	return out
}
