package agenthost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/slavetest"
	"georep/volume"
)

// hookTaskText, in the environment, makes this test's binary the hook's process.
const hookTaskText = "GEOREP_TEST_HOOK_TASK"

// TestHookProcess is that process.
func TestHookProcess(t *testing.T) {
	if text := os.Getenv(hookTaskText); text != "" {
		if err := RunHook(t.Context(), text, os.Stdin); err != nil {
			t.Fatal(err)
		}
	}
}

// hooked is a world whose volume has a hook: a script that gets what is to be told on its standard input.
type hooked struct {
	*world
	told      string         // the file that the script may write to
	processes chan *exec.Cmd // of the hook
}

func newHooked(t *testing.T, script, pattern string) *hooked {
	t.Helper()
	w := &hooked{world: newWorld(t), processes: make(chan *exec.Cmd, 10)}
	dir := t.TempDir()
	w.told = filepath.Join(dir, "told")
	path := filepath.Join(dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+strings.ReplaceAll(script, "TOLD", w.told)), 0o755); err != nil {
		t.Fatal(err)
	}
	w.set2("hook-command", path)
	w.set2("hook-changed-pattern", pattern)
	w.host.Hook = func(text string) (*exec.Cmd, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHookProcess$")
		cmd.Env = append(os.Environ(), hookTaskText+"="+text)
		w.processes <- cmd
		return cmd, nil
	}
	return w
}

