// Package beneath reaches the entries of a tree through directory descriptors, never through a path that somebody
// else could redirect: each step is an openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, each operation names one
// entry of a directory that is held open (invariant 13). Paths may be longer than PATH_MAX and names may hold any
// byte but '/' and NUL.
//
// It owns descriptors only. It knows nothing of masters and slaves, and it never follows a symbolic link, except in
// the path given to OpenRoot, which is the operator's. It caches nothing of the tree: what it says is what the
// kernel said at that call.
//
// dir.go opens and lists directories (Dir); change.go makes, moves and removes their entries; inode.go has the
// content and attributes of one entry (Inode); stat.go describes entries and identifies their inodes (GFID); xattr.go
// reads and writes xattrs, xtimes among them, xattrat.go by the newest system calls; handle.go finds an inode by its
// file handle, which alone is not confined beneath anything, and says so.
//
// Paths are relative to the root, without a leading or trailing slash; "" is the root itself. Errors are
// *fs.PathError, so errors.Is(err, fs.ErrNotExist) and errors.Is(err, unix.ELOOP) hold. A call that a signal
// interrupts is made again.
package beneath

import (
	"io/fs"
	"strings"
)

// maxStep bounds the bytes of a path given to one system call; the kernel's own bound is PATH_MAX (4096) with the NUL.
const maxStep = 4000

// maxName is the longest name Linux file systems take, in bytes.
const maxName = 255

// ValidName tells whether name can be one entry of a directory.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName && !strings.ContainsAny(name, "/\x00")
}

// ValidPath tells whether path is "" or names joined by single slashes, each a ValidName.
func ValidPath(path string) bool {
	for rest := path; rest != ""; {
		name, tail, more := strings.Cut(rest, "/")
		if !ValidName(name) || more && tail == "" {
			return false
		}
		rest = tail
	}
	return true
}

// Split cuts path before its last name; dir is "" where path lies directly in the root.
func Split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// Join puts name below dir.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// pathError names the operation and the entry; nil stays nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
