package apply

import (
	"georep/marker/xtime"
	"georep/slave"
)

// Standing is what stands at a place of the slave. The zero value is nothing; what has no record has a zero Record.
type Standing struct {
	There  bool
	Kind   slave.Kind
	Record slave.Record
}

// is tells whether a state of the inode on record as g stands there.
func (s *Standing) is(g xtime.GFID) bool { return s.There && s.Record.GFID == g }

// Mkdir refuses an OpMkdir where something else than a directory stands, or a directory of another inode than the master
// expects. One that has no record is taken, and so is whatever directory the root is.
func Mkdir(op *slave.Op, old Standing) error {
	if old.Kind != slave.Dir {
		return slave.ErrConflict
	}
	g := old.Record.GFID
	if op.Path == "" || g.IsZero() || g == op.Record.GFID || g == op.Expect {
		return nil
	}
	return slave.ErrConflict
}

// Finish refuses an OpFinish where the directory of the operation is at its path no more: another stands there, or another copy of
// the same. The root alone may have another GFID.
func Finish(op *slave.Op, old Standing, copy slave.Copy) error {
	if op.Copy != 0 && op.Copy != copy {
		return slave.ErrMoved
	}
	if op.Path != "" && !op.Record.GFID.IsZero() && op.Record.GFID != old.Record.GFID {
		return slave.ErrMoved
	}
	return nil
}

// Meta refuses an OpMeta where another entry stands than the master has compared. recorded tells that entries of this kind carry
// records on this slave; where they do not, the kind is all that can be known.
func Meta(op *slave.Op, old Standing, recorded bool) error {
	if old.Kind != op.Entry {
		return slave.ErrConflict
	}
	if g := old.Record.GFID; recorded && g != op.Expect && g != op.Record.GFID {
		return slave.ErrConflict
	}
	return nil
}

// Park tells whether an OpPark has something to take out of the tree. What is gone already needs nothing; another entry than the
// master expects stays.
func Park(op *slave.Op, old Standing) (take bool, err error) {
	switch {
	case !old.There:
		return false, nil
	case old.Record.GFID != op.Expect:
		return false, slave.ErrConflict
	}
	return true, nil
}

// Unpark tells whether an OpUnpark has something to bring back. An inode that is at its path already needs nothing. What stands
// there and is no directory makes way.
func Unpark(op *slave.Op, parked, old Standing) (bring bool, err error) {
	g := op.Record.GFID
	switch {
	case old.is(g):
		return false, nil
	case !parked.is(g):
		return false, slave.ErrNeedContent
	case old.Kind == slave.Dir:
		return false, slave.ErrConflict
	}
	return true, nil
}

// Displaces tells whether an operation that makes something at its path takes the place of another inode of the master. That is
// parked, for it may be wanted elsewhere.
func Displaces(op *slave.Op, old Standing) bool {
	g := old.Record.GFID
	return old.There && !g.IsZero() && g != op.Record.GFID
}

// ReplacesAll tells whether new content has to take the place of all names of its inode (invariant 14): it has several on the
// master, or the slave has others of the one that stands there. names is how many these are.
func ReplacesAll(op *slave.Op, old Standing, names int) bool {
	g := op.Record.GFID
	return !g.IsZero() && (op.Links > 1 || old.is(g) && names > 1)
}

// LinkAs says what an OpLink is to do.
type LinkAs uint8

const (
	// LinkNew: the path becomes a name of the source, in place of what stands there.
	LinkNew LinkAs = iota
	// LinkKnown: the path and the source are names of one inode already.
	LinkKnown
	// LinkKept: what stands at the path is a state of the inode that is as good as any that the slave has, so the other names are to
	// follow it, and not the reverse.
	LinkKept
)

// Link decides what an OpLink does. source is what it would link to, or nothing where the slave has found none; one tells that what
// stands at the path is the source.
func Link(op *slave.Op, old, source Standing, one bool) (LinkAs, error) {
	same := old.is(op.Record.GFID)
	switch {
	case old.Kind == slave.Dir:
		return 0, slave.ErrConflict
	case !source.There && same:
		return LinkKept, nil
	case !source.There:
		return 0, slave.ErrNeedContent
	case one:
		return LinkKnown, nil
	case same && Newer(old.Record, source.Record, op.Record):
		return LinkKept, nil
	}
	return LinkNew, nil
}

// Newer tells whether a is a better state of an inode than b: the wanted one, or else the later one.
func Newer(a, b, want slave.Record) bool {
	if a.Xtime == b.Xtime || b.Xtime == want.Xtime {
		return false
	}
	return a.Xtime == want.Xtime || a.Xtime > b.Xtime
}
