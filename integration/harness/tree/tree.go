package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// LongTop is the name in the root below which the path longer than PATH_MAX lies. Tools that know no such paths, rsync
// among them, must leave it out.
const LongTop = "long-path"

// OneOfEverything fills the existing, empty directory root with at least one of every thing that a replica must keep:
// each type of entry, mode, owner, time, attribute, ACL, capability, hole, hard link, odd name and extreme path. It
// gives the root itself a mode, a time and an attribute too. leftOut names what this file system or this user cannot
// have, with the reason; that is no error.
func OneOfEverything(root string) (leftOut []string, err error) {
	b := &builder{root: root}
	for _, part := range []func(){
		b.regularFiles, b.modes, b.owners, b.xattrs, b.acls, b.capability, b.sparse, b.hardLinks,
		b.symlinks, b.specials, b.directories, b.names, b.longPath, b.manyEntries, b.deepChain, b.times, b.rootItself,
	} {
		part()
	}
	slices.Sort(b.leftOut)
	return b.leftOut, errors.Join(b.errs...)
}

// builder makes a tree step by step. Paths are relative to root.
type builder struct {
	root    string
	leftOut []string
	errs    []error
}

// path is the path for system calls; relative ones here are all short.
func (b *builder) path(rel string) string { return filepath.Join(b.root, rel) }

// do takes note of how the making of what went: done, not to be had here, or an error.
func (b *builder) do(what string, err error) bool {
	switch {
	case err == nil:
		return true
	case unavailable(err):
		b.leftOut = append(b.leftOut, fmt.Sprintf("%s: %v", what, err))
	default:
		b.errs = append(b.errs, fmt.Errorf("make %s: %w", what, err))
	}
	return false
}

// unavailable tells what a file system or an ordinary user cannot have from real trouble.
func unavailable(err error) bool {
	for _, no := range []error{unix.EOPNOTSUPP, unix.E2BIG, unix.ERANGE, unix.ENAMETOOLONG, unix.EILSEQ, unix.EINVAL} {
		if errors.Is(err, no) {
			return true
		}
	}
	var r *refusable
	if errors.As(err, &r) && errors.Is(err, r.with) {
		return true
	}
	return os.Geteuid() != 0 && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES))
}

// refusable is an error of a call that file systems also refuse with an errno that means trouble anywhere else.
type refusable struct {
	err  error
	with unix.Errno
}

func (e *refusable) Error() string { return e.err.Error() }
func (e *refusable) Unwrap() error { return e.err }

// mkdir makes a directory with those above it.
func (b *builder) mkdir(rel string) {
	b.do("directory "+rel, os.MkdirAll(b.path(rel), 0o755))
}

// file makes a file whose content is a function of its name and size.
func (b *builder) file(rel string, size int) {
	b.do("file "+rel, os.WriteFile(b.path(rel), content(rel, size), 0o644))
}

// setxattr sets an attribute on anything, on a symlink itself.
func (b *builder) setxattr(rel, attr, value string) {
	err := unix.Lsetxattr(b.path(rel), attr, []byte(value), 0)
	b.doXattr(fmt.Sprintf("xattr %s (%d bytes) on %s", attr, len(value), rel), err)
}

// doXattr is do for the setting of an attribute: one that does not fit where attributes lie meets "no space".
func (b *builder) doXattr(what string, err error) {
	if err != nil {
		b.do(what, &refusable{err, unix.ENOSPC})
	}
}

// chmod sets all twelve bits of the mode, which os.Chmod would want in another form.
func (b *builder) chmod(rel string, mode uint32) {
	b.do(fmt.Sprintf("mode %04o of %s", mode, rel), unix.Chmod(b.path(rel), mode))
}

// chtime sets the time of anything, of a symlink itself.
func (b *builder) chtime(rel string, when time.Time) {
	b.do(fmt.Sprintf("time of %s", rel), chtime(unix.AT_FDCWD, b.path(rel), when))
}

// chtime sets access and modification time of name in dir, of a symlink itself. It takes seconds, not nanoseconds
// since 1970, because the latter end in 2262.
func chtime(dir int, name string, when time.Time) error {
	ts := unix.Timespec{Sec: when.Unix(), Nsec: int64(when.Nanosecond())}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// content is size bytes that look random and depend on name alone.
func content(name string, size int) []byte {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	data := make([]byte, size)
	Fill(data, h)
	return data
}

// Fill fills data with bytes that look random, do not compress, and depend on seed alone.
func Fill(data []byte, seed uint64) {
	x := seed | 1
	var word [8]byte
	for len(data) > 0 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(word[:], x*0x2545f4914f6cdd1d)
		data = data[copy(data, word[:]):]
	}
}

// openDir opens a directory of the tree; the caller closes it.
func (b *builder) openDir(rel string) (int, error) { return at.OpenRoot(b.path(rel)) }
