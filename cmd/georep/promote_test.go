package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/status"
)

// TestReturningMaster: a master that died with a tail which was not sent comes back after its slave was promoted, and people work there.
// It is refused, whatever it says, and nothing of theirs is touched.
func TestReturningMaster(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	spec := "file://" + slave
	p.ok("volume", "create", "copy", slave)
	p.write(filepath.Join(master, "db"), "old")
	p.ok("sync", master, spec)
	p.write(filepath.Join(master, "db"), "old and a lost tail")

	p.run("promote", "copy").check(t, exitFailed, "--yes")
	p.run("promote", "copy", "--json").check(t, exitUsage, "--yes")
	p.run("promote", master, "--yes").check(t, exitFailed, "no slave")
	p.run("demote", "copy", "--yes").check(t, exitFailed, "not promoted")
	p.run("promote", "copy", "--yes").check(t, exitDone, "promoted (epoch 1)", "all that the master had at")
	p.run("promote", "copy", "--yes").check(t, exitDone, "promoted already")
	p.run("volume", "info", "copy").check(t, exitDone, "epoch 1")
	p.run("volume", "log", "copy").check(t, exitDone, "promoted")
	var said promotion
	out := p.run("promote", "copy", "--yes", "--json")
	if err := json.Unmarshal([]byte(out.out), &said); err != nil || !said.Promoted || !said.Already || said.Epoch != 1 || said.Has.IsZero() {
		t.Errorf("%v: %s", err, out.out)
	}

	p.write(filepath.Join(slave, "db"), "new")
	p.write(filepath.Join(slave, "customer"), "orders")
	untouched := func() {
		t.Helper()
		for name, want := range map[string]string{"db": "new", "customer": "orders"} {
			if got, err := os.ReadFile(filepath.Join(slave, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	for _, more := range [][]string{nil, {"--force", "--yes"}} {
		p.run(append([]string{"sync", master, spec}, more...)...).check(t, exitFailed, "promoted", "epoch 1")
		untouched()
	}
	p.run("start", master, spec).check(t, exitFailed, "promoted")
	untouched()
	// What the master has beyond, or lacks, can be seen.
	if out := p.run("sync", "--dry-run", master, spec); out.code != exitDone || !strings.Contains(out.out, "customer") || !strings.Contains(out.out, "db") {
		t.Errorf("a dry run: %+v", out)
	}
	untouched()

	p.run("demote", "copy", "--yes").check(t, exitDone, "follows the master")
	p.ok("sync", master, spec)
	p.sameText(master, slave, "db")
	if _, err := os.Stat(filepath.Join(slave, "customer")); err == nil {
		t.Error("what the promoted side had is there, after it was given back")
	}
	p.run("promote", slave, "--yes").check(t, exitDone, "epoch 2")
}

// TestPromoteEndsASession: a session that is connected keeps its slave from being promoted, unless that is forced; then it is Faulty.
func TestPromoteEndsASession(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.write(filepath.Join(master, "f"), "1")
	t.Cleanup(func() { p.run("stop", master) })
	p.ok("start", master, "file://"+slave, "--retry-max", "1s")
	p.ok("sync", master)
	p.run("promote", slave, "--yes").check(t, exitFailed, "--force")
	p.write(filepath.Join(master, "f"), "2")
	p.ok("sync", master)
	p.sameText(master, slave, "f")
	p.run("promote", slave, "--yes", "--force").check(t, exitDone, "epoch 1")
	p.write(filepath.Join(slave, "f"), "3")
	p.waitStatus(func(st status.Status) bool {
		return st.State == status.Faulty && strings.Contains(st.Reason, "promoted")
	})
	if out := p.run("status", master, "--check"); out.code != exitUsage || !strings.Contains(out.out, "promoted") {
		t.Errorf("the check: %+v", out)
	}
	if got, err := os.ReadFile(filepath.Join(slave, "f")); err != nil || string(got) != "3" {
		t.Errorf("%q, %v", got, err)
	}
	// Given back, the session goes on by itself.
	p.ok("demote", slave, "--yes")
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	p.ok("sync", master)
	p.sameText(master, slave, "f")
	p.ok("stop", master)
}

// TestDemoteWhatIsAMaster: a promoted slave that is replicated from is not given back.
func TestDemoteWhatIsAMaster(t *testing.T) {
	p := build(t, 0)
	master, slave, third := p.mkdir("master"), p.mkdir("slave"), p.mkdir("third")
	p.write(filepath.Join(master, "f"), "1")
	p.ok("sync", master, "file://"+slave)
	p.ok("volume", "create", "copy", slave)
	p.ok("promote", "copy", "--yes")
	p.write(filepath.Join(slave, "g"), "2")
	p.ok("sync", "copy", "file://"+third)
	p.sameText(slave, third, "f")
	p.sameText(slave, third, "g")
	p.run("demote", "copy", "--yes").check(t, exitFailed, "delete that session")
	p.ok("delete", "copy", "file://"+third)
	p.ok("demote", "copy", "--yes")
}

// TestOldMasterBecomesTheSlave: after a promotion the old master's directory is filled from the promoted side, and what differs is all
// that is sent.
func TestOldMasterBecomesTheSlave(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	spec := "file://" + slave
	for i := range 20 {
		p.write(filepath.Join(master, fmt.Sprint("f", i)), strings.Repeat("x", 10_000))
	}
	p.ok("volume", "create", "copy", slave)
	p.ok("sync", master, spec)
	p.ok("promote", "copy", "--yes")
	p.write(filepath.Join(slave, "f1"), "changed there")
	p.write(filepath.Join(slave, "new"), "made there")
	p.write(filepath.Join(master, "tail"), "never sent")
	p.ok("delete", master, spec)
	out := p.run("sync", "copy", "file://"+master, "--force", "--yes")
	out.check(t, exitDone, "in step")
	if !strings.Contains(out.out, "in step: 2 files") {
		t.Errorf("more was sent than differs: %s", out.out)
	}
	p.sameText(slave, master, "f1")
	p.sameText(slave, master, "new")
}
