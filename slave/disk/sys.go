package disk

import (
	"crypto/rand"
	"errors"
	"io/fs"

	"georep/internal/beneath"
	"georep/slave"
)

// place is one entry of an open directory. It stays the same entry's name when the directory is
// moved. The directory is not its to close.
type place struct {
	dir  *beneath.Dir
	name string
}

// sys makes every change to the slave's file system. hook, where a test set it, is asked before
// each: with the operation and the name it is about, or for a rename both as "old to new"; its
// error is the operation's. It is set before the first use and never changed. Nothing else in this
// package changes a file system, so a test that fails each call in turn meets every one of them.
type sys struct {
	hook func(op, name string) error
	// used counts what is made and removed; nil where the policy has no limits. It is set before the committer runs.
	used *usage
	// barrier is a directory of ours where a fresh file can be synced, for file systems whose other syncs mean nothing; nil before it
	// is open. It is set before the committer runs.
	barrier *beneath.Dir
}

// before asks the hook. The error looks like one of the system call, which is then not made.
func (s *sys) before(op, name string) error {
	if s.hook == nil {
		return nil
	}
	if err := s.hook(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// beforeXattr is before for a call on the xattr attr of i. The text of it is only made for a hook.
func (s *sys) beforeXattr(op, attr string, i *beneath.Inode) error {
	if s.hook == nil {
		return nil
	}
	return s.before(op+attr, i.Name())
}

// rename is the one call with two names to tell. What is replaced is counted off before it is gone,
// since afterwards nobody could say what it was.
func (s *sys) rename(from, to place, flags uint) error {
	if s.hook != nil {
		if err := s.before("rename", from.name+" to "+to.name); err != nil {
			return err
		}
	}
	gone := room{}
	if s.used != nil && flags == 0 {
		gone = s.used.replaced(from, to)
	}
	err := from.dir.Rename(from.name, to.dir, to.name, flags)
	if err == nil {
		s.used.give(gone)
		s.used.moved(from, to)
	}
	return err
}

// making makes what counts for r at p: it is counted before, and not if it is not made. A refusal
// by the policy comes before the call, as an ErrLimit.
func (s *sys) making(p place, r room, act func() error) error {
	if err := s.used.takeAt(p, r); err != nil {
		return err
	}
	err := act()
	if err != nil {
		s.used.giveAt(p, r)
	}
	return err
}

// removing removes what counts for gone.
func (s *sys) removing(gone room, act func() error) error {
	err := act()
	if err == nil {
		s.used.give(gone)
	}
	return err
}

// link gives the inode at from the further name to; a symbolic link is linked, not followed.
func (s *sys) link(from, to place) error {
	if err := s.before("link", to.name); err != nil {
		return err
	}
	err := s.making(to, room{entries: 1}, func() error { return from.dir.Link(from.name, to.dir, to.name) })
	if err == nil {
		s.used.moved(from, to)
	}
	return err
}

// unlink removes a name; a directory is EISDIR.
func (s *sys) unlink(p place) error {
	if err := s.before("unlink", p.name); err != nil {
		return err
	}
	return s.removing(s.used.leaving(p), func() error { return p.dir.Unlink(p.name) })
}

// unlinkBook is unlink for a bookkeeping file in a directory that was opened for this alone.
func (s *sys) unlinkBook(p place) error {
	if err := s.before("unlink", p.name); err != nil {
		return err
	}
	return s.removing(s.used.leavingBooks(p), func() error { return p.dir.Unlink(p.name) })
}

// rmdir removes an empty directory.
func (s *sys) rmdir(p place) error {
	if err := s.before("rmdir", p.name); err != nil {
		return err
	}
	return s.removing(s.used.leaving(p), func() error { return p.dir.Rmdir(p.name) })
}

// mkdir makes a directory. One that is there already is EEXIST also where the policy would refuse
// another.
func (s *sys) mkdir(p place, mode uint32) error {
	if err := s.before("mkdir", p.name); err != nil {
		return err
	}
	err := s.making(p, other, func() error { return p.dir.Mkdir(p.name, mode) })
	if errors.Is(err, slave.ErrLimit) {
		if _, there := p.dir.Stat(p.name); there == nil {
			return &fs.PathError{Op: "mkdir", Path: p.name, Err: fs.ErrExist} // as a full disk says
		}
	}
	return err
}

// mknod makes a node of the kind in mode.
func (s *sys) mknod(p place, mode uint32, rdev uint64) error {
	if err := s.before("mknod", p.name); err != nil {
		return err
	}
	return s.making(p, other, func() error { return p.dir.Mknod(p.name, mode, rdev) })
}

// symlink makes a link at p whose text is target, which may be any bytes.
func (s *sys) symlink(target string, p place) error {
	if err := s.before("symlink", p.name); err != nil {
		return err
	}
	return s.making(p, other, func() error { return p.dir.Symlink(target, p.name) })
}

// create makes a file that must not be there; the caller closes it.
func (s *sys) create(p place, mode uint32) (f *beneath.Inode, err error) {
	if err := s.before("create", p.name); err != nil {
		return nil, err
	}
	err = s.making(p, room{entries: 1}, func() error { f, err = p.dir.Create(p.name, mode); return err })
	return f, err
}

// write writes all of b or fails.
func (s *sys) write(i *beneath.Inode, b []byte, off int64) error {
	if err := s.before("write", i.Name()); err != nil {
		return err
	}
	if err := s.used.takeWritten(i, off, len(b)); err != nil {
		return err
	}
	_, err := i.WriteAt(b, off)
	return err
}

// truncate sets the size; what is added is a hole, and costs no blocks.
func (s *sys) truncate(i *beneath.Inode, size int64) error {
	if err := s.before("truncate", i.Name()); err != nil {
		return err
	}
	return i.Truncate(size)
}

// fsync makes content and attributes of one inode durable, and nothing of its names.
func (s *sys) fsync(i *beneath.Inode) error {
	if err := s.before("fsync", i.Name()); err != nil {
		return err
	}
	return i.Fsync()
}

// fsyncDir makes the names in one of our own directories durable, and what of an inode is made together with its name.
func (s *sys) fsyncDir(d *beneath.Dir, name string) error {
	if err := s.before("fsync", name); err != nil {
		return err
	}
	if err := d.Fsync(); err != nil {
		return err
	}
	return s.syncServed(d)
}

// syncfs makes durable whatever was written to the file system of d before the call. Since Linux 5.8 it also tells of
// writes that failed in the background since d was opened.
func (s *sys) syncfs(d *beneath.Dir) error {
	if err := s.before("syncfs", ""); err != nil {
		return err
	}
	if err := d.Syncfs(); err != nil {
		return err
	}
	return s.syncServed(d)
}

// syncServed makes names and attributes durable where another program or host serves the file system of d: there syncfs and the fsync
// of a directory succeed without having reached the disk, and only the fsync of a file does reach it. The journal behind it takes
// what was done before along, so one fresh file is enough. Contents are not in a journal: see syncStaged.
func (s *sys) syncServed(d *beneath.Dir) error {
	if !beneath.Opaque(d) || s.barrier == nil {
		return nil
	}
	fresh := place{s.barrier, "sync-" + rand.Text()}
	f, err := s.create(fresh, 0o600)
	if err != nil {
		return err
	}
	err = s.fsync(f)
	return errors.Join(err, f.Close(), s.unlink(fresh))
}

// chown sets both ids; minus one leaves one as it is. The kernel takes set-id bits off a file then.
func (s *sys) chown(i *beneath.Inode, uid, gid uint32) error {
	if err := s.before("chown", i.Name()); err != nil {
		return err
	}
	return i.Chown(uid, gid)
}

// chmod sets the permission bits, 07777.
func (s *sys) chmod(i *beneath.Inode, mode uint32) error {
	if err := s.before("chmod", i.Name()); err != nil {
		return err
	}
	return i.Chmod(mode)
}

// setMtime sets the modification time to the nanosecond, as far as the file system keeps it.
func (s *sys) setMtime(i *beneath.Inode, t beneath.Time) error {
	if err := s.before("utimens", i.Name()); err != nil {
		return err
	}
	return i.SetMtime(t)
}

// setxattr sets an attribute, whether or not it is there.
func (s *sys) setxattr(i *beneath.Inode, attr string, value []byte) error {
	if err := s.beforeXattr("setxattr ", attr, i); err != nil {
		return err
	}
	return i.Setxattr(attr, value)
}

// removexattr is ENODATA where it is not there.
func (s *sys) removexattr(i *beneath.Inode, attr string) error {
	if err := s.beforeXattr("removexattr ", attr, i); err != nil {
		return err
	}
	return i.Removexattr(attr)
}
