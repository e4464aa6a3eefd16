package mutate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// renameat is rename with flags.
func renameat(from, to string, flags uint) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags); err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// noReplace renames anything to a free name with RENAME_NOREPLACE, or tries a name that is taken, which must be refused.
func (m *Mutator) noReplace() (string, error) {
	n := m.pick(anything)
	if n == nil {
		return "", errSkip
	}
	if over := m.pick(anything); m.rng.IntN(3) == 0 && !over.below(n) {
		err := renameat(m.model.path(n), m.model.path(over), unix.RENAME_NOREPLACE)
		if err == nil {
			err = fmt.Errorf("%s has replaced %s", m.quote(n), m.quote(over))
		}
		return refused(fromTo(m.quote(n), m.quote(over)), err, unix.EEXIST)
	}
	p, err := m.newHome(n)
	if err != nil {
		return "", err
	}
	return m.rehomeBy(n, p, func(from, to string) error { return renameat(from, to, unix.RENAME_NOREPLACE) })
}

// newHome finds a free place that a node may move to with all below it.
func (m *Mutator) newHome(n *node) (place, error) {
	d := m.pickDir(1 + n.height())
	if d.below(n) || d.depth()+1+n.height() > m.opts.MaxDepth {
		return place{}, errSkip
	}
	return m.sameOrFree(n, d), nil
}

// whiteout moves anything to a free name and leaves a whiteout behind, as overlayfs does in its upper layer.
func (m *Mutator) whiteout() (string, error) {
	n := m.pick(anything)
	if n == nil || len(m.model.all)+1 >= m.opts.MaxEntries {
		return "", errSkip
	}
	p, err := m.newHome(n)
	if err != nil {
		return "", err
	}
	old := place{n.parent, n.name}
	did, err := m.rehomeBy(n, p, leaveWhiteout)
	return m.whitedOut(old, did, err)
}

// whiteoutOver does the same over another name.
func (m *Mutator) whiteoutOver() (string, error) {
	n, over := m.pick(isNotDir), m.pick(isNotDir)
	if n == nil || n.ino == over.ino || len(m.model.all)+1 >= m.opts.MaxEntries {
		return "", errSkip
	}
	old := place{n.parent, n.name}
	did, err := m.renameOverBy(n, over, leaveWhiteout)
	return m.whitedOut(old, did, err)
}

func leaveWhiteout(from, to string) error { return renameat(from, to, unix.RENAME_WHITEOUT) }

// whitedOut notes the character device 0:0 that took the old name, unless the file system knows no whiteouts.
func (m *Mutator) whitedOut(old place, did string, err error) (string, error) {
	if err == nil {
		m.touchNode(m.model.add(old.dir, old.name, &inode{kind: special}))
	}
	return refused(did, err, unix.EINVAL)
}

// exchange swaps two entries of any kind in one step, exchangeDirs two directories, and exchangeFileDir two of which one is
// a directory.
func (m *Mutator) exchange() (string, error) { return m.swap(m.pick(anything), m.pick(anything)) }

func (m *Mutator) exchangeDirs() (string, error) { return m.swap(m.pick(isDir), m.pick(isDir)) }

func (m *Mutator) exchangeFileDir() (string, error) { return m.swap(m.pick(isNotDir), m.pick(isDir)) }

// moveSpecial renames a special file or a symlink to another directory, or swaps it with anything.
func (m *Mutator) moveSpecial() (string, error) {
	n := m.pick(func(n *node) bool { return n.ino.kind == special || n.ino.kind == symlink })
	if n == nil {
		return "", errSkip
	}
	if m.rng.IntN(2) == 0 {
		return m.swap(n, m.pick(anything))
	}
	p, err := m.newHome(n)
	if err != nil {
		return "", err
	}
	return m.rehome(n, p)
}

// swap exchanges two entries, neither of which lies in the other.
func (m *Mutator) swap(a, b *node) (string, error) {
	if a == nil || b == nil || a.below(b) || b.below(a) {
		return "", errSkip
	}
	if a.depth()+b.height() > m.opts.MaxDepth || b.depth()+a.height() > m.opts.MaxDepth {
		return "", errSkip
	}
	did := m.quote(a) + " <-> " + m.quote(b)
	if err := renameat(m.model.path(a), m.model.path(b), unix.RENAME_EXCHANGE); err != nil {
		return refused(did, err, unix.EINVAL, unix.EXDEV)
	}
	// XFS gives a new time to a directory that changes its parent this way.
	for _, n := range []*node{a, b} {
		m.touched = append(m.touched, n.parent)
		if isDir(n) {
			m.touched = append(m.touched, n)
		}
	}
	m.model.swap(a, b)
	return did, nil
}

// mknod makes an empty file with mknod, which nobody ever opens or closes.
func (m *Mutator) mknod() (string, error) {
	p, err := m.free(1)
	if err != nil {
		return "", err
	}
	did := fmt.Sprintf("%q", m.pathOf(p))
	if err := unix.Mknod(m.pathOf(p), unix.S_IFREG|0o600, 0); err != nil {
		return did, &os.PathError{Op: "mknod", Path: m.pathOf(p), Err: err}
	}
	m.touchNode(m.model.add(p.dir, p.name, &inode{kind: file}))
	return did, nil
}
