package beneath

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

// Time is a file time as the kernel keeps it: seconds since the epoch, which may be negative, and nanoseconds.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Stat is what statx tells of an entry. It is a copy, true at the moment of the call.
type Stat struct {
	Mode   uint32 // type and permission bits, as st_mode
	UID    uint32
	GID    uint32
	Nlink  uint32
	Size   int64
	Blocks uint64 // of 512 bytes
	Ino    uint64
	Dev    uint64
	Rdev   uint64
	// Mtime is the content's, Ctime the inode's last change of any kind, which nobody can set; Btime is zero where
	// the file system keeps none.
	Mtime Time
	Ctime Time
	Btime Time
	Attrs uint64 // STATX_ATTR_*
	// MountID tells mounts of one file system apart.
	MountID uint64
}

// Fixed tells whether the entry refuses any change, marks among them: it is immutable or append-only.
func (s *Stat) Fixed() bool {
	return s.Attrs&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
}

// IsMount tells whether the entry is the root of a mount: what is described is not what lies in the directory, but what hides it.
func (s *Stat) IsMount() bool { return s.Attrs&unix.STATX_ATTR_MOUNT_ROOT != 0 }

// IsDir tells whether the entry is a directory.
func (s *Stat) IsDir() bool { return s.Mode&unix.S_IFMT == unix.S_IFDIR }

// Number is one number of the two that identify a living inode. On the device dev it is the inode's own.
func (s *Stat) Number(dev uint64) uint64 { return s.Ino ^ (s.Dev-dev)*0x9e3779b97f4a7c15 }

// Stat describes the entry name, or d itself where name is "". Symbolic links are described, not followed.
func (d *Dir) Stat(name string) (Stat, error) {
	if err := d.ask("stat", name); err != nil {
		return Stat{}, pathError("stat", name, err)
	}
	st, err := statAt(d.fd, name, d.lookFlags)
	if err == nil && d.restat != nil {
		d.restat(&st)
	}
	return st, err
}

// Access tells whether this process may do what mode asks (R_OK, W_OK, X_OK of access(2)) with the entry name, or with d
// itself where name is "". It is not asked of Hook: it tells how things are, where another call failed.
func (d *Dir) Access(name string, mode uint32) error {
	flags := unix.AT_EACCESS | unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return pathError("access", name, retry(func() error { return unix.Faccessat(d.fd, name, mode, flags) }))
}

// StatFd describes the open file fd.
func StatFd(fd int) (Stat, error) { return statAt(fd, "", 0) }

// lookFlags gives the flags of statx for what lies on the file system of fd. Only where that is known
// to be local, what the kernel knows is the truth: any other may have to be asked what another host has written. Under FUSE each
// name of an inode may have attributes of its own in the cache, so that the daemon is always asked.
func lookFlags(fd int) int {
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &fs) }); err != nil {
		return 0
	}
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC:
		return unix.AT_STATX_DONT_SYNC
	}
	if opaque(uint32(fs.Type)) {
		return unix.AT_STATX_FORCE_SYNC
	}
	return 0
}

// statAt is statx of the entry name, or of fd itself, with more flags. It triggers no automount.
func statAt(fd int, name string, more int) (Stat, error) {
	var x unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | more
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	mask := unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID
	if err := retry(func() error { return unix.Statx(fd, name, flags, mask, &x) }); err != nil {
		return Stat{}, pathError("stat", name, err)
	}
	return Stat{
		Mode: uint32(x.Mode), UID: x.Uid, GID: x.Gid, Nlink: x.Nlink, Size: int64(x.Size), Blocks: x.Blocks,
		Ino: x.Ino, Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Rdev: unix.Mkdev(x.Rdev_major, x.Rdev_minor),
		Mtime: fileTime(x.Mtime), Ctime: fileTime(x.Ctime), Btime: fileTime(x.Btime),
		Attrs: x.Attributes, MountID: x.Mnt_id,
	}, nil
}

func fileTime(t unix.StatxTimestamp) Time { return Time{Sec: t.Sec, Nsec: t.Nsec} }

