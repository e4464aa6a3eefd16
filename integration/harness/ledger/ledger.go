package ledger

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Ledger is a tree with its books.
type Ledger struct {
	mu    sync.Mutex
	root  string
	rng   *rand.Rand
	nodes map[int]*node
	gfids map[xtime.GFID]int // of directories
	last  int                // number of the newest node
	log   []change
	notes []note
}

// node is an inode: a file, or a directory with its names. The root is number 1; 0 is none.
type node struct {
	id      int
	dir     bool
	parent  int  // of a directory
	version int  // of the content
	attr    int  // value of its attribute
	linked  bool // has, or had, several names
	names   map[string]int
	through map[int]state // of a file: what it was at the last change through a name in that directory
}

// change says that a name of a directory began to lead to another node, or to none.
type change struct {
	dir  int
	name string
	id   int
}

// note is the state at a moment.
type note struct {
	at     time.Time
	xtime  xtime.Time // covers it; 0 while not known
	logged int        // length of the log at that moment
	names  map[int]map[string]int
	states map[int]state
	// through has, of the files with several names, what they were at the last change through a name in a directory.
	through map[int]map[int]state
}

type state struct{ version, attr int }

// Limits of the tree, and how many states are kept.
const (
	maxNames  = 400
	maxNotes  = 300
	nameCount = 12 // different names of files
	topNode   = 1
)

// New begins a ledger in the empty directory root.
func New(root string, seed uint64) (*Ledger, error) {
	l := &Ledger{root: root, rng: rand.New(rand.NewPCG(seed, 5)), nodes: map[int]*node{}, gfids: map[xtime.GFID]int{}}
	return l, l.addDir(l.node(true), root)
}

func (l *Ledger) node(dir bool) *node {
	l.last++
	n := &node{id: l.last, dir: dir}
	if dir {
		n.names = map[string]int{}
	} else {
		n.through = map[int]state{}
	}
	l.nodes[n.id] = n
	return n
}

func (l *Ledger) addDir(n *node, path string) error {
	d, err := beneath.OpenRoot(path, false)
	if err != nil {
		return err
	}
	defer d.Close()
	gfid, err := d.GFID("")
	l.gfids[gfid] = n.id
	return err
}

// set books that a name leads to a node, 0 for none.
func (l *Ledger) set(dir *node, name string, id int) {
	if id == 0 {
		delete(dir.names, name)
	} else {
		dir.names[name] = id
	}
	l.log = append(l.log, change{dir.id, name, id})
}

// touched books that a file changed, or came, through a name in a directory: to there the marks lead.
func (n *node) touched(dir *node) { n.through[dir.id] = state{n.version, n.attr} }

func (l *Ledger) path(dir *node) string {
	if dir.id == topNode {
		return l.root
	}
	up := l.nodes[dir.parent]
	for name, id := range up.names {
		if id == dir.id {
			return filepath.Join(l.path(up), name)
		}
	}
	return ""
}

// Note books the state of now.
func (l *Ledger) Note() {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := note{at: time.Now(), logged: len(l.log), names: map[int]map[string]int{}, states: map[int]state{},
		through: map[int]map[int]state{}}
	l.walk(topNode, func(dir *node) {
		n.names[dir.id] = maps.Clone(dir.names)
		for _, id := range dir.names {
			file := l.nodes[id]
			n.states[id] = state{file.version, file.attr}
			if file.linked && n.through[id] == nil {
				n.through[id] = maps.Clone(file.through)
			}
		}
	})
	l.notes = append(l.notes, n)
	if len(l.notes) > maxNotes {
		l.notes = slices.Delete(l.notes, 0, len(l.notes)-maxNotes)
	}
}

// Cover says that all that changed before at is marked, with an xtime of at most x.
func (l *Ledger) Cover(at time.Time, x xtime.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.notes {
		if n := &l.notes[i]; n.xtime == 0 && n.at.Before(at) {
			n.xtime = x
		}
	}
}

// walk calls visit for a directory and all below it.
func (l *Ledger) walk(id int, visit func(*node)) {
	dir := l.nodes[id]
	visit(dir)
	for _, child := range dir.names {
		if l.nodes[child].dir {
			l.walk(child, visit)
		}
	}
}

// dirs lists the directories of the tree, in the order of their numbers.
func (l *Ledger) dirs() (all []*node) {
	l.walk(topNode, func(d *node) { all = append(all, d) })
	slices.SortFunc(all, func(a, b *node) int { return a.id - b.id })
	return all
}

