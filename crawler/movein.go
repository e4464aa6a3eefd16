package crawler

import (
	"slices"

	"georep/crawler/plan"
	"georep/slave"
)

// newcomer is an entry that the slave does not have under its name, and what it has there.
type newcomer struct {
	plan.Entry
	state *slave.EntryState
}

func newcomers(p *plan.Plan) []newcomer {
	var out []newcomer
	for _, it := range p.Items {
		if foreign(it.State, &it.Entry) {
			out = append(out, newcomer{it.Entry, it.State})
		}
	}
	for _, c := range p.Children {
		if c.Make {
			out = append(out, newcomer{c.Entry, c.State})
		}
	}
	return out
}

// moveTries is how often an inode is looked for that is gone from where it was found: moves that are made at the same time
// take it along.
const moveTries = 5

// moveIn puts the newcomers in their places that the slave has, and tells whether there were any.
func (w *crawl) moveIn(n *node, fresh []newcomer, last bool) (moved bool, err error) {
	for len(fresh) > 0 {
		k, some, err := w.moveSome(n, fresh, last)
		moved = moved || some
		if err != nil {
			return moved, err
		}
		fresh = fresh[k:]
	}
	return moved, nil
}

// moveSome is moveIn for as many of the newcomers as one answer of the slave tells of.
func (w *crawl) moveSome(n *node, fresh []newcomer, last bool) (k int, moved bool, err error) {
	for try := 0; len(fresh) > 0 && try < moveTries; try++ {
		ops, told, err := w.unparks(n, fresh, last || try > 0)
		if err != nil {
			return k, moved, err
		}
		if fresh = fresh[:told]; try == 0 {
			k = told
		}
		ops, err = w.mayMakeWay(n, ops, fresh)
		if err != nil {
			return k, moved, err
		}
		some, missed, err := w.tryMoves(ops)
		moved = moved || some
		if err != nil {
			return k, moved, err
		}
		fresh = slices.DeleteFunc(fresh, func(e newcomer) bool { return !missed[e.Record.GFID] })
	}
	return k, moved, nil
}
