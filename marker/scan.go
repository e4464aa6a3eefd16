package marker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

const (
	scanChunk = 1024 // entries of one directory held at a time
	// markLag is how much later than its xtime an entry's ctime may be by the mark itself.
	markLag = 2 * time.Second
)

// scan is one pass over the tree that finds, and marks, what changed by its ctime (invariant 11). Directories are
// shared among as many goroutines as there are processors, and nothing is queued, so memory does not grow with the
// tree. Whoever changes a directory behind the scan's back is somebody else's to see: live events, or the next scan. So is
// a directory that moves past the scan: events tell of it (meetMovers), or the next scan meets one that this one did not.
type scan struct {
	*core
	all   bool                           // mark everything
	moved map[beneath.HandleKey]struct{} // directories that it was sent to, beyond the tree's root
	since time.Time                      // mark what changed since then; zero: nothing
	// slow marks what changed since then and carries no xtime as new as that. Unlike since it spares what was marked by
	// an event, but may miss a change in the very moment of a mark. Zero: nothing.
	slow   time.Time
	expect func(*beneath.Dir) // is told of every directory, where it is not nil
	// anew has it mark what only our own marks have changed, too.
	anew   bool
	sought map[uint64]struct{} // numbers of inodes to mark, with all that is below them

	entries    atomic.Int64
	marked     atomic.Int64
	incomplete atomic.Bool
	older      atomic.Int64 // directories that were there before the scan
	started    time.Time
	group      *errgroup.Group
}

// run makes the pass. An error is ctx's or the clock's; what could not be read or marked, but may be later, makes the
// scan incomplete instead.
func (s *scan) run(ctx context.Context) error {
	root, err := s.root.OpenDir("")
	if err != nil {
		return err
	}
	g, ctx := s.goroutines(ctx)
	g.Go(func() error { return s.visit(ctx, root, s.all) })
	return g.Wait()
}

// visit scans one directory and all below it that it has not met yet, and closes it. doubt: the directory that it lies in
// is not covered.
func (s *scan) visit(ctx context.Context, d *beneath.Dir, doubt bool) error {
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		s.trouble(d, "", err)
		return nil
	}
	number := st.Number(s.rootStat.Dev)
	if !s.cover.meet(number) {
		return nil
	}
	if !s.isYoung(&st) {
		s.older.Add(1)
	}
	if s.expect != nil {
		s.expect(d)
	}
	_, sought := s.sought[st.Ino]
	v := visit{scan: s, d: d, number: number, doubt: doubt || sought || s.doubts(&st)}
	born := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)) // as early as can be where that is not known
	v.unlogged = v.doubt && (s.since.IsZero() || born.Before(s.since))
	v.before = s.times.entries(number)
	return v.run(ctx)
}

// doubts tells whether a directory that changed may have come from where nobody saw what changed in it.
func (s *scan) doubts(st *beneath.Stat) bool {
	number := st.Number(s.rootStat.Dev)
	changed := changedSince(st, s.since)
	if s.times.complete() {
		changed = s.times.self(number) != timesOf(st)
	}
	return !s.since.IsZero() && changed && !s.isRoot(st) && !s.cover.has(number)
}

// run scans the directory.
func (v *visit) run(ctx context.Context) error {
	s, d := v.scan, v.d
	err := d.List(func(e beneath.Entry) error { return v.entry(ctx, e) })
	var fatal *fatalError
	if errors.As(err, &fatal) {
		return err
	}
	if err != nil {
		s.cover.unmeet(v.number)
		s.trouble(d, "", err)
	}
	if ferr := v.finish(); ferr != nil {
		return ferr
	}
	if err == nil {
		s.times.list(v.number, v.before, v.now)
	}
	return v.descend(ctx)
}

// fatalError is one that ends the scan: ctx's or the clock's. Any other is trouble with one directory.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// trouble notes that an entry could not be read. Unreadable by rights is final; anything else asks for another scan.
func (s *scan) trouble(d *beneath.Dir, name string, err error) {
	switch judge(err, func() bool { return unreadable(d, name) }) {
	case refused:
		s.refusals.add(refusal{path: d.PathFrom(s.root, name), why: bare(err), unread: true})
	case again:
		s.say(d.PathFrom(s.root, name), err, "a scan could not read an entry and will be repeated")
		s.incomplete.Store(true)
	}
}

// visit is the state of one directory's scan.
type visit struct {
	*scan
	d      *beneath.Dir
	number uint64
	doubt  bool // mark everything in it
	// unlogged is set where an entry may have a ctime that is new from an earlier mark alone: of one that never got to the
	// device, no ctime would tell after a power cut. In a directory that was made since, everything is new by itself.
	unlogged bool
	before   []seen // of its entries, as the last scan noted them
	now      []seen
	changed  []found
	dirs     []string
	marked   bool
}

func (v *visit) entry(ctx context.Context, e beneath.Entry) error {
	if err := ctx.Err(); err != nil {
		return &fatalError{err}
	}
	v.entries.Add(1)
	if e.Type == unix.DT_DIR {
		v.dirs = append(v.dirs, e.Name)
	} else if err := v.look(e); err != nil {
		return err
	}
	if len(v.dirs) >= scanChunk {
		return v.descend(ctx)
	}
	return nil
}

