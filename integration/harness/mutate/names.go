package mutate

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// someTarget draws the target of a symlink: something that exists, something that does not, something long.
func (m *Mutator) someTarget() string {
	switch m.rng.IntN(4) {
	case 0:
		return "no/such/" + m.someName()
	case 1:
		return strings.Repeat("../", m.rng.IntN(5)) + strings.Repeat("x/", m.rng.IntN(400))
	}
	if n := m.pick(anything); n != nil {
		return m.model.rel(n)
	}
	return "."
}

// symlink makes a new symlink.
func (m *Mutator) symlink() (string, error) {
	p, err := m.free(1)
	if err != nil {
		return "", err
	}
	target := shorten(m.someTarget())
	return m.make(p, symlink, func(path string) error { return os.Symlink(target, path) })
}

// shorten keeps a target within what every file system takes, and never gives an empty one.
func shorten(target string) string {
	if target == "" {
		return "."
	}
	return target[:min(len(target), 1000)]
}

// make makes something that has no size, and notes it.
func (m *Mutator) make(p place, k kind, mk func(path string) error) (string, error) {
	did := fmt.Sprintf("%q", m.pathOf(p))
	if err := mk(m.pathOf(p)); err != nil {
		return did, err
	}
	m.touchNode(m.model.add(p.dir, p.name, &inode{kind: k}))
	return did, nil
}

// resymlink gives a symlink another target, as "ln -sfn" in good scripts: beside it, then over it.
func (m *Mutator) resymlink() (string, error) {
	n := m.pick(func(n *node) bool { return n.ino.kind == symlink })
	if n == nil {
		return "", errSkip
	}
	target, temporary := shorten(m.someTarget()), m.temporary(n)
	if err := os.Symlink(target, temporary); err != nil {
		return m.quote(n), err
	}
	if err := os.Rename(temporary, m.model.path(n)); err != nil {
		return m.quote(n), err
	}
	did := m.quote(n)
	m.become(n, &inode{kind: symlink})
	return did, nil
}

// mkdir makes one directory.
func (m *Mutator) mkdir() (string, error) {
	p, err := m.free(1)
	if err != nil {
		return "", err
	}
	return m.make(p, dir, mkdir)
}

func mkdir(path string) error { return os.Mkdir(path, 0o755) }

// mkdirp makes a few directories in each other.
func (m *Mutator) mkdirp() (string, error) {
	levels := 2 + m.rng.IntN(3)
	p, err := m.free(levels)
	if err != nil || p.dir.depth()+levels >= m.opts.MaxDepth {
		return "", errSkip
	}
	did := ""
	for range levels {
		if did, err = m.make(p, dir, mkdir); err != nil {
			return did, err
		}
		p.dir = p.dir.kids[p.name]
		p.name = m.freeName(p.dir)
	}
	return did, nil
}

// rmdir, unlink, unlinkOne and rmtree remove, each another kind of thing.
func (m *Mutator) rmdir() (string, error) {
	return m.drop(m.pick(func(n *node) bool { return isDir(n) && len(n.order) == 0 }))
}

func (m *Mutator) unlink() (string, error) { return m.drop(m.pick(isNotDir)) }

func (m *Mutator) unlinkOne() (string, error) { return m.drop(m.pick(isLinked)) }

func (m *Mutator) rmtree() (string, error) {
	return m.drop(m.pick(func(n *node) bool { return isDir(n) && len(n.order) > 0 && n.weight() <= 60 }))
}

// drop removes a node with all below it.
func (m *Mutator) drop(n *node) (string, error) {
	if n == nil {
		return "", errSkip
	}
	m.touched = append(m.touched, n.parent)
	return fmt.Sprintf("%s (%d entries)", m.quote(n), n.weight()), m.model.unlinkTree(n)
}

// rename gives anything but a directory another name where it is.
func (m *Mutator) rename() (string, error) {
	n := m.pick(isNotDir)
	if n == nil {
		return "", errSkip
	}
	return m.rehome(n, place{n.parent, m.freeName(n.parent)})
}

