package crawler

import (
	"errors"
	"io/fs"

	"georep/marker/xtime"
	"georep/slave"
)

// join applies links to names that exist on the master. A name whose directory the slave lacks, or has elsewhere, is one
// that moved while the crawl passed: the next crawl comes to it. What cannot be linked otherwise is a failure of that name.
// Nothing else may be on its way to the slave.
//
// A link changes the times of its directory, which may be finished already, and so are all above it: nothing else would
// ever put them right. So they are, before the slave hears that the names are all that there are, and takes the inode off
// its list. Whatever comes between, another crawl does all of it again.
func (w *crawl) join(all []placed) (joined bool, err error) {
	here, dirs, err := w.inPlace(all)
	if err != nil || len(here) == 0 {
		return len(all) == 0, err
	}
	again := w.finishAgain(dirs)
	unsettled, results, err := w.giveWay.join(here, again)
	if err != nil {
		return false, err
	}
	for i, r := range results {
		w.finishedAgain(&again[i], r, dirs)
	}
	err = w.sayAll(all, here, dirs, unsettled)
	return err == nil && len(unsettled) == 0, err
}

// linked books the result of a link that was to be made at once, and tells whether it is one.
func (w *crawl) linked(op *slave.Op, r slave.Result) bool {
	w.noteParked(r)
	switch {
	case r.Err == nil:
		w.c.failures.Clear(op.Path)
	case errors.Is(r.Err, fs.ErrNotExist) || errors.Is(r.Err, slave.ErrNeedContent):
	default:
		w.c.failures.Add(op.Path, slave.OpLink, op.Record.Xtime, r.Err, w.c.pass)
	}
	return r.Err == nil
}

// finishedAgain takes a directory that is as it was out of those that are left.
func (w *crawl) finishedAgain(op *slave.Op, r slave.Result, left map[string]xtime.GFID) {
	switch {
	case r.Err == nil:
		w.c.failures.Clear(op.Path)
		delete(left, op.Path)
	case errors.Is(r.Err, fs.ErrNotExist) || errors.Is(r.Err, slave.ErrConflict) || errors.Is(r.Err, slave.ErrHeldBack): // moved, or comes yet
	default:
		w.c.failures.Add(op.Path, slave.OpFinish, 0, r.Err, w.c.pass)
	}
}

// sayAll tells the slave of those inodes whose names, all of them, are in place by now, with the content of the master. left are the directories that are not
// as they were. The inodes that it cannot tell of join those that are unsettled.
func (w *crawl) sayAll(all, here []placed, left map[string]xtime.GFID, unsettled map[xtime.GFID]bool) error {
	placedHere := map[string]bool{}
	for i := range here {
		placedHere[here[i].op.Path] = true
	}
	for i := range all {
		_, changed := left[all[i].dirOf()]
		if changed && all[i].short || !placedHere[all[i].op.Path] {
			unsettled[all[i].op.Record.GFID] = true
		}
	}
	var ops []slave.Op
	told := map[xtime.GFID]bool{}
	for i := range here {
		g := here[i].op.Record.GFID
		if here[i].short && !here[i].stale && !unsettled[g] && !told[g] {
			told[g] = true
			ops = append(ops, here[i].op)
		}
	}
	results, err := w.applyNow(ops)
	for i, r := range results {
		if !w.linked(&ops[i], r) {
			unsettled[ops[i].Record.GFID] = true
		}
	}
	return err
}

// inPlace are the operations whose directory the slave has under the same path, and these directories.
func (w *crawl) inPlace(all []placed) (here []placed, dirs map[string]xtime.GFID, err error) {
	dirs = map[string]xtime.GFID{}
	var queries []slave.Query
	for i := range all {
		dir := all[i].dirOf()
		if _, asked := dirs[dir]; !asked && dir != "" {
			dirs[dir] = xtime.GFID{}
			queries = append(queries, slave.Query{Path: dir, ByName: true})
		}
	}
	for len(queries) > 0 {
		states, err := w.c.opts.Tree.Survey(w.ctx, queries[:min(len(queries), surveyDirs)])
		if err != nil {
			return nil, nil, err
		}
		for i := range states {
			if dirs[queries[i].Path] = states[i].Record.GFID; states[i].Err != nil {
				delete(dirs, queries[i].Path)
			}
		}
		queries = queries[len(states):]
	}
	for i := range all {
		dir := all[i].dirOf()
		if has, there := dirs[dir]; dir == "" || there && has == all[i].dir {
			here = append(here, all[i])
		}
	}
	return here, dirs, nil
}

// finishAgain are the operations that give directories their times back, as far as they are where they were.
func (w *crawl) finishAgain(dirs map[string]xtime.GFID) []slave.Op {
	var out []slave.Op
	for dir, has := range dirs {
		if op, err := w.finishOf(dir); err == nil && op.Record.GFID == has {
			out = append(out, op)
		}
	}
	return out
}

func (w *crawl) finishOf(path string) (slave.Op, error) {
	dir, err := w.m.OpenDir(path)
	if err != nil {
		return slave.Op{}, err
	}
	defer dir.Close()
	d, err := w.m.Describe(dir)
	if err != nil {
		return slave.Op{}, err
	}
	gfid, err := w.m.GFID(dir, "")
	if err != nil {
		return slave.Op{}, err
	}
	meta, err := w.m.Meta(dir, "", &d.Stat)
	return slave.Op{Kind: slave.OpFinish, Entry: slave.Dir, Path: path, Meta: meta, Pass: w.c.pass,
		Record: slave.Record{GFID: gfid}}, err
}
