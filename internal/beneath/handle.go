package beneath

import (
	"cmp"
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

// HandleKey is a file handle as a comparable value: its type (4 bytes in the machine's order), then its bytes. It
// identifies an inode within one file system. The empty key is none.
type HandleKey string

// MakeHandleKey builds the key of a handle.
func MakeHandleKey(kind int32, handle []byte) HandleKey {
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, 4+len(handle)), uint32(kind))
	return HandleKey(append(b, handle...))
}

// GFID is that of the inode with this handle.
func (k HandleKey) GFID() xtime.GFID {
	if len(k) < 4 {
		return xtime.GFID{}
	}
	return HandleGFID(int32(binary.NativeEndian.Uint32([]byte(k[:4]))), []byte(k[4:]))
}

// Key is the HandleKey of the entry name, or of d itself where name is "". Errors are those of Handle.
func (d *Dir) Key(name string) (HandleKey, error) {
	h, err := d.Handle(name)
	if err != nil {
		return "", err
	}
	return MakeHandleKey(h.Type(), h.Bytes()), nil
}

// OpenKey opens the directory with that handle, wherever it lies on d's file system: it is NOT confined beneath d, so
// the caller has to prove where it lies. It needs CAP_DAC_READ_SEARCH, and d must come from OpenRoot or OpenDir. A
// directory that is gone gives ESTALE; an inode of another type ENOTDIR. The caller closes the result, which serves for
// operations on entries, not for listing.
func (d *Dir) OpenKey(k HandleKey) (*Dir, error) {
	if len(k) < 4 {
		return nil, pathError("open handle", "", unix.EINVAL)
	}
	h := unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(k[:4]))), []byte(k[4:]))
	fd, err := d.openHandle(h, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, pathError("open handle", "", err)
	}
	return d.opened(fd), nil
}

// openHandle opens the inode with the handle h; d only names the file system.
func (d *Dir) openHandle(h unix.FileHandle, flags int) (int, error) {
	if err := d.ask("open handle", ""); err != nil {
		return -1, err
	}
	return retryInt(func() (int, error) { return unix.OpenByHandleAt(d.fd, h, flags) })
}

// Parent opens the directory that d lies in, which may lie outside any root: the caller decides where to stop. The
// root of a mount gives EXDEV; the root of all is its own parent. The caller closes the result, which serves for
// operations on entries, not for listing.
func (d *Dir) Parent() (*Dir, error) {
	if err := d.ask("open parent", ""); err != nil {
		return nil, pathError("open parent", "", err)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(d.fd, "..", &how)
		if err == nil {
			return d.opened(fd), nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return nil, pathError("open parent", "", err)
		}
	}
}

// PinKey holds on to the inode with that handle, of any type and under whatever name it is, as Pin does by name. It is NOT
// confined beneath d. Needs and errors are those of OpenKey; an inode that is gone gives ESTALE.
func (d *Dir) PinKey(k HandleKey) (*Dir, error) {
	if len(k) < 4 {
		return nil, pathError("open handle", "", unix.EINVAL)
	}
	h := unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(k[:4]))), []byte(k[4:]))
	fd, err := d.openHandle(h, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return nil, pathError("open handle", "", err)
	}
	inode := d.opened(fd)
	inode.oneFS = false
	return inode, nil
}

// SetXtimeOfKey writes the xtime of the inode with that handle. It is NOT confined beneath d. Needs and errors are those
// of PinKey.
func (d *Dir) SetXtimeOfKey(k HandleKey, names *xtime.Names, t xtime.Time) error {
	inode, err := d.PinKey(k)
	if err != nil {
		return err
	}
	defer inode.Close()
	return inode.SetXtime("", names, t)
}

// LastName is the name under which the kernel last knew d, or what Pin holds, in the directory that it lies in: advice,
// since it may have others, or have moved by now. "" if it is not known.
func (d *Dir) LastName() string {
	if _, name := Split(d.lastPath()); ValidName(name) {
		return name
	}
	return ""
}

// LastPathOf is the path below d under which the kernel last knew inode, which Pin or PinKey gave: advice, as LastName is.
// "" if it is not known, or not below d.
func (d *Dir) LastPathOf(inode *Dir) string { return d.Below(inode.lastPath()) }

// Below is what of an absolute path lies below the path under which the kernel last knew d: advice, as LastName is. "" if it
// does not.
func (d *Dir) Below(path string) string {
	top := strings.TrimSuffix(d.lastPath(), "/")
	if rest, below := strings.CutPrefix(path, top+"/"); below && ValidPath(rest) {
		return rest
	}
	return ""
}

// PathFrom is where the entry name of d, or d itself, lies below top, for people: advice, as LastName is. "." is top itself;
// what does not lie below top has its whole path.
func (d *Dir) PathFrom(top *Dir, name string) string {
	path, above := d.lastPath(), top.lastPath()
	if path == above {
		path = ""
	} else if rest, below := strings.CutPrefix(path, strings.TrimSuffix(above, "/")+"/"); below {
		path = rest
	}
	if name != "" {
		path = Join(path, name)
	}
	return cmp.Or(path, ".")
}

// LastPathHolds tells whether the path under which the kernel last knew d, or what Pin holds, leads to it still, wherever
// that is.
func (d *Dir) LastPathHolds() bool {
	var here, there unix.Stat_t
	return unix.Fstat(d.fd, &here) == nil && unix.Lstat(d.lastPath(), &there) == nil && here.Dev == there.Dev && here.Ino == there.Ino
}

// lastPath is what the kernel's cache of names says, with " (deleted)" behind it where the name is gone; "" where
// /proc cannot be read.
func (d *Dir) lastPath() string {
	path, err := os.Readlink(d.proc)
	if err != nil {
		return ""
	}
	return path
}
