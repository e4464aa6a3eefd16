package mutate

import (
	"os"
	"strings"
)

// kind is what the operations tell apart.
type kind int

const (
	file kind = iota
	dir
	symlink
	special // FIFO, socket or device
)

// inode is what one or more nodes name.
type inode struct {
	kind  kind
	size  int64
	names int
	attrs []string // the extended attributes set by us
}

// node is one name in the tree.
type node struct {
	name   string
	parent *node // nil for the root
	ino    *inode
	kids   map[string]*node
	order  []*node // the kids in an order that depends on history alone
	slot   int     // place in the parent's order
	index  int     // place in model.all
	gone   bool
}

// model is the tree as it must be.
type model struct {
	root  *node
	top   string
	all   []*node // every node but the root, in an order that depends on history alone
	bytes int64
}

// newModel is the model of the empty directory at top.
func newModel(top string) model {
	return model{top: top, root: &node{ino: &inode{kind: dir, names: 1}, kids: map[string]*node{}}}
}

// path returns the path for system calls.
func (m *model) path(n *node) string {
	if n.parent == nil {
		return m.top
	}
	return m.path(n.parent) + "/" + n.name
}

// rel returns the path below the root.
func (m *model) rel(n *node) string {
	if n.parent == nil {
		return "."
	}
	return strings.TrimPrefix(m.path(n), m.top+"/")
}

// add gives ino a name.
func (m *model) add(parent *node, name string, ino *inode) *node {
	n := &node{name: name, ino: ino, index: len(m.all)}
	if ino.kind == dir {
		n.kids = map[string]*node{}
	}
	if ino.names == 0 {
		m.bytes += ino.size
	}
	ino.names++
	m.all = append(m.all, n)
	m.attach(n, parent)
	return n
}

// remove takes a name away. Directories must be empty.
func (m *model) remove(n *node) {
	m.detach(n)
	last := m.all[len(m.all)-1]
	m.all[n.index] = last
	last.index = n.index
	m.all = m.all[:len(m.all)-1]
	n.gone = true
	n.ino.names--
	if n.ino.names == 0 {
		m.bytes -= n.ino.size
	}
}

// attach puts a node, as it is named, into a directory.
func (m *model) attach(n, parent *node) {
	n.parent, n.slot = parent, len(parent.order)
	parent.order = append(parent.order, n)
	parent.kids[n.name] = n
}

// detach takes a node out of its directory and leaves it otherwise alone.
func (m *model) detach(n *node) {
	p := n.parent
	last := p.order[len(p.order)-1]
	p.order[n.slot] = last
	last.slot = n.slot
	p.order = p.order[:len(p.order)-1]
	delete(p.kids, n.name)
}

// move renames a node, whatever it is, to a free name.
func (m *model) move(n, parent *node, name string) {
	m.detach(n)
	n.name = name
	m.attach(n, parent)
}

// swap exchanges what two names stand for.
func (m *model) swap(a, b *node) {
	parentA, nameA, parentB, nameB := a.parent, a.name, b.parent, b.name
	m.detach(a)
	m.detach(b)
	a.name, b.name = nameB, nameA
	m.attach(a, parentB)
	m.attach(b, parentA)
}

// resize notes the new size of a file.
func (m *model) resize(ino *inode, size int64) {
	m.bytes += size - ino.size
	ino.size = size
}

// depth counts the directories above a node; the root's is 0.
func (n *node) depth() int {
	if n.parent == nil {
		return 0
	}
	return n.parent.depth() + 1
}

// height counts the levels below a node.
func (n *node) height() int {
	most := 0
	for _, kid := range n.order {
		most = max(most, kid.height()+1)
	}
	return most
}

// weight counts a node and everything below it.
func (n *node) weight() int {
	sum := 1
	for _, kid := range n.order {
		sum += kid.weight()
	}
	return sum
}

// below reports whether n is top or lies below it.
func (n *node) below(top *node) bool {
	for ; n != nil; n = n.parent {
		if n == top {
			return true
		}
	}
	return false
}

// unlinkTree removes a node and everything below it, from the disk and from the model.
func (m *model) unlinkTree(n *node) error {
	for len(n.order) > 0 {
		if err := m.unlinkTree(n.order[len(n.order)-1]); err != nil {
			return err
		}
	}
	if err := os.Remove(m.path(n)); err != nil {
		return err
	}
	m.remove(n)
	return nil
}
