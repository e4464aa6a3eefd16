// Package slave says what a slave is to the crawler: something that can be surveyed and that batches of operations can
// be applied to. A directory on this host (slave/disk), the agent at the far end of an SSH connection (slave/agent) and
// an SFTP account (slave/sftp) all implement Tree, and the read-only half of it, Reader, where they are opened to be inspected. The calls
// are coarse, so that distance is cheap.
//
// It owns no state and does no I/O.
//
// Two kinds of trouble are kept apart. What went wrong with one path is data in a result: a *PathError with the
// operation, the path and an errno that survives the wire, so errors.Is(err, fs.ErrNotExist) holds on either end. An
// error returned by a call is the end of the session: after it only Close may follow.
//
// Paths are relative to the slave's root, without a leading or trailing slash, "" for the root; any byte but NUL may
// stand in a name.
package slave

import (
	"context"
	"io"
	"slices"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Reserved is the one directory at a slave's root that is georep's own: never replicated, never purged.
const Reserved = ".georep"

// MaxItems bounds the lists given to one call of a Tree: queries, GFIDs, paths.
const MaxItems = 4096

// Reader is a slave that is only looked at. All methods may be called from many goroutines at once.
type Reader interface {
	// Info tells what was found when the session began. It costs nothing.
	Info() Info
	// Survey reads the state of directories: one DirState a query, in order, for as many of the queries as go into MaxSurvey
	// together, and for one at least. The rest is to be asked for again.
	Survey(ctx context.Context, queries []Query) ([]DirState, error)
	// Hash digests files, to adopt what the slave already holds. One HashResult a path, in order.
	Hash(ctx context.Context, paths []string) ([]HashResult, error)
	// Count counts the entries at and below each path, to know what a purge would remove; counting stops at limit.
	Count(ctx context.Context, paths []string, limit int64) ([]int64, error)
	// Close ends the session and unblocks every call. It is idempotent.
	Close() error
}

// Tree is a slave that a session keeps in step. What it adds to Reader changes the slave, or only makes sense for who
// changes it. All methods may be called from many goroutines at once.
type Tree interface {
	Reader
	// Find tells for each GFID where the slave has that inode: parked, or in the tree. It answers by what the slave
	// remembers, checked in the tree: no listing, and no proof that it does not have what it does not find. One Found a
	// GFID, in order, for as many of them as go into MaxFound together, and for one at least.
	Find(ctx context.Context, gfids []xtime.GFID) ([]Found, error)
	// Apply applies a batch in order and returns one Result an operation, once all of them are published and, for the
	// stamps among them, durable. An operation that fails does not stop those after it.
	//
	// Batches under way at the same time take effect in any order, since they may travel over several streams: a caller
	// that needs an order waits for the result of the first. A batch whose call was given up, by its ctx, may take effect
	// at any later time until the session ends.
	Apply(ctx context.Context, batch *Batch) ([]Result, error)
	// Begin prepares an upload, or goes on with one.
	Begin(ctx context.Context, u *Upload) (UploadState, error)
	// Sums computes the signature of an upload's basis, in the wire form of package delta. emit is given it in pieces, each
	// with the number of its first block, in ascending order, while it is computed; it must not keep them.
	Sums(ctx context.Context, q SumsQuery, emit func(first int64, sums []byte) error) (Result, error)
	// Write puts a segment in its place. Segments of one upload may be written at the same time, in any order, and again.
	// ErrNeedContent says that there is no such upload (any more): it has to begin again.
	Write(ctx context.Context, s *Segment) (Result, error)
	// Groups returns up to max inodes with several names whose names are not known to be right (invariant 14): the slave
	// has fewer than the master said, or one was removed, through which the content may have changed before. They go into
	// MaxGroups together.
	Groups(ctx context.Context, max int) ([]Group, error)
	// Clean deletes what was parked, and what was received of contents that were never published, before the given number
	// of seconds ago. It is called only when the slave is in step.
	Clean(ctx context.Context, olderThan int64) error
}

// Identity lets a worker find out whether two roots are the same place or lie within each other.
type Identity struct {
	BootID    string             // of the kernel that the slave runs on
	Ancestors []beneath.Identity // the slave's root first, then each directory above it up to /
}

// Info is what a slave tells of itself.
type Info struct {
	Version    string // of the georep at the far end
	Identity   Identity
	Namespace  xtime.Namespace // where records are kept
	Root       bool            // runs as uid 0: owners, devices and trusted xattrs can be kept
	Parked     int64           // entries parked, and contents received in part, when the session began
	FreeBytes  int64
	FreeFiles  int64  // how many more entries its file system takes; 0: that is not known, or not counted there
	Links      bool   // an OpLink costs no content
	ReadsBack  bool   // Hash transfers contents; not sent by an agent, which reads them where they are
	NoPlaces   bool   // Find tells nothing of what has a single name in the tree; not sent by an agent, which knows
	LinksClean bool   // Groups had nothing to tell when the session began; false where that was not looked at
	Path       string // of the slave's root on its host, for messages
	// Slave is the slave's name, by which the master knows it again (Proof); zero where it was opened to be inspected.
	Slave xtime.UUID
	// Filter is what the last OpFilter of a session of this master put on record; zero: none ever did.
	Filter Record
	Limits Limits
	// Confined says, for people, what confines the process that carries out what it is told; "" where nothing does.
	Confined string
	// Promoted says, for people, what made the slave the writable side; "" where it follows its master. Only an inspected slave says it:
	// no other is opened then.
	Promoted string
}

// Record is what the slave keeps on an entry of where its content comes from. On a directory Xtime is its stamp. The
// zero Record means that there is none.
type Record struct {
	GFID  xtime.GFID
	Xtime xtime.Time
}

// Query asks for a directory, or for a share of a large one: the entries with PartOf(name, Parts) == Part. With ByName it
// asks for the entries Names, MaxNames at most: those that are there are returned, and the directory is not listed.
type Query struct {
	Path   string
	Part   uint32
	Parts  uint32 // 0 and 1 mean all
	ByName bool
	Names  []string
}

// MaxNames is how many names a query may have.
const MaxNames = 4096

// Valid tells whether a query that a master sent can be answered.
func (q *Query) Valid() bool {
	return AllowedPath(q.Path) && (q.Parts <= 1 || q.Part < q.Parts) && len(q.Names) <= MaxNames &&
		!slices.ContainsFunc(q.Names, func(name string) bool { return !beneath.ValidName(name) })
}

// MaxEntries is how many entries a survey returns of one query. A directory with more, or with entries that weigh more than
// MaxSurvey, comes back with Truncated set, and is asked for again in parts, or in smaller ones.
const MaxEntries = 20_000

// AllowedPath tells whether a path that a master sent may be worked on: it stays below the root, and out of Reserved.
func AllowedPath(path string) bool {
	if path == Reserved || strings.HasPrefix(path, Reserved+"/") {
		return false
	}
	return beneath.ValidPath(path)
}

// PartOf says which of parts shares of a directory the name belongs to (FNV-1a, 32 bits). Both ends use it, so that a
// large directory is compared in bounded memory although no two file systems list in the same order.
func PartOf(name string, parts uint32) uint32 {
	if parts <= 1 {
		return 0
	}
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	// The low bits of FNV alone are weak for short names.
	return (h ^ h>>15) % parts
}

// Copy tells the copies apart that a slave may have of one directory of the master: one that was parked, and one that was
// made anew. A directory keeps its Copy wherever it is moved. No two have the same at one time; what an OpMkdir makes may
// have that of one that was deleted before. 0: not known.
type Copy uint64

// DirState is a directory on the slave.
type DirState struct {
	Err       error // *PathError: fs.ErrNotExist, unix.ENOTDIR, ...
	Record    Record
	Copy      Copy
	Entries   []EntryState // in no order
	Total     int64        // entries of the whole directory, whatever the part; 0 where it was asked ByName
	Truncated bool         // Entries is empty; ask again in parts, or for fewer names
}

// EntryState is one entry of a directory on the slave. Entries of kinds that cannot carry a record in the slave's
// namespace have a zero Record, and are compared by what is here.
type EntryState struct {
	Name   string
	Kind   Kind
	Record Record
	Copy   Copy   // of a directory
	Mode   uint32 // 07777
	UID    uint32
	GID    uint32
	Nlink  uint32
	Size   int64
	Mtime  beneath.Time
	Rdev   uint64
	Target string // of a symbolic link without a record
}

// Found is the answer of Find.
type Found struct {
	Parked bool       // an OpUnpark can put it under a new name
	Path   string     // where Parked within a directory: OpUnpark's From; else a path in the tree, "" if there is none
	Linked bool       // an OpLink can give it a further name: it is in the tree, and no directory
	Dir    xtime.GFID // of the directory that Path, in the tree, lies in; zero where that is not known
	Record Record
}

// Group is an inode whose names are to be checked. An OpLink, OpPut or OpMeta that finds them right settles it.
type Group struct {
	GFID         xtime.GFID
	Ino          uint64 // on the master, as the operation that made it said; 0 if it did not
	MissingNames bool   // the slave has fewer names than the master said, or does not know after a crash
	Record       Record // the zero Record if the names lead to several inodes
	Names        []string
}

// MaxGroupNames bounds the names of a Group.
const MaxGroupNames = 64

// HashSize is the length of a digest: SHA-256 over the content, holes read as zeros.
const HashSize = 32

// HashResult is a file's digest, or what kept it from being read.
type HashResult struct {
	Sum  [HashSize]byte
	Size int64
	Err  error
}

// Content is a file's data on its way: pieces of ascending offset, with holes between them. It has one user at a time.
type Content interface {
	// Next returns the next piece, valid until the following call, and io.EOF after the last. Any other error is the
	// source's: the operation alone fails with it, and what was staged of it is dropped.
	Next() (Piece, error)
	// End is valid once Next has returned io.EOF.
	End() End
	io.Closer
}

// Piece is a run of data. Data is never longer than MaxPiece and never empty.
type Piece struct {
	Off  int64
	Data []byte
}

// MaxPiece bounds the data of a Piece.
const MaxPiece = 256 << 10

// End tells how a content ended.
type End struct {
	Size int64 // of the whole file, a hole at its end included
	Torn bool  // the file changed while it was read: apply it, but with no xtime on record, so that it comes back
}
