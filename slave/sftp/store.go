package sftp

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sync/errgroup"

	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// files reads the nodes of the index, which are files below .georep/index. It is all that a slave
// needs that is only looked at.
type files struct{ *space }

// Load reads the node, or what was there before it where a cut came between the two renames of a replacement.
func (f files) Load(name string, room func(int64)) ([]byte, error) {
	text, err := f.readUpTo(indexDir+"/"+name, index.SmallText, room)
	if errors.Is(err, fs.ErrNotExist) && !f.first().CanReplace() {
		return f.readUpTo(indexDir+"/"+name+oldSuffix, index.SmallText, room) // a cut in the middle of a replacement
	}
	return text, err
}

// store writes nodes too. It implements index.Store, whose calls come from several goroutines;
// nodes are replaced as owner and journals are: staged, then renamed.
type store struct {
	files
	ch *changer
}

// newStore is the index's store.
func newStore(ch *changer) store { return store{files{ch.space}, ch} }

// Stage makes the directory that the node belongs in beside it, unless this session knows it.
func (s store) Stage(name string, text []byte) (index.Staged, error) {
	dir := indexDir + "/" + path.Dir(name)
	g := new(errgroup.Group)
	if _, known := s.ch.shardDirs.Load(dir); !known {
		g.Go(func() error {
			err := s.ch.ensureDir(dir)
			if err == nil {
				s.ch.shardDirs.Store(dir, struct{}{})
			}
			return err
		})
	}
	n := &stagedNode{ch: s.ch, temp: s.ch.stagingName(), to: indexDir + "/" + name}
	g.Go(func() error { return s.ch.create(n.temp, text) })
	if err := g.Wait(); err != nil {
		n.Drop()
		return nil, s.ch.reason(err)
	}
	return n, nil
}

// stagedNode is a node in staging, to be committed or dropped, once.
type stagedNode struct {
	ch       *changer
	temp, to string
}

// Commit leaves it to the next flush to make the new name durable: that comes before anything relies on it.
func (n *stagedNode) Commit() error {
	err := n.ch.replace(n.temp, n.to, n.to+oldSuffix)
	n.ch.touched(n.to)
	return n.ch.reason(err)
}

// Drop removes the file in staging.
func (n *stagedNode) Drop() { _ = n.ch.any().Remove(n.ch.abs(n.temp)) } // else it is cleared when the next session begins

// Remove leaves the directory, which other nodes may be in.
func (s store) Remove(name string) error {
	return ignoreAbsent(s.ch.any().Remove(s.ch.abs(indexDir + "/" + name)))
}

// logNames are the journal's files, in the order of index.NewJournal's logs.
var logNames = [2]string{base + "journal.0", base + "journal.1"}

// logFile is one of the journal's two files. The journal calls one of its methods at a time, so
// that size needs no lock.
type logFile struct {
	sp *space
	f  *wire.Handle
	// size is where the next note goes. The handle stays open for the session's life.
	size int64
}

// newLog opens a log and empties it.
func (ch *changer) newLog(name string) (*logFile, error) {
	f, err := ch.any().Open(ch.abs(name), wire.OpenRead|wire.OpenWrite|wire.OpenCreate|wire.OpenTrunc,
		wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	return &logFile{sp: ch.space, f: f}, err
}

// beginJournal empties both logs. Where both have notes the older one goes first, durably: should it outlive the other, what it says
// last of a name would be held against an index that went on from there, and good entries would be dropped below their stamps.
func (ch *changer) beginJournal(journals [][]byte) error {
	turn := uint64(time.Now().UnixMicro())
	for _, text := range journals { // the clock may have been set back
		turn = max(turn, index.TurnOf(text))
	}
	logs := []int{0, 1}
	if len(journals) == len(logs) && len(journals[0]) > 0 && len(journals[1]) > 0 {
		older := 0
		if index.TurnOf(journals[0]) > index.TurnOf(journals[1]) {
			older = 1
		}
		if err := ch.emptyLog(older); err != nil {
			return err
		}
		logs = []int{1 - older}
	}
	g := new(errgroup.Group)
	for _, i := range logs {
		g.Go(func() (err error) {
			ch.logs[i], err = ch.newLog(logNames[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	ch.journal = index.NewJournal(ch.logs[0], ch.logs[1], turn)
	return nil
}

// emptyLog is newLog, durably where the server can.
func (ch *changer) emptyLog(i int) (err error) {
	if ch.logs[i], err = ch.newLog(logNames[i]); err != nil {
		return err
	}
	if !ch.any().CanSync() {
		return nil
	}
	return ch.logs[i].f.Fsync()
}

// Append writes at the end, durably where the server can. After an error the change that the note
// is of is not made.
func (l *logFile) Append(text []byte) error {
	if err := l.f.WriteAll(text, l.size, true); err != nil {
		return l.sp.reason(err)
	}
	l.size += int64(len(text))
	return nil
}

// Clear empties the file. What it had is not needed any more, so that it need not be durable.
func (l *logFile) Clear() error {
	if err := l.f.Setstat(wire.Attrs{Flags: wire.HasSize}); err != nil {
		return err
	}
	l.size = 0
	return nil
}

// forgetIndex removes what is on record of another slave, or another master: it vouches for nothing
// here. The index goes as a whole, by one rename, before its journal: a cut in between leaves notes
// of an index that is not there, which count for nothing.
func (r *records) forgetIndex() error {
	to := trashDir + "/" + r.unique()
	if err := r.rename(indexDir, to); err != nil {
		return err
	}
	for _, name := range logNames {
		if err := ignoreAbsent(r.any().Remove(r.abs(name))); err != nil {
			return err
		}
	}
	return r.ensureDir(indexDir)
}

// readJournals reads both logs into texts, at the same time; one that is not there is empty.
func (r *records) readJournals(texts [][]byte) error {
	g := new(errgroup.Group)
	for i, name := range logNames {
		g.Go(func() (err error) {
			texts[i], err = r.readSmall(name)
			return ignoreAbsent(err)
		})
	}
	return g.Wait()
}

// preload reads the parts of the index that every session needs, at the same time.
func (r *records) preload() error {
	g := new(errgroup.Group)
	for _, id := range []index.ID{index.Top, index.Root, index.Parked, index.Links, index.Pending, index.Touched} {
		g.Go(func() error { return r.idx.Preload(id) })
	}
	return g.Wait()
}

// recover has what the journals say may be wrong count for nothing, in memory alone.
func (r *records) recover() error {
	journals := make([][]byte, len(logNames))
	if err := r.readJournals(journals); err != nil {
		return r.unfit(err)
	}
	for _, text := range journals {
		if _, err := r.idx.Recover(text); err != nil {
			return r.unfit(err)
		}
	}
	return nil
}
