package source

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Local is a tree on a file system of this host. It is safe for concurrent use.
type Local struct {
	root   *beneath.Dir
	config *Config
	names  xtime.Names
	mark   xtime.Time
	mount  uint64 // of the root: entries seen through another mount may refuse marks
	record xtime.Namespace
	small  *sync.Pool                        // of buffers for the contents of small files
	mounts func() map[string]map[string]bool // Config.Mounts
	kept   *keeper                           // nil where entries are what they say they are
	since  xtime.Time                        // no directory is older
	native *Native                           // Config.Native
}

// NewLocal begins a pass over a tree of this host.
func NewLocal(c *Config) (*Local, error) {
	st, err := c.Root.Stat("")
	if err != nil {
		return nil, GoesOn(RootError(c.Path, err))
	}
	if err := beneath.Identifies(c.Root); err != nil {
		return nil, RootError(c.Path, err)
	}
	m := &Local{root: c.Root, config: c, names: c.Names, mark: c.VolumeMark, mount: st.MountID, record: c.Record, small: newSmallBuffers(),
		mounts: c.Mounts, native: c.Native}
	m.since = max(m.mark, c.Since)
	if c.FakeOwner {
		m.kept = newKeeper(c.Root, &st)
	}
	return m, nil
}

// Intact implements Source. A file system of this host is there as a whole or not at all, as Check finds.
func (m *Local) Intact() error { return nil }

// Head implements Source.
func (m *Local) Head() (xtime.Time, xtime.GFID, error) {
	d, err := m.Describe(m.root)
	if err != nil {
		return 0, xtime.GFID{}, RootError(m.config.Path, err)
	}
	g, err := m.root.GFID("")
	if err != nil {
		return 0, xtime.GFID{}, RootError(m.config.Path, err)
	}
	return d.Xtime, g, nil
}

// GFID implements Source.
func (m *Local) GFID(d *beneath.Dir, name string) (xtime.GFID, error) { return d.GFID(name) }

// Mark implements Source.
func (m *Local) Mark() xtime.Time { return m.mark }

// Since implements Source.
func (m *Local) Since() xtime.Time { return m.since }

// OpenDir implements Source.
func (m *Local) OpenDir(path string) (*beneath.Dir, error) { return m.root.OpenDir(path) }

// OpenPath implements Source.
func (m *Local) OpenPath(path string) (*beneath.Dir, error) { return m.root.OpenPath(path) }

// KnowsMounts implements Source.
func (m *Local) KnowsMounts() bool { return m.mount != 0 }

// IsOurs implements Source.
func (m *Local) IsOurs(st *beneath.Stat) bool { return st.MountID == m.mount }

// Newer implements Source.
func (m *Local) Newer(d *beneath.Dir, name string, st *beneath.Stat, since xtime.Time) bool {
	x, err := d.Xtime(name, &m.names)
	return err == nil && m.effective(x, m.refusesMarks(d, name, st), st) > since
}

// ErrCovered means that something is mounted on an entry, so that nothing can be seen of it.
var ErrCovered = fmt.Errorf("another file system is mounted there: %w", unix.EXDEV)

// Reader implements Source. Where something is mounted is asked now, and not once for a crawl: what is mounted may not answer, and a
// user may mount it at any time.
func (m *Local) Reader(path string, d *beneath.Dir, unmarked bool) Reader {
	return m.reader(path, d, unmarked)
}

func (m *Local) reader(path string, d *beneath.Dir, unmarked bool) *reader {
	return &reader{m: m, dir: d, path: path, covered: m.mounts()[path], unmarked: unmarked && m.native == nil}
}

// Covered implements Reader.
func (r *reader) Covered(name string) bool {
	_, maybe := r.covered[name]
	return maybe && r.dir.Covered(name)
}

