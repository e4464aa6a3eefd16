package crawler

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// ErrNotMaster means that the master's root is not what was recorded as the volume: it was unmounted, replaced or
// emptied. Nothing is purged on such evidence (invariant 10).
var ErrNotMaster = errors.New("the master is not there")

// errMoved means that a path does not lead to the inode that was listed. Whatever moved it marked where it went.
var errMoved = errors.New("moved meanwhile")

// master reads the master's tree. It is safe for concurrent use.
type master struct {
	root   *beneath.Dir
	names  xtime.Names
	mark   xtime.Time // the volume mark at the beginning of the crawl
	mount  uint64     // of the root: entries seen through another mount may refuse marks
	record xtime.Namespace
	small  *sync.Pool                        // of buffers for the contents of small files
	mounts func() map[string]map[string]bool // Options.Mounts
	kept   *keeper                           // nil where entries are what they say they are
	filter *filter.Filter
	since  xtime.Time // no directory is older: the volume mark, or Options.FilterSince
}

// directory is one opened directory with what was read of it before it was listed.
type directory struct {
	dir   *beneath.Dir
	xtime xtime.Time // effective; the only value that may become the stamp
	stat  beneath.Stat
	// later are children that are visited once the visit of this one has ended: by then it may be finished behind them.
	later []*node
	// refuses marks: its xtime tells nothing of what changed in or below it.
	refuses bool
}

func newMaster(o *Options, there slave.Reader) (*master, error) {
	st, err := o.Root.Stat("")
	if err != nil {
		return nil, RootError(o.Path, err)
	}
	m := &master{root: o.Root, names: o.Names, mark: o.VolumeMark(), mount: st.MountID,
		record: there.Info().Namespace, small: newSmallBuffers(), mounts: o.mounts, filter: o.Filter}
	m.since = max(m.mark, o.FilterSince)
	if o.FakeOwner {
		m.kept = newKeeper(o.Root, &st)
	}
	return m, nil
}

// errCovered means that something is mounted on an entry, so that nothing can be seen of it.
var errCovered = fmt.Errorf("another file system is mounted there: %w", unix.EXDEV)

// reader reads entries of the directory at path. Where something is mounted is asked now, and not once for a crawl: what is
// mounted may not answer, and a user may mount it at any time.
func (m *master) reader(path string, d *beneath.Dir) reader {
	return reader{m: m, dir: d, path: path, covered: m.mounts()[path]}
}

// isCovered tells whether something is mounted on an entry, without asking that.
func (r *reader) isCovered(name string) bool {
	_, maybe := r.covered[name]
	return maybe && r.dir.Covered(name)
}

// check proves that the path still leads to the tree that the volume was made of.
func checkIdentity(o *Options) error {
	if o.Identity.GFID.IsZero() {
		return nil
	}
	now, err := beneath.OpenRoot(o.Path, true)
	if err != nil {
		return goesOn(RootError(o.Path, err))
	}
	defer now.Close()
	if err := now.Enterable(); err != nil {
		return goesOn(RootError(o.Path, err))
	}
	id, err := now.Identity()
	if err != nil {
		return goesOn(RootError(o.Path, err))
	}
	if id.GFID != o.Identity.GFID {
		return fmt.Errorf("%w: %s is another directory than the volume was made of (is its file system mounted?); "+
			"replication goes on by itself once it is back", ErrNotMaster, o.Path)
	}
	if err := carriesXtime(now, o); err != nil {
		return err
	}
	return sameInode(now, o)
}

// carriesXtime: the root of a volume has always been marked. Roots of two file systems may share inode and generation,
// but not this.
func carriesXtime(now *beneath.Dir, o *Options) error {
	t, err := now.Xtime("", &o.Names)
	if err != nil {
		return goesOn(RootError(o.Path, err))
	}
	if t == 0 {
		return fmt.Errorf("%w: %s does not carry this volume's xtime (is its file system mounted?); "+
			"replication goes on by itself once it is back", ErrNotMaster, o.Path)
	}
	return nil
}

// sameInode: the root that is held open must be the one that the path leads to.
func sameInode(now *beneath.Dir, o *Options) error {
	a, err := now.Stat("")
	if err != nil {
		return goesOn(RootError(o.Path, err))
	}
	b, err := o.Root.Stat("")
	if err != nil {
		return goesOn(RootError(o.Path, err))
	}
	if a.Ino != b.Ino || a.Dev != b.Dev {
		return fmt.Errorf("%w: %s was mounted anew", ErrNotMaster, o.Path)
	}
	return nil
}

