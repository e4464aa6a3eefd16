// Package at reaches directory entries by a directory's descriptor and one name, never by a long path. So paths beyond
// PATH_MAX and names of any bytes work, and no symlink is ever followed. It owns the descriptors it opens only until it
// hands them to the caller. It never interprets what it reads.
package at

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenRoot opens the directory at path, which may lie behind symlinks. The caller closes the descriptor.
func OpenRoot(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open directory %q: %w", path, err)
	}
	return fd, nil
}

// OpenDir opens the directory name in dir without following a symlink. The caller closes the descriptor.
func OpenDir(dir int, name string) (int, error) {
	return Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// Open opens name in dir with the given flags, never following a symlink and never waiting for the other end of a FIFO.
// The caller closes the descriptor.
func Open(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("open %q: %w", name, err)
		}
		return fd, nil
	}
}

// Names returns the names in the directory, without "." and "..", in byte order. It may be called again on the same
// descriptor and then reads the directory anew; it must not be called on one descriptor by two goroutines at once.
func Names(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return nil, fmt.Errorf("rewind directory: %w", err)
	}
	buf := make([]byte, 64<<10)
	var names []string
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list directory: %w", err)
		}
		if n == 0 {
			sort.Strings(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Stat returns the attributes of name in dir itself, of a symlink and not of its target.
func Stat(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, fmt.Errorf("stat %q: %w", name, err)
	}
	return st, nil
}

// Readlink returns the target of the symlink name in dir.
func Readlink(dir int, name string) (string, error) {
	buf := make([]byte, os.Getpagesize()+1)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", fmt.Errorf("read symlink %q: %w", name, err)
	}
	return string(buf[:n]), nil
}

// Path returns a short path to name in dir, valid while dir stays open, for calls that have no *at form. The call must
// be one that does not follow a symlink in the last place (the l-forms).
func Path(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// Xattrs returns all extended attributes of name in dir by name, whatever its type. A file system without any gives an
// empty map.
func Xattrs(dir int, name string) (map[string]string, error) {
	path := Path(dir, name)
	list, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if err == unix.ENOTSUP {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list xattrs of %q: %w", name, err)
	}
	attrs := make(map[string]string)
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		// XFS shows root each ACL a second time, in its own form.
		if attr == "" || strings.HasPrefix(attr, "trusted.SGI_ACL_") {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, attr, b) })
		if err == unix.ENODATA {
			continue // Removed since it was listed.
		}
		if err != nil {
			return nil, fmt.Errorf("read xattr %s of %q: %w", attr, name, err)
		}
		attrs[attr] = string(value)
	}
	return attrs, nil
}

// grow calls read with ever larger buffers until the result fits.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 4 {
		buf := make([]byte, size)
		n, err := read(buf)
		if err == nil {
			return buf[:n], nil
		}
		if err != unix.ERANGE || size > 1<<20 {
			return nil, err
		}
	}
}

// SetXattr sets one extended attribute of name in dir, whatever its type.
func SetXattr(dir int, name, attr, value string) error {
	if err := unix.Lsetxattr(Path(dir, name), attr, []byte(value), 0); err != nil {
		return fmt.Errorf("set xattr %s of %q: %w", attr, name, err)
	}
	return nil
}
