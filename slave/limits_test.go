package slave

import (
	"encoding/binary"
	"testing"

	"georep/internal/beneath"
)

func TestTimesThatAreKept(t *testing.T) {
	narrow := TimeLimits{Min: -100, Max: 100, Step: 1000}
	for _, c := range []struct {
		limits     TimeLimits
		give, want beneath.Time
	}{
		{TimeLimits{}, beneath.Time{Sec: 1 << 50, Nsec: 1}, beneath.Time{Sec: 1 << 50, Nsec: 1}},
		{narrow, beneath.Time{Sec: 5, Nsec: 12_345}, beneath.Time{Sec: 5, Nsec: 12_000}},
		{narrow, beneath.Time{Sec: -101, Nsec: 5000}, beneath.Time{Sec: -100}},
		{narrow, beneath.Time{Sec: 100, Nsec: 5000}, beneath.Time{Sec: 100}},
		{narrow, beneath.Time{Sec: 1 << 40}, beneath.Time{Sec: 100}},
		{TimeLimits{Min: -100, Max: 100, Step: MaxStep}, beneath.Time{Sec: 7, Nsec: 999_999_999}, beneath.Time{Sec: 7}},
	} {
		if got := c.limits.Keep(c.give); got != c.want {
			t.Errorf("%+v keeps %v as %v, want %v", c.limits, c.give, got, c.want)
		}
	}
}

// acl makes the xattr of an ACL of entries tag, perm, id.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, uint16(e[0])), uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

func TestIDsOfANamespace(t *testing.T) {
	none := ^uint32(0)
	named := acl([3]uint32{1, 6, none}, [3]uint32{aclUser, 7, 4321}, [3]uint32{aclGroupObj, 4, none}, [3]uint32{16, 7, none}, [3]uint32{32, 0, none})
	plain := acl([3]uint32{1, 6, none}, [3]uint32{aclGroupObj, 0, none}, [3]uint32{aclGroup, 5, 20}, [3]uint32{16, 5, none}, [3]uint32{32, 0, none})
	l := Limits{UIDs: []IDRange{{0, 10}, {1000, 1}}, GIDs: []IDRange{{0, 50}}}
	for id, want := range map[uint32]bool{0: true, 9: true, 10: false, 1000: true, 1001: false, none: false} {
		if l.HasUID(id) != want {
			t.Errorf("uid %d", id)
		}
	}
	if l.HasACL(named) || !l.HasACL(plain) || !(&Limits{}).HasACL(named) || !l.HasACL([]byte("xx")) {
		t.Error("ids of ACLs")
	}
	if got := WithoutACL(0o6670, named); got != 0o6640 {
		t.Errorf("mode %o without the ACL", got)
	}
	if got := WithoutACL(0o650, plain); got != 0o600 {
		t.Errorf("mode %o without the ACL", got)
	}
}
