package slave

import (
	"fmt"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Kind is the type of an entry. The values are those of DT_* in directory listings.
type Kind uint8

// The kinds of entries.
const (
	Unknown  Kind = 0
	Fifo     Kind = 1
	CharDev  Kind = 2
	Dir      Kind = 4
	BlockDev Kind = 6
	File     Kind = 8
	Symlink  Kind = 10
	Socket   Kind = 12
)

// KindOf gives the kind for an st_mode.
func KindOf(mode uint32) Kind { return Kind(mode >> 12 & 15) }

// TypeBits gives the S_IFMT bits of an st_mode.
func (k Kind) TypeBits() uint32 { return uint32(k) << 12 }

// Node tells whether entries of this kind are made by mknod.
func (k Kind) Node() bool { return k == Fifo || k == Socket || k == CharDev || k == BlockDev }

// Device tells whether Rdev means something.
func (k Kind) Device() bool { return k == CharDev || k == BlockDev }

// String names the kind for people.
func (k Kind) String() string {
	switch k {
	case Fifo:
		return "fifo"
	case CharDev:
		return "character device"
	case Dir:
		return "directory"
	case BlockDev:
		return "block device"
	case File:
		return "file"
	case Symlink:
		return "symbolic link"
	case Socket:
		return "socket"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// CarriesRecord tells whether entries of this kind can carry xattrs of the namespace.
func (k Kind) CarriesRecord(ns xtime.Namespace) bool {
	return ns == xtime.Trusted || k == File || k == Dir
}

// Meta is everything of an entry but its name and content.
type Meta struct {
	Mode   uint32 // 07777
	UID    uint32
	GID    uint32
	Mtime  beneath.Time
	Size   int64  // of a file
	Rdev   uint64 // of a device
	Target string // of a symbolic link
	Xattrs []Xattr
}

// Xattr is one replicated extended attribute, ACLs and capabilities included; never one of our own (xtime.Names.Own).
type Xattr struct {
	Name  string
	Value []byte
}

// OpKind says what an operation does.
type OpKind uint8

// The operations. Each is idempotent: applied twice, or again after a lost answer, it ends the same.
const (
	// OpMkdir makes the directory Path, or takes the one that is there, with Meta's owner and mode, and records GFID
	// without a stamp where another GFID was on record, which must be the one that Expect names. Times and xattrs come with
	// OpFinish.
	OpMkdir OpKind = iota + 1
	// OpPut makes or replaces the file Path with the content that Open gives, Meta and Record. It is staged, made
	// durable and renamed; a file of another GFID that stood there is parked in the same moment. If Links > 1 all
	// names of the inode follow (see Links).
	OpPut
	// OpSymlink and OpNode make or replace a symbolic link, FIFO, socket or device the same way.
	OpSymlink
	OpNode
	// OpLink makes Path a further name of the inode on record as GFID, found through From, the slave's own knowledge of
	// links, or not at all: then the result is ErrNeedContent. What stood at Path is parked if it is another inode.
	OpLink
	// OpUnpark puts the parked inode on record as GFID under Path. From is empty, or says where in a parked directory
	// it is, as Find told. Its record stays as it was.
	OpUnpark
	// OpMeta sets Meta and Record on the entry Path, whose content is already right. Expect says what must be there.
	OpMeta
	// OpPark moves the entry Path, on record as Expect, out of the tree. If it is gone already that is success.
	OpPark
	// OpFinish sets Meta on the directory Path after all below it is done, and where Stamp is set, records Record.Xtime
	// as its stamp once everything applied before it in this session is durable. It is refused with ErrHeldBack when an
	// OpFinish of the same Pass below it failed, or another operation at or below it that stands before it in the same
	// batch: so it may be sent without waiting for their results. Where another directory, or another Copy, stands at Path
	// by then it is refused with ErrMoved. The root alone may get its GFID by it.
	OpFinish
	// OpFilter puts on record, durably, which filter the session has (Record.GFID, zero for none) and since when that counts
	// (Record.Xtime): Info.Filter tells the next session. It is about no entry.
	OpFilter
)

// String names the operation as logs and the status do.
func (k OpKind) String() string {
	names := [...]string{"", "mkdir", "put", "symlink", "mknod", "link", "unpark", "meta", "park", "finish", "filter"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("op %d", uint8(k))
}

// Op is one operation. Which fields count is said at its kind.
type Op struct {
	Kind   OpKind
	Entry  Kind // of what is made
	Path   string
	Record Record
	// In is the directory that Path should lie in, where that is known: what is made, moved there or taken from there comes to, or
	// leaves, no other, but fails with ErrMoved. The root's children need none.
	In     xtime.GFID
	Expect xtime.GFID // OpMkdir, OpMeta, OpPark: the GFID on record there; zero: an entry without a record
	Meta   Meta
	// Links is the number of names the inode has on the master, where that is more than one, and Ino its number there.
	// The agent keeps the names of such inodes together: new content through one name replaces all of them.
	Links uint32
	Ino   uint64
	// LinksFinal is set when Links is what a search of the whole master found, where an inode may have names elsewhere; and where
	// it takes back what such a search has found, so that there is another one.
	LinksFinal bool
	From       string // OpLink: a name that should have the inode, "" if not known; OpUnpark
	// Uploaded says that an OpPut's content was sent ahead, complete, as the upload of this Version; ErrNeedContent
	// answers if it is neither there nor published. Open is not called then.
	Uploaded bool
	Version  Version
	Stamp    bool   // OpFinish
	Pass     uint32 // OpFinish: the crawl it belongs to
	Copy     Copy   // OpFinish: which copy of the directory is meant; 0 where that is not known
	// Open gives an OpPut's content. The applier calls it once, in the order of the operations, and closes what it
	// returns. An error fails the operation alone.
	Open func() (Content, error)
}

// Streams tells whether the operation's content travels behind it in its batch.
func (op *Op) Streams() bool { return op.Kind == OpPut && !op.Uploaded }

// Batch is a list of operations applied in order. MaxOps bounds its length.
type Batch struct {
	Ops []Op
}

// MaxOps is the largest number of operations in a batch.
const MaxOps = 1024

// Result is what became of one operation.
type Result struct {
	Err error // nil, or a *PathError
	// Lost says, in a word each, what the slave cannot keep of this entry and did without (an ordinary user's slave
	// cannot set owners, or make devices): it is told to the operator once.
	Lost Lost
	// Torn is set when the content changed while it was read.
	Torn bool
	// Parked is set when the operation parked something.
	Parked bool
	// Evicted is set when the slave was full, and something that was parked had to go before its time.
	Evicted bool
}

// Lost is a set of things that a slave could not keep.
type Lost uint8

// What may be lost.
const (
	LostOwner Lost = 1 << iota
	LostXattr
	LostDevice
	LostMode
	LostTime
	LostSpecial
	LostSymlink
	LostLinks
)

// String lists the set.
func (l Lost) String() string {
	s := ""
	for i, name := range []string{"owners", "some xattrs", "devices", "some modes", "exact times (nanoseconds, or years that its file system does not know)", "FIFOs and sockets",
		"symbolic links", "hard links"} {
		if l&(1<<i) == 0 {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += name
	}
	return s
}

// Valid tells whether an operation is well formed: nothing else is carried out, whoever sent it.
func (op *Op) Valid() bool {
	if !AllowedPath(op.Path) || !AllowedPath(op.From) {
		return false
	}
	for i := range op.Meta.Xattrs {
		if xtime.Reserved(op.Meta.Xattrs[i].Name) {
			return false
		}
	}
	switch op.Kind {
	case OpMkdir, OpFinish:
		return true
	case OpFilter:
		return op.Path == "" && op.Record.Xtime != 0
	case OpPut:
		return op.Path != "" && (op.Open != nil || op.Uploaded && !op.Record.GFID.IsZero())
	case OpSymlink:
		return op.Path != "" && op.Meta.Target != ""
	case OpNode:
		return op.Path != "" && op.Entry.Node()
	case OpLink, OpUnpark:
		return op.Path != "" && !op.Record.GFID.IsZero()
	case OpMeta:
		return op.Path != "" && op.Entry != Dir
	case OpPark:
		return op.Path != ""
	}
	return false
}
