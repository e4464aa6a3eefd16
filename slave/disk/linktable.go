package disk

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
)

// rowPath spreads the rows over 256 directories.
func rowPath(g xtime.GFID) (dir, name string) {
	s := g.String()
	return s[:2], s
}

// links is the table of the inodes with several names (links/), and what it says of them. mu guards the rows that are
// changed and not written yet. It comes behind park.mu, and before the lock of marks.
type links struct {
	*finder
	parents *parents
	park    *park
	marks   *dirty.Journal

	cache linkCache
	mu    sync.Mutex
	// changed and notes are emptied by flush, at the end of each group.
	changed map[xtime.GFID]bool // rows that are not written yet
	notes   map[xtime.GFID]note // inodes of which it is to be decided whether they have all names
}

// newLinks wires the table; the directory that it is kept in is opened later.
func newLinks(f *finder, up *parents, k *park, m *dirty.Journal) *links {
	return &links{finder: f, parents: up, park: k, marks: m, changed: map[xtime.GFID]bool{}, notes: map[xtime.GFID]note{}}
}

// rowNow reads what is known of g's names; nothing, or what a crash tore, gives an empty row. A name goes where its
// directory has gone since.
func (l *links) rowNow(g xtime.GFID) linkRow {
	was := l.row(g)
	now := was
	now.names, now.dirs = nil, nil
	seen := make(map[string]struct{}, len(was.names))
	for i := range was.names {
		now.addNew(l.nameNow(&was, i), was.dirs[i], seen)
	}
	return now
}

// row reads a row as it was written, or is to be. Nobody changes its names. A row that cannot be
// read is empty, which costs a search. Reading takes no lock but the cache's.
func (l *links) row(g xtime.GFID) linkRow {
	if row, ok := l.cache.get(g); ok {
		return row
	}
	dir, name := rowPath(g)
	d, err := l.linksDir.OpenPath(dir)
	if err != nil {
		return linkRow{}
	}
	defer d.Close()
	text, err := readSmall(d, name)
	if err != nil {
		return linkRow{}
	}
	return parseRow(text)
}

