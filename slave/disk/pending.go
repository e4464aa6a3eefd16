package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"georep/marker/xtime"
	"georep/slave"
)

// This file has the marks in pending/: which inodes with several names are to be looked at before the slave is in step
// (invariant 14). The books in links/ are not durable together with the tree, and a power cut may leave either of them
// older than the other, or torn. The marks cannot lie: an inode's mark is durable before the first of its names is made,
// replaced or removed, and it is taken away after the tree that made it needless is durable. So whatever a cut left half
// done has a mark, and one that an earlier session made says no more than that: look at this inode again.

// mark is what pending/ says of an inode.
type mark struct {
	ino     uint64 // on the master; 0 if that is not known
	here    uint64 // on the slave, where a name of it was removed: then its others are to be checked; else 0
	session string // Tree.prefix of the session that made it; another's may be about a tree that was lost
}

func (m mark) text() string { return fmt.Sprintf("%d %d %s", m.ino, m.here, m.session) }

// parseMark reads the form of mark.text. What it cannot read says that there is a mark, and nothing else.
func parseMark(text string) (m mark) {
	_, _ = fmt.Sscanf(text, "%d %d %s", &m.ino, &m.here, &m.session)
	return m
}

// with is a mark that says what both say. One that is another session's stays that.
func (m mark) with(more mark) mark {
	if more.ino != 0 {
		m.ino = more.ino
	}
	if more.here != 0 {
		m.here = more.here
	}
	return m
}

// marks is what this session knows of pending/. Tree.booksMu guards it.
type marks struct {
	loose bool                 // some were made since pending/ was synced
	have  map[xtime.GFID]mark  // those that the group at work has met
	done  map[xtime.GFID]bool  // needless as soon as the tree is durable; true: it is being synced
	told  map[xtime.GFID]uint8 // how often Groups named those of earlier sessions
}

func (m *marks) init() {
	m.have, m.done, m.told = map[xtime.GFID]mark{}, map[xtime.GFID]bool{}, map[xtime.GFID]uint8{}
}

const (
	// maxDone bounds the marks that wait for a sync.
	maxDone = 100_000
	// maxTold is how often a mark of an earlier session is told of without anybody settling it. Then it counts as one of
	// this session's: the inode may be gone, and a search of the whole master must not be made again and again.
	maxTold = 8
)

// guard sees that g has a mark, durably. It comes before any change of the names of an inode with several.
func (t *Tree) guard(g xtime.GFID, m mark) error {
	if g.IsZero() {
		return nil
	}
	if err := t.addMark(g, m); err != nil {
		return err
	}
	return t.syncMarks()
}

// addMark is guard without the sync.
func (t *Tree) addMark(g xtime.GFID, m mark) error {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	return t.setMark(g, m)
}

