package crawler

import (
	"io/fs"
	"maps"
	"slices"
	"strings"

	"georep/internal/beneath"
	"georep/slave"
)

// This file is the second half of a dry run: what moved, what of an entry changes, and what is removed in the end.

// leave notes an entry that has left its place on the slave, with all in it.
func (w *dryRun) leave(path string, s *slave.EntryState) {
	if w.stale[path] = true; w.gone[path] == nil {
		w.part(path, s)
	}
}

// part notes an entry that has left its place, or lies in a directory that has.
func (w *dryRun) part(path string, s *slave.EntryState) {
	if len(w.gone) >= maxGone {
		w.sum.NoMoves = true
	}
	w.gone[path] = &leftPlace{path: path, kind: s.Kind, st: *s}
	w.place(path, s)
	if s.Kind == slave.Dir {
		w.todo = append(w.todo, dryTask{there: path, onSlave: true})
	}
}

// place remembers where the slave has an inode that may be wanted elsewhere.
func (w *dryRun) place(path string, s *slave.EntryState) {
	if g := s.Record.GFID; !g.IsZero() && len(w.where) < maxGone {
		w.where[g] = leftPlace{path: path, kind: s.Kind, st: *s}
	}
}

// leaves notes what is in a directory that has left its place.
func (w *dryRun) leaves(t *dryTask) error {
	if t.state.Truncated {
		return w.inParts(t, t.state.Total)
	}
	rules := w.m.filter.Root().Walk(t.there)
	for i := range t.state.Entries {
		s := &t.state.Entries[i]
		path := join(t.there, s.Name)
		if leavesOutState(rules, s) && !w.m.filter.Deletes() {
			w.stays(t.there)
			continue
		}
		if w.gone[path] == nil {
			w.part(path, s)
		}
	}
	return nil
}

// stays notes that a directory, and those above it, hold what the filter leaves out: these are not removed, but what else is in them.
func (w *dryRun) stays(dir string) {
	for ; dir != "" && w.gone[dir] != nil && !w.holding[dir]; dir, _ = beneath.Split(dir) {
		w.holding[dir] = true
	}
}

// resolve decides on what the slave lacks, once all that left its place is known: first what moved from there, then what takes the
// place of another, then what is new. Each may bring more to light, which comes first then.
func (w *dryRun) resolve() (again bool, err error) {
	list := w.later
	w.later = nil
	var left, fresh []lacking
	for _, l := range list {
		if w.moves(l) {
			again = true
		} else {
			left = append(left, l)
		}
	}
	if again {
		w.later = append(w.later, left...)
		return true, nil
	}
	for _, l := range left {
		if l.state == nil || w.taken[l.there] {
			fresh = append(fresh, l)
			continue
		}
		again = true
		l.do = Modify
		w.name(&l.e, l.path)
		w.examine(l)
		if l.e.Kind == slave.Dir {
			w.todo = append(w.todo, dryTask{there: l.there, here: l.path})
		}
	}
	if again {
		w.later = append(w.later, fresh...)
		return true, nil
	}
	for _, l := range fresh {
		w.make(l)
	}
	return len(fresh) > 0, w.flush()
}

// moves tells whether the slave has an inode in another place, which it left.
func (w *dryRun) moves(l lacking) bool {
	from, is := w.where[l.e.Record.GFID]
	if !is || from.kind != l.e.Kind || w.taken[from.path] || from.path == l.there || within(l.there, map[string]bool{from.path: true}) {
		return false
	}
	w.taken[from.path] = true
	if l.state != nil && l.state.Kind == slave.Dir && w.gone[l.there] == nil {
		w.leave(l.there, l.state)
	}
	l.there, l.do, l.state = from.path, Move, &from.st
	w.name(&l.e, l.path)
	w.examine(l)
	if l.e.Kind == slave.Dir {
		w.todo = append(w.todo, dryTask{there: from.path, here: l.path})
	}
	return true
}

// make tells of a new entry, and has what is in it looked at.
func (w *dryRun) make(l lacking) {
	c := Change{Do: Make, Path: l.path, Kind: l.e.Kind}
	if l.e.Kind == slave.File {
		c.Bytes = l.e.Stat.Size
	}
	if other := w.names[l.e.Record.GFID]; other != "" && l.e.Kind != slave.Dir && other != l.path {
		c.Do, c.From, c.Bytes = Link, other, 0
	}
	w.name(&l.e, l.path)
	if l.e.Kind.Device() && !w.d.Slave.Info().Root {
		return
	}
	w.tell(c)
	if l.e.Kind == slave.Dir {
		w.todo = append(w.todo, dryTask{there: l.there, here: l.path, onMaster: true})
	}
}

// examine has the properties of an entry compared with what the slave has at l.there.
func (w *dryRun) examine(l lacking) {
	if !w.d.OnlyRemoved {
		w.check = append(w.check, l)
	}
}

