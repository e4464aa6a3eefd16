package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Inspector is a slave that is open beside the session's own agent, to be examined. It takes no
// lock, makes nothing, and changes nothing but the records that Distrust takes back. It looks at
// the slave while the session's agent works, so what it says is of a moment; verify looks several
// times for that reason.
type Inspector struct {
	*reader
	own  *ownership
	once sync.Once

	promoted slave.Promotion // the zero value where the slave follows its master
}

var (
	_ slave.Reader   = (*Inspector)(nil)
	_ slave.Examiner = (*Inspector)(nil)
)

// OpenInspector opens the slave at o.Path, which must be o.Master's already; Force and Create do
// not count. The errors are those of Open. The caller closes it.
func OpenInspector(o Options) (*Inspector, error) {
	r := newReader(o, nil)
	a := &Inspector{reader: r, own: &ownership{store: r.store}}
	r.life.release = r.areas.close
	close(r.finished) // there is no committer
	if err := a.setup(o); err != nil {
		r.areas.close()
		return nil, err
	}
	return a, nil
}

// setup does what Tree's does, without a trace. It writes nothing, not even to find out what the
// file system takes: that is read from what is on record.
func (a *Inspector) setup(o Options) error {
	o.Create, o.Force, o.inspect = false, o.Force && o.DryRun, true
	if err := a.own.openRoot(o); err != nil {
		return err
	}
	have, anew, err := a.own.checkOwner(o)
	if err != nil {
		return err
	}
	if have != nil {
		a.promoted = have.Promoted
	}
	if have == nil && !o.DryRun {
		return fmt.Errorf("slave %s: %w: it has not been filled yet; start or sync the session first", o.Path, slave.ErrUnfit)
	}
	ns, err := a.recordedNamespace(o)
	if o.DryRun && (anew && err != nil || errors.Is(err, errNoRecord)) {
		ns, err = a.likelyNamespace(o), nil
	}
	if err != nil {
		return err
	}
	if err := a.findVolumes(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	a.info = slave.Info{Version: o.Version, Namespace: ns, Root: a.root, Path: a.info.Path, Filter: have.Filtered(), Promoted: a.promoted.String(),
		Identity: slave.Identity{BootID: bootID(), Ancestors: a.ancestors()}}
	a.readRoom()
	scratch, err := a.dir.OpenUnnamed()
	if err != nil {
		scratch = nil // a file system without such files, or that is read-only
	}
	a.readLimits(scratch)
	if scratch != nil {
		scratch.Close()
	}
	a.root = true // modes are not lifted to look at what is closed to us
	return nil
}

// recordedNamespace finds where the records are: the root has had one since the first crawl.
// errNoRecord, wrapped, says that neither has one.
func (r *records) recordedNamespace(o Options) (xtime.Namespace, error) {
	if err := r.openRecordsToInspect(); err != nil {
		return "", fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		r.names = xtime.NamesFor(ns, o.Master)
		g, err := r.gfidOf(place{r.dir, ""})
		if err != nil {
			return "", fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
		}
		if !g.IsZero() {
			return ns, nil
		}
	}
	return "", fmt.Errorf("slave %s: %w: %w; start or sync the session first", o.Path, slave.ErrUnfit, errNoRecord)
}

// errNoRecord: the slave was registered, and nothing has been shipped yet.
var errNoRecord = errors.New("it has no record of the master yet")

// readRoom tells how much the file system takes.
func (s *store) readRoom() {
	if fs, err := s.dir.Statfs(); err == nil {
		s.info.FreeBytes, s.info.FreeFiles = int64(fs.Bavail)*fs.Bsize, int64(fs.Ffree)
	}
}

// likelyNamespace is where the records of a slave will be that has none: what the file system takes can only be found by trying.
func (r *records) likelyNamespace(o Options) xtime.Namespace {
	ns := xtime.User
	if r.root {
		ns = xtime.Trusted
	}
	r.names = xtime.NamesFor(ns, o.Master)
	return ns
}

// Hook has fn asked before each system call on the tree from now on; what fn returns, an errno, that call fails with. It
// is for tests, and is called before anything else is.
func (a *Inspector) Hook(fn func(op, name string) error) { a.dir.Hook(fn) }

// Digest is Hash with the nonce before each content.
func (a *Inspector) Digest(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.HashResult, error) {
	return a.digests(ctx, nonce[:], paths)
}

// Close closes the slave. It is idempotent.
func (a *Inspector) Close() error {
	a.once.Do(func() {
		a.shut()
		a.leave()
	})
	return nil
}

// Examine tells all there is to each entry.
func (a *Inspector) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	return each(ctx, a.life, paths, func(path string) slave.Detail { return a.examine(nonce, path) })
}

