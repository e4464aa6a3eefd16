package beneath

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Dir is a directory held open. Its methods may be called from any goroutine, except List, of which one may run at a
// time. Close is the owner's; using a closed Dir gives EBADF.
type Dir struct {
	// fd is closed once, by Close; it may be an O_PATH descriptor, which lists and syncs nothing.
	fd      int
	proc    string // "/proc/self/fd/N": how what has no system call of its own is reached without following the entry
	oneFS   bool
	xattrAt bool // the kernel has getxattrat and the like
	// lookFlags are statx's: of entries of a local file system nothing has to be fetched, and so a file system that is mounted
	// on one, and may never answer, is not asked.
	lookFlags int
	// hook is nil but in tests; what is opened from d inherits it, oneFS and xattrAt.
	hook func(op, name string) error
	// restat is nil but in tests, and inherited like hook.
	restat func(*Stat)
	once   sync.Once
}

// OpenRoot opens the directory at path, following symbolic links in it. With oneFS nothing below it is reached across
// a mount point: the attempt gives EXDEV.
func OpenRoot(path string, oneFS bool) (*Dir, error) {
	fd, err := retryInt(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, pathError("open directory", path, err)
	}
	return FromFd(fd, oneFS), nil
}

// FromFd makes a Dir that owns fd, which must be open on a directory.
func FromFd(fd int, oneFS bool) *Dir {
	from := &Dir{oneFS: oneFS, xattrAt: hasXattrAt(fd), lookFlags: lookFlags(fd)}
	return from.opened(fd)
}

// opened makes a Dir of a descriptor that d led to.
func (d *Dir) opened(fd int) *Dir {
	return &Dir{fd: fd, proc: "/proc/self/fd/" + strconv.Itoa(fd), oneFS: d.oneFS, xattrAt: d.xattrAt,
		lookFlags: d.lookFlags, hook: d.hook, restat: d.restat}
}

// Hook has fn asked before each system call on d, and on all that is opened from it from now on; what fn returns, an errno,
// is the call's error then, and the call is not made. It is for tests that make each call fail in turn. fn may be called
// from any goroutine.
func (d *Dir) Hook(fn func(op, name string) error) { d.hook = fn }

// HookStat has fn change what Stat tells, of d and of all that is opened from it from now on. It is for tests: of a file system
// whose times come from other clocks. fn may be called from any goroutine.
func (d *Dir) HookStat(fn func(*Stat)) { d.restat = fn }

// ask is what the hook has to say about a call; nil without one.
func (d *Dir) ask(op, name string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op, name)
}

// Fd is the descriptor, the Dir's own.
func (d *Dir) Fd() int { return d.fd }

// Close releases the descriptor. Further calls do nothing.
func (d *Dir) Close() error {
	err := error(nil)
	d.once.Do(func() { err = unix.Close(d.fd) })
	return err
}

// OpenDir opens the directory at path for listing and for everything else.
func (d *Dir) OpenDir(path string) (*Dir, error) { return d.walk(path, unix.O_RDONLY) }

// OpenPath opens the directory at path for operations on its entries, which needs no permission to list it.
func (d *Dir) OpenPath(path string) (*Dir, error) { return d.walk(path, unix.O_PATH) }

// walk opens path in as many steps as its length needs.
func (d *Dir) walk(path string, flags int) (*Dir, error) {
	if !ValidPath(path) {
		return nil, pathError("open directory", path, unix.EINVAL)
	}
	at, rest := d, path
	for {
		step, tail, last := nextStep(rest)
		mode := flags
		if !last {
			mode = unix.O_PATH
		}
		fd, err := at.openat2(step, mode|unix.O_DIRECTORY)
		if at != d {
			at.Close()
		}
		if err != nil {
			return nil, pathError("open directory", path, err)
		}
		at, rest = d.opened(fd), tail
		if last {
			return at, nil
		}
	}
}

// Pin holds on to the inode of the entry name, of any type and without opening it: every method of the Dir that is
// returned, called with the name "", is about that inode, whatever the name leads to meanwhile. The caller closes it.
func (d *Dir) Pin(name string) (*Dir, error) {
	if !ValidName(name) {
		return nil, pathError("pin", name, unix.EINVAL)
	}
	fd, err := d.openat2(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, pathError("pin", name, err)
	}
	return d.opened(fd), nil
}

