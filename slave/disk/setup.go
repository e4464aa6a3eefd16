package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

const ownerFile = "owner"

// missingAbove says what to make where more than the slave's own directory is missing.
func missingAbove(path string, err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("; only the last directory of a path is made: check the path, or mkdir -p %s there", filepath.Dir(path))
}

// openRoot opens the root, and makes it first where that was asked for.
func (t *Tree) openRoot(o Options) error {
	t.info.Path = o.Path
	if abs, err := filepath.Abs(o.Path); err == nil {
		t.info.Path = abs
	}
	filled := o.Proof.Filled && !o.Force
	if o.Create && !filled {
		if err := os.Mkdir(o.Path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make slave %s: %w: %w%s", o.Path, slave.ErrNoVolume, cause(err), missingAbove(t.info.Path, err))
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
	t.dir, t.rootMark = d, rootMark(d)
	return unix.Fstat(d.Fd(), &t.opened)
}

// cause drops the operation and path of a PathError, which the message around it already has.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// checkOwner refuses a root that is another master's, or another slave, or nobody's and in use, before anything is changed
// in it. anew tells that the slave is to be taken as if nobody had filled it.
func (t *Tree) checkOwner(o Options) (have *slave.Owner, anew bool, err error) {
	have, err = t.readOwner()
	if err != nil && !o.Force {
		return nil, false, fmt.Errorf("slave %s: read its owner: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	anew, err = o.claim().Admit(have, func(root string) bool { return sameRoot(root, t.rootMark) })
	if err != nil {
		return nil, false, fmt.Errorf("slave %s: %w", o.Path, err)
	}
	if have == nil && !o.Force {
		err = t.checkEmpty(o)
	}
	return have, anew, err
}

// claim is by what right the slave is opened.
func (o *Options) claim() *slave.Claim {
	return &slave.Claim{Master: o.Master, Session: o.Session, Proof: o.Proof, Force: o.Force}
}

// readOwner gives nil where there is no owner on record yet.
func (t *Tree) readOwner() (*slave.Owner, error) {
	base, err := t.dir.OpenPath(slave.Reserved)
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
func (t *Tree) checkEmpty(o Options) error {
	err := t.dir.List(func(e beneath.Entry) error {
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

// area makes and opens a directory of ours. Nothing of its parent may be inherited: no default ACL, no set-gid bit.
func (t *Tree) area(in *beneath.Dir, name string) (*beneath.Dir, error) {
	if err := t.sys.mkdir(place{in, name}, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := in.OpenDir(name)
	if err != nil {
		return nil, err
	}
	for _, attr := range []string{attrDefaultACL, attrACL} {
		err := t.sys.removexattr(d.At(""), attr)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			d.Close()
			return nil, err
		}
	}
	if err := t.sys.chmod(d.At(""), 0o700); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Staging is where below slave.Reserved every file is made, before it gets its name.
const Staging = "staging"

// openAreas opens what lies in .georep and clears what a crash left in staging.
func (t *Tree) openAreas() error {
	areas := []struct {
		name string
		dir  **beneath.Dir
	}{{Staging, &t.staging}, {"partial", &t.partial}, {"parked", &t.parked}, {"trash", &t.trash}, {"links", &t.links},
		{"pending", &t.pending}, {"places", &t.where}, {"records", &t.records}}
	for _, a := range areas {
		d, err := t.area(t.base, a.name)
		if err != nil {
			return err
		}
		*a.dir = d
	}
	return eachName(t.staging, func(name string) error {
		err := t.sys.unlink(place{t.staging, name})
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			t.log.Warn().Str("name", name).Err(err).Msg("left in staging")
			return nil
		}
		return err
	})
}

// writeOwner puts the owner on record, whole or not at all.
func (t *Tree) writeOwner(o Options, have *slave.Owner, anew bool) error {
	next, differs := o.claim().Next(have, anew, t.rootMark)
	t.name, t.owner = next.Slave, next
	if !differs {
		return nil
	}
	return t.saveOwner(&next)
}

// filterOp puts the session's filter on record. Nothing but the committer writes the owner's file once the slave is open.
func (t *Tree) filterOp(op *slave.Op) error {
	next := t.owner
	next.SetFilter(op.Record)
	err := t.saveOwner(&next)
	if err == nil {
		t.owner = next
	}
	return err
}

func (t *Tree) saveOwner(next *slave.Owner) error {
	text, err := next.Text()
	if err != nil {
		return err
	}
	const temp = ownerFile + ".new"
	if err := t.sys.unlink(place{t.base, temp}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.writeNew(place{t.base, temp}, text, true); err != nil {
		return err
	}
	if err := t.sys.rename(place{t.base, temp}, place{t.base, ownerFile}, 0); err != nil {
		return err
	}
	return t.base.Fsync()
}

// writeNew makes a small file.
func (t *Tree) writeNew(p place, text []byte, durable bool) error {
	f, err := t.sys.create(p, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.sys.write(f, text, 0); err != nil {
		return err
	}
	if durable {
		return t.sys.fsync(f)
	}
	return nil
}

// maxSmall bounds our own files that are read as a whole: the names of one inode with a great many hard links.
const maxSmall = 16 << 20

// readSmall reads one of our own files.
func readSmall(d *beneath.Dir, name string) ([]byte, error) {
	f, err := d.OpenInode(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if slave.KindOf(st.Mode) != slave.File || st.Size > maxSmall {
		return nil, &fs.PathError{Op: "read", Path: name, Err: unix.EINVAL}
	}
	text := make([]byte, st.Size)
	for got := 0; got < len(text); {
		n, err := f.Read(text[got:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return text[:got], nil
		}
		got += n
	}
	return text, nil
}

// lookAround fills in what Info tells, and learns what a new file in staging is like.
func (t *Tree) lookAround(o Options) error {
	probe := t.stagingName()
	var f *beneath.Inode
	_, err := t.inRoom(func() (err error) {
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
	if t.fresh, err = shapeOf(f, st); err != nil {
		return err
	}
	if t.policy.FakeOwner {
		if err := t.sys.setxattr(f, slave.AttrStat, (&slave.Kept{Mode: st.Mode}).Text()); err != nil {
			return fmt.Errorf("the policy fake-owner needs xattrs of the user's namespace: %w", err)
		}
	}
	t.info = slave.Info{
		Version: o.Version, Namespace: t.names.Namespace, Root: t.root, Links: true, Path: t.info.Path, Slave: t.name,
		Filter:   t.owner.Filtered(),
		Identity: slave.Identity{BootID: bootID(), Ancestors: t.ancestors()},
	}
	t.readLimits(f)
	t.readRoom()
	for _, d := range []*beneath.Dir{t.parked, t.partial} {
		err := d.List(func(e beneath.Entry) error {
			t.info.Parked++
			if d == t.parked && slave.Kind(e.Type) == slave.Dir {
				t.parkedDir(e.Name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	marks, err := t.hasMarks()
	t.info.Settled = !marks
	return err
}

// bootID tells this run of this kernel from every other; "" where /proc does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// ancestors identifies the root and the directories above it, as far up as this process may look.
func (t *Tree) ancestors() []beneath.Identity {
	var all []beneath.Identity
	at, last := t.dir, beneath.Stat{}
	defer func() {
		if at != t.dir {
			at.Close()
		}
	}()
	for {
		st, err := at.Stat("")
		if err != nil || st.Ino == last.Ino && st.Dev == last.Dev {
			return all
		}
		id, err := at.Identity()
		if err != nil {
			return all
		}
		all, last = append(all, id), st
		fd, err := unix.Openat(at.Fd(), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return all
		}
		if at != t.dir {
			at.Close()
		}
		at = beneath.FromFd(fd, false)
	}
}