// open opens the directory at path, which must be the inode gfid, and reads its xtime before anything else.
func (m *master) open(path string, gfid xtime.GFID) (*directory, error) {
	dir, err := m.root.OpenDir(path)
	if err != nil {
		return nil, err
	}
	d, err := m.describe(dir)
	if err == nil {
		var g xtime.GFID
		if g, err = dir.GFID(""); err == nil && g != gfid {
			err = errMoved
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return d, nil
}

// leadsTo tells whether path is where the directory gfid is now.
func (m *master) leadsTo(path string, gfid xtime.GFID) bool {
	dir, err := m.root.OpenPath(path)
	if err != nil {
		return false
	}
	defer dir.Close()
	g, err := dir.GFID("")
	return err == nil && g == gfid
}

func (m *master) describe(dir *beneath.Dir) (*directory, error) {
	t, err := dir.Xtime("", &m.names)
	if err != nil {
		return nil, err
	}
	st, err := dir.Stat("")
	if err != nil {
		return nil, err
	}
	refuses := m.refusesMarks(dir, "", &st)
	return &directory{dir: dir, xtime: m.effective(t, refuses, &st), stat: st, refuses: refuses}, nil
}

// effective gives the xtime that counts. An entry that cannot be marked, or was not, is as new as its ctime says; but
// nothing is older than the volume mark, and no directory than the filter.
func (m *master) effective(t xtime.Time, refuses bool, st *beneath.Stat) xtime.Time {
	if t == 0 || refuses {
		t = max(t, xtime.FromTime(unixTime(st.Ctime)))
	}
	if slave.KindOf(st.Mode) == slave.Dir {
		return max(t, m.since)
	}
	return max(t, m.mark)
}

// refusesMarks tells what the marker gives up to mark. It has to be the marker's own view.
func (m *master) refusesMarks(d *beneath.Dir, name string, st *beneath.Stat) bool {
	return st.Fixed() || !slave.KindOf(st.Mode).CarriesRecord(m.names.Namespace) || st.MountID != m.mount ||
		m.names.Namespace == xtime.User && d.DeniesMarks(name)
}

// list reads the names of the given part. It reports overflow, and no names, once there are more than limit.
func (m *master) list(d *beneath.Dir, part, parts uint32, atRoot bool) (names []beneath.Entry, total int, err error) {
	err = d.List(func(e beneath.Entry) error {
		if atRoot && e.Name == slave.Reserved {
			return nil
		}
		total++
		if slave.PartOf(e.Name, parts) == part && len(names) <= slave.MaxEntries {
			names = append(names, e)
		}
		return nil
	})
	if len(names) > slave.MaxEntries {
		names = nil
	}
	return names, total, err
}

// reader reads the entries of one directory.
type reader struct {
	m    *master
	dir  *beneath.Dir
	path string // of dir
	// covered are the names that something is mounted on, or was, as Options.Mounts has it.
	covered map[string]bool
	// unmarked is a guess: the next entry carries no xtime, as the one before it. Then one list of its xattrs tells that,
	// and mostly that it has none at all, which saves a call where it is shipped.
	unmarked bool
}

// xtime reads an entry's xtime. bare tells that it carries no xattr of any name.
func (r *reader) xtime(name string) (t xtime.Time, bare bool, err error) {
	if r.unmarked {
		attrs, err := r.dir.Listxattr(name)
		if err != nil || !slices.Contains(attrs, r.m.names.Xtime) {
			return 0, len(attrs) == 0, err
		}
	}
	t, err = r.dir.Xtime(name, &r.m.names)
	r.unmarked = t == 0
	return t, false, err
}

// entry reads one entry of the directory at path.
func (m *master) entry(path string, d *beneath.Dir, name string) (plan.Entry, error) {
	r := m.reader(path, d)
	return r.entry(name)
}

// entry reads one entry: the xtime first, so that a change after it has a newer one (invariant 4). The error is errCovered
// where something is mounted on it: what that says of itself, down to its GFID, is not the entry's.
func (r *reader) entry(name string) (plan.Entry, error) {
	m, d := r.m, r.dir
	if r.isCovered(name) {
		return plan.Entry{}, errCovered
	}
	t, bare, err := r.xtime(name)
	if err != nil {
		return plan.Entry{}, err
	}
	st, err := d.Stat(name)
	if err != nil {
		return plan.Entry{}, err
	}
	if st.MountID != m.mount {
		return plan.Entry{}, errCovered
	}
	gfid, err := d.GFID(name)
	if err != nil {
		return plan.Entry{}, err
	}
	refuses := m.refusesMarks(d, name, &st)
	if err := m.kept.look(d, name, &st); err != nil {
		return plan.Entry{}, err
	}
	kind := slave.KindOf(st.Mode)
	out := plan.Entry{Name: name, Kind: kind, Stat: st, Bare: bare && quiet(&st),
		Record: slave.Record{GFID: gfid, Xtime: m.effective(t, refuses, &st)},
		Always: kind == slave.Dir && refuses}
	if kind == slave.Symlink && !kind.CarriesRecord(m.record) {
		out.Target, err = d.Readlink(name)
	}
	return out, err
}

// quietTime is how long an inode must not have changed to have been the same when its xattrs were listed, a moment before:
// far longer than the kernel's clock for file times is behind.
const quietTime = 2 * time.Second

// quiet tells whether nothing of the inode has just changed. Whoever cannot be marked is known by its ctime alone, so what
// was read before that must not be older.
func quiet(st *beneath.Stat) bool { return time.Since(unixTime(st.Ctime)) > quietTime }

// metaOf reads what an operation without content needs beyond the listing, of the very inode that was listed: another
// that has taken its name must not lend it its target or its attributes.
func (m *master) metaOf(d *beneath.Dir, e *plan.Entry) (slave.Meta, error) {
	inode, err := d.Pin(e.Name)
	if err != nil {
		return slave.Meta{}, err
	}
	defer inode.Close()
	g, err := inode.GFID("")
	if err != nil {
		return slave.Meta{}, err
	}
	if g != e.Record.GFID {
		return slave.Meta{}, errMoved
	}
	st, err := inode.Stat("")
	if err != nil {
		return slave.Meta{}, err
	}
	return m.meta(inode, "", &st)
}

// fileMeta is meta for a file as it was listed. An xattr that it got since then changed its ctime, so that the content
// that goes with this is a torn one. The xattrs are those of the inode that was listed, whatever has its name now: an ACL of one
// user's file must not come to stand on another's.
func (m *master) fileMeta(d *beneath.Dir, e *plan.Entry) (slave.Meta, error) {
	if e.Bare {
		return plainMeta(&e.Stat), nil
	}
	inode, err := d.Pin(e.Name)
	if err != nil {
		return slave.Meta{}, err
	}
	defer inode.Close()
	st, err := inode.Stat("")
	if err == nil && !sameFile(&st, &e.Stat) {
		err = errMoved
	}
	if err != nil {
		return slave.Meta{}, err
	}
	return m.meta(inode, "", &e.Stat)
}

// sameFile tells whether both describe one inode, of which no number is used a second time.
func sameFile(a, b *beneath.Stat) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Btime == b.Btime && slave.KindOf(a.Mode) == slave.KindOf(b.Mode)
}

func plainMeta(st *beneath.Stat) slave.Meta {
	return slave.Meta{Mode: st.Mode & 07777, UID: st.UID, GID: st.GID, Mtime: st.Mtime, Size: st.Size, Rdev: st.Rdev}
}

// meta reads what an operation needs beyond the listing.
func (m *master) meta(d *beneath.Dir, name string, st *beneath.Stat) (slave.Meta, error) {
	was := *st // looking twice changes nothing
	if err := m.kept.look(d, name, &was); err != nil {
		return slave.Meta{}, err
	}
	out := plainMeta(&was)
	var err error
	if slave.KindOf(st.Mode) == slave.Symlink {
		if out.Target, err = d.Readlink(name); err != nil {
			return out, err
		}
	}
	out.Xattrs, err = m.replicated(d, name)
	return out, err
}

// replicated reads the xattrs that belong to the file and not to us.
func (m *master) replicated(d *beneath.Dir, name string) ([]slave.Xattr, error) {
	attrs, err := d.Listxattr(name)
	if err != nil {
		return nil, err
	}
	var out []slave.Xattr
	for _, a := range attrs {
		mine, ok := m.kept.master(a)
		if m.names.Own(a) || !ok {
			continue
		}
		v, err := d.Getxattr(name, a)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, slave.Xattr{Name: mine, Value: v})
	}
	return out, nil
}

func errEmptied(path string, there int64) error {
	return fmt.Errorf("%w: %s is empty, while the slave has %d entries (is its file system mounted?); if the slave is "+
		"to be emptied, say so with `georep approve MASTER SLAVE`", ErrNotMaster, path, there)
}

// gone tells that an entry is not where it was listed: its removal has marked the directory anew.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMoved) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}
