package mutate

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// anything fits every node, and isFileOrDir those that take user.* attributes and ACLs.
func anything(*node) bool { return true }

func isFileOrDir(n *node) bool { return isFile(n) || isDir(n) }

// touch sets an odd time.
func (m *Mutator) touch() (string, error) {
	n := m.pick(anything)
	if n == nil {
		return "", errSkip
	}
	seconds := []int64{0, -1, -300_000_000, 1, 1<<31 - 1, 1 << 31, 1 << 32, 1_700_000_000 + m.rng.Int64N(100_000)}
	nanoseconds := []int64{0, 1, 999_999_999, m.rng.Int64N(1_000_000_000)}
	sec, nsec := seconds[m.rng.IntN(len(seconds))], nanoseconds[m.rng.IntN(len(nanoseconds))]
	return fmt.Sprintf("%s (%d.%09d)", m.quote(n), sec, nsec), setTime(m.model.path(n), sec, nsec)
}

// chmod sets one of a few telling modes.
func (m *Mutator) chmod() (string, error) {
	n := m.pick(func(n *node) bool { return n.ino.kind != symlink })
	if n == nil {
		return "", errSkip
	}
	modes := []uint32{0o600, 0o644, 0o755, 0o777, 0o400, 0o000, 0o111, 0o4755, 0o2755, 0o1777, 0o6711, 0o640}
	mode := modes[m.rng.IntN(len(modes))]
	if m.opts.Unprivileged {
		// Its owner must be able to go on working with it.
		mode = mode&0o1777 | 0o700
	}
	did := fmt.Sprintf("%s (%04o)", m.quote(n), mode)
	if err := unix.Chmod(m.model.path(n), mode); err != nil {
		return did, &os.PathError{Op: "chmod", Path: m.model.path(n), Err: err}
	}
	return did, nil
}

// chown sets ids that mostly have no name; symlinks get them too.
func (m *Mutator) chown() (string, error) {
	n := m.pick(anything)
	if n == nil {
		return "", errSkip
	}
	ids := []int{0, 1, 65534, 123456, 2147483648}
	uid, gid := ids[m.rng.IntN(len(ids))], ids[m.rng.IntN(len(ids))]
	return fmt.Sprintf("%s (%d:%d)", m.quote(n), uid, gid), os.Lchown(m.model.path(n), uid, gid)
}

// setxattr sets an attribute anew or over an old value. A file system without room or support declines.
func (m *Mutator) setxattr() (string, error) {
	n := m.pick(isFileOrDir)
	if n == nil {
		return "", errSkip
	}
	names := []string{"user.a", "user.b", "user.c.d", "trusted.a", "trusted.b"}
	if m.opts.Unprivileged {
		names = names[:3]
	}
	attr, value := names[m.rng.IntN(len(names))], m.data(m.rng.Int64N(200))
	did := fmt.Sprintf("%s (%s, %d bytes)", m.quote(n), attr, len(value))
	if err := unix.Lsetxattr(m.model.path(n), attr, value, 0); err != nil {
		return refused(did, err, unix.EOPNOTSUPP, unix.ENOSPC, unix.EPERM)
	}
	if !slices.Contains(n.ino.attrs, attr) {
		n.ino.attrs = append(n.ino.attrs, attr)
	}
	return did, nil
}

// removexattr removes an attribute that setxattr had set.
func (m *Mutator) removexattr() (string, error) {
	n := m.pick(func(n *node) bool { return len(n.ino.attrs) > 0 })
	if n == nil {
		return "", errSkip
	}
	i := m.rng.IntN(len(n.ino.attrs))
	attr := n.ino.attrs[i]
	did := fmt.Sprintf("%s (%s)", m.quote(n), attr)
	if err := unix.Lremovexattr(m.model.path(n), attr); err != nil {
		return did, &os.PathError{Op: "removexattr " + attr, Path: m.model.path(n), Err: err}
	}
	n.ino.attrs = slices.Delete(n.ino.attrs, i, i+1)
	return did, nil
}

// acl sets or removes an access ACL, or a default one on a directory.
func (m *Mutator) acl() (string, error) {
	n := m.pick(isFileOrDir)
	if n == nil {
		return "", errSkip
	}
	attr := at.ACLAccess
	if isDir(n) && m.rng.IntN(2) == 0 {
		attr = at.ACLDefault
	}
	did := m.quote(n) + " (" + attr + ")"
	if m.rng.IntN(3) == 0 {
		err := unix.Lremovexattr(m.model.path(n), attr)
		return refused(did+" removed", err, unix.ENODATA, unix.EOPNOTSUPP)
	}
	value := at.SimpleACL(uint32(1000+m.rng.IntN(4)), uint16(m.rng.IntN(8)))
	err := unix.Lsetxattr(m.model.path(n), attr, []byte(value), 0)
	return refused(did, err, unix.EOPNOTSUPP, unix.ENOSPC)
}
