package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"

	"georep/internal/beneath"
	"georep/slave"
)

// reader answers what only looks: all of slave.Reader but Close. It changes nothing, and is all
// that an Inspector has. Its calls may run at any time beside the committer, and then tell of a
// moment.
type reader struct {
	*records
	hashing chan struct{} // a slot each for files being hashed
}

// newReader makes a reader, and all that it stands on, of which nothing is open yet.
func newReader(o Options, hook func(op, name string) error) *reader {
	s := &store{life: newLife(), log: o.Logger, policy: o.Policy, root: os.Geteuid() == 0, prefix: rand.Text()[:8], sys: sys{hook: hook}}
	return &reader{records: &records{store: s}, hashing: make(chan struct{}, 2)}
}

// Survey reads directories, one after the other. It answers for a prefix of the queries, bounded by
// slave.MaxSurvey; the caller asks again for the rest. An error ends the session.
func (r *reader) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	all, weight := make([]slave.DirState, 0, len(queries)), int64(0)
	for _, q := range queries {
		if err := r.live(ctx); err != nil {
			return nil, err
		}
		state := r.survey(q)
		if weight += state.Weight(); len(all) > 0 && weight > slave.MaxSurvey {
			break
		}
		all = append(all, state)
	}
	return all, nil
}

// survey answers one query; what keeps a directory from being read is in the answer.
func (r *reader) survey(q slave.Query) slave.DirState {
	if !q.Valid() {
		return slave.DirState{Err: trouble("survey", q.Path, slave.ErrInvalid)}
	}
	d, err := r.openList(q.Path)
	if err != nil {
		return slave.DirState{Err: trouble("survey", q.Path, err)}
	}
	defer d.Close()
	state, err := r.surveyDir(d, q)
	if err != nil {
		return slave.DirState{Err: trouble("survey", q.Path, err)}
	}
	return state
}

// surveyDir reads an open directory. Its own record is read before it is listed, so that it never
// vouches for entries that came later. Names are counted before any of them is looked at: a
// directory too large for one answer costs its listing only, unless it is so by the targets of its
// links. Truncated says that the directory has to be asked for in more parts; the total that comes
// with it says how many.
func (r *reader) surveyDir(d *beneath.Dir, q slave.Query) (state slave.DirState, err error) {
	self, err := r.look(place{d, ""})
	if err != nil {
		return state, err
	}
	state.Record, state.Copy = self.rec, copyOf(self.st)
	names := q.Names
	if !q.ByName {
		names, state.Total, state.Truncated, err = namesOf(d, q)
	}
	if err != nil || state.Truncated {
		return state, err
	}
	state.Entries = make([]slave.EntryState, 0, len(names))
	room := slave.Room(slave.MaxSurvey - slave.ItemCost)
	for _, name := range names {
		if q.Path == "" && name == slave.Reserved {
			continue
		}
		e, err := r.entryState(place{d, name})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMounted) {
			continue // what is done under a name with a mount fails, and says so
		}
		if err != nil {
			return state, err
		}
		if !room.Takes(&e) {
			state.Entries, state.Truncated = nil, true
			return state, nil
		}
		state.Entries = append(state.Entries, e)
	}
	return state, nil
}

// copyOf tells a directory from any other of its file system that is there at the same time. The
// number may return for a directory that is made after another was deleted.
func copyOf(st beneath.Stat) slave.Copy { return slave.Copy(st.Ino) }

// namesOf lists the names that a query asks for, and counts all. tooMany tells that they do not go into one answer.
func namesOf(d *beneath.Dir, q slave.Query) (names []string, total int64, tooMany bool, err error) {
	room := slave.Room(slave.MaxSurvey - slave.ItemCost)
	err = d.List(func(e beneath.Entry) error {
		if q.Path == "" && e.Name == slave.Reserved {
			return nil
		}
		total++
		if tooMany || slave.PartOf(e.Name, q.Parts) != q.Part {
			return nil
		}
		if tooMany = len(names) == slave.MaxEntries || !room.Takes(&slave.EntryState{Name: e.Name}); tooMany {
			names = nil
			return nil
		}
		names = append(names, e.Name)
		return nil
	})
	return names, total, tooMany, err
}