// write puts a row on record; one that says nothing is removed. A row with one name, of an inode
// that has no more, is worth nothing and is removed. It is written without a sync: pending/ is what
// survives a power cut.
func (l *links) write(g xtime.GFID, row linkRow) error {
	dir, name := rowPath(g)
	if !row.WorthKeeping(len(row.names)) {
		d, err := l.linksDir.OpenPath(dir)
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer d.Close()
		return ignoreAbsent(l.sys.unlinkBook(place{d, name}))
	}
	if err := l.sys.mkdir(place{l.linksDir, dir}, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := l.linksDir.OpenPath(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return l.putSmall(place{d, name}, row.text())
}

// noteGroup notes what an operation taught of an inode with several names: its names, and, at the
// end of the group, whether some are missing. names are those that lead to the inode now, as far as
// the operation knows. The inode's number of names is learnt from op.
func (l *links) noteGroup(op *slave.Op, st beneath.Stat, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := op.Record.GFID
	if g.IsZero() {
		return
	}
	now := l.rowToChange(g)
	was := now
	now.Learn(op)
	changed := now.Want != was.Want || now.At != was.At || now.Final != was.Final
	for _, name := range names {
		if len(now.names) >= apply.MaxNames {
			break
		}
		if len(l.parents.dirs) >= maxDirs {
			l.parents.forget()
		}
		dir, _ := beneath.Split(name)
		key, _ := l.parents.key(name, dir)
		if now.find(name, key) < 0 {
			now.add(name, key)
		}
	}
	if changed || len(now.names) != len(was.names) {
		l.put(g, now)
	}
	l.toBeDecided(g, note{st, op.Path, l.park.cleans.Load()})
}

// notePending makes the mark that says that names are to be checked, or lets it go.
func (l *links) notePending(g xtime.GFID, row linkRow, st beneath.Stat) error {
	if l.liveNames(g, row.names, st) < row.Want {
		return l.marks.Add(g, dirty.Mark{Ino: row.Ino})
	}
	l.marks.LetGo(g)
	return nil
}

// forgetName takes the name of an inode that leaves the tree out of the table. It is called when
// the name is about to go. A row that loses its last name is removed by write.
func (l *links) forgetName(old entry, path string) {
	g := old.rec.GFID
	if g.IsZero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	row := l.rowToChange(g)
	dir, _ := beneath.Split(path)
	key, _ := l.parents.key(path, dir)
	i := row.find(path, key)
	if i < 0 {
		return
	}
	l.put(g, row.without(i))
}

// leavingBelow is leaving and forgetName for all names in a directory that is about to leave the
// tree. It lies at path. The names of inodes that have others are returned, as paths below the
// directory. Every such inode is marked dirty before the directory leaves, durably: a name of it
// leaves the tree with that. An error leaves the directory where it is.
func (l *links) leavingBelow(at place, path string) (linked []parkedName, failed error) {
	type level struct{ rel, path string }
	todo := []level{{at.name, path}}
	for len(todo) > 0 && l.unclosed() {
		in := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := at.dir.OpenDir(in.rel)
		if err != nil {
			l.log.Debug().Str("dir", in.path).Err(err).Msg("not searched")
			continue
		}
		err = d.List(func(e beneath.Entry) error {
			if slave.Kind(e.Type) == slave.Dir {
				todo = append(todo, level{beneath.Join(in.rel, e.Name), beneath.Join(in.path, e.Name)})
				return nil
			}
			old, err := l.look(place{d, e.Name})
			if err == nil && old.kind != slave.Dir && old.st.Nlink > 1 && !old.rec.GFID.IsZero() {
				g := old.rec.GFID
				failed = errors.Join(failed, l.addMark(g, dirty.Mark{Ino: l.row(g).Ino, Here: old.st.Ino}))
				l.forgetName(old, beneath.Join(in.path, e.Name))
				if len(linked) < maxLeftover {
					linked = append(linked, parkedName{g, strings.TrimPrefix(beneath.Join(in.path, e.Name), path+"/")})
				}
			}
			return failed
		})
		d.Close()
		if failed != nil {
			return nil, failed
		}
		if err != nil {
			l.log.Debug().Str("dir", in.path).Err(err).Msg("not searched")
		}
	}
	return linked, l.marks.Sync()
}

// hasGroups tells whether any inode with several names is on record. It reads at most one name of
// each directory.
func (l *links) hasGroups() bool {
	found := errors.New("found")
	stop := func(string) error { return found }
	return eachName(l.linksDir, stop) == found || eachName(l.pending, stop) == found
}

// pendingGroup is one that Groups looks at.
type pendingGroup struct {
	mark dirty.Mark
	slave.Group
	keep bool
	size int // of the names, in bytes
}

// weight is what a group adds to the answer, as far as is known before a search. What is not told of does not count: then it would
// seem as if all had been.
func (p *pendingGroup) weight() int64 {
	if !p.keep {
		return 0
	}
	return p.Weight()
}

// maxNamesBytes bounds what the names of one group weigh in an answer; one that has more is looked for by a search.
const maxNamesBytes = slave.MaxFoundPath

// Groups returns inodes whose names are to be checked. Marks that turn out to be done are removed
// on the way. It is asked at the end of a crawl, before the root is stamped. Inodes whose names
// turn out to be right are taken off the list here, so an empty answer says that nothing holds the
// stamp back.
func (l *links) Groups(ctx context.Context, limit int) ([]slave.Group, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	l.flush()
	var list []*pendingGroup
	weight, full := int64(0), errors.New("enough")
	err := eachName(l.pending, func(name string) error {
		if len(list) >= limit || weight > slave.MaxGroups {
			return full
		}
		if p := l.readPending(name); p != nil {
			list, weight = append(list, p), weight+p.weight()
		}
		return l.live(ctx)
	})
	if err != nil && err != full {
		return nil, err
	}
	l.searchPending(list)
	var all []slave.Group
	var none []*pendingGroup
	for _, p := range list {
		if p.keep {
			all = append(all, p.Group)
		} else {
			none = append(none, p)
		}
	}
	for _, p := range l.unclaimed(none) {
		l.marks.Settle(p.GFID, p.mark)
	}
	return all[:slave.Within(all, slave.MaxGroups, (*slave.Group).Weight)], nil
}

// readPending reads a mark, and checks it against the names in the table; nil for one that only waits for a sync, and for
// what is no mark.
//
// A mark of an earlier session is not checked, only looked at: of what was known then, a power cut may have taken any part.
// The master has the last word on its names, until an operation settles it.
func (l *links) readPending(name string) *pendingGroup {
	g, err := xtime.ParseGFID(name)
	if err != nil || l.marks.AwaitsSync(g) {
		return nil
	}
	p := &pendingGroup{}
	p.mark, _ = l.marks.Read(name)
	p.Group = slave.Group{GFID: g, Ino: p.mark.Ino}
	row := l.rowNow(g)
	names := l.knownNames(g, row.names, "")
	l.addNames(p, names)
	if p.mark.Session != l.prefix && l.marks.Tell(g) {
		p.MissingNames = len(names) > 0 || p.mark.Ino != 0 || p.mark.Here != 0
	}
	for _, n := range names {
		p.MissingNames = p.MissingNames || l.liveNames(g, row.names, n.st) < row.Want
	}
	p.keep = p.keep || p.MissingNames
	return p
}

// addNames fills in what the names of a group tell. Names beyond what an answer takes are left out;
// the crawler finds them by its own listing. The record is that of the inode, or the zero one where
// the names lead to several, so that the crawler compares it.
func (l *links) addNames(p *pendingGroup, names []named) {
	for i, n := range names {
		if p.size += len(n.path); len(p.Names) < slave.MaxGroupNames && p.size <= maxNamesBytes {
			p.Names = append(p.Names, n.path)
		}
		if i == 0 {
			p.Record = n.rec
		} else if !sameInode(n.st, names[0].st) {
			p.Record = slave.Record{}
		}
	}
	p.keep = p.keep || p.mark.Here != 0 && len(names) > 0
}

// searchPending looks for inodes whose remaining names the table does not have: one search of the
// tree for all. It walks the tree once for all of them, and not at all where each has a name that
// is known.
func (l *links) searchPending(list []*pendingGroup) {
	lost := map[uint64]*pendingGroup{}
	inos := map[uint64]bool{}
	for _, p := range list {
		if p.mark.Here != 0 && len(p.Names) == 0 {
			lost[p.mark.Here], inos[p.mark.Here] = p, true
		}
	}
	if len(lost) == 0 {
		return
	}
	for _, hit := range l.search(inos) {
		p := lost[hit.ino]
		if n, ok := l.verify(p.GFID, hit.path); ok && n.st.Ino == p.mark.Here {
			l.addNames(p, []named{n})
		}
	}
}

// guard sees that g has a mark, durably. It comes before any change of the names of an inode with
// several. The mark of an inode that is dirty already costs nothing but the look. An error must
// keep the change from being made.
func (l *links) guard(g xtime.GFID, m dirty.Mark) error {
	if g.IsZero() {
		return nil
	}
	if err := l.addMark(g, m); err != nil {
		return err
	}
	return l.marks.Sync()
}

// addMark is guard without the sync. What comes behind it decides whether the inode has all names.
// It is for changes that are followed by a sync of the journal anyway, such as those of many inodes
// at once.
func (l *links) addMark(g xtime.GFID, m dirty.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.notes, g)
	return l.marks.Add(g, m)
}

// leaving guards an inode of which a name is about to leave the tree. If it keeps other names they are to be checked: what
// was changed through the one that goes shows under them, in directories that nothing has marked.
func (l *links) leaving(old entry) error {
	if old.st.Nlink < 2 || old.kind == slave.Dir {
		return nil
	}
	g := old.rec.GFID
	return l.guard(g, dirty.Mark{Ino: l.row(g).Ino, Here: old.st.Ino})
}

// liveNames is how many names in the tree the inode has that st describes and that is on record as
// g: its link count, less what is parked. Which names went with a parked directory that count does
// not tell, so as long as there is one, only names that are known, and lead to the inode, are
// counted. Too few only cost a search of the master. It is only a number: whether the names are the
// right ones, the crawler compares.
func (l *links) liveNames(g xtime.GFID, names []string, st beneath.Stat) uint32 {
	n := st.Nlink - l.park.namesOf(g, st)
	if n <= 1 || !l.park.index.dirsParked.Load() || len(names) >= apply.MaxNames {
		return n
	}
	known := uint32(0)
	for _, one := range l.verified(g, names, "") {
		if sameInode(one.st, st) {
			known++
		}
	}
	return min(n, known)
}
