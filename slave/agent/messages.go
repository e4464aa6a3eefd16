package agent

import (
	"encoding/binary"
	"fmt"
	"math"

	"georep/internal/beneath"
	"georep/slave"
)

// Operations.

const (
	opStamp      = 1
	opLinksFinal = 2
	opUploaded   = 4
)

// appendOp encodes an operation that has passed checkOp. Its content goes in frames of its own.
func appendOp(b []byte, op *slave.Op) []byte {
	b = append(b, byte(op.Kind), byte(op.Entry), bit(op.Stamp, opStamp)|bit(op.LinksFinal, opLinksFinal)|bit(op.Uploaded, opUploaded))
	b = appendStr(b, op.Path)
	b = appendRecord(b, op.Record)
	b = appendOptionalGFID(b, op.In)
	b = appendOptionalGFID(b, op.Expect)
	b = appendMeta(b, &op.Meta)
	b = binary.AppendUvarint(b, uint64(op.Links))
	b = binary.AppendUvarint(b, op.Ino)
	b = appendStr(b, op.From)
	if op.Uploaded {
		b = append(b, op.Version[:]...)
	}
	b = binary.AppendUvarint(b, uint64(op.Pass))
	return binary.AppendUvarint(b, uint64(op.Copy))
}

// appendMeta encodes metadata; a negative size does not get here. The order is part of the
// protocol; new fields are announced by a capability.
func appendMeta(b []byte, m *slave.Meta) []byte {
	for _, v := range [...]uint64{uint64(m.Mode), uint64(m.UID), uint64(m.GID), uint64(m.Size), m.Rdev} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendTime(b, m.Mtime)
	b = appendStr(b, m.Target)
	b = binary.AppendUvarint(b, uint64(len(m.Xattrs)))
	for _, x := range m.Xattrs {
		b = appendStr(appendStr(b, x.Name), x.Value)
	}
	return b
}

// op decodes and checks an operation. Nothing in it aliases the frame. What does not validate ends
// the session: a client of ours has checked it before.
func (d *decoder) op() (op slave.Op) {
	op.Kind, op.Entry = slave.OpKind(d.u8()), slave.Kind(d.u8())
	bits := d.bits(opStamp | opLinksFinal | opUploaded)
	op.Stamp, op.LinksFinal, op.Uploaded = bits&opStamp != 0, bits&opLinksFinal != 0, bits&opUploaded != 0
	op.Path = d.str(maxPath)
	op.Record = d.record()
	op.In = d.optionalGFID()
	op.Expect = d.optionalGFID()
	op.Meta = d.meta()
	op.Links = d.u32()
	op.Ino = d.uvarint(math.MaxUint64)
	op.From = d.str(maxPath)
	if op.Uploaded {
		op.Version = d.id16()
	}
	op.Pass, op.Copy = d.u32(), slave.Copy(d.uvarint(math.MaxUint64))
	if d.err == nil {
		if err := checkOp(&op); err != nil {
			d.fail("%w", err)
		}
	}
	return op
}

// meta decodes metadata.
func (d *decoder) meta() (m slave.Meta) {
	m.Mode, m.UID, m.GID = d.u32(), d.u32(), d.u32()
	m.Size, m.Rdev = d.size(), d.uvarint(math.MaxUint64)
	m.Mtime = d.time()
	m.Target = d.str(maxTarget)
	for n := d.uvarint(maxXattrs); n > 0 && d.err == nil; n-- {
		// The value outlives the frame.
		if d.xattrs++; d.xattrs > maxBatchXattrs {
			d.fail("more than %d xattrs in one batch", maxBatchXattrs)
			break
		}
		m.Xattrs = append(m.Xattrs, slave.Xattr{Name: d.str(maxName), Value: append([]byte{}, d.bytes(maxValue)...)})
	}
	return m
}

// checkOp tells what keeps an operation from being sent. It looks at what the wire can carry;
// whether the operation makes sense is for the tree to say. Both ends use it, so they cannot
// differ.
func checkOp(op *slave.Op) error {
	switch {
	case op.Kind < slave.OpMkdir || op.Kind > slave.OpFilter:
		return fmt.Errorf("%w: unknown operation %d", slave.ErrInvalid, op.Kind)
	case op.Entry > slave.Socket:
		return fmt.Errorf("%w: unknown kind %d", slave.ErrInvalid, op.Entry)
	case len(op.Path) > maxPath || len(op.From) > maxPath:
		return fmt.Errorf("%w: a path of more than %d bytes", slave.ErrInvalid, maxPath)
	case len(op.Meta.Target) > maxTarget:
		return fmt.Errorf("%w: a target of %d bytes", slave.ErrInvalid, len(op.Meta.Target))
	case op.Meta.Size < 0 || op.Meta.Mode > 07777 || op.Meta.Mtime.Nsec > maxNsec:
		return fmt.Errorf("%w: size, mode or time out of range", slave.ErrInvalid)
	}
	return checkXattrs(op.Meta.Xattrs)
}

