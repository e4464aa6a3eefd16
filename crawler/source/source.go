// Package source reads a master: its directories, what lies in them, and contents. Source is what the crawler asks of a master of
// any kind; Local is a tree on a file system of this host.
//
// A Source decides what the xtime of an entry is, what its GFID is, what carries no mark and what is covered by a mount. It never
// follows a path that others could redirect, and it changes nothing.
package source

import (
	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Source is a master during one pass. Its methods may be called from any goroutine. Errors of which Gone tells, ErrMoved and
// ErrCovered say that the tree is not as it was listed; any other is trouble with one entry.
type Source interface {
	// Check proves that the master is there, and that it is the tree that the volume was made of. Its error is ErrNotMaster.
	Check() error
	// Intact tells whether all of the master could be seen since the pass began. If not, its error is ErrNotMaster: an entry that
	// was not found may be there, so nothing that follows from what was read may be removed or stamped. It is asked before
	// every batch of operations, and has to be cheap. Any other method may say ErrNotMaster, too, and that ends the pass.
	Intact() error
	// Head reads the xtime and the GFID of the root.
	Head() (xtime.Time, xtime.GFID, error)

	// Mark is the volume mark when the pass began, Since the least xtime of a directory: the mark, or since when the filter counts.
	Mark() xtime.Time
	Since() xtime.Time

	// Open opens the directory at path, which must be the inode gfid, and reads its xtime before anything else (invariant 4).
	// The caller closes its Dir.
	Open(path string, gfid xtime.GFID) (*Directory, error)
	// OpenDir opens a directory to be listed, OpenPath one that may be unreadable. Whatever lies there is opened.
	OpenDir(path string) (*beneath.Dir, error)
	OpenPath(path string) (*beneath.Dir, error)
	// Describe reads what Open does of a directory that is open.
	Describe(d *beneath.Dir) (*Directory, error)
	// LeadsTo tells whether path is where the directory gfid is now.
	LeadsTo(path string, gfid xtime.GFID) bool

	// Names gives each name of d that is part of the master's tree, in no order, until each fails. atRoot tells that d is the root,
	// where names are left out.
	Names(d *beneath.Dir, atRoot bool, each func(beneath.Entry) error) error
	// List reads the names of one part of so many. Where there are more than slave.MaxEntries it gives none; total is how many
	// the directory has.
	List(d *beneath.Dir, part, parts uint32, atRoot bool) (names []beneath.Entry, total int, err error)
	// Reader reads the entries of the directory at path, one after the other. unmarked is a guess: most of them carry no mark.
	Reader(path string, d *beneath.Dir, unmarked bool) Reader
	// Entry reads one of them.
	Entry(path string, d *beneath.Dir, name string) (plan.Entry, error)
	// GFID reads the GFID of an entry, or of d itself where name is "".
	GFID(d *beneath.Dir, name string) (xtime.GFID, error)
	// OnMount tells whether an entry lies on the master's own mount, IsOurs whether one does that was looked at, and KnowsMounts
	// whether the kernel can tell that.
	OnMount(d *beneath.Dir, name string) bool
	IsOurs(st *beneath.Stat) bool
	KnowsMounts() bool
	// Newer tells whether the xtime of an entry that was looked at is later than since.
	Newer(d *beneath.Dir, name string, st *beneath.Stat, since xtime.Time) bool

	// Meta reads what an operation needs beyond the listing. MetaOf and FileMeta do for an entry as it was listed: another inode
	// that has taken its name lends it nothing.
	Meta(d *beneath.Dir, name string, st *beneath.Stat) (slave.Meta, error)
	MetaOf(d *beneath.Dir, e *plan.Entry) (slave.Meta, error)
	FileMeta(d *beneath.Dir, e *plan.Entry) (slave.Meta, error)
	// OpenContent opens a file of d for sending. It must be the inode that was listed; if it changed since, its content ends as torn.
	// OpenFile does for reads at any place. d must stay open until it returns, and no longer.
	OpenContent(d *beneath.Dir, listed *plan.Entry) (slave.Content, error)
	// A File may be read after the pass.
	OpenFile(d *beneath.Dir, listed *plan.Entry) (File, error)
	// Version is the File.Version that a file has which did not change since it was listed.
	Version(listed *plan.Entry) slave.Version
	// Digest digests a file, with a prefix before it. live ends it.
	Digest(path string, prefix []byte, live func() error) slave.HashResult
}

// Reader reads the entries of one directory. It is for one goroutine, and good until the directory is closed.
type Reader interface {
	// Entry reads one entry: the xtime first, so that a change after it has a newer one (invariant 4). ErrCovered: something is
	// mounted on it. What that says of itself, down to its GFID, is not the entry's.
	Entry(name string) (plan.Entry, error)
	// Covered tells whether something is mounted on an entry, without asking that.
	Covered(name string) bool
}

// Opener begins a pass over a master. A new kind of master is a package with an Opener, and a line where sessions are put together.
type Opener func(c *Config) (Source, error)

// OpenLocal is the Opener of a tree on a file system of this host.
func OpenLocal(c *Config) (Source, error) {
	m, err := NewLocal(c)
	if err != nil {
		return nil, err // not m, which would be no nil interface
	}
	return m, nil
}

// Config says what to read.
type Config struct {
	Root     *beneath.Dir // open for as long as the pass
	Path     string       // of the root, for messages and to see that it leads there still
	Identity beneath.Identity
	Names    xtime.Names
	// VolumeMark is the volume mark now; Since is since when the filter counts, zero where there is none.
	VolumeMark, Since xtime.Time
	Record            xtime.Namespace // where the slave keeps its records
	// Mounts tells, by directory, the names that something is mounted on, or was. It is asked each time: what is mounted may not
	// answer, and a user may mount it at any time.
	Mounts func() map[string]map[string]bool
	// Native is set for a file system that keeps xtimes by itself.
	Native *Native
	// FakeOwner reads owners, modes and devices as a slave under the policy fake-owner keeps them.
	FakeOwner bool
}

// Native is what a file system shows beside the tree that is replicated, where it keeps xtimes by itself. Those are read by their
// names there, and are in no list of xattrs.
type Native struct {
	Entry func(name string) bool // an entry of the root is its own
	Attr  func(name string) bool // an xattr is its own
}

// Directory is one opened directory with what was read of it before it was listed.
type Directory struct {
	Dir   *beneath.Dir
	Xtime xtime.Time // effective; the only value that may become the stamp
	Stat  beneath.Stat
	// Refuses marks: its xtime tells nothing of what changed in or below it.
	Refuses bool
}
