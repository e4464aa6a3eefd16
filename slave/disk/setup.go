package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
)

// ownership is whose the slave is: its root as it was opened, the owner's file, and the lock. Once
// the slave is open the committer alone writes the owner's file. lock is held from takeLock to
// unlock. Nothing in it is changed by others than the goroutine that opens the slave, and after
// that the committer.
type ownership struct {
	*store
	opened   unix.Stat_t // the root
	rootMark string      // what it is, for the owner's file
	owner    slave.Owner // what that says; the committer's
	name     xtime.UUID  // of the slave
	lock     *os.File
}

const ownerFile = apply.Owner

// missingAbove says what to make where more than the slave's own directory is missing.
func missingAbove(path string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("; only the last directory of a path is made: check the path, or mkdir -p %s there", filepath.Dir(path))
}

// openRoot opens the root, and makes it first where that was asked for. The root is opened once,
// and everything goes through that descriptor. What the path leads to later is looked at by stands.
func (w *ownership) openRoot(o Options) error {
	w.info.Path = o.Path
	if abs, err := filepath.Abs(o.Path); err == nil {
		w.info.Path = abs
	}
	filled := o.Proof.Filled && !o.Force
	if o.Create && !filled {
		if err := os.Mkdir(o.Path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make slave %s: %w: %w%s", o.Path, slave.ErrNoVolume, cause(err), missingAbove(w.info.Path, err))
		}
	}
	d, err := beneath.OpenRoot(o.Path, true)
	switch {
	case err != nil && filled:
		return fmt.Errorf("slave %s: %w", o.Path, slave.Gone(cause(err)))
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("open slave %s: %w: %w", o.Path, slave.ErrNoVolume, beneath.RootError(o.Path, cause(err)))
	case err != nil:
		return fmt.Errorf("open slave %s: %w: %w", o.Path, slave.ErrUnfit, beneath.RootError(o.Path, cause(err)))
	}
	if err := d.Enterable(); err != nil {
		d.Close()
		return fmt.Errorf("open slave %s: %w: %w", o.Path, slave.ErrUnfit, beneath.RootError(o.Path, cause(err)))
	}
	w.dir, w.rootMark = d, rootMark(d)
	return unix.Fstat(d.Fd(), &w.opened)
}

// cause drops the operation and path of a PathError, which the message around it already has.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// checkOwner refuses a root that is another master's, or another slave, or nobody's and in use,
// before anything is changed in it. anew tells that the slave is to be taken as if nobody had
// filled it. It changes nothing, so it may run before the lock is held, and runs again once it is.
// Claim.Admit in package slave has the rules, which are the same for every kind of slave.
func (w *ownership) checkOwner(o Options) (have *slave.Owner, anew bool, err error) {
	have, err = w.readOwner()
	if err != nil && !o.Force {
		return nil, false, fmt.Errorf("slave %s: read its owner: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	anew, err = o.claim().Admit(have, func(root string) bool { return sameRoot(root, w.rootMark) })
	if err != nil {
		return nil, false, fmt.Errorf("slave %s: %w", o.Path, err)
	}
	if have == nil && !o.Force {
		err = w.checkEmpty(o)
	}
	return have, anew, err
}

// claim is by what right the slave is opened.
func (o *Options) claim() *slave.Claim {
	return &slave.Claim{Master: o.Master, Session: o.Session, Proof: o.Proof, Force: o.Force, Inspect: o.inspect}
}

// readOwner gives nil where there is no owner on record yet. A damaged file is an error: whoever
// takes the slave for nobody's would compare all of it anew.
func (w *ownership) readOwner() (*slave.Owner, error) {
	base, err := w.dir.OpenPath(slave.Reserved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer base.Close()
	text, err := readSmall(base, ownerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slave.ParseOwner(text)
}

// checkEmpty refuses a root with anything in it but what a new file system has.
func (w *ownership) checkEmpty(o Options) error {
	err := w.dir.List(func(e beneath.Entry) error {
		if e.Name == slave.Reserved || e.Name == "lost+found" {
			return nil
		}
		return fmt.Errorf("slave %s: %w (%q is there) and has no owner: use an empty directory, or --force to take it",
			o.Path, slave.ErrNotEmpty, e.Name)
	})
	if err != nil && !errors.Is(err, slave.ErrNotEmpty) {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, cause(err))
	}
	return err
}

// openBase makes and opens .georep.
func (t *Tree) openBase(o Options) error {
	d, err := t.area(t.dir, slave.Reserved)
	if err != nil {
		return err
	}
	t.base = d
	return nil
}

// writeOwner puts the owner on record, whole or not at all. It is the moment at which the slave
// becomes this master's. Everything that a former owner vouched for is gone by then.
func (w *ownership) writeOwner(o Options, have *slave.Owner, anew bool) error {
	next, differs := o.claim().Next(have, anew, w.rootMark)
	w.name, w.owner = next.Slave, next
	if !differs {
		return nil
	}
	return w.saveOwner(&next)
}

// putFilter puts the session's filter on record. Nothing but the committer writes the owner's file once the slave is open.
func (w *ownership) putFilter(op *slave.Op) error {
	next := w.owner
	next.SetFilter(op.Record)
	err := w.saveOwner(&next)
	if err == nil {
		w.owner = next
	}
	return err
}

// saveOwner replaces the owner's file, synced together with its directory. After an error the old
// one is in force.
func (w *ownership) saveOwner(next *slave.Owner) error {
	text, err := next.Text()
	if err != nil {
		return err
	}
	const temp = ownerFile + ".new"
	if err := w.sys.unlink(place{w.base, temp}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := w.writeNew(place{w.base, temp}, text, true); err != nil {
		return err
	}
	if err := w.sys.rename(place{w.base, temp}, place{w.base, ownerFile}, 0); err != nil {
		return err
	}
	return w.base.Fsync()
}

// lookAround fills in what Info tells, and learns what a new file in staging is like. It makes a
// file and removes it, so it fails where nothing can be written: a slave that is read-only is found
// out here, and not by the first operation.
func (t *Tree) lookAround(o Options) error {
	probe := t.stagingName()
	var f *beneath.Inode
	_, err := t.cleaner.inRoom(func() (err error) {
		f, err = t.sys.create(place{t.staging, probe}, 0o777)
		return err
	})
	if err != nil {
		return err
	}
	defer t.staging.Unlink(probe)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if t.stager.fresh, err = shapeOf(f, st); err != nil {
		return err
	}
	if t.policy.FakeOwner {
		if err := t.sys.setxattr(f, slave.AttrStat, (&slave.Kept{Mode: st.Mode}).Text()); err != nil {
			return fmt.Errorf("the policy fake-owner needs xattrs of the user's namespace: %w", err)
		}
	}
	t.info = slave.Info{
		Version: o.Version, Namespace: t.names.Namespace, Root: t.root, Links: true, Path: t.info.Path, Slave: t.own.name,
		Filter:   t.own.owner.Filtered(),
		Identity: slave.Identity{BootID: bootID(), Ancestors: t.ancestors()},
	}
	t.readLimits(f)
	t.readRoom()
	for _, d := range []*beneath.Dir{t.parked, t.partial} {
		err := d.List(func(e beneath.Entry) error {
			t.info.Parked++
			if d == t.parked && slave.Kind(e.Type) == slave.Dir {
				t.park.index.note(e.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	marks, err := t.anyDirty()
	t.info.LinksClean = !marks
	return err
}
