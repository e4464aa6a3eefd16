package compare

import (
	"errors"
	"fmt"
	"regexp"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// Kind names what differs.
type Kind string

// The kinds of difference. Missing and Extra are seen from the first tree, the master: Missing is what the second tree
// lacks. Vanished means that the entry, listed a moment before, was gone when it was read: somebody writes to the tree.
const (
	Missing  Kind = "missing"
	Extra    Kind = "extra"
	Vanished Kind = "vanished"
	Type     Kind = "type"
	Mode     Kind = "mode"
	UID      Kind = "uid"
	GID      Kind = "gid"
	Size     Kind = "size"
	Content  Kind = "content"
	Mtime    Kind = "mtime"
	Rdev     Kind = "rdev"
	Target   Kind = "target"
	Xattr    Kind = "xattr"
	Nlink    Kind = "nlink"
	Links    Kind = "links"
	Holes    Kind = "holes"
)

// Difference is one thing in which the trees differ. Path is relative to the roots, "." for the roots themselves, and
// holds the name's bytes as they are. A and B say for people what each tree has.
type Difference struct {
	Path string
	Kind Kind
	A, B string
}

// String gives the difference on one line with the path quoted.
func (d Difference) String() string {
	return fmt.Sprintf("%-8s %s: %s != %s", d.Kind, Quote(d.Path), d.A, d.B)
}

// Quote quotes a path for people and shortens it in the middle when it is too long to read.
func Quote(path string) string {
	const keep = 120
	if len(path) <= 2*keep {
		return fmt.Sprintf("%q", path)
	}
	return fmt.Sprintf("%q...(%d bytes)...%q", path[:keep], len(path), path[len(path)-keep:])
}

// Options narrows a comparison. The zero value compares everything but holes.
type Options struct {
	// IgnoreTop lists names at the root that count in neither tree, like ".georep".
	IgnoreTop []string
	// IgnoreXattr says which attributes count in neither tree. See OwnXattr.
	IgnoreXattr func(name string) bool
	// Skip leaves an entry out, with all below it, in both trees. It is given the relative path.
	Skip func(path string) bool
	// IgnoreRoot leaves out the attributes of the two roots themselves.
	IgnoreRoot bool
	// IgnoreMode leaves out permission bits.
	IgnoreMode bool
	// IgnoreMtime leaves out all times, IgnoreDirMtime those of directories.
	IgnoreMtime, IgnoreDirMtime bool
	// IgnoreNlink leaves out link counts, for trees whose files have names elsewhere. Which paths share an inode is
	// compared all the same.
	IgnoreNlink bool
	// Holes also compares how much data regular files hold outside of holes: the second tree may hold at most HoleSlack
	// bytes (64 KiB when 0) a file more than the first. Both must lie on the same kind of file system.
	Holes     bool
	HoleSlack int64
	// Max bounds the number of differences (100 when 0). The comparison ends when it is reached.
	Max int
}

// OwnXattr reports whether georep itself keeps an attribute of that name.
func OwnXattr(name string) bool { return ownXattr.MatchString(name) }

var ownXattr = regexp.MustCompile(`^(trusted|user)\.glusterfs\.[0-9a-f-]{36}\.(xtime|gfid)$`)

// Replica is what a test of georep wants: everything, but georep's own attributes and its reserved directory.
func Replica() Options {
	return Options{IgnoreTop: []string{".georep"}, IgnoreXattr: OwnXattr}
}

// Trees compares the trees at a and b and returns what differs, in the byte order of names, at most opts.Max. No
// difference is an empty slice. An error means that the comparison itself was not possible; the differences found until
// then come with it. Both trees should be at rest: what moves meanwhile shows up as a difference, mostly Vanished.
func Trees(a, b string, opts Options) ([]Difference, error) {
	w := newWalk(opts)
	rootA, err := at.OpenRoot(a)
	if err != nil {
		return nil, err
	}
	defer unix.Close(rootA)
	rootB, err := at.OpenRoot(b)
	if err != nil {
		return nil, err
	}
	defer unix.Close(rootB)
	err = w.root(rootA, rootB)
	if errors.Is(err, errFull) {
		err = nil
	}
	return w.found, err
}

// errFull ends a walk that found as many differences as asked for.
var errFull = errors.New("enough differences")
