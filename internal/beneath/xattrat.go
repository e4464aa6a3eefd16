package beneath

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of Linux 6.13 that take a directory and a name. Before it an entry's xattrs, those of symbolic links
// included, were to be had through a path only, and the way through /proc takes about as long again as the call itself.
// golang.org/x/sys has no more than their numbers.

// xattrArgs is struct xattr_args of linux/xattr.h.
type xattrArgs struct {
	// value is an address, size in bytes; flags are those of setxattr(2).
	value uint64
	size  uint32
	flags uint32
}

// hasXattrAt tells whether the kernel, and whatever filters system calls here, knows the calls.
func hasXattrAt(fd int) bool {
	_, err := getxattrAt(fd, ".", "user.georep.probe", nil)
	return err == nil || err == unix.ENODATA || err == unix.EOPNOTSUPP
}

// getxattrAt reads an xattr of the entry name of fd, which it does not follow.
func getxattrAt(fd int, name, attr string, buf []byte) (int, error) {
	return xattrAt(unix.SYS_GETXATTRAT, fd, [2]string{name, attr}, buf)
}

// setxattrAt and removexattrAt change an xattr of the entry name of fd, which they do not follow.
func setxattrAt(fd int, name, attr string, value []byte) error {
	_, err := xattrAt(unix.SYS_SETXATTRAT, fd, [2]string{name, attr}, value)
	return err
}

// xattrAt makes one of the two calls that take xattrArgs, on the names of entry and xattr.
func xattrAt(call uintptr, fd int, names [2]string, buf []byte) (int, error) {
	name, err := unix.BytePtrFromString(names[0])
	if err != nil {
		return 0, err
	}
	attr, err := unix.BytePtrFromString(names[1])
	if err != nil {
		return 0, err
	}
	args := xattrArgs{size: uint32(len(buf))}
	// The address travels as a number, so the value must neither move nor go before the call has returned.
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(buf) > 0 {
		pin.Pin(&buf[0])
		args.value = uint64(uintptr(unsafe.Pointer(&buf[0])))
	}
	n, _, no := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(name)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(attr)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if no != 0 {
		return 0, no
	}
	return int(n), nil
}

// listxattrAt lists the xattr names of the entry name of fd, each with a NUL behind it.
func listxattrAt(fd int, name string, buf []byte) (int, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	n, _, no := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0)
	if no != 0 {
		return 0, no
	}
	return int(n), nil
}

func removexattrAt(fd int, name, attr string) error {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	key, err := unix.BytePtrFromString(attr)
	if err != nil {
		return err
	}
	_, _, no := unix.Syscall6(unix.SYS_REMOVEXATTRAT, uintptr(fd), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(key)), 0, 0)
	if no != 0 {
		return no
	}
	return nil
}
