package crawler

import (
	"crypto/rand"
	"slices"

	"georep/crawler/limit"
	"georep/crawler/plan"
	"georep/crawler/share"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// This file removes directories in which the slave has what the filter leaves out. That is left alone: so the directory stays,
// and those that lead to it, with nothing else in them, as long as it is there.
//
// What stays must not be taken for the directory that the master had: its stamp claims what is parked now. So it is given a GFID
// that no directory of the master has, which takes the stamp off, before anything goes. Only patterns count here: a directory that
// is gone has no Tag.

// sweep gives those of the stale entries that may be parked as they are. Of the others it parks what is in them.
func (w *crawl) sweep(n *node, stale []slave.EntryState) ([]slave.EntryState, error) {
	whole, holding, err := w.apartKept(n, stale)
	if err != nil || len(holding) == 0 {
		return whole, err
	}
	for i := range stale {
		s := &stale[i]
		path := join(n.path, s.Name)
		if _, is := holding[path]; !is {
			continue
		}
		w.c.saysKept(path)
		if err := w.strip(n, n.path, *s, holding); err != nil {
			return nil, err
		}
	}
	return whole, nil
}

// apartKept tells the stale entries that may be parked as they are from those that hold, somewhere below, what is left out:
// holding has these, and each directory in them that leads there, with its filter.
func (w *crawl) apartKept(n *node, stale []slave.EntryState) (whole []slave.EntryState, holding map[string]*filter.Dir, err error) {
	if w.m.filter == nil || w.m.filter.Deletes() {
		return stale, nil, nil
	}
	var todo []swept
	for i := range stale {
		if s := &stale[i]; s.Kind == slave.Dir {
			todo = append(todo, swept{slave.Query{Path: join(n.path, s.Name)}, n.rules.Down(s.Name), nil})
		}
	}
	if holding, err = w.findKept(todo); err != nil || len(holding) == 0 {
		return stale, nil, err
	}
	for _, s := range stale {
		if _, is := holding[join(n.path, s.Name)]; !is {
			whole = append(whole, s)
		}
	}
	return whole, holding, nil
}

// keptWhere tells in which places of newcomers a directory stands that holds what is left out. It makes no way for another one, but
// becomes that.
func (w *crawl) keptWhere(n *node, fresh []newcomer, found []slave.Found) (map[string]*filter.Dir, error) {
	if w.m.filter == nil {
		return nil, nil
	}
	var inTheWay []slave.EntryState
	for i := range fresh {
		e := &fresh[i]
		if s := e.state; e.Kind == slave.Dir && s != nil && (found[i].Parked || found[i].Path != "") {
			inTheWay = append(inTheWay, *s)
		}
	}
	_, holding, err := w.apartKept(n, inTheWay)
	return holding, err
}

// swept is a directory of the slave, or a share of one, that is to be looked through.
type swept struct {
	query slave.Query
	rules *filter.Dir
	above *swept
}

// findKept looks through directories of the slave for what is left out, and gives those that lead there.
func (w *crawl) findKept(todo []swept) (map[string]*filter.Dir, error) {
	holding := map[string]*filter.Dir{}
	for len(todo) > 0 {
		now := slices.Clone(todo[max(len(todo)-surveyDirs, 0):])
		todo = todo[:len(todo)-len(now)]
		queries := make([]slave.Query, len(now))
		for i := range now {
			queries[i] = now[i].query
		}
		states, err := w.c.opts.Tree.Survey(w.ctx, queries)
		if err != nil {
			return nil, err
		}
		w.c.opts.Counters.Surveyed.Add(int64(len(states)))
		todo = append(todo, now[len(states):]...)
		for i := range states {
			todo = append(todo, findIn(&now[i], &states[i], holding)...)
		}
	}
	return holding, nil
}

// findIn looks through one directory, and gives those in it. A large one is asked for again in shares.
func findIn(at *swept, state *slave.DirState, holding map[string]*filter.Dir) (more []swept) {
	if state.Truncated {
		for _, q := range share.Smaller(at.query, state.Total) {
			more = append(more, swept{q, at.rules, at.above})
		}
		return more
	}
	for i := range state.Entries {
		s := &state.Entries[i]
		switch {
		case leavesOutState(at.rules, s):
			for d := at; d != nil && holding[d.query.Path] == nil; d = d.above {
				holding[d.query.Path] = d.rules
			}
		case s.Kind == slave.Dir:
			more = append(more, swept{slave.Query{Path: join(at.query.Path, s.Name)}, at.rules.Down(s.Name), at})
		}
	}
	return more
}

// strip parks what is in the directory s of dir but for what is left out and for what leads there.
func (w *crawl) strip(n *node, dir string, s slave.EntryState, holding map[string]*filter.Dir) error {
	path := join(dir, s.Name)
	entries, err := w.allOf(path)
	if err != nil {
		return err
	}
	rules := holding[path]
	at := &node{path: path, entry: plan.Entry{Record: s.Record}}
	var gone, stay []slave.EntryState
	for _, e := range entries {
		switch _, leads := holding[join(path, e.Name)]; {
		case leads && e.Kind == slave.Dir:
			stay = append(stay, e)
		case !leavesOutState(rules, &e):
			gone = append(gone, e)
		}
	}
	if err := w.guard.Allow(w.ctx, underGuard{at}, gone); limit.IsRefused(err) {
		w.refuse(n, err)
		return nil
	} else if err != nil {
		return err
	}
	if err := w.parkFrom(n, at, s, gone); err != nil {
		return err
	}
	for _, e := range stay {
		if err := w.strip(n, path, e, holding); err != nil {
			return err
		}
	}
	return nil
}

// parkFrom parks entries of the slave's directory s, which the master does not have any more.
func (w *crawl) parkFrom(n, at *node, s slave.EntryState, gone []slave.EntryState) error {
	if len(gone) == 0 {
		return nil
	}
	if s.Record.Xtime != 0 {
		var nobodys xtime.GFID
		_, _ = rand.Read(nobodys[:]) // never fails
		w.c.deferrals.set(s.Record.GFID, nil)
		unstamp := slave.Op{Kind: slave.OpMkdir, Entry: slave.Dir, Path: at.path, Expect: s.Record.GFID, Record: slave.Record{GFID: nobodys},
			Meta: slave.Meta{Mode: s.Mode, UID: s.UID, GID: s.GID, Mtime: s.Mtime}}
		results, err := w.applyNow([]slave.Op{unstamp})
		if err != nil {
			return err
		}
		if results[0].Err != nil {
			w.result(n, &unstamp, results[0])
			return nil
		}
		at.entry.Record.GFID = nobodys // from now on the operations mean that
	}
	ops := make([]slave.Op, len(gone))
	for i, e := range gone {
		ops[i] = w.park(at, e).op
	}
	results, err := w.applyNow(ops)
	for i, r := range results {
		w.noteParked(r)
		w.result(n, &ops[i], r)
	}
	return err
}

// allOf lists a directory of the slave.
func (w *crawl) allOf(path string) (out []slave.EntryState, err error) {
	for todo := []slave.Query{{Path: path}}; len(todo) > 0; {
		q := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		states, err := w.c.opts.Tree.Survey(w.ctx, []slave.Query{q})
		if err != nil {
			return nil, err
		}
		if s := &states[0]; s.Truncated {
			todo = append(todo, share.Smaller(q, s.Total)...)
		} else {
			out = append(out, s.Entries...)
		}
	}
	return out, nil
}

// saysKept logs, once for each path, that a directory stays on the slave.
func (c *Crawler) saysKept(path string) {
	if _, said := c.kept.LoadOrStore(path, struct{}{}); !said {
		c.opts.Logger.Warn().Str("path", path).Msg("removed on the master, and kept on the slave: it holds what the filter leaves out there; " +
			"delete-excluded removes it")
	}
}
