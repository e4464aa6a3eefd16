// Package dirty is the journal of a slave's dirty inodes: those with several names that are to be looked at before the slave is in
// step (invariant 14). The link table is not durable together with the tree, and a power cut may leave either of them older than
// the other, or torn. The marks of this journal cannot lie: an inode's mark is durable before the first of its names is made,
// replaced or removed, and it is taken away after the tree that made it needless is durable. So whatever a cut left half done has a
// mark, and one that an earlier session made says no more than that: look at this inode again.
//
// It knows neither the tree nor the link table, and decides nothing about names: whoever changes them adds and lets go.
package dirty

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"georep/marker/xtime"
)

// Mark is what is on record of a dirty inode.
type Mark struct {
	Ino     uint64 // on the master; 0 if that is not known
	Here    uint64 // on the slave, where a name of it was removed: then its others are to be checked; else 0
	Session string // that made it; another's may be about a tree that was lost
}

// Text is the form in which a mark is kept.
func (m Mark) Text() string { return fmt.Sprintf("%d %d %s", m.Ino, m.Here, m.Session) }

// Parse reads what Text made. What it cannot read says that there is a mark, and nothing else.
func Parse(text string) (m Mark) {
	_, _ = fmt.Sscanf(text, "%d %d %s", &m.Ino, &m.Here, &m.Session)
	return m
}

// with is a mark that says what both say. One that is another session's stays that.
func (m Mark) with(more Mark) Mark {
	if more.Ino != 0 {
		m.Ino = more.Ino
	}
	if more.Here != 0 {
		m.Here = more.Here
	}
	return m
}

// Files is where marks are kept, each under the GFID of its inode. A text is there as a whole as soon as its name is.
type Files interface {
	// Make keeps a text under a name that is new. fs.ErrExist says that there is one already.
	Make(name, text string) error
	// Replace keeps another text under a name that is there.
	Replace(name, text string) error
	// Remove takes a name away. One that is gone already is no error.
	Remove(name string) error
	// Read gives the text of a name, as far as it can be read, and tells whether the name is there.
	Read(name string) (text string, there bool)
	// Sync makes all names and texts durable that were made so far.
	Sync() error
}

const (
	// maxDone bounds the marks that wait for a sync.
	maxDone = 100_000
	// MaxTold is how often a mark of an earlier session is told of without anybody settling it. Then it counts as one of
	// this session's: the inode may be gone, and a search of the whole master must not be made again and again.
	MaxTold = 8
)

// Journal is the marks, and what this session knows of them. It is safe for concurrent use; it calls Files with its lock held.
type Journal struct {
	files   Files
	session string

	mu sync.Mutex
	// made counts what was written; so much of it is durable, and so much will be by the sync of the tree that is under way.
	made, durable, begun uint64
	have                 map[xtime.GFID]Mark  // those that the group at work has met
	done                 map[xtime.GFID]bool  // needless as soon as the tree is durable; true: it is being synced
	told                 map[xtime.GFID]uint8 // how often those of earlier sessions were told of
}

// New makes a journal for a session, whose name no earlier one had.
func New(files Files, session string) *Journal {
	return &Journal{files: files, session: session, have: map[xtime.GFID]Mark{}, done: map[xtime.GFID]bool{}, told: map[xtime.GFID]uint8{}}
}

// Add makes a mark, or adds to the one that is there. It is durable after the next Sync.
func (j *Journal) Add(g xtime.GFID, more Mark) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	more.Session = j.session
	name := g.String()
	was, met := j.have[g]
	if !met {
		err := j.files.Make(name, more.Text())
		if err == nil {
			j.have[g] = more
			j.made++
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		was, _ = j.read(name)
		if was.Session != j.session {
			j.made++ // that session may have died before its sync
		}
	}
	if _, settled := j.done[g]; !settled {
		more = was.with(more)
	}
	if more != was {
		if err := j.files.Replace(name, more.Text()); err != nil {
			return err
		}
		j.made++
	}
	delete(j.done, g)
	j.have[g] = more
	return nil
}

// Read reads the mark that has a name, and tells whether there is one.
func (j *Journal) Read(name string) (Mark, bool) { return j.read(name) }

func (j *Journal) read(name string) (Mark, bool) {
	text, there := j.files.Read(name)
	return Parse(text), there
}

// Sync makes the marks durable, if there are new ones.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.durable == j.made {
		return nil
	}
	err := j.files.Sync()
	if err == nil {
		j.durable = j.made
	}
	return err
}

// LetGo notes that the mark of an inode which has all its names is needless, if there is one. That of an earlier session stays
// until it was told of (Tell): the names may be right, and a cut between a name and what gave its directory the times back have
// left these wrong.
func (j *Journal) LetGo(g xtime.GFID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	one, marked := j.have[g]
	if !marked {
		one, marked = j.read(g.String())
	}
	if marked && (one.Session == j.session || j.told[g] > 0) {
		j.done[g] = false
	}
}

// Settle notes that a mark, which was read as was, is needless, unless it says more by now.
func (j *Journal) Settle(g xtime.GFID, was Mark) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now, _ := j.read(g.String()); now == was {
		j.done[g] = false
	}
}

// AwaitsSync tells whether a mark only waits for a sync of the tree.
func (j *Journal) AwaitsSync(g xtime.GFID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, done := j.done[g]
	return done
}

// Tell counts that a mark of an earlier session is told of, and tells whether it was not told of too often already.
func (j *Journal) Tell(g xtime.GFID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.told[g] >= MaxTold {
		return false
	}
	j.told[g]++
	return true
}

// Many tells whether it is time for a sync of the tree for the sake of the marks alone.
func (j *Journal) Many() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.done) > maxDone
}

// BeginSync takes the marks that the sync of the tree which follows makes needless.
func (j *Journal) BeginSync() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.begun = j.made
	for g := range j.done {
		j.done[g] = true
	}
}

// EndSync takes those marks away, once the tree is durable, and with it what was written to Files before BeginSync. failed is told
// of those that it cannot.
func (j *Journal) EndSync(failed func(xtime.GFID, error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.durable = max(j.durable, j.begun)
	for g, synced := range j.done {
		if !synced {
			continue
		}
		delete(j.done, g)
		delete(j.have, g)
		delete(j.told, g)
		if err := j.files.Remove(g.String()); err != nil {
			failed(g, err)
		}
	}
}

// Forget forgets which marks the group has met, so that memory does not grow with their number.
func (j *Journal) Forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.have)
}