// set2 changes one key beside others.
func (w *hooked) set2(key, value string) {
	w.Helper()
	_, err := w.store.UpdateVolume("copy", func(v *volume.Volume) error {
		if v.Policy == nil {
			v.Policy = map[string]string{}
		}
		v.Policy[key] = value
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// until waits for what must happen.
func (w *hooked) until(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(w.told)
			kinds, all := w.events()
			w.Fatalf("%s: not so. Told: %s; on record: %v, %+v", what, text, kinds, all)
		}
	}
}

// heard tells what the script was told: "all", paths, and trees with a mark.
func (w *hooked) heard() (list []string) {
	text, _ := os.ReadFile(w.told)
	for line := range strings.Lines(string(text)) {
		var m struct {
			Kind, Master, Slave string
			All                 bool
			Paths, Trees        []string
		}
		if json.Unmarshal([]byte(line), &m) != nil {
			continue // it is being written
		}
		if m.Kind != "changed" || m.Slave != "copy" || m.Master != (xtime.UUID{1}).String() {
			w.Errorf("told %s", line)
		}
		if m.All {
			list = append(list, "all")
		}
		list = append(list, m.Paths...)
	}
	return list
}

func (w *hooked) hears(what string, from int) {
	w.Helper()
	w.until("the hook hears of "+what, func() bool {
		heard := w.heard()
		return len(heard) > from && strings.Contains(" "+strings.Join(heard[from:], " ")+" ", " "+what+" ")
	})
}

// record tells whether the audit log has a line about the hook with these words.
func (w *hooked) record(words string) bool {
	_, all := w.events()
	for _, e := range all {
		if e.Event == Hook && strings.Contains(e.Reason, words) {
			return true
		}
	}
	return false
}

// TestHookOfTheSlave: the slave's host hears what has become durable, once it is, and only what its pattern wants; the rest of it when
// the session ends, too. After whatever ended a session before, the next one says "all".
func TestHookOfTheSlave(t *testing.T) {
	w := newHooked(t, "cat >>TOLD", "*.html\n*.css")
	c := w.login(first)
	w.hears("all", 0)
	w.apply(c, slavetest.Put("x.html", slavetest.Rec(2, 1), "x"), slavetest.Put("y", slavetest.Rec(3, 1), "y"))
	w.apply(c, slavetest.Finish("", slavetest.Rec(1, 1), 1)) // the first stamp: all again, of what was before
	w.until("all again", func() bool { return len(w.heard()) >= 2 })
	n := len(w.heard())
	w.apply(c, slavetest.Put("z.html", slavetest.Rec(4, 2), "z"), slavetest.Put("y", slavetest.Rec(3, 2), "yy"))
	if heard := w.heard(); len(heard) > n {
		t.Errorf("what is not durable is told: %v", heard[n:])
	}
	w.apply(c, slavetest.Finish("", slavetest.Rec(1, 2), 2))
	w.hears("z.html", n)
	w.apply(c, slavetest.Put("last.css", slavetest.Rec(5, 3), "z"), slavetest.Finish("", slavetest.Rec(1, 3), 3))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	w.hears("last.css", n)
	if text := strings.Join(w.heard(), " "); strings.Contains(text, "y") {
		t.Errorf("told of what no pattern wants: %s", text)
	}
	w.waitFor(Ended)
	n = len(w.heard())
	w.login(first)
	w.hears("all", n)
}

// TestHookHoldsNothingUp: a command that hangs or fails, and a process of the hook that stands still or was killed, keep nothing from
// being applied; what is wrong is on record, and nothing is lost without "all" being said.
func TestHookHoldsNothingUp(t *testing.T) {
	w := newHooked(t, "[ -e TOLD.well ] && exec cat >>TOLD; echo no way >&2; [ -e TOLD.hang ] && exec sleep 1000; exit 3", "")
	w.host.hookLived = time.Nanosecond
	many := func(c *agent.Client, pass uint32) {
		for i := range 300 {
			w.apply(c, slavetest.Put(fmt.Sprint("f", i), slavetest.Rec(2+i, uint64(pass)), "x"), slavetest.Finish("", slavetest.Rec(1, uint64(pass)), pass))
		}
	}
	c := w.login(first)
	many(c, 1)
	w.until("the failure is on record", func() bool { return w.record("exit status 3: no way") })
	if err := os.WriteFile(w.told+".hang", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	many(c, 2)
	if err := os.WriteFile(w.told+".well", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Its process is killed: the session begins anew, and says "all".
	if err := (<-w.processes).Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.until("the end of the process is on record", func() bool { return w.record("signal: killed") })
	w.until("the session ends", func() bool {
		_, err := c.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{slavetest.Put("f", slavetest.Rec(2, 3), "x")}})
		return err != nil
	})
	w.waitFor(Ended)
	c = w.login(first)
	w.hears("all", 0)
	w.apply(c, slavetest.Put("g", slavetest.Rec(250, 4), "x"), slavetest.Finish("", slavetest.Rec(1, 4), 4))
	w.until("all, or what has changed", func() bool { return len(w.heard()) >= 2 })
}

// TestHooksOneAtATime: a session ends while the command runs, and the next one begins at once. What it has to tell waits until the
// process of the one before has come to its end.
func TestHooksOneAtATime(t *testing.T) {
	w := newHooked(t, "mkdir TOLD.busy || >TOLD.twice; >TOLD.began; while [ ! -e TOLD.go ]; do sleep 0.05; done; rmdir TOLD.busy; exec cat >>TOLD", "")
	is := func(what string) bool { _, err := os.Stat(w.told + what); return err == nil }
	c := w.login(first)
	w.until("the command runs", func() bool { return is(".began") })
	closeClient(c)
	w.waitFor(Ended)
	w.login(first) // which starts the second process
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end) && !is(".twice"); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.WriteFile(w.told+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("both have told all", func() bool { return len(w.heard()) >= 2 })
	if is(".twice") {
		t.Error("the command ran twice at the same time")
	}
}

// TestHookIsEnded: whoever ends the hook's process, as a host that goes down does, ends it and its command, whatever there is to be told.
func TestHookIsEnded(t *testing.T) {
	dir := t.TempDir()
	began, path := filepath.Join(dir, "began"), filepath.Join(dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n>"+began+"; exec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(hookTask{Command: []string{path}, Log: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	lists, agent := io.Pipe()
	defer agent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- RunHook(ctx, string(text), lists) }()
	if _, err := io.WriteString(agent, "{\"all\":true}\n"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the command does not run")
		}
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
}

// A process that cannot be started, or ends at once, is on record, and the session goes on without.
func TestHookThatDoesNotStart(t *testing.T) {
	w := newHooked(t, "", "")
	w.host.Hook = func(string) (*exec.Cmd, error) { return nil, errors.New("no such program") }
	c := w.login(first)
	w.apply(c, slavetest.Put("x", slavetest.Rec(2, 1), "x"))
	if !w.record("no such program") {
		t.Error("it is not on record")
	}
	_ = c.Close()
	w.waitFor(Ended)
	w.host.Hook = func(string) (*exec.Cmd, error) { return exec.Command("/bin/false"), nil }
	c = w.login(first)
	w.until("it is on record", func() bool { return w.record("exit status 1") })
	w.apply(c, slavetest.Put("y", slavetest.Rec(3, 2), "y"), slavetest.Finish("", slavetest.Rec(1, 2), 2))
	w.apply(c, slavetest.Put("z", slavetest.Rec(4, 2), "z"), slavetest.Finish("", slavetest.Rec(1, 3), 3))
	// A session may last for months. Later on it begins anew, with another process.
	_ = c.Close()
	w.until("it ends", func() bool { kinds, _ := w.events(); return strings.Count(strings.Join(kinds, " "), Ended) == 2 })
	w.host.hookAgain = time.Nanosecond
	c = w.login(first)
	w.until("the session ends", func() bool {
		_, err := c.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{slavetest.Put("y", slavetest.Rec(3, 3), "y")}})
		return err != nil
	})
}

// Without a hook, and to look only, no process is started.
func TestNoHook(t *testing.T) {
	w := newHooked(t, "", "")
	w.host.Hook = func(string) (*exec.Cmd, error) { t.Error("a process is started"); return nil, errors.New("no") }
	dry, inspector := first, first
	dry.DryRun, dry.Inspect, inspector.Inspect = true, true, true
	for _, hello := range []func() error{
		func() error { c, err := w.dial(dry); closeClient(c); return err },
		func() error {
			w.set2("hook-command", "")
			c, err := w.dial(first)
			if err == nil {
				w.apply(c, slavetest.Put("x", slavetest.Rec(2, 1), "x"), slavetest.Finish("", slavetest.Rec(1, 1), 1))
			}
			closeClient(c)
			return err
		},
		func() error {
			w.set2("hook-command", "/bin/true")
			c, err := w.dial(inspector)
			closeClient(c)
			return err
		},
	} {
		if err := hello(); err != nil {
			t.Error(err)
		}
	}
}

func closeClient(c *agent.Client) {
	if c != nil {
		_ = c.Close()
	}
}