func (w *dryRun) flush() error { return w.checkSome(1) }

// checkSome compares what has come together, once that is so much.
func (w *dryRun) checkSome(least int) error {
	for len(w.check) >= least {
		k := min(len(w.check), maxCheck)
		list := w.check[:k:k]
		w.check = w.check[k:]
		if err := w.compare(list); err != nil {
			return err
		}
	}
	return nil
}

// compare tells what changes of entries that are there, or move.
func (w *dryRun) compare(list []lacking) error {
	nonce, info := newNonce(), w.d.Slave.Info()
	details, err := w.details(nonce, list)
	if err != nil {
		return err
	}
	pairs := make([]*pair, len(list))
	var same []int
	for i := range list {
		p := &pair{path: list[i].path, nonce: nonce, theirs: &details[i]}
		pairs[i] = p
		if err := w.m.look(p); err != nil || p.mine == nil || details[i].Err != nil {
			p.mine = nil // it is on its way elsewhere
			continue
		}
		if t := p.theirs.Mtime; p.theirs.Coarse && t.Sec == p.meta.Mtime.Sec {
			p.theirs.Mtime = p.meta.Mtime
		}
		p.compare(&info)
		if p.mine.Kind == slave.File && p.theirs.Kind == slave.File && p.mine.Stat.Size == p.theirs.Size {
			same = append(same, i)
		}
	}
	if err := w.contents(list, pairs, same); err != nil {
		return err
	}
	for i, p := range pairs {
		w.told(&list[i], p)
	}
	return nil
}

// told tells of an entry that was compared.
func (w *dryRun) told(l *lacking, p *pair) {
	if p.mine == nil || len(p.kinds) == 0 && l.do == Modify {
		return
	}
	c := Change{Do: l.do, Path: l.path, Kind: l.e.Kind, Props: p.kinds}
	if l.do == Move {
		c.From = l.there
	}
	if l.e.Kind == slave.File && (slices.Contains(p.kinds, "content") || slices.Contains(p.kinds, "type")) {
		c.Bytes = p.mine.Stat.Size
	}
	w.tell(c)
}

// details are what the slave has of the entries, as far as it can tell.
func (w *dryRun) details(nonce slave.Nonce, list []lacking) ([]slave.Detail, error) {
	paths := make([]string, len(list))
	for i := range list {
		paths[i] = list[i].there
	}
	describer, ok := w.d.Slave.(slave.Describer)
	if !ok { // one that is not there yet has nothing
		out := make([]slave.Detail, len(list))
		for i := range out {
			out[i].Err = fs.ErrNotExist
		}
		return out, nil
	}
	return describer.Examine(w.ctx, nonce, paths)
}

// contents compares files of equal size by hash.
func (w *dryRun) contents(list []lacking, pairs []*pair, same []int) error {
	for len(same) > 0 {
		k, bytes := 0, int64(0)
		for k < len(same) && k < hashFiles && (k == 0 || bytes < hashBytes) {
			bytes += pairs[same[k]].mine.Stat.Size
			k++
		}
		paths := make([]string, k)
		for i, at := range same[:k] {
			paths[i] = list[at].there
		}
		sums, err := w.d.Slave.Hash(w.ctx, paths)
		if err != nil {
			return err
		}
		for i, at := range same[:k] {
			p := pairs[at]
			if mine := w.m.Digest(p.path, nil, w.ctx.Err); mine.Err != nil || sums[i].Err != nil || mine.Sum != sums[i].Sum {
				p.kinds = append([]string{"content"}, p.kinds...)
			}
		}
		same = same[k:]
	}
	return w.ctx.Err()
}

// removed tells what of that which left its place was not found in another: a directory as one, with all that is left in it.
func (w *dryRun) removed() error {
	maps.DeleteFunc(w.gone, func(path string, _ *leftPlace) bool { return w.holding[path] })
	paths := slices.Sorted(maps.Keys(w.gone))
	count := map[string]int64{} // by the topmost removed directory
	var order []string
	for _, path := range paths {
		if w.taken[path] {
			continue
		}
		top, is := w.top(path)
		if !is {
			continue
		}
		if count[top]++; top == path {
			order = append(order, path)
		}
	}
	for _, path := range order {
		w.tell(Change{Do: Remove, Path: path, Kind: w.gone[path].kind, Entries: count[path]})
	}
	return w.ctx.Err()
}

// top is the topmost directory that is removed with a path, or the path itself. What lies in a directory that moved stays, unless
// it has no counterpart there; then the result is false.
func (w *dryRun) top(path string) (top string, removed bool) {
	var highest, stale string
	for at := path; ; {
		if w.stale[at] {
			stale = at
		}
		highest = at
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return highest, true
		}
		if at = at[:i]; w.taken[at] {
			return stale, stale != ""
		}
		if w.gone[at] == nil {
			return highest, true
		}
	}
}