// Open opens the directory at path, which must be the inode gfid, and reads its xtime before anything else.
func (m *Local) Open(path string, gfid xtime.GFID) (*Directory, error) {
	dir, err := m.root.OpenDir(path)
	if err != nil {
		return nil, err
	}
	d, err := m.Describe(dir)
	if err == nil {
		var g xtime.GFID
		if g, err = dir.GFID(""); err == nil && g != gfid {
			err = ErrMoved
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return d, nil
}

// LeadsTo tells whether path is where the directory gfid is now.
func (m *Local) LeadsTo(path string, gfid xtime.GFID) bool {
	dir, err := m.root.OpenPath(path)
	if err != nil {
		return false
	}
	defer dir.Close()
	g, err := dir.GFID("")
	return err == nil && g == gfid
}

func (m *Local) Describe(dir *beneath.Dir) (*Directory, error) {
	t, err := dir.Xtime("", &m.names)
	if err != nil {
		return nil, err
	}
	st, err := dir.Stat("")
	if err != nil {
		return nil, err
	}
	refuses := m.refusesMarks(dir, "", &st)
	return &Directory{Dir: dir, Xtime: m.effective(t, refuses, &st), Stat: st, Refuses: refuses}, nil
}

// effective gives the xtime that counts. An entry that cannot be marked, or was not, is as new as its ctime says; but
// nothing is older than the volume mark, and no directory than the filter.
func (m *Local) effective(t xtime.Time, refuses bool, st *beneath.Stat) xtime.Time {
	if t == 0 || refuses {
		t = max(t, xtime.FromTime(UnixTime(st.Ctime)))
	}
	if slave.KindOf(st.Mode) == slave.Dir {
		return max(t, m.since)
	}
	return max(t, m.mark)
}

// refusesMarks tells what the marker gives up to mark. It has to be the marker's own view.
func (m *Local) refusesMarks(d *beneath.Dir, name string, st *beneath.Stat) bool {
	return st.Fixed() || !slave.KindOf(st.Mode).CarriesRecord(m.names.Namespace) || st.MountID != m.mount ||
		m.names.Namespace == xtime.User && d.DeniesMarks(name)
}

// Names implements Source.
func (m *Local) Names(d *beneath.Dir, atRoot bool, each func(beneath.Entry) error) error {
	return d.List(func(e beneath.Entry) error {
		if atRoot && (e.Name == slave.Reserved || m.native != nil && m.native.Entry(e.Name)) {
			return nil
		}
		return each(e)
	})
}

// List implements Source.
func (m *Local) List(d *beneath.Dir, part, parts uint32, atRoot bool) (names []beneath.Entry, total int, err error) {
	err = m.Names(d, atRoot, func(e beneath.Entry) error {
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

// reader is a Reader.
type reader struct {
	m    *Local
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
	r.unmarked = t == 0 && r.m.native == nil
	return t, false, err
}

// Entry implements Source.
func (m *Local) Entry(path string, d *beneath.Dir, name string) (plan.Entry, error) {
	return m.reader(path, d, false).Entry(name)
}

// Entry implements Reader.
func (r *reader) Entry(name string) (plan.Entry, error) {
	m, d := r.m, r.dir
	if r.Covered(name) {
		return plan.Entry{}, ErrCovered
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
		return plan.Entry{}, ErrCovered
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

// QuietTime is how long an inode must not have changed to have been the same when its xattrs were listed, a moment before:
// far longer than the kernel's clock for file times is behind.
const QuietTime = 2 * time.Second

// quiet tells whether nothing of the inode has just changed. Whoever cannot be marked is known by its ctime alone, so what
// was read before that must not be older.
func quiet(st *beneath.Stat) bool { return time.Since(UnixTime(st.Ctime)) > QuietTime }

// MetaOf reads what an operation without content needs beyond the listing, of the very inode that was listed: another
// that has taken its name must not lend it its target or its attributes.
func (m *Local) MetaOf(d *beneath.Dir, e *plan.Entry) (slave.Meta, error) {
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
		return slave.Meta{}, ErrMoved
	}
	st, err := inode.Stat("")
	if err != nil {
		return slave.Meta{}, err
	}
	return m.Meta(inode, "", &st)
}

// FileMeta is meta for a file as it was listed. An xattr that it got since then changed its ctime, so that the content
// that goes with this is a torn one. The xattrs are those of the inode that was listed, whatever has its name now: an ACL of one
// user's file must not come to stand on another's.
func (m *Local) FileMeta(d *beneath.Dir, e *plan.Entry) (slave.Meta, error) {
	if e.Bare {
		return PlainMeta(&e.Stat), nil
	}
	inode, err := d.Pin(e.Name)
	if err != nil {
		return slave.Meta{}, err
	}
	defer inode.Close()
	st, err := inode.Stat("")
	if err == nil && !SameFile(&st, &e.Stat) {
		err = ErrMoved
	}
	if err != nil {
		return slave.Meta{}, err
	}
	return m.Meta(inode, "", &e.Stat)
}

// SameFile tells whether both describe one inode, of which no number is used a second time.
func SameFile(a, b *beneath.Stat) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Btime == b.Btime && slave.KindOf(a.Mode) == slave.KindOf(b.Mode)
}

// PlainMeta is what a stat tells of an entry without xattrs.
func PlainMeta(st *beneath.Stat) slave.Meta {
	return slave.Meta{Mode: st.Mode & 07777, UID: st.UID, GID: st.GID, Mtime: st.Mtime, Size: st.Size, Rdev: st.Rdev}
}

// Meta reads what an operation needs beyond the listing.
func (m *Local) Meta(d *beneath.Dir, name string, st *beneath.Stat) (slave.Meta, error) {
	was := *st // looking twice changes nothing
	if err := m.kept.look(d, name, &was); err != nil {
		return slave.Meta{}, err
	}
	out := PlainMeta(&was)
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
func (m *Local) replicated(d *beneath.Dir, name string) ([]slave.Xattr, error) {
	attrs, err := d.Listxattr(name)
	if err != nil {
		return nil, err
	}
	var out []slave.Xattr
	for _, a := range attrs {
		mine, ok := m.kept.master(a)
		if m.names.Own(a) || !ok || m.native != nil && m.native.Attr(a) {
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

// OnMount tells whether an entry is on the master's own mount.
func (m *Local) OnMount(d *beneath.Dir, name string) bool {
	st, err := d.Stat(name)
	return err == nil && st.MountID == m.mount
}

// Digest digests a file of the master, with a prefix before it. live ends it.
func (m *Local) Digest(path string, prefix []byte, live func() error) (res slave.HashResult) {
	dir, name := beneath.Split(path)
	d, err := m.root.OpenPath(dir)
	if err != nil {
		return slave.HashResult{Err: err}
	}
	defer d.Close()
	f, err := d.OpenQuietly(name)
	if err != nil {
		return slave.HashResult{Err: err}
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && slave.KindOf(st.Mode) != slave.File {
		err = slave.ErrConflict
	}
	if err == nil {
		res.Size, res.Sum, err = f.DigestAfter(prefix, &st, live)
	}
	if err != nil {
		return slave.HashResult{Err: err}
	}
	return res
}
