package sftp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
)

// parkPlace finds where an entry is parked; the caller has busyPark until it is there. same tells that the very state of that inode is parked there already. The name
// that an OpUnpark takes is for the newest copy of a directory: an older one makes way for it.
func (t *Tree) parkPlace(old index.Entry) (p place, same bool, err error) {
	name := "u-" + t.unique()
	if g := old.Record.GFID; !g.IsZero() {
		name = g.String()
		there, ok, err := t.idx.Get(index.Parked, name)
		if err != nil {
			return p, false, err
		}
		if ok {
			same = old.Kind != slave.Dir && there.Record == old.Record && there.Record.Xtime != 0 && there.Virtual == old.Virtual
			if same {
				f, err := t.look(parkedPlace(name))
				if err != nil {
					return p, false, err
				}
				same = f.known
			}
			switch {
			case same:
			case old.Kind == slave.Dir && t.makeWay(name, there):
			default:
				name += "." + t.unique()
			}
		} else if left, err := t.isLeft(name); err != nil {
			return p, false, err
		} else if left {
			name += "." + t.unique() // maybe a further name of this very inode: a rename to that would do nothing
		}
	}
	return parkedPlace(name), same, nil
}

// makeWay gives a parked entry another name, and tells whether it could.
func (t *Tree) makeWay(name string, old index.Entry) bool {
	to := parkedPlace(name + "." + t.unique())
	if err := t.move(parkedPlace(name), to, old, old); err != nil {
		return false
	}
	t.within.renamed(name, to.name)
	t.twice.renamed(name, to.name)
	return true
}

// parkedPlace is the place of a name in parked/.
func parkedPlace(name string) place { return place{index.Parked, parkedDir + "/" + name, name} }

// parkBeside gives a non-directory a name among the parked, so that it can be renamed over without a gap; where the server
// makes no links there is one.
func (t *Tree) parkBeside(p place, old index.Entry) (to place, err error) {
	defer t.busyPark(old.Record.GFID)()
	to, same, err := t.parkPlace(old)
	if err != nil || same {
		return to, err
	}
	e := asParked(old)
	if old.Virtual || !t.first().CanLink() || old.Kind != slave.File {
		return t.moveOut(p, to, old)
	}
	err = t.change(to, &e, func() error { return t.any().Link(t.abs(p.path), t.abs(to.path)) })
	switch {
	case err == nil || noFile(err):
		return to, nil // where it is gone there is nothing to park
	case t.first().Err() != nil:
		return to, err
	}
	return t.moveOut(p, to, old)
}

// parkReplaced does that for what an operation puts another inode in the place of.
func (b *batch) parkReplaced(it *item, p place, old index.Entry) error {
	to, err := b.t.parkBeside(p, old)
	if err != nil {
		return err
	}
	it.res.Parked = true
	b.t.leftAlone(old, p.path, to.name)
	return nil
}

// moveOut moves an entry into the park. What a cut left there, which is not on record, may stand in its way: then it gets
// another name.
func (t *Tree) moveOut(from, to place, old index.Entry) (place, error) {
	err := t.move(from, to, old, asParked(old))
	if err == nil || noFile(err) || !certain(err) {
		return to, err
	}
	to = parkedPlace(to.name + "." + t.unique())
	return to, t.move(from, to, old, asParked(old))
}

// asParked is the entry there: as it was, with the moment, which Clean goes by.
func asParked(e index.Entry) index.Entry {
	e.Since = time.Now().Unix()
	return e
}

// move renames an entry, in the index too.
func (t *Tree) move(from, to place, old, e index.Entry) error {
	err := t.changes([]step{{from, nil}, {to, &e}}, func() error {
		if old.Virtual {
			return nil
		}
		return t.rename(from.path, to.path)
	})
	if err == nil && e.Kind == slave.Dir {
		t.fresh.Delete(e.ID)
	}
	return err
}