// checkXattrs bounds xattrs as the kernel does. The kernel's own bounds on names and values are the
// smallest of all, so nothing is lost by them.
func checkXattrs(list []slave.Xattr) error {
	if len(list) > maxXattrs {
		return fmt.Errorf("%w: %d xattrs", slave.ErrInvalid, len(list))
	}
	for _, x := range list {
		if x.Name == "" || len(x.Name) > maxName || len(x.Value) > maxValue {
			return fmt.Errorf("%w: xattr %.255q of %d bytes", slave.ErrInvalid, x.Name, len(x.Value))
		}
	}
	return nil
}

const (
	resultTorn    = 1
	resultParked  = 2
	resultEvicted = 4
)

// appendResult encodes what became of an operation.
func appendResult(b []byte, r *slave.Result) []byte {
	b = append(b, byte(r.Lost), bit(r.Torn, resultTorn)|bit(r.Parked, resultParked)|
		bit(r.Evicted, resultEvicted))
	return appendError(b, r.Err)
}

// result decodes a result. Things lost that this end does not know are kept as they are: they are only for telling.
func (d *decoder) result() (r slave.Result) {
	r.Lost = slave.Lost(d.u8())
	bits := d.bits(resultTorn | resultParked | resultEvicted)
	r.Torn, r.Parked, r.Evicted = bits&resultTorn != 0, bits&resultParked != 0, bits&resultEvicted != 0
	r.Err = d.error()
	return r
}

// Content.

// appendPiece encodes a piece; its data are the rest of the frame and have no length of their own.
func appendPiece(b []byte, p slave.Piece) []byte {
	return append(binary.AppendUvarint(b, uint64(p.Off)), p.Data...)
}

// piece takes what is left of the frame; the data alias it.
func (d *decoder) piece() (p slave.Piece) {
	p.Off = d.size()
	p.Data, d.b = d.b, nil
	if d.err == nil {
		d.err = checkPiece(p)
	}
	return p
}

// checkPiece bounds a piece by itself: neither empty nor too long, and within what a file can be.
func checkPiece(p slave.Piece) error {
	if len(p.Data) == 0 || len(p.Data) > maxData || p.Off < 0 || p.Off > math.MaxInt64-int64(len(p.Data)) {
		return malformed("a piece of %d bytes at %d", len(p.Data), p.Off)
	}
	return nil
}

// appendEnd encodes the end of a content.
func appendEnd(b []byte, e slave.End) []byte {
	return append(binary.AppendUvarint(b, uint64(e.Size)), bit(e.Torn, 1))
}

// contentEnd decodes the end of a content.
func (d *decoder) contentEnd() slave.End {
	size := d.size()
	return slave.End{Size: size, Torn: d.bits(1) != 0}
}

// Surveys.

// appendQuery encodes a question for a directory. The number of names is one more than there are, 0 where all entries are
// asked for.
func appendQuery(b []byte, q slave.Query) []byte {
	b = appendStr(b, q.Path)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(q.Part)), uint64(q.Parts))
	if !q.ByName {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(q.Names))+1)
	for _, name := range q.Names {
		b = appendStr(b, name)
	}
	return b
}

// query decodes a question. Whether the path is one, and the part is one of the parts, is for the tree to say.
func (d *decoder) query() slave.Query {
	q := slave.Query{Path: d.str(maxPath), Part: d.u32(), Parts: d.u32()}
	n := d.uvarint(slave.MaxNames + 1)
	q.ByName = n > 0
	for ; n > 1 && d.err == nil; n-- {
		q.Names = append(q.Names, d.str(maxName))
		d.weight += nameCost
	}
	return q
}

// checkQuery tells what keeps a question from being sent.
func checkQuery(q slave.Query) error {
	if len(q.Names) > slave.MaxNames {
		return fmt.Errorf("%w: %d names in one query", slave.ErrInvalid, len(q.Names))
	}
	for _, name := range q.Names {
		if len(name) > maxName {
			return fmt.Errorf("%w: a name of %d bytes", slave.ErrInvalid, len(name))
		}
	}
	return checkPath(q.Path)
}

// An answer to a survey is a list of items: each directory is one itemDir and after it one itemEntry an entry.
const (
	itemDir   = 1
	itemEntry = 2
)

