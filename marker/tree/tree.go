// Package tree is a master's tree as its marker sees it: the root, where in it something lies, and what a failed mark means.
package tree

import (
	"errors"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Volume is the tree of one volume. It does not change once the marker is open, and may be used
// from any goroutine. It holds no lock.
type Volume struct {
	Root     *beneath.Dir
	RootStat beneath.Stat
	Names    xtime.Names
	Log      zerolog.Logger
	// Often is Log for what may be said of every entry, again and again: no more of it than an operator needs.
	Often zerolog.Logger
	// Mark is the volume mark since the marker is open.
	Mark xtime.Time
}

// Inode names an inode of this machine.
type Inode struct{ Dev, Ino uint64 }

// InodeOf is the inode that a stat tells of.
func InodeOf(st *beneath.Stat) Inode { return Inode{Dev: st.Dev, Ino: st.Ino} }

// Inside tells whether d lies below the root, or is it, now.
func (v *Volume) Inside(d *beneath.Dir) (bool, error) {
	inside := false
	err := v.Climb(d, func(_ *beneath.Dir, st *beneath.Stat) { inside = inside || v.IsRoot(st) })
	return inside, err
}

// Climb calls fn for d and each directory above it, up to the volume's root or, when d lies elsewhere, to the top of
// the mount.
func (v *Volume) Climb(d *beneath.Dir, fn func(*beneath.Dir, *beneath.Stat)) error {
	at, last := d, Inode{}
	defer func() {
		if at != d {
			at.Close()
		}
	}()
	for {
		st, err := at.Stat("")
		if err != nil {
			return err
		}
		// The root of all is its own parent.
		if last == InodeOf(&st) {
			return nil
		}
		fn(at, &st)
		if v.IsRoot(&st) {
			return nil
		}
		last = InodeOf(&st)
		up, err := at.Parent()
		if errors.Is(err, unix.EXDEV) {
			return nil
		}
		if err != nil {
			return err
		}
		if at != d {
			at.Close()
		}
		at = up
	}
}

// IsRoot tells whether st is that of the root.
func (v *Volume) IsRoot(st *beneath.Stat) bool {
	return st.Dev == v.RootStat.Dev && st.Ino == v.RootStat.Ino
}

// ByCtime tells whether a crawl judges the entry by its ctime, or enters it always. It has to be the crawler's own view.
func (v *Volume) ByCtime(d *beneath.Dir, name string) bool {
	st, err := d.Stat(name)
	if err != nil {
		return false
	}
	switch {
	case st.Fixed(), st.MountID != v.RootStat.MountID:
		return true
	case v.Names.Namespace == xtime.User && (!st.IsDir() && st.Mode&unix.S_IFMT != unix.S_IFREG || d.DeniesMarks(name)):
		return true
	case readOnlyPart(v.Root, d, name):
		return true
	case st.IsDir():
		return false // its ctime tells nothing of what lies below it, unless bump sees to that
	}
	x, err := d.Xtime(name, &v.Names)
	return err == nil && x == 0
}

// ByCtimeOfKey is ByCtime of an inode by its handle.
func (v *Volume) ByCtimeOfKey(k beneath.HandleKey) bool {
	inode, err := v.Root.PinKey(k)
	if err != nil {
		return false
	}
	defer inode.Close()
	return v.ByCtime(inode, "")
}
