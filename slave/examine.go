package slave

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// ErrInspected is what an agent gives that has a slave open to be inspected, as a Reader, and is asked for what only a Tree does.
var ErrInspected = errors.New("a slave that was opened to be inspected cannot be changed")

// Nonce is what a verifier has put before whatever is hashed for it. Nobody knows it beforehand, so whoever answers has to have the
// content: a digest that was remembered proves nothing.
type Nonce [16]byte

// Describer is what a dry run asks of a slave beside what a Reader tells. Its methods are as those of an Examiner.
type Describer interface {
	// Examine tells all there is to each entry but its content. One Detail a path, in order.
	Examine(ctx context.Context, nonce Nonce, paths []string) ([]Detail, error)
}

// Examiner is what `georep verify` asks of a slave beside what a Reader tells. It is served by a slave that was opened to be inspected:
// without its lock, while the worker of the session has another one open, and without writing anything to the tree but
// what Distrust says. All methods may be called from many goroutines at once; errors are as those of Reader.
type Examiner interface {
	Describer
	// Digest is Reader's Hash of the nonce and then the content. One HashResult a path, in order.
	Digest(ctx context.Context, nonce Nonce, paths []string) ([]HashResult, error)
	// Distrust takes the xtime off the record of each entry that is there, and the stamps off all directories above it,
	// the root last: the next crawl from the root then compares exactly those. A stamp that a crawl under way writes
	// meanwhile may hide that again, so the caller looks whether it had effect. One Result a path, in order.
	Distrust(ctx context.Context, paths []string) ([]Result, error)
}

// Detail is an entry as Examine finds it. Name is empty.
type Detail struct {
	EntryState
	Ino    uint64         // of the slave's file system: two names with the same one are one inode
	Xattrs [HashSize]byte // DigestXattrs, with the nonce, of those that are replicated
	ACL    [HashSize]byte
	Coarse bool  // of Mtime nothing below a second is known: that is what a slave by SFTP shows of what it has no record of
	Err    error // *PathError: fs.ErrNotExist, ...
}

// DigestXattrs digests replicated xattrs after a nonce, those of ACLs apart, whatever their order. A slave that does not run as root
// (Info.Root) cannot keep all names: then only those are counted that it can. No xattrs give zeros.
func DigestXattrs(nonce Nonce, list []Xattr, root bool) (other, acl [HashSize]byte) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	for _, x := range list {
		switch {
		case strings.HasPrefix(x.Name, "system.posix_acl_"):
			acl = digestMore(nonce, acl, x)
		case root || strings.HasPrefix(x.Name, "user."):
			other = digestMore(nonce, other, x)
		}
	}
	return other, acl
}

// digestMore adds one xattr. Lengths before the parts keep different lists apart.
func digestMore(nonce Nonce, sum [HashSize]byte, x Xattr) [HashSize]byte {
	if sum == ([HashSize]byte{}) {
		copy(sum[:], nonce[:]) // the first one
	}
	b := binary.AppendUvarint(sum[:], uint64(len(x.Name)))
	b = append(b, x.Name...)
	b = binary.AppendUvarint(b, uint64(len(x.Value)))
	return sha256.Sum256(append(b, x.Value...))
}