// appendDirState encodes a directory without its entries, which follow as items of their own: they may be more than a
// frame can hold.
func appendDirState(b []byte, s *slave.DirState) []byte {
	b = append(b, itemDir, bit(s.Truncated, 1))
	b = appendRecord(b, s.Record)
	b = binary.AppendUvarint(b, uint64(s.Copy))
	b = binary.AppendUvarint(b, uint64(max(s.Total, 0)))
	return appendError(b, s.Err)
}

// dirState decodes a directory, after the byte that says that it is one.
func (d *decoder) dirState() (s slave.DirState) {
	s.Truncated = d.bits(1) != 0
	s.Record, s.Copy = d.record(), slave.Copy(d.uvarint(math.MaxUint64))
	s.Total = d.size()
	s.Err = d.error()
	return s
}

// appendEntry encodes an entry that is sendable.
func appendEntry(b []byte, e *slave.EntryState) []byte {
	b = appendStr(append(b, itemEntry, byte(e.Kind)), e.Name)
	b = appendRecord(b, e.Record)
	if e.Kind == slave.Dir {
		b = binary.AppendUvarint(b, uint64(e.Copy))
	}
	for _, v := range [...]uint64{uint64(e.Mode & 07777), uint64(e.UID), uint64(e.GID), uint64(e.Nlink),
		uint64(max(e.Size, 0)), e.Rdev} {
		b = binary.AppendUvarint(b, v)
	}
	return appendStr(appendTime(b, e.Mtime), e.Target)
}

// entry decodes and checks an entry. Its name goes into paths at this end, so it must be one name and no way out.
func (d *decoder) entry() (e slave.EntryState) {
	e.Kind, e.Name = slave.Kind(d.u8()), d.str(maxName)
	e.Record = d.record()
	if e.Kind == slave.Dir {
		e.Copy = slave.Copy(d.uvarint(math.MaxUint64))
	}
	e.Mode = uint32(d.uvarint(07777))
	e.UID, e.GID, e.Nlink = d.u32(), d.u32(), d.u32()
	e.Size, e.Rdev = d.size(), d.uvarint(math.MaxUint64)
	e.Mtime = d.time()
	e.Target = d.str(maxTarget)
	if d.err == nil && (!beneath.ValidName(e.Name) || e.Kind > slave.Socket) {
		d.fail("entry %q of kind %d", e.Name, e.Kind)
	}
	return e
}

// sendable tells whether an entry can be said on the wire. Names that Linux does not take elsewhere (a share of a
// foreign file system may have them) cannot be worked on through package beneath either.
func sendable(e *slave.EntryState) bool {
	return beneath.ValidName(e.Name) && len(e.Target) <= maxTarget && e.Kind <= slave.Socket
}

// The smaller answers.

const (
	foundParked = 1
	foundLinked = 2
)

// appendFound encodes where an inode is.
func appendFound(b []byte, f slave.Found) []byte {
	b = append(b, bit(f.Parked, foundParked)|bit(f.Linked, foundLinked))
	return appendRecord(appendOptionalGFID(appendStr(b, f.Path), f.Dir), f.Record)
}

// found decodes where an inode is.
func (d *decoder) found() (f slave.Found) {
	bits := d.bits(foundParked | foundLinked)
	f.Parked, f.Linked = bits&foundParked != 0, bits&foundLinked != 0
	f.Path = d.str(slave.MaxFoundPath)
	f.Dir = d.optionalGFID()
	f.Record = d.record()
	return f
}

// appendHash encodes a digest.
func appendHash(b []byte, h slave.HashResult) []byte {
	b = append(b, h.Sum[:]...)
	b = binary.AppendUvarint(b, uint64(max(h.Size, 0)))
	return appendError(b, h.Err)
}

// hash decodes a digest; it is there, if only as zeros, when there was an error.
func (d *decoder) hash() (h slave.HashResult) {
	copy(h.Sum[:], d.raw(slave.HashSize))
	h.Size = d.size()
	h.Err = d.error()
	return h
}

const groupShort = 1

// appendGroup encodes an inode whose names are to be checked.
func appendGroup(b []byte, g slave.Group) []byte {
	b = binary.AppendUvarint(append(b, g.GFID[:]...), g.Ino)
	b = appendRecord(append(b, bit(g.MissingNames, groupShort)), g.Record)
	b = binary.AppendUvarint(b, uint64(len(g.Names)))
	for _, name := range g.Names {
		b = appendStr(b, name)
	}
	return b
}

// group decodes an inode whose names are to be checked.
func (d *decoder) group() (g slave.Group) {
	g.GFID = d.id16()
	g.Ino = d.uvarint(math.MaxUint64)
	g.MissingNames = d.bits(groupShort) != 0
	g.Record = d.record()
	for n := d.uvarint(slave.MaxGroupNames); n > 0 && d.err == nil; n-- {
		g.Names = append(g.Names, d.str(slave.MaxFoundPath))
	}
	return g
}
