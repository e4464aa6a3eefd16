package scan

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/tree"
)

const (
	scanChunk = 1024 // entries of one directory held at a time
	// MarkLag is how much later than its xtime an entry's ctime may be by the mark itself.
	MarkLag = 2 * time.Second
)

// Marker marks what a scan finds. Its methods may be called from any goroutine. A scan calls it
// with no lock held.
type Marker interface {
	// MarkChain marks entries of d that are no directories, then d and every directory above it. Where d is not in the volume
	// now nothing is marked, and it counts as not met. incomplete tells that something could not be marked, and that only another
	// scan can make that good. The error is the clock's.
	MarkChain(d *beneath.Dir, entries []Found) (incomplete bool, err error)
	// Say tells of trouble with one entry that will be tried again.
	Say(path string, err error, what string)
	// Unread tells of an entry that this user may not read, so that no crawl can either.
	Unread(path string, err error)
	// Reopen opens a directory that moved, to be listed. ErrStale: it moved once more, or what it lies in did, and an event that
	// was not read yet will tell.
	Reopen(k beneath.HandleKey) (*beneath.Dir, error)
	// Number is beneath.Stat.Number of a directory, where that is known without a look.
	Number(k beneath.HandleKey) (n uint64, known bool)
}

// ErrStale says that where a directory lies is not known before more events are read.
var ErrStale = errors.New("the directory's new place is not known yet")

// Found is an entry that a scan wants marked.
type Found struct {
	Name string
	Stat beneath.Stat
	// Times is what to note of it once it was marked (Times); 0: nothing, so that it is looked at again.
	Times uint64
}

// State is what the scans of one volume share, and what they leave to the next. It may be used from
// any goroutine, but only one scan runs at a time. Everything in it survives the scan, and some of
// it the marker: Own, Cover and Times have files.
type State struct {
	*tree.Volume
	Marker Marker
	Own    *OwnMarks
	Cover  *coverage.Coverage
	Times  *Times // nil where only this kernel changes the file system, or its events tell
	Moving Movers
	UpTo   Progress // of the events
	Sought Seeker
	// Unsynced is set while scans have marked what no ctime would tell of, if the marks were lost by a power cut.
	Unsynced atomic.Bool
}

// Scan is one pass over the tree that finds, and marks, what changed by its ctime (invariant 11). Directories are
// shared among as many goroutines as there are processors, and nothing is queued, so memory does not grow with the
// tree. Whoever changes a directory behind the scan's back is somebody else's to see: live events, or the next scan. So is
// a directory that moves past the scan: events tell of it (MeetMovers), or the next scan meets one that this one did not.
type Scan struct {
	*State
	// What a scan looks for is set before it runs and does not change.
	All   bool                           // mark everything
	Moved map[beneath.HandleKey]struct{} // directories that it was sent to, beyond the tree's root
	Since time.Time                      // mark what changed since then; zero: nothing
	// Slow marks what changed since then and carries no xtime as new as that. Unlike Since it spares what was marked by
	// an event, but may miss a change in the very moment of a mark. Zero: nothing.
	Slow   time.Time
	Expect func(*beneath.Dir) // is told of every directory, where it is not nil
	// Anew has it mark what only our own marks have changed, too.
	Anew    bool
	Numbers map[uint64]struct{} // of inodes to mark, with all that is below them

	Entries    atomic.Int64 // that it met
	Marked     atomic.Int64 // of them
	Incomplete atomic.Bool  // it could not read, or mark, all
	Started    time.Time

	// older tells MeetMovers whether anything came to light that the scan had missed.
	older atomic.Int64 // directories that were there before the scan
	group *errgroup.Group
}

// Begin prepares a scan. all: it marks everything that it meets. follow: events tell what moves meanwhile.
func (s *State) Begin(all, follow bool) *Scan {
	s.Cover.Begin()
	if follow {
		s.Moving.Begin(all)
	}
	return &Scan{State: s, All: all, Moved: map[beneath.HandleKey]struct{}{}, Started: time.Now()}
}

// Sync has what a complete scan marked on the device, where no ctime would tell of it after a power cut. A scan that failed with
// err, or is incomplete, leaves that to the next.
func (s *Scan) Sync(err error) error {
	if err == nil && !s.Incomplete.Load() && s.Unsynced.Load() {
		err = s.Root.Syncfs()
		s.Unsynced.Store(err != nil)
	}
	return err
}