// setMark makes a mark, or adds to the one that is there. It is a symbolic link, because the target of one is there as
// soon as its name is. booksMu is held.
func (t *Tree) setMark(g xtime.GFID, m mark) error {
	m.session = t.prefix
	delete(t.shelf.notes, g)
	p := place{t.pending, g.String()}
	was, met := t.marks.have[g]
	if !met {
		err := t.sys.symlink(m.text(), p)
		if err == nil {
			t.marks.have[g], t.marks.loose = m, true
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		was = t.readMark(p.name)
		t.marks.loose = t.marks.loose || was.session != t.prefix // that session may have died before its sync
	}
	if _, settled := t.marks.done[g]; !settled {
		m = was.with(m)
	}
	if m != was {
		temp := place{t.staging, t.stagingName() + bookSuffix}
		if err := t.sys.symlink(m.text(), temp); err != nil {
			return err
		}
		if err := t.sys.rename(temp, p, 0); err != nil {
			return errors.Join(err, t.sys.unlink(temp))
		}
		t.marks.loose = true
	}
	delete(t.marks.done, g)
	t.marks.have[g] = m
	return nil
}

// readMark reads a mark; an earlier version's is a file.
func (t *Tree) readMark(name string) mark {
	text, err := t.pending.Readlink(name)
	if err != nil {
		b, _ := readSmall(t.pending, name)
		text = string(b)
	}
	return parseMark(text)
}

// syncMarks makes the marks durable, if there are new ones.
func (t *Tree) syncMarks() error {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	if !t.marks.loose {
		return nil
	}
	err := t.sys.fsyncDir(t.pending, "pending")
	t.marks.loose = err != nil
	return err
}

// foresee makes the marks that the group will want, so that one sync does for all of them. What fails here is done, or
// fails, when its operation guards its inode.
func (t *Tree) foresee(group []*ticket) {
	grouped := t.hasGroups()
	for _, tk := range group {
		for i := range tk.items {
			if it := &tk.items[i]; !it.done {
				t.foreseeOp(it.op, grouped)
			}
		}
	}
}

func (t *Tree) foreseeOp(op *slave.Op, grouped bool) {
	switch op.Kind {
	case slave.OpMkdir, slave.OpMeta, slave.OpFinish, slave.OpFilter:
		return // changes no name that another inode may have
	}
	if op.Links > 1 && !op.Record.GFID.IsZero() {
		_ = t.addMark(op.Record.GFID, mark{ino: op.Ino})
	}
	if !grouped {
		return
	}
	p, err := t.parent(op.Path)
	if err != nil {
		return
	}
	st, err := p.dir.Stat(p.name)
	if err != nil || st.IsDir() || st.Nlink < 2 {
		return
	}
	old, err := t.look(p)
	g := old.rec.GFID
	if err != nil || g.IsZero() {
		return
	}
	m := mark{ino: op.Ino}
	if g != op.Record.GFID {
		m = mark{ino: t.readBook(g).ino, here: old.st.Ino}
	}
	_ = t.addMark(g, m)
}

// leaving guards an inode of which a name is about to leave the tree. If it keeps other names they are to be checked: what
// was changed through the one that goes shows under them, in directories that nothing has marked.
func (t *Tree) leaving(old entry) error {
	if old.st.Nlink < 2 || old.kind == slave.Dir {
		return nil
	}
	g := old.rec.GFID
	return t.guard(g, mark{ino: t.readBook(g).ino, here: old.st.Ino})
}

// beginSync takes the marks that the sync which follows makes needless.
func (t *Tree) beginSync() {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	for g := range t.marks.done {
		t.marks.done[g] = true
	}
}

// endSync takes those marks away.
func (t *Tree) endSync() {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	t.marks.loose = false
	for g, synced := range t.marks.done {
		if !synced {
			continue
		}
		delete(t.marks.done, g)
		delete(t.marks.have, g)
		delete(t.marks.told, g)
		if err := ignoreAbsent(t.sys.unlink(place{t.pending, g.String()})); err != nil {
			t.log.Warn().Stringer("gfid", g).Err(err).Msg("forget an inode with missing names")
		}
	}
}

// manyDone tells whether it is time for a sync for the sake of the marks alone.
func (t *Tree) manyDone() bool {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	return len(t.marks.done) > maxDone
}

// forgetMarks forgets which marks the group has met.
func (t *Tree) forgetMarks() {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	clear(t.marks.have)
}

// settled tells whether a mark only waits for a sync.
func (t *Tree) settled(g xtime.GFID) bool {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	_, done := t.marks.done[g]
	return done
}

// settleGroup notes that a mark, which was read as m, is needless, unless it says more by now.
func (t *Tree) settleGroup(g xtime.GFID, m mark) {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	if t.readMark(g.String()) == m {
		t.marks.done[g] = false
	}
}

// tell counts that a mark of an earlier session is told of, and tells whether it was not told of too often already.
func (t *Tree) tell(g xtime.GFID) bool {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	if t.marks.told[g] >= maxTold {
		return false
	}
	t.marks.told[g]++
	return true
}
