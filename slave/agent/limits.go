package agent

import (
	"encoding/binary"

	"georep/slave"
)

// appendLimits encodes what a slave's files cannot show. More ranges than MaxIDRanges are cut: they
// are for messages, and for verify.
func appendLimits(b []byte, l *slave.Limits) []byte {
	for _, ranges := range [...][]slave.IDRange{l.UIDs, l.GIDs} {
		ranges = ranges[:min(len(ranges), slave.MaxIDRanges)]
		b = binary.AppendUvarint(b, uint64(len(ranges)))
		for _, r := range ranges {
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.First)), uint64(r.Count))
		}
	}
	b = binary.AppendVarint(binary.AppendVarint(b, l.Times.Min), l.Times.Max)
	return binary.AppendUvarint(b, uint64(l.Times.Step))
}

// limits decodes what appendLimits made.
func (d *decoder) limits() (l slave.Limits) {
	for _, ranges := range [...]*[]slave.IDRange{&l.UIDs, &l.GIDs} {
		for n := d.uvarint(slave.MaxIDRanges); n > 0 && d.err == nil; n-- {
			*ranges = append(*ranges, slave.IDRange{First: d.u32(), Count: d.u32()})
		}
	}
	l.Times.Min, l.Times.Max = d.varint(), d.varint()
	l.Times.Step = uint32(d.uvarint(slave.MaxStep))
	return l
}

// limitsFor leaves out what the client did not ask for. A client of an earlier version would not
// know what to do with them.
func limitsFor(h *Hello, l slave.Limits) slave.Limits {
	told := slave.Limits{}
	if h.Limits {
		told = l
	}
	told.Policy = slave.PolicyLimits{}
	if h.Policy {
		told.Policy = l.Policy
	}
	return told
}

const (
	policyNoSetuid  = 1
	policyNoDevices = 2
	policyKeepRoot  = 4
	policyOwned     = 8
	policyFake      = 16
)

// appendPolicy encodes what the policy of the slave's host changes.
func appendPolicy(b []byte, l *slave.PolicyLimits) []byte {
	b = append(b, bit(l.NoSetuid, policyNoSetuid)|bit(l.NoDevices, policyNoDevices)|bit(l.KeepRoot, policyKeepRoot)|
		bit(l.Owned, policyOwned)|bit(l.Fake, policyFake))
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(l.UID)), uint64(l.GID))
}

// policy decodes what appendPolicy made.
func (d *decoder) policy() (l slave.PolicyLimits) {
	bits := d.bits(policyNoSetuid | policyNoDevices | policyKeepRoot | policyOwned | policyFake)
	l.NoSetuid, l.NoDevices = bits&policyNoSetuid != 0, bits&policyNoDevices != 0
	l.KeepRoot, l.Owned = bits&policyKeepRoot != 0, bits&policyOwned != 0
	l.Fake = bits&policyFake != 0
	l.UID, l.GID = d.u32(), d.u32()
	return l
}
