package beneath

import (
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xattrNameMax is XATTR_NAME_MAX of linux/limits.h.
const xattrNameMax = 255

// fsetxattr is unix.Fsetxattr, which copies the name to the heap at each call. A slave sets two xattrs of every file that comes, so
// here the copy is on the stack.
func fsetxattr(fd int, attr string, value []byte) error {
	var name [xattrNameMax + 1]byte
	if len(attr) > xattrNameMax || len(value) == 0 || strings.IndexByte(attr, 0) >= 0 {
		return unix.Fsetxattr(fd, attr, value, 0) // it says what is wrong with a name
	}
	copy(name[:], attr)
	_, _, errno := unix.Syscall6(unix.SYS_FSETXATTR, uintptr(fd), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0, 0)
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}
