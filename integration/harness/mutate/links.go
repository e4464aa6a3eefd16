package mutate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxNames bounds the names of one inode.
const maxNames = 8

// linkable reports whether an inode may have one more name.
func (m *Mutator) linkable(n *node) bool { return isNotDir(n) && n.ino.names < maxNames }

// link gives a file, symlink or special one more name, anywhere.
func (m *Mutator) link() (string, error) {
	n := m.pick(m.linkable)
	p, err := m.free(1)
	if err != nil || n == nil {
		return "", errSkip
	}
	did := fromTo(m.quote(n), fmt.Sprintf("%q", m.pathOf(p)))
	if err := os.Link(m.model.path(n), m.pathOf(p)); err != nil {
		return did, err
	}
	m.touched = append(m.touched, m.model.add(p.dir, p.name, n.ino).parent)
	return did, nil
}

// linkOver gives an inode the name of another in one step: "ln -f" as careful programs do it.
func (m *Mutator) linkOver() (string, error) {
	n, over := m.pick(m.linkable), m.pick(isNotDir)
	if n == nil || n.ino == over.ino {
		return "", errSkip
	}
	did, temporary := fromTo(m.quote(n), m.quote(over)), m.temporary(over)
	if err := os.Link(m.model.path(n), temporary); err != nil {
		return did, err
	}
	if err := os.Rename(temporary, m.model.path(over)); err != nil {
		return did, err
	}
	parent, name := over.parent, over.name
	m.model.remove(over)
	m.touched = append(m.touched, m.model.add(parent, name, n.ino).parent)
	return did, nil
}

// writeLink changes a file through one of its several names.
func (m *Mutator) writeLink() (string, error) {
	n := m.pick(func(n *node) bool { return isLinked(n) && isFile(n) })
	if n == nil {
		return "", errSkip
	}
	if n.ino.size > 0 && m.rng.IntN(2) == 0 {
		return m.patchInside(n)
	}
	more := 1 + m.rng.Int64N(3000)
	if !m.fits(n.ino.size, n.ino.size+more) {
		return "", errSkip
	}
	return m.patch(n, n.ino.size, more)
}

// fileToDir puts a directory with something in it where a file was.
func (m *Mutator) fileToDir() (string, error) {
	n := m.pick(func(n *node) bool { return isNotDir(n) && n.depth()+1 < m.opts.MaxDepth })
	if n == nil || len(m.model.all)+1 >= m.opts.MaxEntries {
		return "", errSkip
	}
	did, p := m.quote(n), place{n.parent, n.name}
	if err := m.model.unlinkTree(n); err != nil {
		return did, err
	}
	if _, err := m.make(p, dir, mkdir); err != nil {
		return did, err
	}
	d := p.dir.kids[p.name]
	inside := place{d, m.freeName(d)}
	if err := writeNew(m.pathOf(inside), nil); err != nil {
		return did, err
	}
	m.touchNode(m.model.add(d, inside.name, &inode{kind: file}))
	return did, nil
}

// dirToFile puts a file where a directory was.
func (m *Mutator) dirToFile() (string, error) {
	n, size := m.pick(func(n *node) bool { return isDir(n) && n.weight() <= 20 }), m.someSize()
	if n == nil || !m.fits(0, size) {
		return "", errSkip
	}
	did, p := m.quote(n), place{n.parent, n.name}
	if err := m.model.unlinkTree(n); err != nil {
		return did, err
	}
	if err := writeNew(m.pathOf(p), m.data(size)); err != nil {
		return did, err
	}
	m.touchNode(m.model.add(p.dir, p.name, &inode{kind: file, size: size}))
	return did, nil
}

// fifo, socket and device make special files.
func (m *Mutator) fifo() (string, error) { return m.node(unix.S_IFIFO|0o640, 0) }

func (m *Mutator) socket() (string, error) { return m.node(unix.S_IFSOCK|0o755, 0) }

func (m *Mutator) device() (string, error) {
	mode := []uint32{unix.S_IFCHR | 0o600, unix.S_IFBLK | 0o660}[m.rng.IntN(2)]
	return m.node(mode, unix.Mkdev(1+uint32(m.rng.IntN(500)), uint32(m.rng.IntN(1<<18))))
}

// node makes a special file with mknod, which gives sockets too.
func (m *Mutator) node(mode uint32, dev uint64) (string, error) {
	p, err := m.free(1)
	if err != nil {
		return "", err
	}
	return m.make(p, special, func(path string) error {
		if err := unix.Mknod(path, mode, int(dev)); err != nil {
			return &os.PathError{Op: "mknod", Path: path, Err: err}
		}
		return nil
	})
}