// Distrust takes records back. It is what a repair begins with: without an xtime an entry is
// compared by the next crawl. GFIDs stay, so nothing is sent twice. The records of a promoted slave
// stay, too: they say what the master had, and nothing is sent to it in their place.
func (a *Inspector) Distrust(ctx context.Context, paths []string) ([]slave.Result, error) {
	if a.promoted.Holds() {
		return nil, fmt.Errorf("slave %s: %w: it can be compared, and nothing else", a.info.Path, slave.ErrPromoted)
	}
	return each(ctx, a.life, paths, func(path string) slave.Result {
		return slave.Result{Err: trouble("distrust", path, a.distrust(path))}
	})
}

// each answers for one path after the other, until ctx or the slave ends. An error is the end of
// ctx or of the slave, and no answer is given then.
func each[A any](ctx context.Context, l *life, paths []string, answer func(string) A) ([]A, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	all := make([]A, len(paths))
	for i, path := range paths {
		if err := l.live(ctx); err != nil {
			return nil, err
		}
		all[i] = answer(path)
	}
	return all, nil
}

// Trouble with the entry is in its answer.
func (a *Inspector) examine(nonce slave.Nonce, path string) (d slave.Detail) {
	err := slave.ErrInvalid
	if path == "" || slave.AllowedPath(path) {
		d, err = a.detail(nonce, path)
	}
	if err != nil {
		return slave.Detail{Err: trouble("examine", path, err)}
	}
	return d
}

// detail reads one entry. What it reads of an entry that is replaced meanwhile may be of both.
// Everything that a verification compares is in it. The digests of attributes begin with the nonce,
// so an old answer is worth nothing.
func (a *Inspector) detail(nonce slave.Nonce, path string) (d slave.Detail, err error) {
	p, done, err := a.place(path)
	if err != nil {
		return d, err
	}
	defer done()
	if d.EntryState, err = a.entryState(p); err != nil {
		return d, err
	}
	if d.Kind == slave.Symlink {
		if d.Target, err = p.dir.Readlink(p.name); err != nil {
			return d, err
		}
	}
	st, err := p.dir.Stat(p.name)
	if err != nil {
		return d, err
	}
	d.Name, d.Ino = "", st.Ino
	list, err := a.replicated(p)
	d.Xattrs, d.ACL = slave.DigestXattrs(nonce, list, a.info.Root)
	return d, err
}

// place opens the directory of an entry; the root is its own.
func (a *Inspector) place(path string) (place, func(), error) {
	dir, name := beneath.Split(path)
	d, err := a.openDir(dir)
	if err != nil {
		return place{}, nil, err
	}
	return place{d, name}, func() { d.Close() }, nil
}

// replicated reads the xattrs of an entry that belong to it and not to us.
func (r *records) replicated(p place) (list []slave.Xattr, err error) {
	names, err := p.dir.Listxattr(p.name)
	for _, name := range names {
		mine, ok := r.masterName(name)
		if r.ours(name) || !ok {
			continue
		}
		value, err := p.dir.Getxattr(p.name, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, slave.Xattr{Name: mine, Value: value})
	}
	return list, err
}

// distrust takes the xtime off an entry and off all that is above it. What is not there needs nothing.
func (a *Inspector) distrust(path string) error {
	if path != "" && !slave.AllowedPath(path) {
		return slave.ErrInvalid
	}
	for {
		if err := a.takeXtime(path); err != nil && !absent(err) {
			return err
		}
		if path == "" {
			return nil
		}
		path, _ = beneath.Split(path)
	}
}

func (a *Inspector) takeXtime(path string) error {
	p, done, err := a.place(path)
	if err != nil {
		return err
	}
	defer done()
	st, err := p.dir.Stat(p.name)
	if err != nil {
		return err
	}
	if !slave.KindOf(st.Mode).CarriesRecord(a.names.Namespace) {
		return nil
	}
	err = p.dir.Removexattr(p.name, a.names.Xtime)
	if errors.Is(err, unix.ENODATA) {
		err = a.takeBeside(p)
	}
	return ignoreAbsent(err)
}

// takeBeside removes the record that lies beside for an entry.
func (a *Inspector) takeBeside(p place) error {
	_, there, err := a.readBeside(p)
	if err != nil || !there {
		return err
	}
	name, err := a.besideName(p)
	if err != nil {
		return err
	}
	return a.recordsDir.Unlink(name)
}

// openRecordsToInspect opens what lies beside, if anything does. The session's own agent may put the first there at any time.
func (r *records) openRecordsToInspect() error {
	d, err := r.dir.OpenPath(slave.Reserved + "/records")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		r.recordsDir = d
		r.besides.Store(true)
	}
	return err
}
