package disk

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// parkedAs looks for the name of an inode among the parked ones of its GFID. same tells that it has one; else name is the first
// that is free.
func (t *Tree) parkedAs(g xtime.GFID, inode beneath.Stat) (name string, same bool, err error) {
	name = g.String()
	for n := 1; ; n++ {
		st, err := t.parked.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, false, nil
		}
		if err != nil {
			return name, false, err
		}
		if sameInode(st, inode) {
			return name, true, nil
		}
		name = g.String() + "." + strconv.Itoa(n)
	}
}

// parkPlace makes the place where an entry is to be parked. same tells that the place already is a name of that inode. The name
// that an OpUnpark takes is for the newest of a GFID: older ones, of a directory that was made anew, make way for it.
func (t *Tree) parkPlace(old entry) (p place, same bool, err error) {
	if old.rec.GFID.IsZero() {
		return place{t.parked, "u-" + t.stagingName()}, false, nil
	}
	newest := old.rec.GFID.String()
	name, same, err := t.parkedAs(old.rec.GFID, old.st)
	p = place{t.parked, name}
	if err != nil || same || name == newest {
		return p, same, err
	}
	if err := t.sys.rename(place{t.parked, newest}, p, 0); err != nil {
		return p, false, err
	}
	t.renamedParked(newest, name)
	t.work.twice.renamed(newest, name)
	return place{t.parked, newest}, false, nil
}

// parkBeside gives a non-directory a name among the parked, so that it can be renamed over without a gap. An inode that
// keeps another name is not lost by that, and needs none.
func (t *Tree) parkBeside(p place, old entry) error {
	if old.st.Nlink > 1 {
		return nil
	}
	to, same, err := t.parkPlace(old)
	if err != nil || same {
		return err
	}
	err = t.sys.link(p, to)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EOPNOTSUPP) {
		// No further names here: then there is a gap.
		return t.move(p, to, old)
	}
	return err
}

// park moves an entry out of the tree.
func (t *Tree) park(p place, old entry) (to place, err error) {
	to, same, err := t.parkPlace(old)
	if err != nil {
		return to, err
	}
	if same {
		return to, t.writable(p.dir, func() error { return t.sys.unlink(p) })
	}
	err = t.move(p, to, old)
	switch {
	case err != nil:
	case old.kind == slave.Dir:
		t.parkedDir(to.name)
	case old.st.Nlink > 1:
		t.work.twice.add(parkedName{old.rec.GFID, to.name})
	}
	return to, err
}