// nextStep cuts off as many whole names as one system call takes.
func nextStep(path string) (step, tail string, last bool) {
	if path == "" {
		return ".", "", true
	}
	if len(path) <= maxStep {
		return path, "", true
	}
	cut := strings.LastIndexByte(path[:maxStep], '/')
	return path[:cut], path[cut+1:], false
}

// openat2 opens one short path below d.
func (d *Dir) openat2(path string, flags int) (int, error) {
	return d.resolve(path, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// resolve is openat2(2). EAGAIN means that a rename went on meanwhile.
func (d *Dir) resolve(path string, flags int, how uint64) (int, error) {
	if err := d.ask("open", path); err != nil {
		return -1, err
	}
	open := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: how}
	if d.oneFS {
		open.Resolve |= unix.RESOLVE_NO_XDEV
	}
	for {
		fd, err := unix.Openat2(d.fd, path, &open)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// OpenFile opens the entry name with flags, never through a symbolic link and never waiting for a FIFO's other end.
// The caller closes the file. A new file gets mode.
func (d *Dir) OpenFile(name string, flags int, mode uint32) (*os.File, error) {
	if !ValidName(name) {
		return nil, pathError("open", name, unix.EINVAL)
	}
	flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := d.openat(name, flags, mode)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openat is safe without openat2's other bounds, which cost a microsecond: name is one name, and O_NOFOLLOW is among the flags. What
// is there may be a mount, which only openat2 refuses to cross.
func (d *Dir) openat(name string, flags int, mode uint32) (int, error) {
	if d.oneFS && flags&unix.O_CREAT == 0 {
		return d.resolve(name, flags, 0)
	}
	if err := d.ask("open", name); err != nil {
		return -1, err
	}
	return retryInt(func() (int, error) { return unix.Openat(d.fd, name, flags, mode) })
}

// Entry is one line of a directory listing.
type Entry struct {
	Name string
	// Ino is the inode's number in the listing: of a mount point it is that of the directory below the mount.
	Ino  uint64
	Type uint8 // DT_* of getdents64; DT_UNKNOWN where the file system does not say
}

// listBuffer is the size of the getdents64 buffer: about a thousand names a call.
const listBuffer = 32 << 10

// List calls fn for each entry but "." and "..", in the file system's order, until fn returns an error, which List
// returns as it is. It starts over at each call.
func (d *Dir) List(fn func(Entry) error) error {
	if _, err := unix.Seek(d.fd, 0, 0); err != nil {
		return pathError("list", d.proc, err)
	}
	buf := make([]byte, listBuffer)
	for {
		n, err := d.getdents(buf)
		if err != nil {
			return pathError("list", d.proc, err)
		}
		if n == 0 {
			return nil
		}
		if err := eachDirent(buf[:n], fn); err != nil {
			return err
		}
	}
}

// getdents is asked of the hook for each buffer, so that a listing can fail in its middle.
func (d *Dir) getdents(buf []byte) (int, error) {
	if err := d.ask("list", ""); err != nil {
		return 0, err
	}
	return retryInt(func() (int, error) { return unix.Getdents(d.fd, buf) })
}

// eachDirent reads struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name with a NUL.
func eachDirent(b []byte, fn func(Entry) error) error {
	const header = 19
	for len(b) > header {
		reclen := int(binary.NativeEndian.Uint16(b[16:]))
		if reclen <= header || reclen > len(b) {
			return errors.New("list: malformed directory entry from the kernel")
		}
		name := b[header:reclen]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		e := Entry{Name: string(name), Ino: binary.NativeEndian.Uint64(b), Type: b[18]}
		if e.Name != "." && e.Name != ".." {
			if err := fn(e); err != nil {
				return err
			}
		}
		b = b[reclen:]
	}
	return nil
}

// retryInt and retry make a call again that a signal interrupted; the Go runtime sends itself such signals.
func retryInt(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
