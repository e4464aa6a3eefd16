package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// manyNames is a slave with an inode of many names, d/n0 and on, and its test.
type manyNames struct {
	*testing.T
	tree *Tree
	root string
	old  slave.Record

	mu   sync.Mutex
	hook func(op, name string) error // called with mu held
	done chan struct{}               // closed when what send sent was answered
}

const stepNames, stepSize = 60, 10

func newManyNames(t *testing.T, at string) *manyNames {
	m := &manyNames{T: t, root: at, old: slavetest.Rec(1, 10), done: make(chan struct{})}
	tree, err := open(testOptions(t, m.root), func(op, name string) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.hook != nil {
			return m.hook(op, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	tree.committer.publisher.step = stepSize
	m.tree = tree
	ops := []slave.Op{slavetest.Mkdir("d", slavetest.Rec(2, 1)), slavetest.Mkdir("d/sub", slavetest.Rec(3, 1)),
		slavetest.Linked(slavetest.Put("d/n0", m.old, "old"), stepNames)}
	for i := 1; i < stepNames; i++ {
		ops = append(ops, slavetest.Link(m.name(i), "d/n0", m.old, stepNames))
	}
	m.apply(ops...)
	return m
}

// watch sets the hook.
func (m *manyNames) watch(hook func(op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// send sends another batch, and returns when the committer may take it. It is for the hook.
func (m *manyNames) send(ops ...slave.Op) {
	m.mu.Unlock()
	defer m.mu.Lock()
	go func() { defer close(m.done); m.apply(ops...) }()
	for !m.tree.queue.waits() {
		runtime.Gosched()
	}
}

// name is one of the names. The last third lies in d/sub.
func (m *manyNames) name(i int) string {
	if i > stepNames*2/3 {
		return fmt.Sprint("d/sub/n", i)
	}
	return fmt.Sprint("d/n", i)
}

func (m *manyNames) results(ops ...slave.Op) []slave.Result {
	m.Helper()
	results, err := m.tree.Apply(m.Context(), &slave.Batch{Ops: ops})
	if err != nil {
		m.Error(err)
	}
	return results
}

func (m *manyNames) apply(ops ...slave.Op) {
	m.Helper()
	for i, r := range m.results(ops...) {
		if r.Err != nil {
			m.Errorf("%v %s: %v", ops[i].Kind, ops[i].Path, r.Err)
		}
	}
}

// put gives the inode new content.
func (m *manyNames) put(sec uint64) slave.Op {
	rec := m.old
	rec.Xtime = slavetest.Rec(1, sec).Xtime
	return slavetest.Linked(slavetest.Put("d/n0", rec, "new"), stepNames)
}

// check fails unless the paths are the names of one inode, and all of it, with that content.
func (m *manyNames) check(text string, paths ...string) {
	m.Helper()
	inos := map[uint64]int{}
	for _, path := range paths {
		got, err := os.ReadFile(filepath.Join(m.root, path))
		st, statErr := os.Lstat(filepath.Join(m.root, path))
		if err != nil || statErr != nil || string(got) != text {
			m.Errorf("%s: %q, %v", path, got, errors.Join(err, statErr))
			continue
		}
		sys := st.Sys().(*syscall.Stat_t)
		if inos[sys.Ino]++; int(sys.Nlink) != len(paths) {
			m.Errorf("%s has %d names, want %d", path, sys.Nlink, len(paths))
		}
	}
	if len(inos) != 1 {
		m.Errorf("%d inodes for %d names: %v", len(inos), len(paths), inos)
	}
}

func (m *manyNames) all() (paths []string) {
	for i := range stepNames {
		paths = append(paths, m.name(i))
	}
	return paths
}

// TestContentOfManyNamesGivesWay: while an inode gets new content under all its names, a batch that comes is published after no more than
// a step, whatever it does to these names, and in the end they are all names of one inode.
func TestContentOfManyNamesGivesWay(t *testing.T) {
	for name, c := range map[string]struct {
		other func(m *manyNames) []slave.Op
		paths func(m *manyNames) []string // nil: as before
		fails bool                        // the content has to be sent again
	}{
		"something else": {func(*manyNames) []slave.Op { return []slave.Op{slavetest.Put("other", slavetest.Rec(9, 1), "x")} }, nil, false},
		"a further name": {func(m *manyNames) []slave.Op {
			return []slave.Op{slavetest.Link("further", m.name(stepNames-1), m.old, stepNames+1)}
		}, func(m *manyNames) []string { return append(m.all(), "further") }, false},
		"its directory moves": {func(m *manyNames) []slave.Op {
			return []slave.Op{slavetest.Park("d/sub", slavetest.GFID(3)), slavetest.Unpark("moved", slavetest.Rec(3, 1))}
		}, func(m *manyNames) (paths []string) {
			for _, path := range m.all() {
				paths = append(paths, strings.Replace(path, "d/sub/", "moved/", 1))
			}
			return paths
		}, false},
		"a name goes": {func(m *manyNames) []slave.Op { return []slave.Op{slavetest.Park(m.name(stepNames-1), m.old.GFID)} },
			func(m *manyNames) []string { return m.all()[:stepNames-1] }, false},
		"another takes a name": {func(m *manyNames) []slave.Op {
			return []slave.Op{slavetest.Put(m.name(stepNames-1), slavetest.Rec(8, 1), "x")}
		}, func(m *manyNames) []string { return m.all()[:stepNames-1] }, false},
		"the same content once more": {func(m *manyNames) []slave.Op { return []slave.Op{m.put(20)} }, nil, false},
		"its own directory moves": {func(m *manyNames) []slave.Op {
			return []slave.Op{slavetest.Park("d", slavetest.GFID(2)), slavetest.Unpark("e", slavetest.Rec(2, 1))}
		}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 1; at < stepNames; at += stepSize + 3 {
				m := newManyNames(t, t.TempDir())
				seen, after, began := 0, 0, false
				m.watch(func(op, name string) error {
					if op != "rename" || !strings.Contains(name, " to n") {
						return nil
					}
					if seen++; seen == at {
						m.send(c.other(m)...)
						began = true
					}
					if began && m.tree.queue.waits() {
						after++
					}
					return nil
				})
				put := m.put(20)
				r := m.results(put)
				<-m.done
				m.watch(nil)
				if after > stepSize+1 {
					t.Errorf("from name %d: %d names were replaced while the other batch waited", at, after)
				}
				if failed := r[0].Err != nil; failed != c.fails {
					t.Errorf("from name %d: the content: %v", at, r[0].Err)
				}
				if c.fails {
					continue
				}
				paths := m.all()
				if c.paths != nil {
					paths = c.paths(m)
				}
				m.check("new", paths...)
				m.apply(put)
				m.check("new", paths...)
			}
		})
	}
}

// TestFinishWaitsForWhatGaveWay: a stamp does not overtake an operation of its batch that gave way.
func TestFinishWaitsForWhatGaveWay(t *testing.T) {
	m := newManyNames(t, t.TempDir())
	seen := 0
	var order []string
	m.watch(func(op, name string) error {
		switch {
		case op == "rename" && strings.HasSuffix(name, " to n0"):
			order = append(order, "content")
		case strings.HasPrefix(op, "setxattr") && len(order) > 0:
			order = append(order, "stamp")
		}
		if op == "rename" && strings.Contains(name, " to n") {
			if seen++; seen == 3 {
				m.send(slavetest.Put("other", slavetest.Rec(9, 1), "x"))
			}
		}
		return nil
	})
	m.apply(m.put(20), slavetest.Finish("d/sub", slavetest.Rec(3, 30), 1), slavetest.Finish("d", slavetest.Rec(2, 30), 1))
	<-m.done
	m.watch(nil)
	m.check("new", m.all()...)
	if len(order) < 3 || order[0] != "content" || order[1] != "stamp" {
		t.Errorf("the order: %v", order)
	}
}

// TestContentOfManyNamesFails fails each of the calls that replace names, while another batch comes. Sent again, the content arrives.
func TestContentOfManyNamesFails(t *testing.T) {
	for n := 1; ; n += 3 {
		m := newManyNames(t, t.TempDir())
		begun, calls := false, 0
		m.watch(func(op, name string) error {
			if op != "rename" && op != "link" && op != "utimens" || name == "other" {
				return nil
			}
			if !begun && op == "link" {
				begun = true
				m.send(slavetest.Mkdir("other", slavetest.Rec(9, 1)))
			}
			if !begun {
				return nil
			}
			if calls++; calls == n {
				return unix.EIO
			}
			return nil
		})
		r := m.results(m.put(20))
		<-m.done
		m.watch(nil)
		if calls >= n && r[0].Err == nil {
			t.Errorf("call %d failed, and nobody says so", n)
		}
		m.apply(m.put(20))
		m.check("new", m.all()...)
		if calls < n {
			return
		}
		if t.Failed() {
			t.Fatalf("with call %d failing", n)
		}
	}
}
