package at

import "encoding/binary"

// The tags of POSIX ACL entries, as the kernel numbers them.
const (
	ACLUserObj  = 0x01
	ACLUser     = 0x02
	ACLGroupObj = 0x04
	ACLGroup    = 0x08
	ACLMask     = 0x10
	ACLOther    = 0x20
)

// The two attributes that hold ACLs.
const (
	ACLAccess  = "system.posix_acl_access"
	ACLDefault = "system.posix_acl_default"
)

// ACLEntry is one line of an ACL. ID counts only with ACLUser and ACLGroup.
type ACLEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// ACL encodes entries as the value of a system.posix_acl_* attribute. The kernel wants them in the order of their tags,
// then of their ids, and a mask wherever a named user or group stands.
func ACL(entries ...ACLEntry) string {
	value := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		id := e.ID
		if e.Tag != ACLUser && e.Tag != ACLGroup {
			id = 0xffffffff
		}
		value = binary.LittleEndian.AppendUint16(value, e.Tag)
		value = binary.LittleEndian.AppendUint16(value, e.Perm)
		value = binary.LittleEndian.AppendUint32(value, id)
	}
	return string(value)
}

// SimpleACL is the ACL u::rw?,user:uid:perm,g::r--,mask,o::---, with every permission cut from perm's three bits.
func SimpleACL(uid uint32, perm uint16) string {
	return ACL(
		ACLEntry{Tag: ACLUserObj, Perm: 7},
		ACLEntry{Tag: ACLUser, Perm: perm & 7, ID: uid},
		ACLEntry{Tag: ACLGroupObj, Perm: 4},
		ACLEntry{Tag: ACLMask, Perm: perm&7 | 4},
		ACLEntry{Tag: ACLOther, Perm: 0},
	)
}
