package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"georep/marker/xtime"
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
	session string // store.prefix of the session that made it; another's may be about a tree that was lost
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

// marks are those in pending/, and what this session knows of them. mu guards the maps; nothing is locked under it.
type marks struct {
	*store
	mu    sync.Mutex
	loose bool                 // some were made since pending/ was synced
	have  map[xtime.GFID]mark  // those that the group at work has met
	done  map[xtime.GFID]bool  // needless as soon as the tree is durable; true: it is being synced
	told  map[xtime.GFID]uint8 // how often Groups named those of earlier sessions
}

func newMarks(s *store) *marks {
	return &marks{store: s, have: map[xtime.GFID]mark{}, done: map[xtime.GFID]bool{}, told: map[xtime.GFID]uint8{}}
}

const (
	// maxDone bounds the marks that wait for a sync.
	maxDone = 100_000
	// maxTold is how often a mark of an earlier session is told of without anybody settling it. Then it counts as one of
	// this session's: the inode may be gone, and a search of the whole master must not be made again and again.
	maxTold = 8
)

// add makes a mark, or adds to the one that is there. It is a symbolic link, because the target of one is there as soon as its
// name is. It is durable after the next sync.
func (m *marks) add(g xtime.GFID, more mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	more.session = m.prefix
	p := place{m.pending, g.String()}
	was, met := m.have[g]
	if !met {
		err := m.sys.symlink(more.text(), p)
		if err == nil {
			m.have[g], m.loose = more, true
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		was = m.read(p.name)
		m.loose = m.loose || was.session != m.prefix // that session may have died before its sync
	}
	if _, settled := m.done[g]; !settled {
		more = was.with(more)
	}
	if more != was {
		temp := place{m.staging, m.stagingName() + bookSuffix}
		if err := m.sys.symlink(more.text(), temp); err != nil {
			return err
		}
		if err := m.sys.rename(temp, p, 0); err != nil {
			return errors.Join(err, m.sys.unlink(temp))
		}
		m.loose = true
	}
	delete(m.done, g)
	m.have[g] = more
	return nil
}

// letGo notes that the mark of an inode which has all its names is needless, if there is one. That of an earlier session stays
// until Groups has told of it: the names may be right, and a cut between a name and what gave its directory the times back have
// left these wrong.
func (m *marks) letGo(g xtime.GFID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, marked := m.have[g]
	if !marked {
		if _, err := m.pending.Stat(g.String()); err == nil {
			one, marked = m.read(g.String()), true
		}
	}
	if marked && (one.session == m.prefix || m.told[g] > 0) {
		m.done[g] = false
	}
}

// read reads a mark; an earlier version's is a file.
func (m *marks) read(name string) mark {
	text, err := m.pending.Readlink(name)
	if err != nil {
		b, _ := readSmall(m.pending, name)
		text = string(b)
	}
	return parseMark(text)
}

// sync makes the marks durable, if there are new ones.
func (m *marks) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.loose {
		return nil
	}
	err := m.sys.fsyncDir(m.pending, "pending")
	m.loose = err != nil
	return err
}

// beginSync takes the marks that the sync which follows makes needless.
func (m *marks) beginSync() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for g := range m.done {
		m.done[g] = true
	}
}

// endSync takes those marks away.
func (m *marks) endSync() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loose = false
	for g, synced := range m.done {
		if !synced {
			continue
		}
		delete(m.done, g)
		delete(m.have, g)
		delete(m.told, g)
		if err := ignoreAbsent(m.sys.unlink(place{m.pending, g.String()})); err != nil {
			m.log.Warn().Stringer("gfid", g).Err(err).Msg("forget an inode with missing names")
		}
	}
}

// manyDone tells whether it is time for a sync for the sake of the marks alone.
func (m *marks) manyDone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.done) > maxDone
}

// forget forgets which marks the group has met.
func (m *marks) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.have)
}

// settled tells whether a mark only waits for a sync.
func (m *marks) settled(g xtime.GFID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, done := m.done[g]
	return done
}

// settle notes that a mark, which was read as was, is needless, unless it says more by now.
func (m *marks) settle(g xtime.GFID, was mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read(g.String()) == was {
		m.done[g] = false
	}
}

// tell counts that a mark of an earlier session is told of, and tells whether it was not told of too often already.
func (m *marks) tell(g xtime.GFID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told[g] >= maxTold {
		return false
	}
	m.told[g]++
	return true
}

// any tells whether Groups has anything to look at.
func (m *marks) any() (bool, error) {
	found := errors.New("found")
	err := eachName(m.pending, func(string) error { return found })
	if err == found {
		return true, nil
	}
	return false, err
}
