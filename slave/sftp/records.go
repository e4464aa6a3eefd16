package sftp

import (
	"sync"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// place is where an operation takes effect: a name in a directory that has a shard. It stays what
// it is when something above it moves: the shard goes with the directory, and the path is looked at
// again by dirs.
type place struct {
	// dir is the shard of the directory that the name lies in; path is below the slave's root.
	dir  index.ID
	path string
	name string
}

// found is what stands at a place, and what the index says of it. known says that the index has an
// entry that fits what is there; only then does entry count. It is that of one moment.
type found struct {
	// there says that something stands there, which kind and attrs are of. entry is the index's, whether it fits or
	// not.
	there bool
	kind  slave.Kind
	attrs wire.Attrs
	entry index.Entry
	known bool
}

// gfid is what is on record there; zero where nothing is known.
func (f *found) gfid() xtime.GFID {
	if !f.known {
		return xtime.GFID{}
	}
	return f.entry.Record.GFID
}

// present tells whether the name is taken, be it in the index alone.
func (f *found) present() bool { return f.there || f.known && f.entry.Virtual }

// standing is what package apply decides by.
func (f *found) standing() apply.Standing {
	s := apply.Standing{There: f.present(), Kind: f.kind}
	if f.known {
		s.Record = f.entry.Record
	}
	return s
}

// standing is what package apply decides by, of an entry of the index, where there is one.
func standing(e *index.Entry, ok bool) apply.Standing {
	if !ok {
		return apply.Standing{}
	}
	return apply.Standing{There: true, Kind: e.Kind, Record: e.Record}
}

// records is what is on record of entries, in the index, and whether it is true of what stands
// there. The index has locks of its own; errors are those of reading a node of it, which end the
// session's work on that directory.
type records struct {
	*abilities
	idx *index.Index
	// idMu is held while a directory is given its shard.
	idMu sync.Mutex
}

// idOf finds the shard of a directory by the index alone; 0 where it has none, or where something
// else than a directory is on record there.
func (r *records) idOf(path string) (index.ID, error) {
	id := index.Root
	for path != "" && id != 0 {
		name := path
		for i := range path {
			if path[i] == '/' {
				name = path[:i]
				break
			}
		}
		path = path[min(len(name)+1, len(path)):]
		e, ok, err := r.idx.Get(id, name)
		if err != nil {
			return 0, err
		}
		if id = e.ID; !ok || e.Kind != slave.Dir {
			id = 0
		}
	}
	return id, nil
}

// ensureID is idOf for a directory that the caller has seen; one without a shard, and those above
// it, get one.
func (r *records) ensureID(path string) (index.ID, error) {
	id, err := r.idOf(path)
	if id != 0 || err != nil {
		return id, err
	}
	r.idMu.Lock()
	defer r.idMu.Unlock()
	return r.newID(path)
}

// newID gives a shard to a directory, and to those above it that have none. idMu is held, so that each gets one
// only.
func (r *records) newID(path string) (index.ID, error) {
	id, err := r.idOf(path)
	if id != 0 || err != nil || path == "" {
		return id, err
	}
	dir, name := beneath.Split(path)
	above, err := r.newID(dir)
	if err != nil {
		return 0, err
	}
	e := index.Entry{Kind: slave.Dir, ID: index.NewID(), Meta: slave.Meta{Mode: 0o755, UID: r.feat.uid, GID: r.feat.gid}}
	return e.ID, r.idx.Set(above, name, e)
}

// look tells what stands at a place; nothing is not an error. It costs one request, and follows no
// link at the place itself.
func (r *records) look(p place) (f found, err error) {
	e, ok, err := r.idx.Get(p.dir, p.name)
	if err != nil {
		return f, err
	}
	a, err := r.lstat(p.path)
	switch {
	case noFile(err):
	case err != nil:
		return f, err
	default:
		f.there, f.attrs, f.kind = true, a, kindOf(a)
	}
	f.entry, f.known = e, ok && r.fits(&e, f.there, f.attrs)
	if !f.there && f.known {
		f.kind = e.Kind
	}
	return f, nil
}

// fits tells whether an entry is of what stands there: of the same kind, and a file of the size and
// mtime that it was made with. What exists in the index alone fits where nothing stands. A file
// that others changed so that all of it is the same is taken for the one on record, as on any copy
// that is compared by these.
func (r *records) fits(e *index.Entry, there bool, a wire.Attrs) bool {
	if e.Virtual || !there {
		return e.Virtual && !there
	}
	kind := kindOf(a)
	if kind != e.Kind {
		return false
	}
	if kind != slave.File && kind != slave.Symlink {
		return kind == slave.Dir
	}
	// Seconds are all that the protocol has; what they cannot tell apart is the journal's part.
	return a.Size == e.Size && (!r.feat.times || a.Mtime == e.Seconds)
}

// entryFor is the entry of what an operation makes, with an ID that no other entry has had. A torn
// content gets no xtime, so that it is compared again.
func (r *records) entryFor(op *slave.Op, kind slave.Kind, torn bool) index.Entry {
	e := index.Entry{Kind: kind, Record: op.Record, ID: index.NewID(), Meta: op.Meta, Size: op.Meta.Size,
		Seconds: r.seconds(op.Meta.Mtime), Links: op.Links, Ino: op.Ino}
	if torn {
		// The content is of no one moment: it is compared again.
		e.Record.Xtime = 0
	}
	return e
}

// updateDir changes the entry of a directory in the index, in memory. ErrConflict says that what
// lies above it is not on record; where the directory itself is not, change is not called.
func (r *records) updateDir(path string, change func(*index.Entry)) error {
	if path == "" {
		return r.idx.Update(index.Top, index.TopName, change)
	}
	dir, name := beneath.Split(path)
	id, err := r.idOf(dir)
	if err == nil && id == 0 {
		err = slave.ErrConflict
	}
	if err != nil {
		return err
	}
	return r.idx.Update(id, name, change)
}

// dirRecord reads the record of a directory into rec, which stays as it is where there is none.
func (r *records) dirRecord(path string, rec *slave.Record) error {
	id, name, err := index.Top, index.TopName, error(nil)
	if path != "" {
		dir, last := beneath.Split(path)
		name = last
		if id, err = r.idOf(dir); err != nil || id == 0 {
			return err
		}
	}
	e, ok, err := r.idx.Get(id, name)
	if ok && e.Kind == slave.Dir {
		*rec = e.Record
	}
	return err
}

// virtual tells whether the index alone has the entry: the server, or the account, cannot make what
// it is.
func (r *records) virtual(dir, name string) bool {
	id, err := r.idOf(dir)
	if err != nil || id == 0 {
		return false
	}
	e, ok, err := r.idx.Get(id, name)
	return err == nil && ok && e.Virtual
}

// verify tells whether path is a name of the inode on record as g, by the index and by what stands
// there. It looks at all directories above it as well. What cannot be looked at is none.
func (r *records) verify(g xtime.GFID, path string) (f found, p place, ok bool) {
	dir, name := beneath.Split(path)
	id, err := r.idOf(dir)
	if err != nil || id == 0 || r.checkDirs(path) != nil {
		return f, p, false
	}
	p = place{id, path, name}
	f, err = r.look(p)
	return f, p, err == nil && f.known && f.kind != slave.Dir && f.gfid() == g
}

// recorded is verify by the index alone, which costs no request.
func (r *records) recorded(g xtime.GFID, path string) (e index.Entry, ok bool) {
	dir, name := beneath.Split(path)
	id, err := r.idOf(dir)
	if err != nil || id == 0 {
		return e, false
	}
	e, ok, err = r.idx.Get(id, name)
	return e, err == nil && ok && e.Kind != slave.Dir && e.Record.GFID == g
}

// inPlace tells with ErrMoved that an operation's path does not lie in the directory any more that
// it is meant for (Op.In), by what is on record of that. One without a record is new, and is taken.
func (r *records) inPlace(op *slave.Op) error {
	dir, insists := apply.MeantFor(op)
	if !insists {
		return nil
	}
	above, name := beneath.Split(dir)
	id, err := r.idOf(above)
	if err != nil || id == 0 {
		return err
	}
	e, known, err := r.idx.Get(id, name)
	if err == nil && known && !e.Record.GFID.IsZero() && e.Record.GFID != op.In {
		err = slave.ErrMoved
	}
	return err
}

// anyIn tells whether any of the shards has an entry. It reads no more than it has to.
func (r *records) anyIn(shards ...index.ID) (any bool, err error) {
	for _, id := range shards {
		if err == nil && !any {
			err = r.idx.Each(id, func(string, index.Entry) bool { any = true; return false })
		}
	}
	return any, err
}

// linkedBelow calls fn for the entries of inodes with several names in a directory, which lies at
// path, one directory at a time. fn may write to the index. Only shards are read: what the index
// does not know has no GFID to be found by.
func (r *records) linkedBelow(id index.ID, path string, fn func(path string, e index.Entry)) error {
	type level struct {
		id   index.ID
		path string
	}
	for todo := []level{{id, path}}; len(todo) > 0; {
		l := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if l.id == 0 {
			continue
		}
		linked := map[string]index.Entry{} // fn may write to the index
		err := r.idx.Each(l.id, func(name string, e index.Entry) bool {
			at := l.path + "/" + name
			if e.Kind == slave.Dir {
				todo = append(todo, level{e.ID, at})
			} else if e.Links > 1 && !e.Record.GFID.IsZero() {
				linked[at] = e
			}
			return true
		})
		if err != nil {
			return err
		}
		for at, e := range linked {
			fn(at, e)
		}
	}
	return nil
}