// atHandleFid asks for a handle that only identifies (Linux 6.5): file systems without NFS export give one too.
const atHandleFid = 0x200

// Handle returns the file handle of the entry name ("" for d itself): its type and bytes, which together identify the
// inode on its file system for as long as it lives. The error is EOPNOTSUPP where the file system has none that last.
func (d *Dir) Handle(name string) (unix.FileHandle, error) {
	if Opaque(d) {
		return unix.FileHandle{}, pathError("handle", name, unix.EOPNOTSUPP)
	}
	return anyHandle(d, name)
}

// anyHandle is Handle, and gives handles of a cache too.
func anyHandle(d *Dir, name string) (unix.FileHandle, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := d.ask("handle", name); err != nil {
		return unix.FileHandle{}, pathError("handle", name, err)
	}
	h, _, err := unix.NameToHandleAt(d.fd, name, flags)
	if err == unix.EOPNOTSUPP {
		h, _, err = unix.NameToHandleAt(d.fd, name, flags|atHandleFid)
		if err == unix.EINVAL {
			err = unix.EOPNOTSUPP
		}
	}
	return h, pathError("handle", name, err)
}

// GFID identifies the inode of the entry name ("" for d itself): a digest of its file handle, or of inode number and
// birth time on file systems without handles. The same inode always gives the same GFID; a new inode that reuses the
// number gives another, except on file systems that keep no birth time. The error is ErrMadeUp where nothing identifies it.
func (d *Dir) GFID(name string) (xtime.GFID, error) {
	if Opaque(d) {
		return servedGFID(d, name)
	}
	h, err := d.Handle(name)
	if err == nil {
		return HandleGFID(h.Type(), h.Bytes()), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EOVERFLOW) {
		return xtime.GFID{}, err
	}
	st, err := d.Stat(name)
	if err != nil {
		return xtime.GFID{}, err
	}
	return inodeGFID(st), nil
}

// HandleGFID is the GFID of the inode with that file handle.
func HandleGFID(kind int32, handle []byte) xtime.GFID {
	b := make([]byte, 0, 64)
	b = append(b, "handle\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	return digest(append(b, handle...))
}

// inodeGFID is for file systems without handles. A number that is used again has another birth time.
func inodeGFID(st Stat) xtime.GFID {
	b := append(make([]byte, 0, 64), "inode\x00"...)
	b = binary.BigEndian.AppendUint64(b, st.Ino)
	b = binary.BigEndian.AppendUint64(b, uint64(st.Btime.Sec))
	return digest(binary.BigEndian.AppendUint32(b, st.Btime.Nsec))
}

// digest makes 16 bytes of any length; the prefix keeps handles and inode numbers apart.
func digest(b []byte) xtime.GFID {
	sum := sha256.Sum256(b)
	return xtime.GFID(sum[:16])
}

// Identity is what a root is recognised by.
type Identity struct {
	GFID xtime.GFID
	FSID string // statfs's f_fsid, hexadecimal
}

// Identity tells what d is, wherever it is mounted.
func (d *Dir) Identity() (Identity, error) {
	g, err := rootGFID(d)
	if err != nil {
		return Identity{}, err
	}
	fs, err := d.Statfs()
	if err != nil {
		return Identity{}, err
	}
	return Identity{GFID: g, FSID: fmt.Sprintf("%08x%08x", uint32(fs.Fsid.Val[0]), uint32(fs.Fsid.Val[1]))}, nil
}

// rootGFID is GFID of d itself, or what is next to it where that is ErrMadeUp: a slave there is told from other directories by it, as
// long as it is mounted.
func rootGFID(d *Dir) (xtime.GFID, error) {
	g, err := d.GFID("")
	if !errors.Is(err, ErrMadeUp) {
		return g, err
	}
	st, err := d.Stat("")
	return inodeGFID(st), err
}

// Statfs describes the file system of d.
func (d *Dir) Statfs() (unix.Statfs_t, error) {
	var fs unix.Statfs_t
	err := d.ask("statfs", "")
	if err == nil {
		err = retry(func() error { return unix.Fstatfs(d.fd, &fs) })
	}
	return fs, pathError("statfs", d.proc, err)
}
