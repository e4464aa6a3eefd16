package slave

import (
	"encoding/binary"

	"georep/internal/beneath"
)

// Limits tell what a slave's files cannot show, as far as that is known of all of them beforehand. The zero Limits are none.
type Limits struct {
	// UIDs and GIDs are those that the slave's user namespace has, where it is not the host's own: entries of others get the
	// slave's own. None stands for all.
	UIDs, GIDs []IDRange
	Times      TimeLimits
	// Policy is what the policy of the slave's host changes.
	Policy PolicyLimits
}

// IDRange is a range of ids.
type IDRange struct{ First, Count uint32 }

// MaxIDRanges is how many ranges the kernel takes for a namespace.
const MaxIDRanges = 340

// None tells whether nothing is known to be beyond the slave.
func (l *Limits) None() bool { return len(l.UIDs) == 0 && len(l.GIDs) == 0 && l.Times == TimeLimits{} }

// Namespace tells whether the slave runs in a user namespace, as its root.
func (l *Limits) Namespace() bool { return len(l.UIDs) > 0 }

// HasUID and HasGID tell whether an id exists on the slave.
func (l *Limits) HasUID(id uint32) bool { return hasID(l.UIDs, id) }

// HasGID is HasUID for groups.
func (l *Limits) HasGID(id uint32) bool { return hasID(l.GIDs, id) }

func hasID(ranges []IDRange, id uint32) bool {
	for _, r := range ranges {
		if id >= r.First && uint64(id) < uint64(r.First)+uint64(r.Count) {
			return true
		}
	}
	return len(ranges) == 0
}

// HasACL tells whether the slave has all the ids that an ACL names.
func (l *Limits) HasACL(acl []byte) bool {
	for _, e := range aclEntries(acl) {
		if e.tag == aclUser && !l.HasUID(e.id) || e.tag == aclGroup && !l.HasGID(e.id) {
			return false
		}
	}
	return true
}

// The xattrs of POSIX ACLs.
const (
	AttrACL        = "system.posix_acl_access"
	AttrDefaultACL = "system.posix_acl_default"
)

// Tags of an ACL's entries, as linux/posix_acl.h has them.
const (
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclHead     = 4
	aclEntry    = 8
)

type aclOne struct {
	tag, perm uint16
	id        uint32
}

// aclEntries reads an ACL's xattr; what is no ACL has no entries.
func aclEntries(acl []byte) (list []aclOne) {
	for at := aclHead; at+aclEntry <= len(acl); at += aclEntry {
		list = append(list, aclOne{binary.LittleEndian.Uint16(acl[at:]), binary.LittleEndian.Uint16(acl[at+2:]),
			binary.LittleEndian.Uint32(acl[at+4:])})
	}
	return list
}

// WithoutACL is the mode that an entry may have without its ACL: the group's bits of mode are the ACL's mask, which may be
// wider than what the ACL gives the owning group.
func WithoutACL(mode uint32, acl []byte) uint32 {
	for _, e := range aclEntries(acl) {
		if e.tag == aclGroupObj {
			return mode &^ (0o070 &^ (uint32(e.perm&7) << 3))
		}
	}
	return mode
}

// TimeLimits are the times that a file system can keep: from Min to Max, in steps of Step nanoseconds. No Step stands for
// all times.
type TimeLimits struct {
	Min, Max int64
	Step     uint32
}

// MaxStep is a second, the coarsest that TimeLimits tell of.
const MaxStep = 1_000_000_000

// Keep gives what becomes of a time, as the kernel does it.
func (l TimeLimits) Keep(t beneath.Time) beneath.Time {
	if l.Step == 0 {
		return t
	}
	t.Nsec -= t.Nsec % l.Step
	t.Sec = min(max(t.Sec, l.Min), l.Max)
	if t.Sec == l.Min || t.Sec == l.Max {
		t.Nsec = 0
	}
	return t
}
