package crawler

import (
	"hash/fnv"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// findNames collects the paths of the wanted inodes. Where one has fewer than its link count says, the others may lie
// outside the volume; or a directory moved past the search, from where it had not been to where it had. So the search is
// repeated then, and believed if it met the same directories both times: sure tells that. It costs a listing of the whole
// master, without a stat, or two, and only after an inode got a further name.
func (w *crawl) findNames(wanted map[uint64]xtime.GFID, names map[xtime.GFID][]string) (sure bool, err error) {
	if len(wanted) == 0 {
		return true, nil
	}
	w.c.opts.Counters.Searches.Add(1)
	first := nameScan{crawl: w, wanted: wanted, names: names}
	if err := first.dir(""); err != nil || w.allNamed(wanted, names) {
		return err == nil, err
	}
	second := nameScan{crawl: w, wanted: wanted, names: map[xtime.GFID][]string{}}
	if err := second.dir(""); err != nil {
		return false, err
	}
	for g, paths := range second.names {
		names[g] = paths
	}
	return first.met == second.met && !second.torn, nil
}

// allNamed tells whether as many names were found of each inode as its link count says.
func (w *crawl) allNamed(wanted map[uint64]xtime.GFID, names map[xtime.GFID][]string) bool {
	for _, g := range wanted {
		if !w.isAll(g, names[g]) {
			return false
		}
	}
	return true
}

// isAll tells whether the paths, which lead to an inode, are all the names that it has.
func (w *crawl) isAll(g xtime.GFID, paths []string) bool {
	if len(paths) == 0 {
		return false
	}
	e, err := w.entryAt(paths[0])
	return err == nil && e.Record.GFID == g && int64(e.Stat.Nlink) <= int64(len(paths))
}

// nameScan is one search of the master for names of inodes.
type nameScan struct {
	*crawl
	wanted map[uint64]xtime.GFID
	names  map[xtime.GFID][]string
	met    uint64 // a sum over all directories, by path and inode, in whatever order
	torn   bool   // a directory was not read to its end: it went meanwhile, or reading it failed
}

func (s *nameScan) dir(path string) error {
	rules, in := s.m.rulesOf(path)
	if rules = s.m.within(path, rules); !in {
		return nil
	}
	d, err := s.m.OpenDir(path)
	if err != nil {
		return nil // not there any more, or failed: its directory was visited, and says so
	}
	var dirs []string
	err = s.m.Names(d, path == "", func(e beneath.Entry) error {
		if k := slave.Kind(e.Type); (k == slave.Dir || k == slave.Unknown) && !rules.Excludes(e.Name, true, -1) {
			dirs = append(dirs, e.Name)
		}
		if g, ok := s.wanted[e.Ino]; ok {
			if now, err := s.m.GFID(d, e.Name); err == nil && now == g && !leavesEntry(rules, d, e.Name) {
				s.names[g] = append(s.names[g], join(path, e.Name))
			}
		}
		return s.ctx.Err()
	})
	if g, gerr := s.m.GFID(d, ""); gerr == nil {
		h := fnv.New64a()
		_, _ = h.Write(append(g[:], path...)) // never fails
		s.met += h.Sum64()
	}
	d.Close()
	if s.c.scanned != nil {
		s.c.scanned(path)
	}
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	s.torn = s.torn || err != nil
	for _, name := range dirs {
		if err := s.dir(join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (w *crawl) entryAt(path string) (plan.Entry, error) {
	e, _, err := w.entryIn(path)
	return e, err
}

// entryIn is entryAt, with the directory that the entry is in.
func (w *crawl) entryIn(path string) (e plan.Entry, dir xtime.GFID, err error) {
	parent, name := beneath.Split(path)
	d, err := w.m.OpenPath(parent)
	if err != nil {
		return e, dir, err
	}
	defer d.Close()
	if dir, err = w.m.GFID(d, ""); err != nil {
		return e, dir, err
	}
	e, err = w.m.Entry(parent, d, name)
	return e, dir, err
}
