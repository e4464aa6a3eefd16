package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// maxNames bounds the names that are kept of one inode. Those beyond are found by a search when they are needed.
const maxNames = 1024

// index is what links/ says of one inode.
type index struct {
	ino   uint64 // on the master
	want  uint32 // names it has there
	names []string
}

// indexPath spreads the indexes over 256 directories.
func indexPath(g xtime.GFID) (dir, name string) {
	s := g.String()
	return s[:2], s
}

// readIndex reads what is known of g's names; nothing, or what a crash tore, gives an empty index.
func (t *Tree) readIndex(g xtime.GFID) index {
	dir, name := indexPath(g)
	d, err := t.links.OpenPath(dir)
	if err != nil {
		return index{}
	}
	defer d.Close()
	text, err := readSmall(d, name)
	if err != nil {
		return index{}
	}
	return parseIndex(text)
}

// parseIndex reads the form of index.text. Nothing in it is believed: wrong paths are left out.
func parseIndex(text []byte) index {
	head, rest, ok := bytes.Cut(text, []byte("\n"))
	first, second, ok2 := strings.Cut(string(head), " ")
	ino, err := strconv.ParseUint(first, 10, 64)
	want, err2 := strconv.ParseUint(second, 10, 32)
	if !ok || !ok2 || err != nil || err2 != nil {
		return index{}
	}
	idx := index{ino: ino, want: uint32(want)}
	for len(rest) > 0 && len(idx.names) < maxNames {
		name, tail, whole := bytes.Cut(rest, []byte{0})
		if whole && len(name) > 0 && allowed(string(name)) {
			idx.names = append(idx.names, string(name))
		}
		rest = tail
	}
	return idx
}

// text is the form that parseIndex reads. Names hold any byte but NUL, which therefore ends them.
func (idx index) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %d\n", idx.ino, idx.want)
	for _, name := range idx.names {
		b.WriteString(name)
		b.WriteByte(0)
	}
	return b.Bytes()
}

// writeIndex puts an index on record; one that says nothing is removed.
func (t *Tree) writeIndex(g xtime.GFID, idx index) error {
	dir, name := indexPath(g)
	if len(idx.names) == 0 || len(idx.names) == 1 && idx.want <= 1 {
		d, err := t.links.OpenPath(dir)
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer d.Close()
		return ignoreAbsent(t.sys.unlink(place{d, name}))
	}
	if err := t.sys.mkdir(place{t.links, dir}, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := t.links.OpenPath(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return t.putSmall(place{d, name}, idx.text())
}

// ignoreAbsent makes removing what is gone a success.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// putSmall replaces one of our own files, whole.
func (t *Tree) putSmall(p place, text []byte) error {
	temp := place{t.staging, t.stagingName()}
	err := t.writeNew(temp, text, false)
	if err == nil {
		err = t.sys.rename(temp, p, 0)
	}
	if err != nil {
		_ = t.sys.unlink(temp)
	}
	return err
}

// noteGroup books what an operation taught of an inode with several names: its names, and whether some are missing.
// The books are advice, so trouble with them is logged only; a search finds what they lack.
func (t *Tree) noteGroup(op *slave.Op, st beneath.Stat, names []string) {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	g := op.Record.GFID
	if g.IsZero() {
		return
	}
	was := t.readIndex(g)
	now := index{ino: op.Ino, want: max(op.Links, 1), names: slices.Clone(was.names)}
	for _, name := range names {
		if !slices.Contains(now.names, name) && len(now.names) < maxNames {
			now.names = append(now.names, name)
		}
	}
	var err error
	if now.ino != was.ino || now.want != was.want || len(now.names) != len(was.names) {
		err = t.writeIndex(g, now)
	}
	if err := errors.Join(err, t.notePending(g, now, st)); err != nil {
		t.log.Warn().Stringer("gfid", g).Err(err).Msg("note the names of an inode")
	}
}

// notePending makes or removes the mark that says that names are missing.
func (t *Tree) notePending(g xtime.GFID, idx index, st beneath.Stat) error {
	p := place{t.pending, g.String()}
	_, err := t.pending.Stat(p.name)
	marked := err == nil
	short := st.Nlink-t.parkedNames(g, st) < idx.want
	switch {
	case short && !marked:
		return t.putSmall(p, []byte(strconv.FormatUint(idx.ino, 10)+"\n"))
	case !short && marked:
		return ignoreAbsent(t.sys.unlink(p))
	}
	return nil
}

// forgetName takes a name out of the index.
func (t *Tree) forgetName(g xtime.GFID, path string) {
	if g.IsZero() {
		return
	}
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	idx := t.readIndex(g)
	i := slices.Index(idx.names, path)
	if i < 0 {
		return
	}
	idx.names = slices.Delete(idx.names, i, i+1)
	if err := t.writeIndex(g, idx); err != nil {
		t.log.Warn().Stringer("gfid", g).Err(err).Msg("forget a name of an inode")
	}
}

// Groups returns inodes of which names are missing. Marks that turn out to be done are removed on the way.
func (t *Tree) Groups(ctx context.Context, limit int) ([]slave.Group, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	var all []slave.Group
	full := errors.New("enough")
	err := eachName(t.pending, func(name string) error {
		if err := t.live(ctx); err != nil {
			return err
		}
		if len(all) >= limit {
			return full
		}
		if g, short := t.pendingGroup(name); short {
			all = append(all, g)
		}
		return nil
	})
	if err != nil && err != full {
		return nil, err
	}
	return all, nil
}

// pendingGroup looks whether a mark still holds.
func (t *Tree) pendingGroup(name string) (slave.Group, bool) {
	t.booksMu.Lock()
	defer t.booksMu.Unlock()
	g, err := xtime.ParseGFID(name)
	text, err2 := readSmall(t.pending, name)
	if err != nil || err2 != nil || !t.stillShort(g) {
		if err := ignoreAbsent(t.sys.unlink(place{t.pending, name})); err != nil {
			t.log.Warn().Str("name", name).Err(err).Msg("forget an inode with missing names")
		}
		return slave.Group{}, false
	}
	ino, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return slave.Group{GFID: g, Ino: ino}, err == nil
}

// stillShort tells whether the slave has the inode, with fewer names than it should have.
func (t *Tree) stillShort(g xtime.GFID) bool {
	idx := t.readIndex(g)
	have := t.verified(g, idx.names, "")
	for _, n := range have {
		if n.st.Nlink-t.parkedNames(g, n.st) < idx.want {
			return true
		}
	}
	return false
}