// parkOp moves what the master no longer has out of the tree.
func (b *batch) parkOp(it *item) error {
	op, t := it.op, b.t
	p, err := b.parent(op.Path)
	if noFile(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer t.busyName(p)()
	f, err := t.look(p)
	if err != nil {
		return err
	}
	if !f.present() {
		return t.idx.Delete(p.dir, p.name)
	}
	if _, err := apply.Park(op, f.standing()); err != nil {
		return err
	}
	old := f.entry
	if !f.known {
		old = index.Entry{Kind: f.kind}
	}
	defer t.busyPark(old.Record.GFID)()
	to, same, err := t.parkPlace(old)
	switch {
	case err != nil:
		return err
	case same && old.Virtual:
		err = t.idx.Delete(p.dir, p.name)
	case same:
		err = t.change(p, nil, func() error { return t.any().Remove(t.abs(p.path)) })
	default:
		to, err = t.moveOut(p, to, old)
	}
	if err != nil {
		return err
	}
	it.res.Parked = true
	b.dirs.moved(op.Path)
	if old.Kind == slave.Dir {
		t.within.add(to.name, old.ID)
		return t.forgetBelow(old.ID, op.Path, to.name)
	}
	t.leftAlone(old, op.Path, to.name)
	return nil
}

// unparkOp puts a parked inode back under a name.
func (b *batch) unparkOp(it *item) error {
	op, t := it.op, b.t
	p, err := b.parent(op.Path)
	if err != nil {
		return err
	}
	from := parkedPlace(op.Record.GFID.String())
	if op.From != "" {
		if from, err = t.withinPlace(op.From); err != nil {
			return errors.Join(slave.ErrNeedContent, err)
		}
	}
	pk, err := t.look(from)
	if err != nil {
		return err
	}
	defer t.busyName(p)()
	old, err := t.look(p)
	if err != nil {
		return err
	}
	if bring, err := apply.Unpark(op, pk.standing(), old.standing()); !bring {
		return err
	}
	switch {
	case old.known:
		if err := b.parkReplaced(it, p, old.entry); err != nil {
			return err
		}
	case old.there:
		// Nobody knows what it is: maybe a further name of this very inode, and a rename to that would do nothing.
		if err := ignoreAbsent(t.any().Remove(t.abs(p.path))); err != nil {
			return err
		}
	}
	return b.bringBack(it, from, p, pk.entry)
}

// bringBack moves a parked entry to its place. Where another file is still there, it is parked under a second name already.
func (b *batch) bringBack(it *item, from, p place, e index.Entry) error {
	op, t := it.op, b.t
	if op.From != "" {
		if err := t.unstampWithin(op.From); err != nil {
			return err
		}
	}
	if e.Kind == slave.Dir {
		if err := ignoreAbsent(t.any().Remove(t.abs(p.path))); err != nil {
			return err
		}
	}
	parked := e
	e.Since = 0
	err := t.changes([]step{{from, nil}, {p, &e}}, func() error {
		if e.Virtual {
			return ignoreAbsent(t.any().Remove(t.abs(p.path)))
		}
		return t.replace(from.path, p.path, t.stagingName())
	})
	if err != nil {
		return err
	}
	b.dirs.moved(op.Path)
	t.touched(from.path)
	switch {
	case parked.Kind == slave.Dir:
		return t.backBelow(parked.ID, op.Path)
	case op.Links > 1 || parked.Links > 1:
		t.noteGroup(op, []string{op.Path})
	}
	return nil
}

// within knows what lies in parked directories, so that what was moved out of a directory before that was removed need not
// be sent again. A parked directory's shards are searched when somebody asks for the first time after it was parked. What
// is remembered is advice: it is looked at again when it is used.
type within struct {
	// mu guards the rest; it is held during a search, so that two callers do not search the same.
	mu sync.Mutex
	// todo are parked directories that are not searched yet, at where an inode was found below parked/, of maxWithin inodes at most.
	todo []parkedShard
	at   map[xtime.GFID][]string
}

type parkedShard struct {
	path string // below parked/
	id   index.ID
}

// maxWithin bounds the entries that are remembered. What is beyond it is sent again.
const maxWithin = 100_000

// add notes a directory that was parked. One without a shard has nothing on record in it.
func (w *within) add(name string, id index.ID) {
	if id == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo = append(w.todo, parkedShard{name, id})
}

// renamed notes that a parked entry has another name.
func (w *within) renamed(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, one := range w.todo {
		if top, _ := cut(one.path); top == from {
			w.todo[i].path = to + one.path[len(from):]
		}
	}
	for _, paths := range w.at {
		for i, path := range paths {
			if top, _ := cut(path); top == from {
				paths[i] = to + path[len(from):]
			}
		}
	}
}

// forget forgets everything: what was parked is deleted.
func (w *within) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo, w.at = nil, nil
}

