package agent

import (
	"encoding/binary"

	"georep/slave"
)

// appendLimits encodes what a slave's files cannot show.
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
