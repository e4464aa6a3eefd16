package slave

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// What a slave under the policy fake-owner keeps in xattrs of its entries, since its login cannot give it to them.
const (
	// AttrStat says what an entry is on the master, as rsync's user.rsync.%stat does: "100755 0,0 1000:1000". These are type and
	// mode in octal, as st_mode has them, the major and minor number of a device, and owner and group.
	AttrStat = "user.georep.stat"
	// AttrKept and the name of an xattr outside of the user's namespace (an ACL, a capability, a label) is the name of one with that
	// one's value.
	AttrKept = "user.georep.x."
	// attrOurs begins both: on the master's entries such names mean something else, and are not kept.
	attrOurs = "user.georep."
)

// Kept is what AttrStat says.
type Kept struct {
	Mode     uint32 // as st_mode
	UID, GID uint32
	Rdev     uint64
}

// Text is the form that ParseKept reads.
func (k *Kept) Text() []byte {
	return fmt.Appendf(nil, "%o %d,%d %d:%d", k.Mode, unix.Major(k.Rdev), unix.Minor(k.Rdev), k.UID, k.GID)
}

// ParseKept reads what is kept of an entry that is st itself. What does not fit that is nobody's word: a directory is a directory, and
// what is no file is kept as an empty one.
func ParseKept(text []byte, st *beneath.Stat) (k Kept, ok bool) {
	var major, minor uint32
	n, err := fmt.Sscanf(string(text), "%o %d,%d %d:%d", &k.Mode, &major, &minor, &k.UID, &k.GID)
	if n != 5 || err != nil || k.Mode&^(unix.S_IFMT|0o7777) != 0 {
		return Kept{}, false
	}
	k.Rdev = unix.Mkdev(major, minor)
	is, was := KindOf(st.Mode), KindOf(k.Mode)
	return k, is == was && (is == File || is == Dir) || is == File && was.Node() && st.Size == 0
}

// KeptAt reads what is kept of the entry name of d, "" for d itself, which is st; nil where that is nothing.
func KeptAt(d *beneath.Dir, name string, st *beneath.Stat) (*Kept, error) {
	if kind := KindOf(st.Mode); kind != File && kind != Dir {
		return nil, nil
	}
	text, err := d.Getxattr(name, AttrStat)
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k, ok := ParseKept(text, st)
	if !ok {
		return nil, nil
	}
	return &k, nil
}

// On puts what is kept in the place of what the entry is itself.
func (k *Kept) On(st *beneath.Stat) {
	st.Mode, st.UID, st.GID = k.Mode, k.UID, k.GID
	if KindOf(k.Mode).Device() {
		st.Rdev = k.Rdev
	}
}

// KeptName is the name under which an xattr of the master is kept; ok is false where it cannot be.
func KeptName(name string) (kept string, ok bool) {
	switch {
	case strings.HasPrefix(name, attrOurs):
		return "", false
	case strings.HasPrefix(name, "user."):
		return name, true
	}
	return AttrKept + name, len(AttrKept)+len(name) <= unix.NAME_MAX
}

// MasterName is the name that an xattr has on the master; ok is false for what is no xattr there.
func MasterName(kept string) (name string, ok bool) {
	if name, ok := strings.CutPrefix(kept, AttrKept); ok {
		return name, name != "" && !strings.HasPrefix(name, "user.")
	}
	return kept, !strings.HasPrefix(kept, attrOurs)
}
