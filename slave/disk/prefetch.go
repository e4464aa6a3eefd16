package disk

import (
	"georep/slave"
	"georep/slave/disk/dirty"
)

// prefetch makes the marks that the group will want, so that one sync does for all of them. What fails here is done, or
// fails, when its operation guards its inode.
func (pub *publisher) prefetch(group []*ticket) {
	grouped := pub.links.hasGroups()
	for _, tk := range group {
		for i := range tk.items {
			if it := &tk.items[i]; !it.done {
				pub.foreseeOp(it.op, grouped)
			}
		}
	}
}

func (pub *publisher) foreseeOp(op *slave.Op, grouped bool) {
	switch op.Kind {
	case slave.OpMkdir, slave.OpMeta, slave.OpFinish, slave.OpFilter:
		return // changes no name that another inode may have
	}
	if op.Links > 1 && !op.Record.GFID.IsZero() {
		_ = pub.links.addMark(op.Record.GFID, dirty.Mark{Ino: op.Ino})
	}
	if !grouped {
		return
	}
	p, err := pub.parents.open(op.Path)
	if err != nil {
		return
	}
	st, err := p.dir.Stat(p.name)
	if err != nil || st.IsDir() || st.Nlink < 2 {
		return
	}
	old, err := pub.look(p)
	g := old.rec.GFID
	if err != nil || g.IsZero() {
		return
	}
	m := dirty.Mark{Ino: op.Ino}
	if g != op.Record.GFID {
		m = dirty.Mark{Ino: pub.links.row(g).Ino, Here: old.st.Ino}
	}
	_ = pub.links.addMark(g, m)
}
