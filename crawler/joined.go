package crawler

import (
	"slices"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// joined remembers which names of inodes with very many were linked after a search had found them, by a crawl that gave way. A crawl
// that comes later searches again, and links only what is not among these: so each comes further. A name counts as long as the master
// has the inode in the same state, under that name in the same directory: any other change has a mark, and the crawl that it
// leads to sees to it. Nothing is said to the slave before a search has found all names, and each of them is linked.
type joined struct {
	of map[xtime.GFID]*joinedNames
}

type joinedNames struct {
	at    xtime.Time // of the inode on the master
	names map[place]bool
}

// placeOf is the name that an operation is about, in its directory.
func placeOf(op *slave.Op) place {
	_, name := beneath.Split(op.Path)
	return place{op.In, name}
}

func (j *joined) has(op *slave.Op) bool {
	known := j.of[op.Record.GFID]
	return known != nil && known.at == op.Record.Xtime && known.names[placeOf(op)]
}

func (j *joined) add(op *slave.Op) {
	g := op.Record.GFID
	known := j.of[g]
	if known == nil || known.at != op.Record.Xtime {
		known = &joinedNames{at: op.Record.Xtime, names: map[place]bool{}}
		if j.of == nil {
			j.of = map[xtime.GFID]*joinedNames{}
		}
		j.of[g] = known
	}
	known.names[placeOf(op)] = true
}

// keep forgets all inodes but those that the slave has on its list.
func (j *joined) keep(groups []slave.Group) {
	was := j.of
	j.of = nil
	for i := range groups {
		if known := was[groups[i].GFID]; known != nil && groups[i].MissingNames {
			if j.of == nil {
				j.of = map[xtime.GFID]*joinedNames{}
			}
			j.of[groups[i].GFID] = known
		}
	}
}

// join links names that a search has found, and gives way to what changes elsewhere where they are very many. The inodes that it did
// not link all names of are returned. again is carried out behind the links, with the last of them where that can be.
func (g *giveWay) join(here []placed, again []slave.Op) (unsettled map[xtime.GFID]bool, finished []slave.Result, err error) {
	w, many := g.w, len(here) >= int(g.w.c.names.many)
	var todo []slave.Op
	for i := range here {
		op := here[i].op
		if here[i].done {
			continue
		}
		if here[i].short {
			op.Links++ // one seems to be missing until the directories are as they were
		}
		todo = append(todo, op)
	}
	unsettled = map[xtime.GFID]bool{}
	least := max(int(w.c.names.step), len(todo)/listedShare)
	for linked := 0; ; {
		step := todo[linked:min(linked+batchOps, len(todo))]
		linked += len(step)
		ops := step
		if linked == len(todo) {
			ops = slices.Concat(step, again)
		}
		results, err := w.applyNow(ops)
		if err != nil {
			return nil, nil, err
		}
		for i, r := range results[:len(step)] {
			if !w.linked(&step[i], r) {
				unsettled[step[i].Record.GFID] = true
			} else if many {
				w.c.joined.add(&step[i])
			}
		}
		if linked == len(todo) {
			return unsettled, results[len(step):], nil
		}
		if many && linked >= least && w.c.bulk.on() && g.hasNews() {
			for i := range todo[linked:] {
				unsettled[todo[linked+i].Record.GFID] = true
			}
			finished, err = w.applyNow(again)
			return unsettled, finished, err
		}
	}
}
