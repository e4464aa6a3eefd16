package sftp

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// store keeps the nodes of the index as files below .georep/index. It implements index.Store; the index's nodes are
// replaced as owner and journals are: staged, then renamed.
type store struct{ t *Tree }

// Load reads the node, or what was there before it where a cut came between the two renames of a replacement.
func (s store) Load(name string, room func(int64)) ([]byte, error) {
	text, err := s.t.readUpTo(indexDir+"/"+name, index.SmallText, room)
	if errors.Is(err, fs.ErrNotExist) && !s.t.first().CanReplace() {
		return s.t.readUpTo(indexDir+"/"+name+asideSuffix, index.SmallText, room) // a cut in the middle of a replacement
	}
	return text, err
}

// Stage makes the directory that the node belongs in beside it, unless this session knows it.
func (s store) Stage(name string, text []byte) (index.Staged, error) {
	t := s.t
	dir := indexDir + "/" + path.Dir(name)
	g := new(errgroup.Group)
	if _, known := t.shardDirs.Load(dir); !known {
		g.Go(func() error {
			err := t.ensureDir(dir)
			if err == nil {
				t.shardDirs.Store(dir, struct{}{})
			}
			return err
		})
	}
	n := &stagedNode{t: t, temp: t.stagingName(), to: indexDir + "/" + name}
	g.Go(func() error { return t.create(n.temp, text) })
	if err := g.Wait(); err != nil {
		n.Drop()
		return nil, t.reason(err)
	}
	return n, nil
}

// stagedNode is a node in staging.
type stagedNode struct {
	t        *Tree
	temp, to string
}

// Commit leaves it to the next flush to make the new name durable: that comes before anything relies on it.
func (n *stagedNode) Commit() error {
	err := n.t.replace(n.temp, n.to, n.to+asideSuffix)
	n.t.touched(n.to)
	return n.t.reason(err)
}

// Drop removes the file in staging.
func (n *stagedNode) Drop() { _ = n.t.any().Remove(n.t.abs(n.temp)) } // else it is cleared when the next session begins

// Remove leaves the directory, which other nodes may be in.
func (s store) Remove(name string) error {
	return ignoreAbsent(s.t.any().Remove(s.t.abs(indexDir + "/" + name)))
}

// logNames are the journal's files, in the order of index.NewJournal's logs.
var logNames = [2]string{base + "journal.0", base + "journal.1"}

// logFile is one of the journal's two files.
type logFile struct {
	t *Tree
	f *wire.Handle
	// size is where the next note goes. The handle stays open for the session's life.
	size int64
}

// newLog opens a log and empties it.
func (t *Tree) newLog(name string) (*logFile, error) {
	f, err := t.any().Open(t.abs(name), wire.OpenRead|wire.OpenWrite|wire.OpenCreate|wire.OpenTrunc,
		wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	return &logFile{t: t, f: f}, err
}

// beginJournal empties both logs. Where both have notes the older one goes first, durably: should it outlive the other, what it says
// last of a name would be held against an index that went on from there, and good entries would be dropped below their stamps.
func (t *Tree) beginJournal(journals [][]byte) error {
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
		if err := t.emptyLog(older); err != nil {
			return err
		}
		logs = []int{1 - older}
	}
	g := new(errgroup.Group)
	for _, i := range logs {
		g.Go(func() (err error) {
			t.logs[i], err = t.newLog(logNames[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	t.journal = index.NewJournal(t.logs[0], t.logs[1], turn)
	return nil
}

// emptyLog is newLog, durably where the server can.
func (t *Tree) emptyLog(i int) (err error) {
	if t.logs[i], err = t.newLog(logNames[i]); err != nil {
		return err
	}
	if !t.any().CanSync() {
		return nil
	}
	return t.logs[i].f.Fsync()
}

// Append writes at the end.
func (l *logFile) Append(text []byte) error {
	if err := l.f.WriteAll(text, l.size, true); err != nil {
		return l.t.reason(err)
	}
	l.size += int64(len(text))
	return nil
}

// Clear empties the file.
func (l *logFile) Clear() error {
	if err := l.f.Setstat(wire.Attrs{Flags: wire.HasSize}); err != nil {
		return err
	}
	l.size = 0
	return nil
}

// noFile tells that nothing is there, or nothing that could have it.
func noFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
