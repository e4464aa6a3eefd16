package strip

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// Names in .georep: what says whose it is, what an agent locks, and what a session by SFTP writes anew every few seconds.
const (
	ownerName = "owner"
	lockName  = "lock"
	leaseName = "lease"
)

// leaseDead is how old a lease is at least that nobody holds any more.
const leaseDead = time.Minute

// Base is .georep of a slave, or that there is none. While it is held no agent opens the slave.
// root and dir are opened so that no name leads out of them.
type Base struct {
	root, dir *os.Root
	lock      *os.File // nil where there is no .georep
}

// Hold takes .georep of the slave at path. It fails with ErrInUse, wrapped, where a session has it
// open, and where what has that name is not georep's. Nothing is changed but the lock file that may
// be made. The caller closes what it gives, after Remove or instead of it.
func Hold(path string) (*Base, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	b := &Base{root: root}
	at, err := root.Lstat(slave.Reserved)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = b.open(at)
	}
	if err == nil {
		err = b.take()
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("%s in %s: %w", slave.Reserved, path, err)
	}
	return b, nil
}

// open opens the directory, which may be no link to another one. The owner's file is what shows
// that georep made it; a directory of that name with anything else in it is somebody's own.
func (b *Base) open(at fs.FileInfo) (err error) {
	if !at.IsDir() {
		return errors.New("is no directory, and so not georep's")
	}
	if b.dir, err = b.root.OpenRoot(slave.Reserved); err != nil {
		return err
	}
	is, err := b.dir.Stat(".")
	if err == nil && !os.SameFile(at, is) {
		err = errors.New("was replaced meanwhile")
	}
	if err != nil {
		return err
	}
	names, err := b.list()
	ours := func(name string) bool { return name == ownerName || name == lockName }
	if err == nil && len(names) > 0 && !slices.ContainsFunc(names, ours) {
		err = fmt.Errorf("is not georep's: %q is there, and no owner", names[0])
	}
	return err
}

// list gives the names in .georep, in no order.
func (b *Base) list() ([]string, error) {
	f, err := b.dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// take takes the lock of agents, and looks at the lease of sessions by SFTP, which have no locks.
// The lock is made where it is missing, so that an agent that comes later finds it held. A lease
// whose holder has died is free after leaseDead.
func (b *Base) take() (err error) {
	if b.lock, err = b.dir.OpenFile(lockName, os.O_RDONLY|os.O_CREATE|unix.O_NONBLOCK, 0o600); err != nil {
		return err
	}
	err = unix.Flock(int(b.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: a session has the slave open; stop it on its master", ErrInUse)
	}
	if err != nil {
		return err
	}
	lease, err := b.dir.Lstat(leaseName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && time.Since(lease.ModTime()) < leaseDead {
		err = fmt.Errorf("%w: a session by SFTP had the slave open within the last minute; stop it on its master, and try again", ErrInUse)
	}
	return err
}

// Remove removes it, with what was deleted and is still kept there. What says whose the slave is
// goes last, so that it can be called again where it was cut short. An error leaves the rest in
// place, the lock held, and the owner's file there: it is still georep's directory.
func (b *Base) Remove() error {
	if b.lock == nil {
		return nil
	}
	names, err := b.list()
	if err != nil {
		return fmt.Errorf("remove georep's own directory: %w", err)
	}
	dir, err := b.beneath()
	if err != nil {
		return fmt.Errorf("remove georep's own directory: %w", err)
	}
	defer dir.Close()
	last := []string{ownerName, lockName}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(last, name) })
	r := &remover{base: dir}
	for _, name := range append(names, last...) {
		if err := r.remove(name); err != nil {
			return fmt.Errorf("remove georep's own directory: %w", err)
		}
	}
	if err := b.root.Remove(slave.Reserved); err != nil {
		return fmt.Errorf("remove georep's own directory: %w", err)
	}
	return nil
}

// beneath opens the directory anew, to remove what is in it. It crosses no mount, and there may be
// none, before anything is removed. Mounts are refused altogether, since what is in them would be
// removed, too.
func (b *Base) beneath() (*beneath.Dir, error) {
	f, err := b.dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := beneath.FromFd(fd, true)
	st, err := d.Stat("")
	if err == nil && st.IsMount() {
		err = errors.New("it is a mount: unmount that, and try again")
	}
	var mounts []string
	if err == nil {
		mounts, err = mountsIn(d)
	}
	if err == nil && len(mounts) > 0 {
		err = mounted(mounts[0])
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// mountsIn gives what is mounted below d, by the kernel's own table.
func mountsIn(d *beneath.Dir) ([]string, error) {
	table, err := beneath.OpenMountTable()
	if err != nil {
		return nil, err
	}
	defer table.Close()
	return table.Below(d)
}

// mounted is the error for that; path says where, and the operator unmounts it.
func mounted(path string) error {
	return fmt.Errorf("something is mounted on %q in it: unmount that, and try again", path)
}

// Close lets the slave go. It does not remove anything, and may be called after Remove.
func (b *Base) Close() {
	if b.lock != nil {
		b.lock.Close()
	}
	if b.dir != nil {
		b.dir.Close()
	}
	b.root.Close()
}
