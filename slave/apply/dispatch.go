package apply

import (
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Actions are a slave's own ways to carry out operations, one for each kind. I is what the slave makes of an operation on its way.
// Each looks at what stands there first, since an operation may come twice (invariant 9).
type Actions[I any] interface {
	Mkdir(I) error
	Put(I) error // an OpPut, OpSymlink or OpNode, of which what can be staged is
	Link(I) error
	Unpark(I) error
	Meta(I) error
	Park(I) error
	Finish(I) error
	Filter(I) error
}

// Do carries out an operation. A kind that is not known is ErrInvalid; Op.Valid has refused it before, when the batch came.
func Do[I any](kind slave.OpKind, a Actions[I], it I) error {
	switch kind {
	case slave.OpMkdir:
		return a.Mkdir(it)
	case slave.OpPut, slave.OpSymlink, slave.OpNode:
		return a.Put(it)
	case slave.OpLink:
		return a.Link(it)
	case slave.OpUnpark:
		return a.Unpark(it)
	case slave.OpMeta:
		return a.Meta(it)
	case slave.OpPark:
		return a.Park(it)
	case slave.OpFinish:
		return a.Finish(it)
	case slave.OpFilter:
		return a.Filter(it)
	}
	return slave.ErrInvalid
}

// Inode is the inode that an operation is about: the one that it brings, or takes out of the tree.
func Inode(op *slave.Op) xtime.GFID {
	if op.Kind == slave.OpPark {
		return op.Expect
	}
	return op.Record.GFID
}

// MeantFor gives the directory that an operation's path lies in, where the operation is meant for a certain one (Op.In): while it was on
// its way that may have been moved, and another may have its place. The root is always the one. An operation that finds another there
// is to fail with ErrMoved.
func MeantFor(op *slave.Op) (dir string, insists bool) {
	dir, _ = beneath.Split(op.Path)
	return dir, !op.In.IsZero() && dir != ""
}

// HoldsBack tells whether the failure of one operation keeps another of its batch from being done: a directory is not finished
// where something at or below it has failed (invariant 6). What a failed finish holds back a Holds knows.
func HoldsBack(failed, op *slave.Op) bool {
	return op.Kind == slave.OpFinish && failed.Kind != slave.OpFinish && Within(failed.Path, op.Path)
}