// Run makes the pass. An error is ctx's or the clock's; what could not be read or marked, but may be later, makes the
// scan incomplete instead.
func (s *Scan) Run(ctx context.Context) error {
	root, err := s.Root.OpenDir("")
	if err != nil {
		return err
	}
	g, ctx := s.goroutines(ctx)
	g.Go(func() error { return s.visit(ctx, root, s.All) })
	return g.Wait()
}

// visit scans one directory and all below it that it has not met yet, and closes it. doubt: the directory that it lies in
// is not covered.
func (s *Scan) visit(ctx context.Context, d *beneath.Dir, doubt bool) error {
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		s.trouble(d, "", err)
		return nil
	}
	number := st.Number(s.RootStat.Dev)
	if !s.Cover.Meet(number) {
		return nil
	}
	if !s.isYoung(&st) {
		s.older.Add(1)
	}
	if s.Expect != nil {
		s.Expect(d)
	}
	_, sought := s.Numbers[st.Ino]
	v := visit{Scan: s, d: d, number: number, doubt: doubt || sought || s.doubts(&st)}
	born := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)) // as early as can be where that is not known
	v.unlogged = v.doubt && (s.Since.IsZero() || born.Before(s.Since))
	v.before = s.Times.entries(number)
	return v.run(ctx)
}

// doubts tells whether a directory that changed may have come from where nobody saw what changed in
// it. Its ctime changed, since moving changes it, and no scan has met it up to the heartbeat: then
// its entries may have changed with ctimes that are older than that. The root does not move.
func (s *Scan) doubts(st *beneath.Stat) bool {
	number := st.Number(s.RootStat.Dev)
	changed := changedSince(st, s.Since)
	if s.Times.complete() {
		changed = s.Times.self(number) != TimesOf(st)
	}
	return !s.Since.IsZero() && changed && !s.IsRoot(st) && !s.Cover.Has(number)
}

// run scans the directory. An error is one that ends the scan. A directory that could not be listed
// to its end counts as not met, so the next scan goes by its entries and not by its ctime.
func (v *visit) run(ctx context.Context) error {
	s, d := v.Scan, v.d
	err := d.List(func(e beneath.Entry) error { return v.entry(ctx, e) })
	var fatal *fatalError
	if errors.As(err, &fatal) {
		return err
	}
	if err != nil {
		s.Cover.Unmeet(v.number)
		s.trouble(d, "", err)
	}
	if ferr := v.finish(); ferr != nil {
		return ferr
	}
	if err == nil {
		s.Times.list(v.number, v.before, v.now)
	}
	return v.descend(ctx)
}

// fatalError is one that ends the scan: ctx's or the clock's. Any other is trouble with one directory.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// trouble notes that an entry could not be read. Unreadable by rights is final; anything else asks
// for another scan. name is "" for the directory itself. An entry that is gone is no trouble, since
// its removal is an event.
func (s *Scan) trouble(d *beneath.Dir, name string, err error) {
	switch tree.Judge(err, func() bool { return tree.Unreadable(d, name) }) {
	case tree.Refused:
		s.Marker.Unread(d.PathFrom(s.Root, name), err)
	case tree.Again:
		s.Marker.Say(d.PathFrom(s.Root, name), err, "a scan could not read an entry and will be repeated")
		s.Incomplete.Store(true)
	}
}

// visit is the state of one directory's scan.
type visit struct {
	*Scan
	d      *beneath.Dir
	number uint64
	doubt  bool // mark everything in it
	// unlogged is set where an entry may have a ctime that is new from an earlier mark alone: of one that never got to the
	// device, no ctime would tell after a power cut. In a directory that was made since, everything is new by itself.
	unlogged bool
	before   []seen // of its entries, as the last scan noted them
	now      []seen
	changed  []Found
	dirs     []string
	marked   bool
}

