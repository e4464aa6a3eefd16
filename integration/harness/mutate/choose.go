package mutate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/integration/harness/tree"
)

// operation is one thing that a step may do. run returns what it did, or errSkip when the tree has nothing for it.
type operation struct {
	name   string
	weight int // in the default profile
	root   bool
	run    func(*Mutator) (string, error)
}

// operations is the table of all there is, with the default weights. Its order is part of what a seed means: a new
// operation makes old seeds do other things.
func operations() []operation {
	return []operation{
		{"create", 12, false, (*Mutator).create},
		{"write", 6, false, (*Mutator).write},
		{"append", 5, false, (*Mutator).extend},
		{"overwrite", 5, false, (*Mutator).overwrite},
		{"truncate", 3, false, (*Mutator).truncate},
		{"sparse", 2, false, (*Mutator).sparse},
		{"punch", 1, false, (*Mutator).punch},
		{"save", 6, false, (*Mutator).save},
		{"touch", 3, false, (*Mutator).touch},
		{"stealth", 3, false, (*Mutator).stealth},
		{"chmod", 3, false, (*Mutator).chmod},
		{"chown", 2, true, (*Mutator).chown},
		{"setxattr", 3, false, (*Mutator).setxattr},
		{"removexattr", 2, false, (*Mutator).removexattr},
		{"acl", 2, false, (*Mutator).acl},
		{"symlink", 3, false, (*Mutator).symlink},
		{"resymlink", 2, false, (*Mutator).resymlink},
		{"mkdir", 5, false, (*Mutator).mkdir},
		{"mkdirp", 2, false, (*Mutator).mkdirp},
		{"rmdir", 2, false, (*Mutator).rmdir},
		{"unlink", 6, false, (*Mutator).unlink},
		{"rmtree", 1, false, (*Mutator).rmtree},
		{"rename", 4, false, (*Mutator).rename},
		{"move", 4, false, (*Mutator).moveAcross},
		{"replace", 3, false, (*Mutator).replace},
		{"renamedir", 2, false, (*Mutator).renameDir},
		{"movedir", 2, false, (*Mutator).moveDir},
		{"dirover", 1, false, (*Mutator).dirOver},
		{"exchange", 2, false, (*Mutator).exchange},
		{"link", 4, false, (*Mutator).link},
		{"linkover", 2, false, (*Mutator).linkOver},
		{"unlinkone", 2, false, (*Mutator).unlinkOne},
		{"writelink", 3, false, (*Mutator).writeLink},
		{"filetodir", 1, false, (*Mutator).fileToDir},
		{"dirtofile", 1, false, (*Mutator).dirToFile},
		{"fifo", 1, false, (*Mutator).fifo},
		{"socket", 1, false, (*Mutator).socket},
		{"device", 1, true, (*Mutator).device},
		{"mknod", 1, false, (*Mutator).mknod},
		{"noreplace", 2, false, (*Mutator).noReplace},
		{"whiteout", 1, true, (*Mutator).whiteout},
		{"whiteoutover", 1, true, (*Mutator).whiteoutOver},
		{"exchangedirs", 1, false, (*Mutator).exchangeDirs},
		{"exchangefiledir", 1, false, (*Mutator).exchangeFileDir},
		{"movespecial", 1, false, (*Mutator).moveSpecial},
	}
}

// Operations returns the names that Options.Weights takes.
func Operations() []string {
	var names []string
	for _, op := range operations() {
		names = append(names, op.name)
	}
	return names
}

// profile returns how much more often than by default operations are drawn.
func profile(name string) (map[string]int, error) {
	switch name {
	case "", "default":
		return nil, nil
	case "links":
		return map[string]int{"link": 8, "linkover": 8, "unlinkone": 8, "writelink": 8, "replace": 2, "save": 2}, nil
	case "renames":
		return map[string]int{
			"rename": 5, "move": 5, "replace": 5, "renamedir": 8, "movedir": 8, "dirover": 8, "exchange": 10, "mkdir": 2,
		}, nil
	case "exchange":
		return map[string]int{
			"exchange": 6, "exchangedirs": 16, "exchangefiledir": 10, "movespecial": 8, "noreplace": 4, "whiteout": 6,
			"whiteoutover": 4, "mknod": 5, "fifo": 3, "socket": 3, "device": 3, "movedir": 8, "renamedir": 5, "mkdir": 2,
			"mkdirp": 3, "link": 2,
		}, nil
	}
	return nil, fmt.Errorf("mutate: profile %q: %w", name, unix.EINVAL)
}

