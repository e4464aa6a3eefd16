package main

import (
	"fmt"
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

	"georep/integration/harness/oracle"
	"georep/status"
)

// TestWaitIsNeverEarly: whatever is killed while the master changes, at each return of wait the slave has what the master had
// when wait began, or at the checkpoint. GEOREP_WAITS is how many rounds it takes.
func TestWaitIsNeverEarly(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	o := oracle.New(t, master, 1)
	for range 60 {
		if err := o.Change(); err != nil {
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
			if err := o.Change(); err != nil {
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
		at := o.Moment()
		name := fmt.Sprint("c", i)
		p.ok(with("checkpoint", "--name", name)...)
		if i%2 == 1 {
			cut()
		}
		p.run(with("wait", "--timeout", "1m", "--ignore-hidden-writers")...).check(t, exitDone, "the slave has everything")
		o.Check(t, slave, at)
		left.Store(100)
		at = o.Moment()
		p.ok(with("checkpoint")...)
		if i%3 == 2 {
			cut()
		}
		p.run(with("wait", "--checkpoint", "last", "--timeout", "1m", "--ignore-hidden-writers")...).check(t, exitDone)
		o.Check(t, slave, at)
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
