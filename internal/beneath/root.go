package beneath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RootError adds to an error of the directory at path, the root of a volume or slave, what the operator can do about it.
// What it has nothing to say about it gives back as it is.
func RootError(path string, err error) error {
	if remedy := remedy(path, err); remedy != "" {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	return err
}

// Enterable is nil where this user may list the directory d and reach what lies in it, else the error.
func (d *Dir) Enterable() error { return d.Access("", unix.R_OK|unix.X_OK) }

func remedy(path string, err error) string {
	is := func(errnos ...unix.Errno) bool {
		for _, e := range errnos {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.EACCES, unix.EPERM):
		return denied(path)
	case is(unix.ENOENT):
		return "mount or restore it"
	case is(unix.ENOTDIR):
		return "something else stands in its way: move that away, and mount or restore the directory"
	case is(unix.ELOOP):
		return "symbolic links in its path lead in a circle: put them right"
	case is(unix.ESTALE):
		return "the server of its network file system does not know it any more: unmount it and mount it again"
	case is(unix.ENOTCONN):
		return "the process that serves its mount has ended: unmount it and mount it again"
	case is(unix.EIO, unix.EUCLEAN, unix.EBADMSG):
		return "its file system or disk has errors: see the kernel's log (dmesg), check it and mount it again"
	case is(unix.ETIMEDOUT, unix.EHOSTDOWN, unix.EHOSTUNREACH):
		return "the server of its network file system does not answer: see to the server or the network"
	}
	return ""
}

// denied says which directory, path itself or one above it, this user may not read or enter.
func denied(path string) string {
	at, why := path, "use"
	for _, dir := range above(path) {
		if errors.Is(access(dir, unix.X_OK), unix.EACCES) {
			at, why = dir, "enter"
			break
		}
	}
	if why == "use" && errors.Is(access(path, unix.R_OK), unix.EACCES) {
		why = "read"
	}
	of := ""
	var st unix.Stat_t
	if unix.Stat(at, &st) == nil {
		of = fmt.Sprintf(" (mode %04o, owner %d)", st.Mode&07777, st.Uid)
	}
	return fmt.Sprintf("user %d may not %s %s%s: give that right (chmod, setfacl), or run georep as a user who has it",
		os.Geteuid(), why, at, of)
}

// above is path with all directories above it, the topmost first.
func above(path string) []string {
	path = filepath.Clean(path)
	all := []string{"/"}
	for i, c := range path {
		if c == '/' && i > 0 {
			all = append(all, path[:i])
		}
	}
	if !strings.HasSuffix(path, "/") {
		all = append(all, path)
	}
	return all
}

func access(path string, mode uint32) error {
	return retry(func() error { return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS) })
}