// choose returns the operations that may be drawn, with their weights, and the sum of these.
func choose(opts Options) ([]operation, int, error) {
	more, err := profile(opts.Profile)
	if err != nil {
		return nil, 0, err
	}
	if err := checkNames(opts.Weights); err != nil {
		return nil, 0, err
	}
	var chosen []operation
	total := 0
	for _, op := range operations() {
		op.weight *= max(1, more[op.name])
		if opts.Weights != nil {
			op.weight = opts.Weights[op.name]
		}
		if op.weight <= 0 || op.root && opts.Unprivileged {
			continue
		}
		total += op.weight
		chosen = append(chosen, op)
	}
	if total == 0 {
		return nil, 0, fmt.Errorf("mutate: every operation has weight 0: %w", unix.EINVAL)
	}
	return chosen, total, nil
}

// checkNames refuses a weight for an operation that does not exist, which would be a typing error.
func checkNames(weights map[string]int) error {
	known := Operations()
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("mutate: operation %q: %w; there are %s", name, unix.EINVAL, strings.Join(known, ", "))
		}
	}
	return nil
}

// draw picks an operation by weight.
func (m *Mutator) draw() operation {
	at := m.rng.IntN(m.total)
	for _, op := range m.ops {
		if at -= op.weight; at < 0 {
			return op
		}
	}
	return m.ops[len(m.ops)-1]
}

// pick returns a node that fits, or nil.
func (m *Mutator) pick(fits func(*node) bool) *node {
	all := m.model.all
	if len(all) == 0 {
		return nil
	}
	start := m.rng.IntN(len(all))
	for i := range all {
		if n := all[(start+i)%len(all)]; fits(n) {
			return n
		}
	}
	return nil
}

// These fit nodes by kind; isLinked wants more than one name.
func isFile(n *node) bool   { return n.ino.kind == file }
func isDir(n *node) bool    { return n.ino.kind == dir }
func isNotDir(n *node) bool { return n.ino.kind != dir }
func isLinked(n *node) bool { return isNotDir(n) && n.ino.names > 1 }

// pickDir returns a directory, the root among them, that may take something of the given height.
func (m *Mutator) pickDir(height int) *node {
	fits := func(n *node) bool { return isDir(n) && n.depth()+height < m.opts.MaxDepth }
	if m.rng.IntN(8) == 0 {
		return m.model.root
	}
	if n := m.pick(fits); n != nil {
		return n
	}
	return m.model.root
}

// place is a free name in a directory.
type place struct {
	dir  *node
	name string
}

// free finds a place for something new, or fails when the tree is full.
func (m *Mutator) free(height int) (place, error) {
	if len(m.model.all)+height >= m.opts.MaxEntries {
		return place{}, errSkip
	}
	d := m.pickDir(height)
	return place{d, m.freeName(d)}, nil
}

// freeName returns a name that the directory lacks. Names come from a small set, so that they come back.
func (m *Mutator) freeName(d *node) string {
	for range 10 {
		name := m.someName()
		if d.kids[name] == nil && (d.parent != nil || name != ".georep") {
			return name
		}
	}
	for i := len(d.order); ; i++ {
		if name := fmt.Sprintf("n%d", i); d.kids[name] == nil {
			return name
		}
	}
}

// someName draws a plain name, one of 80, or an odd one.
func (m *Mutator) someName() string {
	if m.opts.OddNames > 0 && m.rng.IntN(m.opts.OddNames) == 0 {
		odd := tree.OddNames()
		return odd[m.rng.IntN(len(odd))]
	}
	return fmt.Sprintf("%c%d", 'a'+rune(m.rng.IntN(20)), m.rng.IntN(4))
}

// pathOf is the path of a place for system calls.
func (m *Mutator) pathOf(p place) string { return m.model.path(p.dir) + "/" + p.name }

// temporary is a name beside n that no node has.
func (m *Mutator) temporary(n *node) string { return m.model.path(n.parent) + "/.tmp-mutate" }

// quote shows a node's path.
func (m *Mutator) quote(n *node) string { return fmt.Sprintf("%q", m.model.rel(n)) }

// fromTo shows where something went from and to.
func fromTo(from, to string) string { return from + " -> " + to }

// refused sorts out what a file system may decline; the operation then changed nothing.
func refused(did string, err error, errnos ...error) (string, error) {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return did + " (refused: " + errno.Error() + ")", nil
		}
	}
	return did, err
}