// searchWithin gives the paths below parked directories that an inode was last seen at. full tells that there may be others.
func (t *Tree) searchWithin(g xtime.GFID) (all []string, full bool, err error) {
	w := &t.within
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[xtime.GFID][]string{}
	}
	for len(w.todo) > 0 && len(w.at) < maxWithin {
		one := w.todo[0]
		w.todo = w.todo[1:]
		err := t.idx.Each(one.id, func(name string, e index.Entry) bool {
			path := one.path + "/" + name
			if e.Kind == slave.Dir && e.ID != 0 {
				w.todo = append(w.todo, parkedShard{path, e.ID})
			}
			if g := e.Record.GFID; !g.IsZero() {
				w.at[g] = append(w.at[g], path)
			}
			return len(w.at) < maxWithin
		})
		if err != nil {
			return nil, true, err
		}
	}
	return slices.Clone(w.at[g]), len(w.at) >= maxWithin, nil
}

// withinPlace finds the place of a path below parked/.
func (t *Tree) withinPlace(path string) (place, error) {
	if !beneath.ValidPath(path) || path == "" {
		return place{}, slave.ErrInvalid
	}
	id := index.Parked
	dir, name := beneath.Split(path)
	for rest := dir; rest != ""; {
		first, tail := cut(rest)
		e, ok, err := t.idx.Get(id, first)
		if err != nil {
			return place{}, err
		}
		if !ok || e.Kind != slave.Dir || e.ID == 0 {
			return place{}, unix.ENOENT
		}
		id, rest = e.ID, tail
	}
	if err := t.checkDirs(parkedDir + "/" + path); err != nil {
		return place{}, err
	}
	return place{id, parkedDir + "/" + path, name}, nil
}

// cut splits a path behind its first name.
func cut(path string) (first, rest string) {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// unstampWithin takes the stamps off the parked directories above paths, durably, before something is taken out of them:
// they say that all is there, and would be believed when a directory is brought back.
func (t *Tree) unstampWithin(paths ...string) error {
	changed := false
	for _, path := range paths {
		id := index.Parked
		dir, _ := beneath.Split(path)
		for rest := dir; rest != ""; {
			first, tail := cut(rest)
			e, ok, err := t.idx.Get(id, first)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if e.Record.Xtime != 0 {
				changed = true
				if err := t.idx.Update(id, first, func(e *index.Entry) { e.Record.Xtime = 0 }); err != nil {
					return err
				}
			}
			id, rest = e.ID, tail
		}
	}
	if !changed {
		return nil
	}
	return t.flush()
}

// Find tells which inodes the slave has parked, or knows other names of.
func (t *Tree) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	all := make([]slave.Found, len(gfids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	for i, gfid := range gfids {
		g.Go(func() (err error) {
			if err := t.live(gctx); err != nil {
				return err
			}
			all[i], err = t.find(gfid)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all[:slave.Within(all, slave.MaxFound, (*slave.Found).Weight)], nil
}

// find answers for one inode; a name in the tree goes before a parked one.
func (t *Tree) find(g xtime.GFID) (slave.Found, error) {
	if g.IsZero() {
		return slave.Found{}, nil
	}
	book, err := t.book(g)
	if err != nil {
		return slave.Found{}, err
	}
	for _, n := range book.names {
		dir, _ := beneath.Split(n)
		var in slave.Record // of a directory that moves meanwhile: an operation that names it is refused in another
		if err := t.ofDirRead(dir, &in); err != nil {
			return slave.Found{}, err
		}
		if f, _, ok := t.verify(g, n); ok {
			return slave.Found{Linked: true, Path: n, Dir: in.GFID, Record: f.entry.Record}, nil
		}
	}
	if _, ok, err := t.idx.Get(index.Parked, g.String()); err != nil {
		return slave.Found{}, err
	} else if ok {
		if f, err := t.look(parkedPlace(g.String())); err == nil && f.known && f.gfid() == g {
			return slave.Found{Parked: true, Record: f.entry.Record}, nil
		}
	}
	path, rec, err := t.lookWithin(g)
	if err != nil || path == "" {
		return slave.Found{}, err
	}
	return slave.Found{Parked: true, Path: path, Record: rec}, nil
}

// lookWithin finds an inode below a parked directory: its path there, "" if there is none, and its record.
func (t *Tree) lookWithin(g xtime.GFID) (path string, rec slave.Record, err error) {
	all, _, err := t.searchWithin(g)
	for i := len(all) - 1; i >= 0 && err == nil; i-- { // what was parked last goes first
		p, perr := t.withinPlace(all[i])
		if perr != nil {
			continue
		}
		if f, ferr := t.look(p); ferr == nil && f.known && f.gfid() == g {
			return all[i], f.entry.Record, nil
		}
	}
	return "", rec, err
}