// parkOp moves what the master no longer has out of the tree.
func (t *Tree) parkOp(it *item) error {
	op := it.op
	p, err := t.parent(op.Path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := t.look(p)
	if err != nil || !old.there {
		return err
	}
	if old.rec.GFID != op.Expect {
		return slave.ErrConflict
	}
	var linked []parkedName
	if old.kind != slave.Dir {
		err = t.leaving(old)
	} else if t.hasGroups() {
		linked, err = t.leavingBelow(p, op.Path)
	}
	if err != nil {
		return err
	}
	to, err := t.park(p, old)
	if err != nil {
		return err
	}
	for _, one := range linked {
		t.work.twice.add(parkedName{one.gfid, beneath.Join(to.name, one.path)})
	}
	it.res.Parked = true
	if old.kind == slave.Dir {
		t.forgetDirs()
	} else if old.st.Nlink > 1 {
		t.forgetName(old, op.Path)
	}
	return nil
}

// unparkOp puts a parked inode back under a name.
func (t *Tree) unparkOp(it *item) error {
	op := it.op
	p, err := t.parent(op.Path)
	if err != nil {
		return err
	}
	from := place{t.parked, op.Record.GFID.String()}
	if op.From != "" {
		var done func()
		if from, done, err = t.parkedPlace(op.From); err != nil {
			return errors.Join(slave.ErrNeedContent, err)
		}
		defer done()
	}
	pk, err := t.look(from)
	if err != nil {
		return err
	}
	old, err := t.look(p)
	switch {
	case err != nil:
		return err
	case old.there && old.rec.GFID == op.Record.GFID:
		return nil
	case !pk.there || pk.rec.GFID != op.Record.GFID:
		return slave.ErrNeedContent
	case old.kind == slave.Dir:
		return slave.ErrConflict
	case old.there:
		if err := t.makeWay(it, p, old, pk.kind); err != nil {
			return err
		}
	}
	if op.From != "" {
		if err := t.unstampWithin(op.From); err != nil {
			return err
		}
	}
	if pk.kind != slave.Dir && (op.Links > 1 || pk.st.Nlink > 1) {
		if err := t.guard(op.Record.GFID, mark{ino: op.Ino}); err != nil {
			return err
		}
	}
	if err := t.move(from, p, pk); err != nil {
		return err
	}
	if pk.kind == slave.Dir {
		t.forgetDirs()
		return t.backBelow(op.Path)
	}
	if op.Links > 1 || pk.st.Nlink > 1 {
		t.noteGroup(op, pk.st, []string{op.Path})
	}
	return nil
}

// makeWay parks a non-directory that an unparked entry takes the place of.
func (t *Tree) makeWay(it *item, p place, old entry, kind slave.Kind) error {
	beside := kind != slave.Dir
	if beside && old.rec.GFID.IsZero() {
		return nil
	}
	err := t.leaving(old)
	if err != nil {
		return err
	}
	if beside {
		err = t.parkBeside(p, old)
	} else {
		_, err = t.park(p, old)
	}
	if err != nil {
		return err
	}
	it.res.Parked = true
	t.forgetName(old, it.op.Path)
	return nil
}

// maxForgotten bounds the inodes that one Clean forgets the places of; the others are forgotten when they are met.
const maxForgotten = 100_000

// Clean deletes what was parked at least olderThan seconds ago. What cannot be deleted is logged and left. The error
// is ctx's, or the end of the session.
func (t *Tree) Clean(ctx context.Context, olderThan int64) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	t.cleanMu.Lock()
	defer t.cleanMu.Unlock()
	t.cleans.Add(1)
	defer t.cleans.Add(1)
	limit := time.Now().Unix() - olderThan
	var gone []xtime.GFID
	dirs := map[string]bool{} // that are deleted
	err := eachName(t.parked, func(name string) error {
		if err := t.live(ctx); err != nil {
			return err
		}
		kind, err := t.discard(name, limit)
		if kind == slave.Dir {
			dirs[name] = true
		}
		if err != nil {
			t.log.Warn().Str("name", name).Err(err).Msg("cannot delete what was parked")
		} else if g, err := xtime.ParseGFID(name); err == nil && kind != slave.Unknown && len(gone) < maxForgotten {
			gone = append(gone, g)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.forgetPlaces(gone)
	t.forgetWithin(dirs)
	t.lookForDirs()
	if err := t.cleanUploads(ctx, limit); err != nil {
		return err
	}
	return t.emptyTrash(ctx)
}

// discard moves an entry out of the park, if it was parked at limit or before: half of a directory must not be
// unparked. It gives the kind of what it moved, Unknown where it moved nothing.
func (t *Tree) discard(name string, limit int64) (slave.Kind, error) {
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	st, err := t.parked.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Ctime.Sec > limit {
		return slave.Unknown, nil
	}
	if err != nil {
		return slave.Unknown, err
	}
	to, kind := place{t.trash, t.stagingName()}, slave.KindOf(st.Mode)
	if err := t.move(place{t.parked, name}, to, entry{kind: kind}); err != nil {
		return slave.Unknown, err
	}
	return kind, nil
}

// emptyTrash deletes what is in trash/, level by level: the directories in a directory are moved up into trash/, so
// that no depth is too deep. It is over when a round removes nothing.
func (t *Tree) emptyTrash(ctx context.Context) error {
	for progress := true; progress; {
		progress = false
		err := eachName(t.trash, func(name string) error {
			if err := t.live(ctx); err != nil {
				return err
			}
			did, err := t.scrap(ctx, name)
			progress = progress || did
			if err != nil && t.live(ctx) == nil {
				t.log.Warn().Str("name", name).Err(err).Msg("cannot delete what was parked")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return t.live(ctx)
}

// scrap deletes one entry of trash/; a directory's directories are moved up. It tells whether it changed anything.
func (t *Tree) scrap(ctx context.Context, name string) (progress bool, err error) {
	p := place{t.trash, name}
	t.forgetBeside(p)
	err = t.sys.unlink(p)
	if !errors.Is(err, unix.EISDIR) {
		return err == nil, err
	}
	if !t.root {
		if err := t.sys.chmod(t.trash.At(name), 0o700); err != nil {
			return false, err
		}
	}
	d, err := t.trash.OpenDir(name)
	if err != nil {
		return false, err
	}
	defer d.Close()
	for {
		did, more, last := t.scrapSome(ctx, d)
		progress = progress || did
		if did && more {
			continue
		}
		if last != nil {
			return progress, last
		}
		err := t.sys.rmdir(p)
		return progress || err == nil, err
	}
}

// scrapBatch is how many names of a directory are deleted before it is listed again.
const scrapBatch = 4096

// scrapSome deletes or moves up the first names in d. more tells that there were others.
func (t *Tree) scrapSome(ctx context.Context, d *beneath.Dir) (progress, more bool, last error) {
	full := errors.New("enough")
	names := make([]string, 0, scrapBatch)
	err := d.List(func(e beneath.Entry) error {
		if len(names) == scrapBatch {
			return full
		}
		names = append(names, e.Name)
		return nil
	})
	more = err == full
	if err != nil && !more {
		return false, false, err
	}
	for _, name := range names {
		if err := t.live(ctx); err != nil {
			return progress, false, err
		}
		p := place{d, name}
		t.forgetBeside(p)
		err := t.sys.unlink(p)
		if errors.Is(err, unix.EISDIR) {
			err = t.moveUp(p)
		}
		if err != nil {
			last = err
			continue
		}
		progress = true
	}
	return progress, more, last
}

// moveUp removes an empty directory, or moves a full one into trash/.
func (t *Tree) moveUp(p place) error {
	err := t.sys.rmdir(p)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return t.move(p, place{t.trash, t.stagingName()}, entry{kind: slave.Dir})
}

// Find tells which inodes the slave has, in the tree or parked.
func (t *Tree) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	all, weight := make([]slave.Found, 0, len(gfids)), int64(0)
	for _, g := range gfids {
		if err := t.live(ctx); err != nil {
			return nil, err
		}
		f := t.find(g)
		if weight += f.Weight(); len(all) > 0 && weight > slave.MaxFound {
			break
		}
		all = append(all, f)
	}
	return all, nil
}

// find answers for one inode. What was on its way from one place to another is looked for again while nothing moves.
func (t *Tree) find(g xtime.GFID) slave.Found {
	if g.IsZero() {
		return slave.Found{}
	}
	before := t.moving.Load()
	f := t.findOnce(g)
	if f.Path != "" || f.Parked || before%2 == 0 && before == t.moving.Load() {
		return f
	}
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	return t.findOnce(g)
}

// findOnce looks in all places. A name in the tree goes before a parked one: bringing back another inode of the same GFID
// would split the group. What cannot be read counts as not there: then the inode is shipped.
func (t *Tree) findOnce(g xtime.GFID) slave.Found {
	var dir xtime.GFID
	for name := range t.bookedNames(g) {
		if n, ok := t.leadsTo(g, name, &dir); ok && n.kind != slave.Dir {
			return slave.Found{Linked: true, Path: name, Dir: dir, Record: n.rec}
		}
	}
	if n, ok := t.placedIn(g, &dir); ok {
		return slave.Found{Linked: n.kind != slave.Dir, Path: n.path, Dir: dir, Record: n.rec}
	}
	pk, err := t.look(place{t.parked, g.String()})
	if err == nil && pk.there && pk.rec.GFID == g {
		return slave.Found{Parked: true, Record: pk.rec}
	}
	if path, e, ok := t.findWithin(g); ok {
		return slave.Found{Parked: true, Path: path, Record: e.rec}
	}
	return slave.Found{}
}
