// Package oracle changes a tree while something else copies it, and knows which states each name has been in: so it can tell of a copy
// whether it has all that the tree had at a moment.
package oracle

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Oracle knows which states each name on the master has been in, oldest first.
type Oracle struct {
	dir    string
	names  []string
	random *rand.Rand

	mu     sync.Mutex
	states map[string][]string // before an operation begins that brings a name there
	done   map[string]int      // up to which of them it surely came
	moves  []move
	begun  int // writes
}

// move brought the file of one name to another, as the state of that number.
type move struct {
	from, to string
	as       int
}

const absent, empty = "absent", ""

// New is for one tree, in which it makes five directories.
func New(t testing.TB, dir string, seed uint64) *Oracle {
	t.Helper()
	for i := range 5 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("d%d", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := &Oracle{dir: dir, random: rand.New(rand.NewPCG(seed, 0)), states: map[string][]string{}, done: map[string]int{}}
	for i := range 30 {
		name := fmt.Sprintf("d%d/f%02d", i%5, i)
		o.names = append(o.names, name)
		o.states[name] = []string{absent}
	}
	return o
}

// Change does one random operation: each is one system call that counts, or two whose middle is a state of its own.
func (o *Oracle) Change() error {
	a, b := o.names[o.random.IntN(len(o.names))], o.names[o.random.IntN(len(o.names))]
	was, kind := o.now(a), o.random.IntN(4)
	switch {
	case was == absent || kind < 2:
		text := fmt.Sprintf("%s is %08d", a, o.write())
		if was != absent {
			return o.do(map[string][]string{a: {text}}, func() error {
				f, err := os.OpenFile(filepath.Join(o.dir, a), os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteAt([]byte(text), 0)
				return errors.Join(err, f.Close())
			})
		}
		return o.do(map[string][]string{a: {empty, text}}, func() error {
			return os.WriteFile(filepath.Join(o.dir, a), []byte(text), 0o644)
		})
	case kind == 2 || a == b:
		return o.do(map[string][]string{a: {absent}}, func() error { return os.Remove(filepath.Join(o.dir, a)) })
	}
	o.moved(a, b)
	return o.do(map[string][]string{a: {absent}, b: {was}}, func() error {
		return os.Rename(filepath.Join(o.dir, a), filepath.Join(o.dir, b))
	})
}

// moved notes a move that is about to begin.
func (o *Oracle) moved(from, to string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moves = append(o.moves, move{from, to, len(o.states[to])})
}

func (o *Oracle) write() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun++
	return o.begun
}

func (o *Oracle) now(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.states[name]
	return list[len(list)-1]
}

func (o *Oracle) do(to map[string][]string, op func() error) error {
	o.mu.Lock()
	for name, states := range to {
		o.states[name] = append(o.states[name], states...)
	}
	o.mu.Unlock()
	err := op()
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range to {
		o.done[name] = len(o.states[name]) - 1
	}
	return err
}

// Moment is up to where the states of the names had come, and how many writes had begun.
type Moment struct {
	state  map[string]int
	writes int
}

// Moment is what the master surely was by now.
func (o *Oracle) Moment() Moment {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := Moment{state: map[string]int{}, writes: o.begun}
	for _, name := range o.names {
		at.state[name] = o.done[name]
	}
	return at
}

// since tells whether a name may have a content on a copy that has all of a moment: what the master had there since, or what a file
// had that has moved there since, which may come there before its newer content does. The caller holds mu.
func (o *Oracle) since(at Moment, name, text string) bool {
	met := map[string]bool{name: true}
	for todo := []string{name}; len(todo) > 0; todo = todo[1:] {
		if slices.Contains(o.states[todo[0]][at.state[todo[0]]:], text) {
			return true
		}
		for _, m := range o.moves {
			if m.to == todo[0] && m.as > at.state[m.to] && !met[m.from] && text != absent {
				met[m.from], todo = true, append(todo, m.from)
			}
		}
	}
	return false
}

// Check holds a slave against what the master was at a moment, or later.
func (o *Oracle) Check(t testing.TB, slave string, at Moment) {
	t.Helper()
	for _, name := range o.names {
		text, err := os.ReadFile(filepath.Join(slave, name))
		if errors.Is(err, fs.ErrNotExist) {
			text = []byte(absent)
		} else if err != nil {
			t.Fatal(err)
		}
		o.mu.Lock()
		// A file that moved may have its new content while it still has its old name.
		written := 0
		if fields := strings.Fields(string(text)); len(fields) == 3 {
			written, _ = strconv.Atoi(fields[2])
		}
		if written <= at.writes && !o.since(at, name, string(text)) {
			t.Errorf("wait came back, and %s is %q on the slave; the master had %q then", name, text, o.states[name][at.state[name]])
		}
		o.mu.Unlock()
	}
}
