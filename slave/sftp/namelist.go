package sftp

import (
	"encoding/binary"
	"sync/atomic"
)

// Walks go into the directories of a directory once that is listed. What they remember of all levels together is bounded.
const (
	// maxCountText is for more than a million directories. Where there are more, there are more than anybody may remove.
	maxCountText = 40 << 20
	// maxScrapText is what is deleted before a directory is listed again; so often at most.
	maxScrapText   = 8 << 20
	maxScrapRounds = 1000
)

// nameList is what a walk has found in one directory and not gone into yet, in little memory.
type nameList struct{ chunks [][]byte }

const nameChunk = 4 << 10

// add remembers a name. Several lists share a count of what they take; the result is what that is now.
func (l *nameList) add(all *atomic.Int64, name string) int64 {
	last := len(l.chunks) - 1
	if need := len(name) + binary.MaxVarintLen64; last < 0 || cap(l.chunks[last])-len(l.chunks[last]) < need {
		l.chunks = append(l.chunks, make([]byte, 0, max(nameChunk, need)))
		last++
		all.Add(int64(cap(l.chunks[last])))
	}
	l.chunks[last] = append(binary.AppendUvarint(l.chunks[last], uint64(len(name))), name...)
	return all.Load()
}

// some tells whether there is more in the list than every level of a walk may have, however much the others have.
func (l *nameList) some() bool { return len(l.chunks) > 1 }

// each calls do for the names, and empties the list. It ends early where do says so.
func (l *nameList) each(all *atomic.Int64, do func(name string) (goOn bool)) {
	goOn := true
	for i, rest := range l.chunks {
		size := int64(cap(rest))
		for goOn && len(rest) > 0 {
			n, k := binary.Uvarint(rest)
			goOn = do(string(rest[k : k+int(n)]))
			rest = rest[k+int(n):]
		}
		l.chunks[i] = nil
		all.Add(-size)
	}
	l.chunks = nil
}
