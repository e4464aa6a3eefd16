package main

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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"georep/status"
)

// oracle knows which states each name on the master has been in, oldest first.
type oracle struct {
	dir    string
	names  []string
	random *rand.Rand

	mu     sync.Mutex
	states map[string][]string // before an operation begins that brings a name there
	done   map[string]int      // up to which of them it surely came
	begun  int                 // writes
}

const absent, empty = "absent", ""

func newOracle(dir string, seed uint64) *oracle {
	o := &oracle{dir: dir, random: rand.New(rand.NewPCG(seed, 0)), states: map[string][]string{}, done: map[string]int{}}
	for i := range 30 {
		name := fmt.Sprintf("d%d/f%02d", i%5, i)
		o.names = append(o.names, name)
		o.states[name] = []string{absent}
	}
	return o
}

// change does one random operation: each is one system call that counts, or two whose middle is a state of its own.
func (o *oracle) change() error {
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
	return o.do(map[string][]string{a: {absent}, b: {was}}, func() error {
		return os.Rename(filepath.Join(o.dir, a), filepath.Join(o.dir, b))
	})
}

func (o *oracle) write() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun++
	return o.begun
}

func (o *oracle) now(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.states[name]
	return list[len(list)-1]
}

func (o *oracle) do(to map[string][]string, op func() error) error {
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

// moment is up to where the states of the names had come, and how many writes had begun.
type moment struct {
	state  map[string]int
	writes int
}

// moment is what the master surely was by now.
func (o *oracle) moment() moment {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := moment{state: map[string]int{}, writes: o.begun}
	for _, name := range o.names {
		at.state[name] = o.done[name]
	}
	return at
}

// check holds a slave against what the master was at a moment, or later.
func (o *oracle) check(t *testing.T, slave string, at moment) {
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
		since, written := at.state[name], 0
		if fields := strings.Fields(string(text)); len(fields) == 3 {
			written, _ = strconv.Atoi(fields[2])
		}
		if list := o.states[name]; written <= at.writes && !slices.Contains(list[since:], string(text)) {
			t.Errorf("wait came back, and %s is %q on the slave; the master had %q then", name, text, list[since])
		}
		o.mu.Unlock()
	}
}

// TestWaitIsNeverEarly: whatever is killed while the master changes, at each return of wait the slave has what the master had
// when wait began, or at the checkpoint. GEOREP_WAITS is how many rounds it takes.
func TestWaitIsNeverEarly(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	for i := range 5 {
		p.mkdir(fmt.Sprintf("master/d%d", i))
	}
	o := newOracle(master, 1)
	for range 60 {
		if err := o.change(); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{master, "file://" + slave}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, args...), more...)
	}
	p.ok(with("start", "--retry-max", "1s", "--settle", "0s", "--max-delay", "1s")...)
	t.Cleanup(func() { p.run(with("stop")...) })
	stop := make(chan struct{})
	var load sync.WaitGroup
	var left atomic.Int64 // changes to make: on a busy machine the slave would hardly come up to a load that never ends
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if left.Add(-1) < 0 {
				continue
			}
			if err := o.change(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	cut := func() {
		if pid := p.glance().WorkerPid; pid > 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("GEOREP_WAITS")); err == nil {
		rounds = n
	}
	for i := range rounds {
		left.Store(100)
		at := o.moment()
		name := fmt.Sprint("c", i)
		p.ok(with("checkpoint", "--name", name)...)
		if i%2 == 1 {
			cut()
		}
		p.run(with("wait", "--timeout", "1m", "--ignore-hidden-writers")...).check(t, exitDone, "the slave has everything")
		o.check(t, slave, at)
		left.Store(100)
		at = o.moment()
		p.ok(with("checkpoint")...)
		if i%3 == 2 {
			cut()
		}
		p.run(with("wait", "--checkpoint", "last", "--timeout", "1m", "--ignore-hidden-writers")...).check(t, exitDone)
		o.check(t, slave, at)
	}
	close(stop)
	load.Wait()
	p.waitStatus(func(st status.Status) bool {
		return len(st.Checkpoints) == rounds+1 && !slices.ContainsFunc(st.Checkpoints, func(c status.Checkpoint) bool { return !c.Completed })
	})
	p.ok(with("stop")...)
}

// TestWait: it waits for nothing that cannot come, says why it waits, and its codes tell one end from another.
func TestWait(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.write(filepath.Join(master, "a"), "one")
	args := []string{master, "file://" + slave}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, args...), more...)
	}
	p.ok(with("create")...)
	p.run(with("wait")...).check(t, exitFailed, "not running")
	p.run(with("wait", "--checkpoint", "none")...).check(t, exitFailed, "no such checkpoint")
	p.run(with("wait", "--until", "tomorrow")...).check(t, exitUsage, "--until cannot be")
	p.run(with("checkpoint", "--name", "-x")...).check(t, exitFailed, "is no name of a checkpoint")
	p.ok(with("checkpoint", "--name", "first")...)
	p.run(with("checkpoint", "--list")...).check(t, exitDone, "first", "No")
	p.ok(with("start")...)
	t.Cleanup(func() { p.run(with("stop")...) })
	p.run(with("wait", "--checkpoint", "first", "--ignore-hidden-writers")...).check(t, exitDone, "the slave has everything")
	p.sameText(master, slave, "a")
	says := func(want int, texts ...string) {
		t.Helper()
		o := p.run(with("wait", texts[:2]...)...)
		for _, text := range texts[2:] {
			if o.code != want || !strings.Contains(o.errors, text) {
				t.Errorf("exit code %d, want %d with %q:\n%s", o.code, want, text, o.errors)
			}
		}
	}
	p.ok(with("checkpoint", "--name", "later")...)
	says(exitTimeout, "--until=2099-01-01 00:00:00", "--timeout=10ms", "waiting: the time is yet to come", "after 10ms")
	p.ok(with("pause")...)
	p.write(filepath.Join(master, "a"), "two")
	says(exitTimeout, "--timeout", "1s", "waiting: the session is Paused", "after 1s")
	p.ok(with("resume")...)
	if o, st := p.run(with("wait")...), p.status(); o.code != exitDone && (o.code != exitUnseen || st.HiddenWriters == "") {
		t.Errorf("exit code %d, hidden writers: %q\n%s", o.code, st.HiddenWriters, o.errors)
	}
	p.sameText(master, slave, "a")
	p.waitStatus(func(st status.Status) bool { return len(st.Checkpoints) == 2 && st.Checkpoints[1].Completed })
	p.run("status", "--detail").check(t, exitDone, "CHECKPOINT COMPLETION TIME", "Yes")
	p.ok(with("stop")...)
	p.run(with("wait", "--checkpoint", "first", "--ignore-hidden-writers")...).check(t, exitDone) // on record
	p.run(with("wait")...).check(t, exitFailed, "not running")
	p.ok(with("checkpoint", "--delete", "--name", "first")...)
	p.run(with("checkpoint", "--delete", "--name", "first")...).check(t, exitFailed, "no checkpoint")
	p.ok(with("checkpoint", "--delete", "--name", "later")...)
	p.run(with("checkpoint", "--list")...).check(t, exitDone, "no checkpoints")
}