// look checks an entry that is no directory, as far as the listing knows.
func (v *visit) look(e beneath.Entry) error {
	_, sought := v.sought[e.Ino]
	wanted := v.nameless.wants(e.Ino)
	if !v.doubt && !sought && !wanted && v.times == nil && v.since.IsZero() && v.slow.IsZero() && e.Type != unix.DT_UNKNOWN {
		return nil
	}
	st, err := v.d.Stat(e.Name)
	switch {
	case err != nil:
		v.trouble(v.d, e.Name, err)
	case st.MountID != v.rootStat.MountID: // something is mounted on it, which is not ours
	case st.IsDir():
		v.dirs = append(v.dirs, e.Name)
	case wanted && v.meets(e.Name, &st), sought, v.isDue(e.Name, &st):
		v.changed = append(v.changed, found{name: e.Name, stat: st})
	default:
		v.note(&st, timesOf(&st))
	}
	if len(v.changed) >= scanChunk {
		return v.flush()
	}
	return nil
}

// meets tells whether the entry is looked for, and notes where it is.
func (v *visit) meets(name string, st *beneath.Stat) bool {
	dir := v.root.LastPathOf(v.d)
	path := beneath.Join(dir, name)
	if dir == "" && v.number != v.rootStat.Ino {
		path = ""
	}
	return v.nameless.meet(inode{st.Dev, st.Ino}, path)
}

// finish marks what is left, and the directory itself where it changed.
func (v *visit) finish() error {
	if len(v.changed) > 0 {
		return v.flush()
	}
	st, err := v.d.Stat("")
	if err != nil {
		v.trouble(v.d, "", err)
		return nil
	}
	if v.marked {
		return nil
	}
	if v.isDue("", &st) {
		return v.flush()
	}
	v.times.setSelf(v.number, timesOf(&st))
	return nil
}

// note notes the times of an entry.
func (v *visit) note(st *beneath.Stat, times uint64) {
	if v.times != nil && times != 0 {
		v.now = append(v.now, seen{st.Number(v.rootStat.Dev), times})
	}
}

// isDue tells whether an entry is to be marked.
func (v *visit) isDue(name string, st *beneath.Stat) bool {
	isNew := v.isNew(name, st)
	if !isNew && (!v.doubt || v.own.has(st) && !v.anew) {
		return false
	}
	if !isNew || v.unlogged {
		v.unsynced.Store(true)
	}
	return true
}

func (v *visit) flush() error {
	incomplete, err := v.markChain(v.d, v.changed)
	if err != nil {
		return &fatalError{err}
	}
	if incomplete {
		v.incomplete.Store(true)
	}
	v.scan.marked.Add(int64(len(v.changed)) + 1)
	for i := range v.changed {
		v.note(&v.changed[i].stat, v.changed[i].times)
	}
	v.changed, v.marked = v.changed[:0], true
	return nil
}

// descend scans the directories collected so far: elsewhere where a goroutine is free, else here.
func (v *visit) descend(ctx context.Context) error {
	dirs := v.dirs
	v.dirs = nil
	for _, name := range dirs {
		child, err := v.d.OpenDir(name)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			v.trouble(v.d, name, err)
			continue
		}
		if v.group.TryGo(func() error { return v.scan.visit(ctx, child, v.doubt) }) {
			continue
		}
		if err := v.scan.visit(ctx, child, v.doubt); err != nil {
			return err
		}
	}
	return nil
}

// isNew decides by the times that were noted, where they are, else by the order of the ctime.
func (v *visit) isNew(name string, st *beneath.Stat) bool {
	if v.times == nil {
		return v.scan.isNew(v.d, name, st)
	}
	was := v.times.self(v.number)
	if name != "" {
		was = timesIn(v.before, st.Number(v.rootStat.Dev))
	}
	switch {
	case was == timesOf(st) || v.own.has(st):
		return false
	case was == 0 && !v.times.complete():
		return v.scan.isNew(v.d, name, st)
	}
	return true
}

// isNew decides by the ctime.
func (s *scan) isNew(d *beneath.Dir, name string, st *beneath.Stat) bool {
	c := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
	since := !s.since.IsZero() && changedSince(st, s.since)
	slow := !s.slow.IsZero() && changedSince(st, s.slow)
	if !since && !slow || s.own.has(st) {
		return false
	}
	if since {
		return true
	}
	x, err := d.Xtime(name, &s.names)
	if err != nil {
		return true
	}
	// An xtime in the future, after a step of the clock, proves nothing.
	x = max(x, s.volumeMark)
	return x.Time().After(s.started) || c.After(x.Time().Add(markLag))
}

// isYoung tells whether a directory was made since the scan began.
func (s *scan) isYoung(st *beneath.Stat) bool {
	b := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	return b.After(s.started) && b.Before(time.Now())
}

// changedSince decides by the ctime alone.
func changedSince(st *beneath.Stat, t time.Time) bool {
	return !time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)).Before(t)
}
