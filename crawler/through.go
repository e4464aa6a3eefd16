package crawler

import (
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// This file finds what was changed through a name that the filter leaves out, of an inode that has included names as well. No mark
// leads to these: only the inode and the directories of the name that was used are newer. So where such a name, or a directory that
// is left out, is newer than the slave's stime, its inode is looked for on the slave. If that lacks the change, the directory of
// an included name is visited at the end of the crawl, and the directory that showed the change is not stamped before it is there.

// through is what a visit has met of inodes with several names that are left out here, and may have changed.
type through struct {
	w     *crawl
	since xtime.Time
	met   map[xtime.GFID]uint64 // and their numbers
}

// lookThrough follows the names of a directory that are left out. names are those of a listing, or those that hints tell.
func (w *crawl) lookThrough(n *node, d *directory, names map[string]bool) error {
	if len(names) == 0 || n.again {
		return nil
	}
	w.mu.Lock()
	since := w.root.had
	w.mu.Unlock()
	if since < w.m.Since() {
		return nil // under another filter everything that is included was, or is yet to be, compared by its own names
	}
	t := &through{w, since, map[xtime.GFID]uint64{}}
	for name := range names {
		var hinted xtime.GFID
		if n.hint != nil {
			hinted = n.hint.names[name]
		}
		t.entry(d.Dir, join(n.path, name), name, w.run.of(hinted))
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
	}
	return w.askThrough(n, t.met)
}

// entry looks at one that is left out, or lies in a directory that is; hints may tell what changed in that.
func (t *through) entry(dir *beneath.Dir, path, name string, told *dirHint) {
	st, err := dir.Stat(name)
	if err != nil || !t.w.m.IsOurs(&st) {
		return
	}
	if st.IsDir() {
		t.directory(path, told)
		return
	}
	if st.Nlink < 2 {
		return
	}
	if !t.w.m.Newer(dir, name, &st, t.since) {
		return
	}
	if g, err := t.w.m.GFID(dir, name); err == nil {
		t.met[g] = st.Ino
	}
}

// directory looks into a directory that is left out, if something in or below it is newer.
func (t *through) directory(path string, told *dirHint) {
	dir, err := t.w.m.OpenDir(path)
	if err != nil {
		return
	}
	defer dir.Close()
	d, err := t.w.m.Describe(dir)
	if err != nil || d.Xtime <= t.since && !d.Refuses {
		return
	}
	if told != nil && told.end == d.Xtime {
		for name, g := range told.names {
			t.entry(dir, join(path, name), name, t.w.run.of(g))
		}
		return
	}
	_ = t.w.m.Names(dir, path == "", func(e beneath.Entry) error { // what cannot be read marks nothing either
		if e.Type != unix.DT_LNK {
			t.entry(dir, join(path, e.Name), e.Name, nil)
		}
		return t.w.ctx.Err()
	})
}

// askThrough has those of the inodes looked at again by an included name of which the slave does not have the newest state.
func (w *crawl) askThrough(n *node, met map[xtime.GFID]uint64) error {
	gfids := make([]xtime.GFID, 0, len(met))
	for g := range met {
		gfids = append(gfids, g)
	}
	unknown := map[uint64]xtime.GFID{}
	for len(gfids) > 0 {
		found, err := w.find(gfids)
		if err != nil {
			return err
		}
		for i := range found {
			switch f, g := &found[i], gfids[i]; {
			case f.Parked || f.Path == "" && !w.c.opts.Tree.Info().NoPlaces: // the slave has no such name
			case f.Path != "" && w.isName(g, f.Path):
				w.lacks(n, g, f.Path, f.Record)
			default:
				unknown[met[g]] = g
			}
		}
		gfids = gfids[len(found):]
	}
	return w.searchThrough(n, unknown)
}

// isName tells whether path is an included name of the inode on the master.
func (w *crawl) isName(g xtime.GFID, path string) bool {
	e, err := w.entryAt(path)
	return err == nil && e.Record.GFID == g && !w.m.leaves(path, &e)
}

// lacks has the directory of a name visited where the slave's record is not the master's.
func (w *crawl) lacks(n *node, g xtime.GFID, path string, has slave.Record) {
	if e, err := w.entryAt(path); err != nil || e.Record == has {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n.held = true
	w.through = append(w.through, path)
}

// searchThrough looks for included names of inodes of which the slave does not know any.
func (w *crawl) searchThrough(n *node, wanted map[uint64]xtime.GFID) error {
	names := map[xtime.GFID][]string{}
	if _, err := w.findNames(wanted, names); err != nil {
		return err
	}
	for g, paths := range names {
		dir, name := beneath.Split(paths[0])
		states, err := w.c.opts.Tree.Survey(w.ctx, []slave.Query{{Path: dir, ByName: true, Names: []string{name}}})
		if err != nil {
			return err
		}
		var has slave.Record
		for _, s := range states[0].Entries {
			has = s.Record
		}
		w.lacks(n, g, paths[0], has)
	}
	return nil
}

// throughNodes are the directories that are to be visited for what was changed through names that are left out, beside others.
func (w *crawl) throughNodes(beside []*node) (visit []*node, ok bool) {
	w.mu.Lock()
	paths := w.through
	w.through = nil
	w.mu.Unlock()
	seen := map[string]bool{}
	for _, n := range beside {
		seen[n.path] = true
	}
	ok = true
	for _, path := range paths {
		n, comes := w.revisit(path, seen)
		if ok = ok && comes; n != nil {
			visit = append(visit, n)
		}
	}
	return visit, ok
}
