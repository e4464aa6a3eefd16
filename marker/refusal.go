package marker

import (
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// verdict is what to do about a mark that failed.
type verdict int

const (
	done    verdict = iota
	gone            // the entry vanished: whatever removed it marks the directory
	refused         // it will not succeed however often it is tried
	bumped          // the same of a directory, whose ctime tells in place of its xtime
	again           // it has to be tried again
)

// judge decides about a failed mark, or about an entry that could not be reached for one. byCtime tells whether a crawl
// sees a change of the entry though it is not marked: only then may there be an end of trying.
func judge(err error, byCtime func() bool) verdict {
	switch {
	case err == nil:
		return done
	case isAny(err, unix.ENOENT, unix.ESTALE, unix.ENOTDIR):
		return gone
	case isAny(err, unix.EPERM, unix.EACCES, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE, unix.EINVAL):
		// Any of these may be over soon: a disk is full, or read-only for a while, or rights change. Nor does the errno tell
		// a full disk from an inode whose other xattrs leave no room: for ext4 both are ENOSPC.
		if byCtime() {
			return refused
		}
		return again
	case isAny(err, unix.EOPNOTSUPP, unix.ELOOP, unix.EXDEV):
		return refused
	}
	return again
}

// unseen is for what no ctime tells: what lies below a directory that could not be reached.
func unseen() bool { return false }

// byCtime tells whether a crawl judges the entry by its ctime, or enters it always. It has to be the crawler's own view.
func (c *core) byCtime(d *beneath.Dir, name string) bool {
	st, err := d.Stat(name)
	if err != nil {
		return false
	}
	switch {
	case st.Fixed(), st.MountID != c.rootStat.MountID:
		return true
	case c.names.Namespace == xtime.User && (!st.IsDir() && st.Mode&unix.S_IFMT != unix.S_IFREG || d.DeniesMarks(name)):
		return true
	case readOnlyPart(c.root, d, name):
		return true
	case st.IsDir():
		return false // its ctime tells nothing of what lies below it, unless bump sees to that
	}
	x, err := d.Xtime(name, &c.names)
	return err == nil && x == 0
}

// readOnlyPart tells whether the entry lies in a read-only part of a file system that is not read-only, such as a
// snapshot: it takes no mark, and needs none.
func readOnlyPart(root, d *beneath.Dir, name string) bool {
	return errors.Is(d.Access(name, unix.W_OK), unix.EROFS) && !errors.Is(root.Access("", unix.W_OK), unix.EROFS)
}

// unreadable tells whether this user may not read the entry: then no crawl can either.
func unreadable(d *beneath.Dir, name string) bool {
	return isAny(d.Access("", unix.X_OK), unix.EACCES, unix.EPERM) || isAny(d.Access(name, unix.R_OK), unix.EACCES, unix.EPERM)
}

func isAny(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
