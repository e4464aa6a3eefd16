package beneath

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mkdir makes a directory. The process's umask takes bits off mode, here and in Mknod: who wants exact bits sets them
// with Chmod.
func (d *Dir) Mkdir(name string, mode uint32) error {
	return d.do("mkdir", name, func() error { return unix.Mkdirat(d.fd, name, mode) })
}

// Mknod makes a FIFO, socket or device; mode has the type bits.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	return d.do("mknod", name, func() error { return unix.Mknodat(d.fd, name, mode, int(rdev)) })
}

// Symlink makes a symbolic link to target.
func (d *Dir) Symlink(target, name string) error {
	return d.do("symlink", name, func() error { return unix.Symlinkat(target, d.fd, name) })
}

// Readlink returns what the symbolic link name points to.
func (d *Dir) Readlink(name string) (string, error) {
	// A target is shorter than PATH_MAX, so this holds any.
	buf := make([]byte, 4096)
	n, err := retryInt(func() (int, error) { return unix.Readlinkat(d.fd, name, buf) })
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return string(buf[:n]), nil
}

// Link gives the inode at oldName a further name below to. A symbolic link gets the further name itself.
func (d *Dir) Link(oldName string, to *Dir, name string) error {
	return d.do("link", name, func() error { return unix.Linkat(d.fd, oldName, to.fd, name, 0) })
}

// Rename moves oldName to name below to; flags are RENAME_* of renameat2.
func (d *Dir) Rename(oldName string, to *Dir, name string, flags uint) error {
	return d.do("rename", name, func() error { return unix.Renameat2(d.fd, oldName, to.fd, name, flags) })
}

// Unlink removes a name that is not a directory.
func (d *Dir) Unlink(name string) error {
	return d.do("unlink", name, func() error { return unix.Unlinkat(d.fd, name, 0) })
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	return d.do("rmdir", name, func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

// Chown sets the owner of the entry name, or of d itself where name is "".
func (d *Dir) Chown(name string, uid, gid uint32) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	return d.do("chown", name, func() error { return unix.Fchownat(d.fd, name, int(uid), int(gid), flags) })
}

// Chmod sets the permission bits (07777) of the entry name, or of d itself where name is "". A symbolic link gives
// EOPNOTSUPP.
func (d *Dir) Chmod(name string, mode uint32) error {
	if name == "" {
		return d.do("chmod", name, func() error { return unix.Fchmodat(unix.AT_FDCWD, d.proc, mode, 0) })
	}
	err := retry(func() error { return unix.Fchmodat(d.fd, name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return pathError("chmod", name, err)
	}
	return pathError("chmod", name, d.chmodByFd(name, mode))
}

// chmodByFd is Chmod for kernels before 6.6, which lack fchmodat2.
func (d *Dir) chmodByFd(name string, mode uint32) error {
	fd, err := retryInt(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode) })
}

// SetMtime sets the modification time of the entry name, or of d itself where name is ""; the access time stays.
func (d *Dir) SetMtime(name string, t Time) error {
	ts := fileTimes(d, t)
	if name == "" {
		return d.do("utimens", name, func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, d.proc, ts, 0) })
	}
	return d.do("utimens", name, func() error {
		return unix.UtimesNanoAt(d.fd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// fileTimes are the arguments of utimensat(2) that set the mtime. Daemons of FUSE have been met that do nothing at all, and say that
// they did, where the atime is to be left alone (bindfs 1.14.7): it is set as well there.
func fileTimes(d *Dir, t Time) []unix.Timespec {
	mtime := unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	if Opaque(d) {
		return []unix.Timespec{mtime, mtime}
	}
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
}

// Syncfs writes the whole file system of d to its device. It returns when that, also
// what others wrote there, is on the device, or with an error that the device gave meanwhile.
func (d *Dir) Syncfs() error {
	// An O_PATH descriptor cannot be synced, so this is for directories from OpenDir and OpenRoot.
	return d.do("syncfs", "", func() error { return unix.Syncfs(d.fd) })
}

// Fsync writes the names of d to its device.
func (d *Dir) Fsync() error {
	return d.do("fsync", "", func() error { return unix.Fsync(d.fd) })
}

// do makes the call unless the hook has it fail, and names operation and entry in the error.
func (d *Dir) do(op, name string, call func() error) error {
	if err := d.ask(op, name); err != nil {
		return pathError(op, name, err)
	}
	return pathError(op, name, retry(call))
}