// entry takes one name off the listing. Directories are collected, so that their parent is marked
// only when the listing has ended, or a chunk of them is full.
func (v *visit) entry(ctx context.Context, e beneath.Entry) error {
	if err := ctx.Err(); err != nil {
		return &fatalError{err}
	}
	v.Entries.Add(1)
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
	_, sought := v.Numbers[e.Ino]
	wanted := v.Sought.wants(e.Ino)
	if !v.doubt && !sought && !wanted && v.Times == nil && v.Since.IsZero() && v.Slow.IsZero() && e.Type != unix.DT_UNKNOWN {
		return nil
	}
	st, err := v.d.Stat(e.Name)
	switch {
	case err != nil:
		v.trouble(v.d, e.Name, err)
	case st.MountID != v.RootStat.MountID: // something is mounted on it, which is not ours
	case st.IsDir():
		v.dirs = append(v.dirs, e.Name)
	case wanted && v.meets(e.Name, &st), sought, v.isDue(e.Name, &st):
		v.changed = append(v.changed, Found{Name: e.Name, Stat: st})
	default:
		v.note(&st, TimesOf(&st))
	}
	if len(v.changed) >= scanChunk {
		return v.flush()
	}
	return nil
}

// meets tells whether the entry is looked for, and notes where it is.
func (v *visit) meets(name string, st *beneath.Stat) bool {
	dir := v.Root.LastPathOf(v.d)
	path := beneath.Join(dir, name)
	if dir == "" && v.number != v.RootStat.Ino {
		path = ""
	}
	return v.Sought.meet(tree.InodeOf(st), path)
}

// finish marks what is left, and the directory itself where it changed. The directory itself is
// looked at last: a change of its entries while it was listed shows in its ctime.
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
	v.Times.SetSelf(v.number, TimesOf(&st))
	return nil
}

// note notes the times of an entry.
func (v *visit) note(st *beneath.Stat, times uint64) {
	if v.Times != nil && times != 0 {
		v.now = append(v.now, seen{st.Number(v.RootStat.Dev), times})
	}
}

// isDue tells whether an entry is to be marked. Whatever is marked although its ctime is old sets
// Unsynced: after a power cut no ctime would lead to it again.
func (v *visit) isDue(name string, st *beneath.Stat) bool {
	isNew := v.isNew(name, st)
	if !isNew && (!v.doubt || v.Own.Has(st) && !v.Anew) {
		return false
	}
	if !isNew || v.unlogged {
		v.Unsynced.Store(true)
	}
	return true
}

// flush marks what was collected, with the directory and all above it, and begins to collect anew.
// A large directory is thus marked several times, at bounded memory.
func (v *visit) flush() error {
	incomplete, err := v.Marker.MarkChain(v.d, v.changed)
	if err != nil {
		return &fatalError{err}
	}
	if incomplete {
		v.Incomplete.Store(true)
	}
	v.Scan.Marked.Add(int64(len(v.changed)) + 1)
	for i := range v.changed {
		v.note(&v.changed[i].Stat, v.changed[i].Times)
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
		if v.group.TryGo(func() error { return v.Scan.visit(ctx, child, v.doubt) }) {
			continue
		}
		if err := v.Scan.visit(ctx, child, v.doubt); err != nil {
			return err
		}
	}
	return nil
}

// isNew decides by the times that were noted, where they are, else by the order of the ctime.
func (v *visit) isNew(name string, st *beneath.Stat) bool {
	if v.Times == nil {
		return v.Scan.isNew(v.d, name, st)
	}
	was := v.Times.self(v.number)
	if name != "" {
		was = timesIn(v.before, st.Number(v.RootStat.Dev))
	}
	switch {
	case was == TimesOf(st) || v.Own.Has(st):
		return false
	case was == 0 && !v.Times.complete():
		return v.Scan.isNew(v.d, name, st)
	}
	return true
}

// isNew decides by the ctime.
func (s *Scan) isNew(d *beneath.Dir, name string, st *beneath.Stat) bool {
	c := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
	since := !s.Since.IsZero() && changedSince(st, s.Since)
	slow := !s.Slow.IsZero() && changedSince(st, s.Slow)
	if !since && !slow || s.Own.Has(st) {
		return false
	}
	if since {
		return true
	}
	x, err := d.Xtime(name, &s.Names)
	if err != nil {
		return true
	}
	// An xtime in the future, after a step of the clock, proves nothing.
	x = max(x, s.Mark)
	return x.Time().After(s.Started) || c.After(x.Time().Add(MarkLag))
}

// isYoung tells whether a directory was made since the scan began.
func (s *Scan) isYoung(st *beneath.Stat) bool {
	b := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	return b.After(s.Started) && b.Before(time.Now())
}

// changedSince decides by the ctime alone.
func changedSince(st *beneath.Stat, t time.Time) bool {
	return !time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)).Before(t)
}
