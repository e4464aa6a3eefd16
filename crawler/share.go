package crawler

import "georep/slave"

// A directory that is too large for one answer is worked on in shares: those of its entries with PartOf(name, parts) == part. Of how
// many there are in the beginning, base, the number of entries decides. A share that is too large still, by the names or the
// targets of its links, is halved: what is in (part, parts) is in (part, 2*parts) and (part+parts, 2*parts), and in no other.

// maxParts bounds how small shares get. A slave that calls even those too large is not believed.
const maxParts = 1 << 20

// manyParts bounds into how many shares a directory is cut at once.
const manyParts = 1 << 16

// partsFor is how many shares a directory with so many entries has in the beginning, 2 at least.
func partsFor(total int64) uint32 { return uint32(min(max(total/partEntries+1, 2), manyParts)) }

// nextShare is the share to be worked on behind (part, parts). There is one as long as part+1 < parts.
func nextShare(part, parts, base uint32) (uint32, uint32) {
	for parts > base && part >= parts/2 { // the second half of another
		part, parts = part-parts/2, parts/2
	}
	if parts > base {
		return part + parts/2, parts
	}
	return part + 1, parts
}

// smaller asks in shares for what was too large for one answer; none where that makes no sense any more.
func smaller(q slave.Query, total int64) (out []slave.Query) {
	if q.Parts > 1 {
		if q.Parts < maxParts {
			out = append(out, slave.Query{Path: q.Path, Part: q.Part, Parts: 2 * q.Parts},
				slave.Query{Path: q.Path, Part: q.Part + q.Parts, Parts: 2 * q.Parts})
		}
		return out
	}
	parts := partsFor(total)
	for i := range parts {
		out = append(out, slave.Query{Path: q.Path, Part: i, Parts: parts})
	}
	return out
}
