package slave

import (
	"fmt"
	"slices"
	"strings"
)

// PolicyLimits tell what the policy of the slave's host changes of entries, whatever the master asks. The zero PolicyLimits change
// nothing.
type PolicyLimits struct {
	NoSetuid  bool // files get no set-id bits, and no capabilities
	NoDevices bool // devices are not made
	KeepRoot  bool // owner, mode and ACLs of the slave's root are its own
	Owned     bool // everything belongs to UID and GID
	UID, GID  uint32
	// Fake says that what else the policy changes is kept in xattrs, of all but symbolic links, which can have none.
	Fake bool
}

// AttrCapability is the xattr of a file's capabilities.
const AttrCapability = "security.capability"

// SetIDBits give a program the rights of its file's owner or group.
const SetIDBits = 0o6000

// String names the policy's keys, as its administrator sets them; "" for none.
func (l PolicyLimits) String() string {
	var keys []string
	for _, k := range []struct {
		name string
		set  bool
	}{{"no-setuid", l.NoSetuid}, {"no-devices", l.NoDevices}, {"keep-root-mode", l.KeepRoot}} {
		if k.set {
			keys = append(keys, k.name)
		}
	}
	if l.Owned {
		keys = append(keys, fmt.Sprintf("owner %d:%d", l.UID, l.GID))
	}
	if l.Fake {
		keys = append(keys, "fake-owner, which symbolic links cannot have")
	}
	return strings.Join(keys, ", ")
}

// Changes tells whether something of what was lost may have been lost to the policy.
func (l PolicyLimits) Changes(lost Lost) bool {
	return l.Fake && lost&(LostOwner|LostXattr) != 0 || l.NoSetuid && lost&(LostMode|LostXattr) != 0 || l.NoDevices && lost&LostDevice != 0 ||
		l.KeepRoot && lost&(LostOwner|LostMode|LostXattr) != 0 || l.Owned && lost&(LostOwner|LostMode|LostXattr) != 0
}

// Of is what becomes of an entry's meta, of which m stays as it is. Where free is set, the slave may have any owner, mode and ACLs.
func (l PolicyLimits) Of(m *Meta, kind Kind, root bool) (out Meta, free bool) {
	out = *m
	if root && l.KeepRoot {
		return out, true
	}
	wrong := l.Owned && (m.UID != l.UID || m.GID != l.GID)
	if wrong {
		out.UID, out.GID = l.UID, l.GID
	}
	if wrong || l.NoSetuid && kind != Dir {
		out.Mode &^= SetIDBits
	}
	if wrong || l.NoSetuid {
		out.Xattrs = slices.DeleteFunc(slices.Clone(m.Xattrs), func(x Xattr) bool { return x.Name == AttrCapability })
	}
	return out, false
}