// entryState describes one entry; fs.ErrNotExist if it vanished since it was listed. A symbolic
// link's target is read only where there is no record, since with one nobody needs it.
func (r *records) entryState(p place) (slave.EntryState, error) {
	e, err := r.look(p)
	if err == nil && !e.there {
		err = fs.ErrNotExist
	}
	if err != nil {
		return slave.EntryState{}, err
	}
	if e.kept != nil {
		e.kept.On(&e.st)
	}
	state := slave.EntryState{
		Name: p.name, Kind: e.kind, Record: e.rec, Mode: e.st.Mode & 0o7777, UID: e.st.UID, GID: e.st.GID,
		Nlink: e.st.Nlink, Size: e.st.Size, Mtime: e.st.Mtime,
	}
	if e.kind == slave.Dir {
		state.Copy = copyOf(e.st)
	}
	if e.kind.Device() {
		state.Rdev = e.st.Rdev
	}
	if e.kind == slave.Symlink && e.rec == (slave.Record{}) {
		state.Target, err = p.dir.Readlink(p.name)
	}
	return state, err
}

// Hash digests files, two at a time over all calls. The order of the answers is that of paths.
// Trouble with one file is in its answer; an error is the end of ctx or of the session.
func (r *reader) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	return r.digests(ctx, nil, paths)
}

// digests is Hash with a prefix before each content. No more than two files are read at a time, by
// all calls together: hashing takes a processor, and the slave's host has other work. Holes are not
// read. A file that changes meanwhile has a digest of something that never was; whoever compares
// looks at the record again.
func (r *reader) digests(ctx context.Context, prefix []byte, paths []string) ([]slave.HashResult, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	h := slave.Hashers{Slots: r.hashing, Ended: r.closing}
	all := h.All(ctx, paths, func(path string) slave.HashResult { return r.hash(ctx, prefix, path) })
	return all, r.live(ctx)
}

// hash digests one file. Only regular files have a content to speak of; opening others might even have effects.
func (r *reader) hash(ctx context.Context, prefix []byte, path string) (res slave.HashResult) {
	if path == "" || !slave.AllowedPath(path) {
		return slave.HashResult{Err: trouble("hash", path, slave.ErrInvalid)}
	}
	dir, name := beneath.Split(path)
	d, err := r.openDir(dir)
	if err != nil {
		return slave.HashResult{Err: trouble("hash", path, err)}
	}
	defer d.Close()
	st, err := d.Stat(name)
	if err == nil {
		err = r.isFile(place{d, name}, &st)
	}
	if err == nil {
		res, err = r.digest(ctx, prefix, place{d, name})
	}
	if err != nil {
		return slave.HashResult{Err: trouble("hash", path, err)}
	}
	return res
}

// isFile tells with ErrConflict that an entry has no content on the master.
func (r *records) isFile(p place, st *beneath.Stat) error {
	kept, err := r.keptOf(p, st)
	if err != nil {
		return err
	}
	mode := st.Mode
	if kept != nil {
		mode = kept.Mode
	}
	if slave.KindOf(mode) != slave.File {
		return slave.ErrConflict
	}
	return nil
}

// digest reads the file to its end. It looks at the kind again once it is open, when it can no longer change.
func (r *reader) digest(ctx context.Context, prefix []byte, p place) (res slave.HashResult, err error) {
	f, err := p.dir.OpenInode(p.name)
	if err != nil {
		return res, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || slave.KindOf(st.Mode) != slave.File {
		return res, errors.Join(err, slave.ErrConflict)
	}
	res.Size, res.Sum, err = f.DigestAfter(prefix, &st, func() error { return r.live(ctx) })
	return res, err
}

// Count counts the entries at and below each path. What cannot be listed counts as one. A count
// stops at limit, and is then limit. It is used to hold removals to max-delete, so it is asked for
// before them.
func (r *reader) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	all := make([]int64, len(paths))
	for i, path := range paths {
		if !slave.AllowedPath(path) {
			continue
		}
		n, err := r.count(ctx, path, limit)
		if err != nil {
			return nil, err
		}
		all[i] = n
	}
	return all, nil
}

// count counts one path and what lies below it, depth first. Errors of single directories do not matter: the number is
// for a decision about shares of the tree.
func (r *reader) count(ctx context.Context, path string, limit int64) (n int64, err error) {
	if !r.exists(path) || limit <= 0 {
		return 0, nil
	}
	todo, full := []string{path}, errors.New("enough")
	for n = 1; len(todo) > 0; {
		if err := r.live(ctx); err != nil {
			return 0, err
		}
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := r.openList(dir)
		if err != nil {
			continue // not a directory, vanished, or not ours to see
		}
		err = d.List(func(e beneath.Entry) error {
			at := beneath.Join(dir, e.Name)
			if at == slave.Reserved {
				return nil
			}
			if n >= limit {
				return full
			}
			n++
			if k := slave.Kind(e.Type); k == slave.Dir || k == slave.Unknown {
				todo = append(todo, at)
			}
			return nil
		})
		d.Close()
		if err == full {
			return limit, nil
		}
	}
	return n, nil
}

// Info tells what was found when the slave was opened. It was learnt once and does not change.
func (r *reader) Info() slave.Info { return r.info }
