package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Aside is a slave that is open beside the session's own agent, to be examined. It takes no lock, makes nothing, and
// changes nothing but the records that Distrust takes back.
type Aside struct{ t *Tree }

var (
	_ slave.Reader   = (*Aside)(nil)
	_ slave.Examiner = (*Aside)(nil)
)

// OpenAside opens the slave at o.Path, which must be o.Master's already; Force and Create do not count. The errors are
// those of Open.
func OpenAside(o Options) (*Aside, error) {
	t := newTree(o, nil)
	close(t.finished) // there is no committer
	if err := t.setupAside(o); err != nil {
		t.release()
		return nil, err
	}
	return &Aside{t: t}, nil
}

// setupAside does what setup does, without a trace.
func (t *Tree) setupAside(o Options) error {
	o.Create, o.Force = false, o.Force && o.DryRun
	if err := t.openRoot(o); err != nil {
		return err
	}
	have, anew, err := t.checkOwner(o)
	if err != nil {
		return err
	}
	if have == nil && !o.DryRun {
		return fmt.Errorf("slave %s: %w: nobody has filled it yet; start or sync the session first", o.Path, slave.ErrUnfit)
	}
	ns, err := t.recordedNamespace(o)
	if o.DryRun && (anew && err != nil || errors.Is(err, errNoRecord)) {
		ns, err = t.likelyNamespace(o), nil
	}
	if err != nil {
		return err
	}
	if err := t.findVolumes(); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	t.info = slave.Info{Version: o.Version, Namespace: ns, Root: t.root, Path: t.info.Path, Filter: have.Filtered(),
		Identity: slave.Identity{BootID: bootID(), Ancestors: t.ancestors()}}
	t.readRoom()
	scratch, err := t.dir.OpenUnnamed()
	if err != nil {
		scratch = nil // a file system without such files, or that is read-only
	}
	t.readLimits(scratch)
	if scratch != nil {
		scratch.Close()
	}
	t.root = true // modes are not lifted to look at what is closed to us
	return nil
}

// recordedNamespace finds where the records are: the root has had one since the first crawl.
func (t *Tree) recordedNamespace(o Options) (xtime.Namespace, error) {
	if err := t.openRecordsAside(); err != nil {
		return "", fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		t.names = xtime.NamesFor(ns, o.Master)
		g, err := t.gfidOf(place{t.dir, ""})
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
func (t *Tree) readRoom() {
	if fs, err := t.dir.Statfs(); err == nil {
		t.info.FreeBytes, t.info.FreeFiles = int64(fs.Bavail)*fs.Bsize, int64(fs.Ffree)
	}
}

// likelyNamespace is where the records of a slave will be that has none: what the file system takes can only be found by trying.
func (t *Tree) likelyNamespace(o Options) xtime.Namespace {
	ns := xtime.User
	if t.root {
		ns = xtime.Trusted
	}
	t.names = xtime.NamesFor(ns, o.Master)
	return ns
}

// Hook has fn asked before each system call on the tree from now on; what fn returns, an errno, that call fails with. It
// is for tests, and is called before anything else is.
func (a *Aside) Hook(fn func(op, name string) error) { a.t.dir.Hook(fn) }

// Info tells what was found when the slave was opened. What is parked is not counted.
func (a *Aside) Info() slave.Info { return a.t.Info() }

// Survey is the Tree's.
func (a *Aside) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	return a.t.Survey(ctx, queries)
}

// Hash is the Tree's.
func (a *Aside) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	return a.t.Hash(ctx, paths)
}

// Digest is Hash with the nonce before each content.
func (a *Aside) Digest(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.HashResult, error) {
	return a.t.digests(ctx, nonce[:], paths)
}

// Count is the Tree's.
func (a *Aside) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	return a.t.Count(ctx, paths, limit)
}

// Close closes the slave. It is idempotent.
func (a *Aside) Close() error { return a.t.Close() }

// Examine tells all there is to each entry.
func (a *Aside) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	return each(ctx, a.t, paths, func(path string) slave.Detail { return a.examine(nonce, path) })
}

// Distrust takes records back.
func (a *Aside) Distrust(ctx context.Context, paths []string) ([]slave.Result, error) {
	return each(ctx, a.t, paths, func(path string) slave.Result {
		return slave.Result{Err: trouble("distrust", path, a.distrust(path))}
	})
}

// each answers for one path after the other, until ctx or the slave ends.
func each[A any](ctx context.Context, t *Tree, paths []string, answer func(string) A) ([]A, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	all := make([]A, len(paths))
	for i, path := range paths {
		if err := t.live(ctx); err != nil {
			return nil, err
		}
		all[i] = answer(path)
	}
	return all, nil
}

func (a *Aside) examine(nonce slave.Nonce, path string) (d slave.Detail) {
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
func (a *Aside) detail(nonce slave.Nonce, path string) (d slave.Detail, err error) {
	p, done, err := a.place(path)
	if err != nil {
		return d, err
	}
	defer done()
	if d.EntryState, err = a.t.entryState(p); err != nil {
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
	list, err := a.t.replicated(p)
	d.Xattrs, d.ACL = slave.DigestXattrs(nonce, list, a.t.info.Root)
	return d, err
}

// place opens the directory of an entry; the root is its own.
func (a *Aside) place(path string) (place, func(), error) {
	dir, name := beneath.Split(path)
	d, err := a.t.openDir(dir)
	if err != nil {
		return place{}, nil, err
	}
	return place{d, name}, func() { d.Close() }, nil
}

// replicated reads the xattrs of an entry that belong to it and not to us.
func (t *Tree) replicated(p place) (list []slave.Xattr, err error) {
	names, err := p.dir.Listxattr(p.name)
	for _, name := range names {
		mine, ok := t.masterName(name)
		if t.ours(name) || !ok {
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
func (a *Aside) distrust(path string) error {
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

func (a *Aside) takeXtime(path string) error {
	p, done, err := a.place(path)
	if err != nil {
		return err
	}
	defer done()
	st, err := p.dir.Stat(p.name)
	if err != nil {
		return err
	}
	if !slave.KindOf(st.Mode).CarriesRecord(a.t.names.Namespace) {
		return nil
	}
	err = p.dir.Removexattr(p.name, a.t.names.Xtime)
	if errors.Is(err, unix.ENODATA) {
		err = a.takeBeside(p)
	}
	return ignoreAbsent(err)
}

// takeBeside removes the record that lies beside for an entry.
func (a *Aside) takeBeside(p place) error {
	_, there, err := a.t.readBeside(p)
	if err != nil || !there {
		return err
	}
	name, err := a.t.besideName(p)
	if err != nil {
		return err
	}
	return a.t.records.Unlink(name)
}

// openRecordsAside opens what lies beside, if anything does. The session's own agent may put the first there at any time.
func (t *Tree) openRecordsAside() error {
	d, err := t.dir.OpenPath(slave.Reserved + "/records")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		t.records = d
		t.besides.Store(true)
	}
	return err
}
