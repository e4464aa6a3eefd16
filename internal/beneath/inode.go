package beneath

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Inode is an entry to be changed: through its descriptor where Create opened it, else by its name in a directory,
// never following it. It has one user at a time. The Dir it came from must stay open as long as it is used.
type Inode struct {
	dir  *Dir
	name string
	as   string // what Name tells, where that is not name
	fd   int    // -1 where it is not open
}

// At is the entry name of d, or d itself where name is "". Nothing is opened, and there is nothing to close.
func (d *Dir) At(name string) *Inode { return &Inode{dir: d, name: name, fd: -1} }

// Create makes the regular file name, which must not be there, and opens it for writing. The caller closes it.
func (d *Dir) Create(name string, mode uint32) (*Inode, error) {
	return d.openInode(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
}

// OpenUnnamed makes a file that has no name in d, and never gets one, and opens it for writing. The caller closes it, with
// which it is gone.
func (d *Dir) OpenUnnamed() (*Inode, error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, pathError("open", "", err)
	}
	return &Inode{dir: d, fd: fd}, nil
}

// OpenInode opens the existing entry name for reading, never through a symbolic link and never waiting for a FIFO's
// other end. The caller closes it.
func (d *Dir) OpenInode(name string) (*Inode, error) { return d.openInode(name, unix.O_RDONLY, 0) }

// OpenQuietly is OpenInode that leaves the access time alone where the kernel lets us (owner or root).
func (d *Dir) OpenQuietly(name string) (*Inode, error) {
	i, err := d.openInode(name, unix.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		i, err = d.openInode(name, unix.O_RDONLY, 0)
	}
	return i, err
}

// OpenWrite opens the existing regular file name for reading and writing, as OpenInode does.
func (d *Dir) OpenWrite(name string) (*Inode, error) { return d.openInode(name, unix.O_RDWR, 0) }

func (d *Dir) openInode(name string, flags int, mode uint32) (*Inode, error) {
	if !ValidName(name) {
		return nil, pathError("open", name, unix.EINVAL)
	}
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := d.openat(name, flags, mode)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &Inode{dir: d, name: name, fd: fd}, nil
}

// As has Name tell another name: that of an entry which was pinned, and is reached as the Dir itself.
func (i *Inode) As(name string) *Inode {
	i.as = name
	return i
}

// Name is the name the Inode was made with, or that of As.
func (i *Inode) Name() string {
	if i.as != "" {
		return i.as
	}
	return i.name
}

// Place is where the Inode is reached: the name is "" for the directory itself, and for what is pinned.
func (i *Inode) Place() (d *Dir, name string) { return i.dir, i.name }

// Close closes what Create or OpenInode opened. Afterwards the Inode is reached by its name.
func (i *Inode) Close() error {
	if i.fd < 0 {
		return nil
	}
	fd := i.fd
	i.fd = -1
	return pathError("close", i.name, unix.Close(fd))
}

// WriteAt writes all of b at off.
func (i *Inode) WriteAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := retryInt(func() (int, error) { return unix.Pwrite(i.fd, b[done:], off+int64(done)) })
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return done, pathError("write", i.name, err)
		}
		done += n
	}
	return done, nil
}

