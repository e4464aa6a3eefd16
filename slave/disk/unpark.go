package disk

import (
	"errors"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
)

// Park moves what the master no longer has out of the tree. A path that leads nowhere is a
// success: what should be gone is gone. Another inode than the one that was meant is ErrConflict,
// and stays. A directory takes everything in it along, its stamps too.
func (pub *publisher) Park(it *item) error {
	op := it.op
	p, err := pub.parents.open(op.Path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	if take, err := apply.Park(op, old.standing()); !take {
		return err
	}
	var linked []parkedName
	if old.kind != slave.Dir {
		err = pub.links.leaving(old)
	} else if pub.links.hasGroups() {
		linked, err = pub.links.leavingBelow(p, op.Path)
	}
	if err != nil {
		return err
	}
	to, err := pub.park.take(p, old)
	if err != nil {
		return err
	}
	for _, one := range linked {
		pub.park.twice.add(parkedName{one.gfid, beneath.Join(to.name, one.path)})
	}
	it.res.Parked = true
	if old.kind == slave.Dir {
		pub.parents.forget()
	} else if old.st.Nlink > 1 {
		pub.links.forgetName(old, op.Path)
	}
	return nil
}

// Unpark puts a parked inode back under a name. ErrNeedContent says that it is not parked any
// more; the crawler then sends it. Stamps above its parked place go first, durably.
func (pub *publisher) Unpark(it *item) error {
	op := it.op
	p, err := pub.parents.open(op.Path)
	if err != nil {
		return err
	}
	from := place{pub.parked, op.Record.GFID.String()}
	if op.From != "" {
		var done func()
		if from, done, err = pub.park.index.open(op.From); err != nil {
			return errors.Join(slave.ErrNeedContent, err)
		}
		defer done()
	}
	pk, err := pub.look(from)
	if err != nil {
		return err
	}
	old, err := pub.look(p)
	if err != nil {
		return err
	}
	if bring, err := apply.Unpark(op, pk.standing(), old.standing()); !bring {
		return err
	}
	if old.there {
		if err := pub.makeWay(it, p, old, pk.kind); err != nil {
			return err
		}
	}
	if op.From != "" {
		if err := pub.park.index.unstampAbove(op.From); err != nil {
			return err
		}
	}
	if pk.kind != slave.Dir && (op.Links > 1 || pk.st.Nlink > 1) {
		if err := pub.links.guard(op.Record.GFID, dirty.Mark{Ino: op.Ino}); err != nil {
			return err
		}
	}
	if err := pub.move(from, p, pk); err != nil {
		return err
	}
	if pk.kind == slave.Dir {
		pub.parents.forget()
		return pub.links.backBelow(op.Path)
	}
	if op.Links > 1 || pk.st.Nlink > 1 {
		pub.links.noteGroup(op, pk.st, []string{op.Path})
	}
	return nil
}

// makeWay parks a non-directory that an unparked entry takes the place of. A directory in the way
// is none of its business: apply.Unpark has refused that.
func (pub *publisher) makeWay(it *item, p place, old entry, kind slave.Kind) error {
	beside := kind != slave.Dir
	if beside && old.rec.GFID.IsZero() {
		return nil
	}
	err := pub.links.leaving(old)
	if err != nil {
		return err
	}
	if beside {
		err = pub.park.beside(p, old)
	} else {
		_, err = pub.park.take(p, old)
	}
	if err != nil {
		return err
	}
	it.res.Parked = true
	pub.links.forgetName(old, it.op.Path)
	return nil
}
