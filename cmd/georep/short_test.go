package main

import (
	"path/filepath"
	"strings"
	"testing"

	"georep/status"
)

// TestMasterAlone: where a master has one session its name is enough; where it has several they are listed.
func TestMasterAlone(t *testing.T) {
	state, master := t.TempDir(), t.TempDir()
	one, two := "file://"+t.TempDir(), "file://"+t.TempDir()
	georep(t, state, "volume", "create", "data", master).check(t, exitDone)
	for _, command := range []string{"stop", "pause", "resume", "restart", "sync", "verify", "status"} {
		georep(t, state, command, "data").check(t, exitFailed, "no such session")
	}
	georep(t, state, "create", "data", one).check(t, exitDone)
	for _, name := range []string{"data", master} {
		georep(t, state, "sync", name).check(t, exitDone, "in step")
		georep(t, state, "verify", name).check(t, exitDone)
		georep(t, state, "pause", name).check(t, exitDone)
		georep(t, state, "resume", name).check(t, exitDone)
		georep(t, state, "status", name).check(t, exitDone, one)
		georep(t, state, "stop", name).check(t, exitFailed, "not running")
	}
	georep(t, state, "create", "data", two).check(t, exitDone)
	for _, command := range []string{"stop", "pause", "resume", "restart", "sync", "verify"} {
		georep(t, state, command, "data").check(t, exitUsage, one, two)
	}
	georep(t, state, "sync", "data", two).check(t, exitDone, "in step")
	georep(t, state, "delete", "data").check(t, exitUsage, "MASTER SLAVE") // what forgets a session names it in full
}

// TestRestart ends a session's processes and starts new ones; a session that is off is started.
func TestRestart(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.ok("create", master, "file://"+slave)
	t.Cleanup(func() { p.run("stop", master) })
	var first, second int
	active := func(pid *int, not int) {
		t.Helper()
		p.waitStatus(func(st status.Status) bool {
			*pid = st.MonitorPid
			return st.State == status.Active && *pid != not
		})
	}
	p.ok("restart", master)
	active(&first, 0)
	p.ok("restart", master, "file://"+slave)
	active(&second, first)
	p.ok("stop", master)
	p.noneLeft()
}

// TestRefusedSettings: what was given to a start or sync that is refused is not kept, and what was set before is.
func TestRefusedSettings(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	spec := "file://" + slave
	p.ok("create", master, spec)
	p.ok("config", master, spec, "quiet-period", "3s")
	// It was fit when it was registered, and another master has it now.
	p.ok("--state-dir", filepath.Join(p.dir, "other"), "sync", p.mkdir("other-master"), spec, "--force")
	value := func(key string) string {
		t.Helper()
		return strings.TrimSpace(p.run("config", master, spec, key).out)
	}
	set := []string{"--settle", "4s", "--max-delete", "7"}
	for _, command := range []string{"start", "sync"} {
		p.run(append([]string{command, master, spec}, set...)...).check(t, exitFailed, "another master")
		if settle, most := value("quiet-period"), value("max-delete"); settle != "3s" || most != "50" {
			t.Errorf("%s that is refused leaves settle %s, max-delete %s", command, settle, most)
		}
		p.noneLeft()
	}
	p.run("status").check(t, exitDone, slave)
}