// Step changes something.
func (l *Ledger) Step() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.dirs()
	total := 0
	for _, d := range all {
		total += len(d.names)
	}
	dir, to := all[l.rng.IntN(len(all))], all[l.rng.IntN(len(all))]
	what := l.rng.IntN(100)
	switch {
	case total > maxNames || what < 10:
		return l.remove(dir)
	case what < 15:
		return l.mkdir(dir)
	case what < 20:
		return l.moveDir(dir, to)
	case what < 32:
		return l.rename(dir, to)
	case what < 40:
		return l.link(dir, to)
	case what < 52:
		return l.setAttr(dir)
	case what < 72:
		return l.rewrite(dir)
	default:
		return l.save(dir)
	}
}

// pick gives the name of a file in dir, "" where there is none.
func (l *Ledger) pick(dir *node) (string, *node) {
	var files []string
	for name, id := range dir.names {
		if !l.nodes[id].dir {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		return "", nil
	}
	slices.Sort(files)
	name := files[l.rng.IntN(len(files))]
	return name, l.nodes[dir.names[name]]
}

func (l *Ledger) fileName() string { return fmt.Sprintf("f%d", l.rng.IntN(nameCount)) }

// save puts a new file in the place of what has the name, as editors do.
func (l *Ledger) save(dir *node) error {
	n := l.node(false)
	n.version = 1
	name, path := l.fileName(), l.path(dir)
	if err := os.WriteFile(filepath.Join(path, "saving"), content(n.id, 1), 0o644); err != nil {
		return err
	}
	l.set(dir, "saving", n.id)
	n.touched(dir)
	if err := os.Rename(filepath.Join(path, "saving"), filepath.Join(path, name)); err != nil {
		return err
	}
	l.set(dir, name, n.id)
	l.set(dir, "saving", 0)
	return nil
}

// rewrite gives a file another content in its place.
func (l *Ledger) rewrite(dir *node) error {
	name, n := l.pick(dir)
	if n == nil {
		return nil
	}
	n.version++
	n.touched(dir)
	return os.WriteFile(filepath.Join(l.path(dir), name), content(n.id, n.version), 0o644)
}

func (l *Ledger) setAttr(dir *node) error {
	name, n := l.pick(dir)
	if n == nil {
		return nil
	}
	n.attr++
	n.touched(dir)
	return unix.Setxattr(filepath.Join(l.path(dir), name), attribute, fmt.Append(nil, n.attr), 0)
}

func (l *Ledger) rename(dir, to *node) error {
	from, n := l.pick(dir)
	name := l.fileName()
	if n == nil || to.names[name] == n.id { // a rename between two names of an inode does nothing
		return nil
	}
	if err := os.Rename(filepath.Join(l.path(dir), from), filepath.Join(l.path(to), name)); err != nil {
		return err
	}
	l.set(to, name, n.id)
	n.touched(to)
	l.set(dir, from, 0)
	return nil
}

func (l *Ledger) link(dir, to *node) error {
	from, n := l.pick(dir)
	name := l.fileName()
	if n == nil || to.names[name] != 0 {
		return nil
	}
	if err := os.Link(filepath.Join(l.path(dir), from), filepath.Join(l.path(to), name)); err != nil {
		return err
	}
	n.linked = true
	l.set(to, name, n.id)
	n.touched(to)
	return nil
}

func (l *Ledger) remove(dir *node) error {
	path := l.path(dir)
	if dir.id != topNode && len(dir.names) == 0 {
		up := l.nodes[dir.parent]
		l.set(up, filepath.Base(path), 0)
		return os.Remove(path)
	}
	name, n := l.pick(dir)
	if n == nil {
		return nil
	}
	l.set(dir, name, 0)
	return os.Remove(filepath.Join(path, name))
}

func (l *Ledger) mkdir(dir *node) error {
	n := l.node(true)
	n.parent = dir.id
	name := fmt.Sprintf("d%d", n.id)
	path := filepath.Join(l.path(dir), name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	l.set(dir, name, n.id)
	return l.addDir(n, path)
}

// moveDir moves a directory to another, unless that lies within it.
func (l *Ledger) moveDir(dir, to *node) error {
	for up := to; ; up = l.nodes[up.parent] {
		if up.id == dir.id {
			return nil
		}
		if up.id == topNode {
			break
		}
	}
	l.last++
	name := fmt.Sprintf("d%d", l.last)
	old := l.path(dir)
	if err := os.Rename(old, filepath.Join(l.path(to), name)); err != nil {
		return err
	}
	l.set(l.nodes[dir.parent], filepath.Base(old), 0)
	dir.parent = to.id
	l.set(to, name, dir.id)
	return nil
}