// ReadAt reads up to len(b) bytes at off; fewer, without an error, only at the end of the file.
func (i *Inode) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := i.pread(b[done:], off+int64(done))
		if err != nil {
			return done, pathError("read", i.name, err)
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// ReadUpTo is ReadAt in one system call, where a regular file gives less only at its end.
func (i *Inode) ReadUpTo(b []byte, off int64) (int, error) {
	n, err := i.pread(b, off)
	return max(n, 0), pathError("read", i.name, err)
}

// pread is one system call.
func (i *Inode) pread(b []byte, off int64) (int, error) {
	if err := i.dir.ask("read", i.name); err != nil {
		return 0, err
	}
	return retryInt(func() (int, error) { return unix.Pread(i.fd, b, off) })
}

// Extent finds the next run of data [start, end) of an open file at or behind off. It is never empty, so that a loop over runs
// ends: data may be taken out between the two looks, and a device answers 0 to each. The error is ENXIO where none follows.
func (i *Inode) Extent(off int64) (start, end int64, err error) {
	seek := func(off int64, whence int) (at int64, err error) {
		err = retry(func() error { at, err = unix.Seek(i.fd, off, whence); return err })
		return at, pathError("seek", i.name, err)
	}
	if start, err = seek(off, unix.SEEK_DATA); err != nil {
		return 0, 0, err
	}
	end, err = seek(start, unix.SEEK_HOLE)
	start = max(start, off)
	return start, max(end, start+1), err
}

// CopyFrom copies n bytes at from in src to off, sharing blocks where the file system can. It is an error (EIO) if src
// ends before.
func (i *Inode) CopyFrom(src *Inode, from, off, n int64) error {
	for n > 0 {
		done, err := retryInt(func() (int, error) {
			return unix.CopyFileRange(src.fd, &from, i.fd, &off, int(min(n, 1<<30)), 0)
		})
		switch {
		case err == unix.EXDEV || err == unix.EINVAL || err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return i.copyThrough(src, from, off, n)
		case err != nil:
			return pathError("copy", i.name, err)
		case done <= 0:
			return pathError("copy", i.name, unix.EIO)
		}
		n -= int64(done) // from and off were advanced by the call
	}
	return nil
}

// copyThrough is CopyFrom where the kernel does not do it.
func (i *Inode) copyThrough(src *Inode, from, off, n int64) error {
	buf := make([]byte, min(n, 256<<10))
	for n > 0 {
		k, err := src.ReadAt(buf[:min(n, int64(len(buf)))], from)
		if err == nil && k == 0 {
			err = pathError("copy", i.name, unix.EIO)
		}
		if err != nil {
			return err
		}
		if _, err := i.WriteAt(buf[:k], off); err != nil {
			return err
		}
		from, off, n = from+int64(k), off+int64(k), n-int64(k)
	}
	return nil
}

// Clear makes [off, off+n) of an open file read as zeros, as a hole where the file system can.
func (i *Inode) Clear(off, n int64) error {
	err := retry(func() error {
		return unix.Fallocate(i.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return pathError("punch hole", i.name, err)
	}
	st, err := i.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for end := min(off+n, st.Size); off < end; {
		k, err := i.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}

// Read reads from where the last Read ended; 0 without an error is the end.
func (i *Inode) Read(b []byte) (int, error) {
	if err := i.dir.ask("read", i.name); err != nil {
		return 0, pathError("read", i.name, err)
	}
	n, err := retryInt(func() (int, error) { return unix.Read(i.fd, b) })
	return max(n, 0), pathError("read", i.name, err)
}

// Truncate sets the length of an open file.
func (i *Inode) Truncate(size int64) error {
	return i.do("truncate", func() error { return unix.Ftruncate(i.fd, size) })
}

// Fsync writes an open file to its device.
func (i *Inode) Fsync() error { return i.do("fsync", func() error { return unix.Fsync(i.fd) }) }

// Stat describes the entry.
func (i *Inode) Stat() (Stat, error) {
	if i.fd < 0 {
		return i.dir.Stat(i.name)
	}
	if err := i.dir.ask("stat", i.name); err != nil {
		return Stat{}, pathError("stat", i.name, err)
	}
	return StatFd(i.fd)
}

// Chown sets the owner. 1<<32-1 leaves one of the two as it is.
func (i *Inode) Chown(uid, gid uint32) error {
	if i.fd < 0 {
		return i.dir.Chown(i.name, uid, gid)
	}
	return i.do("chown", func() error { return unix.Fchown(i.fd, int(uid), int(gid)) })
}

// Chmod sets the permission bits (07777).
func (i *Inode) Chmod(mode uint32) error {
	if i.fd < 0 {
		return i.dir.Chmod(i.name, mode)
	}
	return i.do("chmod", func() error { return unix.Fchmod(i.fd, mode) })
}

// SetMtime sets the modification time; the access time stays.
func (i *Inode) SetMtime(t Time) error {
	if i.fd < 0 {
		return i.dir.SetMtime(i.name, t)
	}
	ts := fileTimes(i.dir, t)
	err := i.do("utimens", func() error { return unix.UtimesNanoAt(i.fd, "", ts, unix.AT_EMPTY_PATH) })
	if errors.Is(err, unix.EINVAL) { // kernels before 5.8
		return i.dir.SetMtime(i.name, t)
	}
	return err
}

// Setxattr sets an xattr.
func (i *Inode) Setxattr(attr string, value []byte) error {
	if i.fd < 0 {
		return i.dir.Setxattr(i.name, attr, value)
	}
	if err := retry(func() error { return fsetxattr(i.fd, attr, value) }); err != nil {
		return pathError("setxattr "+attr, i.name, err)
	}
	return nil
}

// Removexattr removes an xattr; ENODATA where there is none.
func (i *Inode) Removexattr(attr string) error {
	if i.fd < 0 {
		return i.dir.Removexattr(i.name, attr)
	}
	return i.do("removexattr "+attr, func() error { return unix.Fremovexattr(i.fd, attr) })
}

// Listxattr lists the xattr names. A file system without xattrs gives none.
func (i *Inode) Listxattr() ([]string, error) {
	if i.fd < 0 {
		return i.dir.Listxattr(i.name)
	}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := retryInt(func() (int, error) { return unix.Flistxattr(i.fd, buf) })
	if err == unix.EOPNOTSUPP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, pathError("listxattr", i.name, err)
	}
	return attrNames(buf[:n]), nil
}

// XattrBytes is what its xattrs come to, names and values, without those that skip tells.
func (i *Inode) XattrBytes(skip func(attr string) bool) (n int64, err error) {
	attrs, err := i.Listxattr()
	if err != nil {
		return 0, err
	}
	for _, attr := range attrs {
		if skip(attr) {
			continue
		}
		size := 0
		if i.fd < 0 {
			size, err = i.dir.GetxattrInto(i.name, attr, nil)
		} else {
			size, err = retryInt(func() (int, error) { return unix.Fgetxattr(i.fd, attr, nil) })
		}
		if err != nil {
			return 0, pathError("getxattr "+attr, i.name, err)
		}
		n += int64(len(attr) + size)
	}
	return n, nil
}

// do is for calls on the descriptor. They are not asked of Dir.Hook.
func (i *Inode) do(op string, call func() error) error { return pathError(op, i.name, retry(call)) }

// Flush writes what is in memory of an open file to its device, and waits; its metadata may follow later. A page that
// somebody has mapped is not writable any more when it returns, so that the next write to it is seen by the file system.
func (i *Inode) Flush() error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return i.do("flush", func() error { return unix.SyncFileRange(i.fd, 0, 0, all) })
}

// StartFlush begins to write a range of an open file to its device, without waiting. It promises nothing.
func (i *Inode) StartFlush(off, n int64) {
	_ = unix.SyncFileRange(i.fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}
