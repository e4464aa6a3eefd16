// Package hint carries hints from a volume's marker to its workers over a unix socket: the form on the wire, the marker's
// end (Server) and a worker's (Follow).
//
// A hint says what one mark did: for each directory that was marked with an xtime, its xtime before, and the names in it
// under which something changed, the directories below it that were marked among them. That is enough for a worker to
// look at these names only, and never more than advice: whoever misses one finds that the xtimes no longer join, and
// compares the directory (see package crawler). So nothing here waits for anybody. What a subscriber does not take in
// time is dropped, and a Gap stands in its place; a marker that starts again, or a connection that is lost, is a Gap too.
//
// The package owns the socket. It never touches the volume and decides nothing.
//
// # On the wire
//
// The server writes, the client only listens. First 16 bytes: "georep-hints", 0d 0a, the version, 0a. Then frames: 4
// bytes length of the body, big-endian; 4 bytes CRC-32C of the body; the body. A body is a kind (1 hint, 2 gap) and an
// 8-byte sequence number; a hint goes on with the xtime of the mark and then one record per directory: GFID, xtime
// before (8 bytes each time), a byte of flags (1: names unknown), the number of names, for each its length, its bytes,
// and a byte that is 1 where the GFID of a marked directory follows. Numbers without a size are uvarints.
package hint

import (
	"georep/marker/xtime"
)

// File is the name of the socket in a volume's runtime directory.
const File = "marker.hints"

// Hint is what one mark did. It is shared and read only.
type Hint struct {
	Seq   uint64     // counts what one Server published; one more than that of the hint before, unless there is a gap
	Xtime xtime.Time // of the mark: what every directory of Dirs has got
	Dirs  []Dir      // the root of the volume last
}

// Dir is one directory that was marked.
type Dir struct {
	GFID   xtime.GFID
	Before xtime.Time // its xtime before the mark; 0: it had none
	Whole  bool       // it is not known under which names something changed
	Names  []Name     // in no order, each once
}

// Name is an entry that changed: it came, went, or is not what it was.
type Name struct {
	Name string
	Dir  xtime.GFID // where it leads to a directory of the same hint; zero otherwise, or where that is not known
}

// Limits of a hint. What goes beyond is told as a Gap, or as a directory whose names are unknown.
const (
	MaxFrame = 1 << 20 // bytes of a body
	MaxNames = 1 << 14 // of one directory
)