// moveAcross moves anything but a directory to another directory.
func (m *Mutator) moveAcross() (string, error) {
	n, d := m.pick(isNotDir), m.pickDir(1)
	if n == nil || n.parent == d {
		return "", errSkip
	}
	return m.rehome(n, m.sameOrFree(n, d))
}

// sameOrFree keeps the name in the new directory where it can, as mv does.
func (m *Mutator) sameOrFree(n, d *node) place {
	if d.kids[n.name] == nil && (d.parent != nil || n.name != ".georep") && m.rng.IntN(3) > 0 {
		return place{d, n.name}
	}
	return place{d, m.freeName(d)}
}

// rehome renames a node to a free place, and rehomeBy does it by that call.
func (m *Mutator) rehome(n *node, p place) (string, error) { return m.rehomeBy(n, p, os.Rename) }

func (m *Mutator) rehomeBy(n *node, p place, rename func(from, to string) error) (string, error) {
	did := fromTo(m.quote(n), fmt.Sprintf("%q", m.pathOf(p)))
	if err := rename(m.model.path(n), m.pathOf(p)); err != nil {
		return did, err
	}
	m.touched = append(m.touched, n.parent, p.dir)
	m.model.move(n, p.dir, p.name)
	return did, nil
}

// replace renames something over something else.
func (m *Mutator) replace() (string, error) {
	n, over := m.pick(isNotDir), m.pick(isNotDir)
	if n == nil || n == over {
		return "", errSkip
	}
	return m.renameOver(n, over)
}

// renameOver notes what rename does, which is nothing when both names have the same inode. renameOverBy does it by that call.
func (m *Mutator) renameOver(n, over *node) (string, error) {
	return m.renameOverBy(n, over, os.Rename)
}

func (m *Mutator) renameOverBy(n, over *node, rename func(from, to string) error) (string, error) {
	did := fromTo(m.quote(n), m.quote(over))
	if err := rename(m.model.path(n), m.model.path(over)); err != nil {
		return did, err
	}
	if n.ino == over.ino {
		return did + " (same inode)", nil
	}
	p := place{over.parent, over.name}
	m.touched = append(m.touched, n.parent, p.dir)
	m.model.remove(over)
	m.model.move(n, p.dir, p.name)
	return did, nil
}

// renameDir gives a directory another name where it is.
func (m *Mutator) renameDir() (string, error) {
	n := m.pick(isDir)
	if n == nil {
		return "", errSkip
	}
	return m.rehome(n, place{n.parent, m.freeName(n.parent)})
}

// moveDir moves a directory with all below it to another parent.
func (m *Mutator) moveDir() (string, error) {
	n := m.pick(isDir)
	if n == nil {
		return "", errSkip
	}
	d := m.pickDir(1 + n.height())
	if d == n.parent || d.below(n) || d.depth()+1+n.height() > m.opts.MaxDepth {
		return "", errSkip
	}
	return m.rehome(n, m.sameOrFree(n, d))
}

// dirOver renames a directory over an empty one.
func (m *Mutator) dirOver() (string, error) {
	n := m.pick(isDir)
	over := m.pick(func(o *node) bool { return isDir(o) && len(o.order) == 0 && o != n })
	if n == nil || over == nil || over.below(n) || over.depth()+n.height() > m.opts.MaxDepth {
		return "", errSkip
	}
	did := fromTo(m.quote(n), m.quote(over))
	// os.Rename refuses a directory that is there; the system call does not.
	if err := unix.Rename(m.model.path(n), m.model.path(over)); err != nil {
		return did, &os.LinkError{Op: "rename", Old: m.model.path(n), New: m.model.path(over), Err: err}
	}
	p := place{over.parent, over.name}
	m.touched = append(m.touched, n.parent, p.dir)
	m.model.remove(over)
	m.model.move(n, p.dir, p.name)
	return did, nil
}
