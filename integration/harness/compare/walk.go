package compare

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// walk is one comparison under way. It is used by one goroutine.
type walk struct {
	opts  Options
	found []Difference
	bufA  []byte
	bufB  []byte
	// linksA and linksB give the first path met of every inode that has several names.
	linksA, linksB map[inode]string
}

// inode identifies what a name stands for.
type inode struct{ dev, ino uint64 }

// side is one entry of one tree: name in the directory dir.
type side struct {
	dir  int
	name string
	st   unix.Stat_t
}

// pair is one path in both trees.
type pair struct {
	path string
	a, b side
}

// newWalk fills in the defaults.
func newWalk(opts Options) *walk {
	if opts.Max <= 0 {
		opts.Max = 100
	}
	if opts.HoleSlack <= 0 {
		opts.HoleSlack = 64 << 10
	}
	if opts.IgnoreXattr == nil {
		opts.IgnoreXattr = func(string) bool { return false }
	}
	if opts.Skip == nil {
		opts.Skip = func(string) bool { return false }
	}
	return &walk{
		opts: opts, found: []Difference{},
		bufA: make([]byte, 256<<10), bufB: make([]byte, 256<<10),
		linksA: map[inode]string{}, linksB: map[inode]string{},
	}
}

// report notes a difference and returns errFull once there are enough.
func (w *walk) report(path string, kind Kind, a, b string) error {
	w.found = append(w.found, Difference{Path: path, Kind: kind, A: a, B: b})
	if len(w.found) >= w.opts.Max {
		return errFull
	}
	return nil
}

// root compares the roots' own attributes, then what is in them.
func (w *walk) root(a, b int) error {
	if !w.opts.IgnoreRoot {
		p, err := newPair(".", side{dir: a, name: "."}, side{dir: b, name: "."})
		if err != nil {
			return err
		}
		if err := w.attributes(p); err != nil {
			return err
		}
	}
	return w.directory("", a, b)
}

// newPair reads the attributes of both sides.
func newPair(path string, a, b side) (pair, error) {
	p := pair{path: path, a: a, b: b}
	var err error
	if p.a.st, err = at.Stat(a.dir, a.name); err != nil {
		return p, err
	}
	p.b.st, err = at.Stat(b.dir, b.name)
	return p, err
}

// directory compares what two open directories hold. prefix is "" at the root, else the path with a slash behind it.
func (w *walk) directory(prefix string, a, b int) error {
	namesA, err := at.Names(a)
	if err != nil {
		return fmt.Errorf("compare %s: %w", Quote(prefix), err)
	}
	namesB, err := at.Names(b)
	if err != nil {
		return fmt.Errorf("compare %s: %w", Quote(prefix), err)
	}
	for len(namesA) > 0 || len(namesB) > 0 {
		name, inA, inB := next(&namesA, &namesB)
		path := prefix + name
		if prefix == "" && slices.Contains(w.opts.IgnoreTop, name) || w.opts.Skip(path) {
			continue
		}
		if err := w.name(path, oneOrBoth{a, b, name, inA, inB}); err != nil {
			return err
		}
	}
	return nil
}

// next takes the smaller of the first names of two sorted lists off the lists that have it.
func next(a, b *[]string) (name string, inA, inB bool) {
	switch {
	case len(*b) == 0 || len(*a) > 0 && (*a)[0] < (*b)[0]:
		inA = true
	case len(*a) == 0 || (*b)[0] < (*a)[0]:
		inB = true
	default:
		inA, inB = true, true
	}
	if inA {
		name, *a = (*a)[0], (*a)[1:]
	}
	if inB {
		name, *b = (*b)[0], (*b)[1:]
	}
	return name, inA, inB
}

// oneOrBoth is a name together with the directories that have it.
type oneOrBoth struct {
	a, b     int
	name     string
	inA, inB bool
}

// name compares one name, which at least one of two directories has. What is missing is reported once, not with all
// that would be below it.
func (w *walk) name(path string, n oneOrBoth) error {
	switch {
	case !n.inB:
		return w.report(path, Missing, describe(n.a, n.name), "nothing")
	case !n.inA:
		return w.report(path, Extra, "nothing", describe(n.b, n.name))
	}
	p, err := newPair(path, side{dir: n.a, name: n.name}, side{dir: n.b, name: n.name})
	if err == nil {
		err = w.pair(p)
	}
	if gone(err) {
		return w.report(path, Vanished, err.Error(), "")
	}
	return err
}

// pair compares what has the same path. Things of different type are not compared further.
func (w *walk) pair(p pair) error {
	if p.a.kind() != p.b.kind() {
		return w.report(p.path, Type, typeName(p.a.kind()), typeName(p.b.kind()))
	}
	if err := w.attributes(p); err != nil {
		return err
	}
	switch p.a.kind() {
	case unix.S_IFDIR:
		return w.descend(p)
	case unix.S_IFREG:
		if err := w.regular(p); err != nil {
			return err
		}
	case unix.S_IFLNK:
		if err := w.symlink(p); err != nil {
			return err
		}
	}
	return w.links(p)
}

// descend opens and compares two directories.
func (w *walk) descend(p pair) error {
	a, err := at.OpenDir(p.a.dir, p.a.name)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	b, err := at.OpenDir(p.b.dir, p.b.name)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	return w.directory(p.path+"/", a, b)
}

// links compares the partition of paths into inodes: the first path at which each inode was met must be the same.
func (w *walk) links(p pair) error {
	if p.a.st.Nlink != p.b.st.Nlink && !w.opts.IgnoreNlink {
		if err := w.report(p.path, Nlink, fmt.Sprint(p.a.st.Nlink), fmt.Sprint(p.b.st.Nlink)); err != nil {
			return err
		}
	}
	firstA := first(w.linksA, p.a.st, p.path)
	firstB := first(w.linksB, p.b.st, p.path)
	if firstA == firstB {
		return nil
	}
	return w.report(p.path, Links, "one inode with "+Quote(firstA), "one inode with "+Quote(firstB))
}

// first returns the path at which the inode was met first, which may be this one.
func first(met map[inode]string, st unix.Stat_t, path string) string {
	if st.Nlink < 2 {
		return path
	}
	key := inode{st.Dev, st.Ino}
	if known, ok := met[key]; ok {
		return known
	}
	met[key] = path
	return path
}

func (s side) kind() uint32 { return s.st.Mode & unix.S_IFMT }

func (s side) mtime() time.Time { return time.Unix(s.st.Mtim.Unix()) }

// describe says for people what only one tree has.
func describe(dir int, name string) string {
	st, err := at.Stat(dir, name)
	if err != nil {
		return err.Error()
	}
	return typeName(st.Mode & unix.S_IFMT)
}

// typeName is the type in plain words.
func typeName(kind uint32) string {
	switch kind {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	}
	return fmt.Sprintf("type %o", kind)
}
