package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/status"
	"georep/volume"
)

// TestStatusOnTheSlavesHost: status lists who replicates into a volume that has no session of its own.
func TestStatusOnTheSlavesHost(t *testing.T) {
	state := t.TempDir()
	georep(t, state, "volume", "create", "copy", t.TempDir()).check(t, exitDone)
	georep(t, state, "status", "--incoming").check(t, exitDone, "no master")
	georep(t, state, "status", "copy").check(t, exitFailed, "not replicated")
	if o := georep(t, state, "status", "--incoming", "--json"); o.out != "[]\n" {
		t.Errorf("%q", o.out)
	}
	store, err := volume.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	log := store.Runtime("copy").AgentLog
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	line := `{"time":"2026-01-02T03:04:05Z","event":"EVENT","slave":"copy","master":"07000000-0000-0000-0000-000000000000","session":"S","login":"root",` +
		`"from":"192.0.2.1\u001b port 7","reason":"read-\u001bonly"}` + "\n"
	text := strings.Replace(line, "EVENT", "began", 1) + strings.Replace(line, "EVENT", "refused", 1) + "{cut"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"status", "copy"}, {"status", "--incoming"}} {
		o := georep(t, state, args...)
		o.check(t, exitDone, `192.0.2.1\x1b port 7`, "refused", "07000000-", "2026-01-02", `copy: read-\x1bonly`)
		if strings.Contains(o.out, "\x1b") {
			t.Errorf("%q", o.out)
		}
	}
	if o := georep(t, state, "status", "--json"); o.out != "[]\n" {
		t.Errorf("the list of this host's own sessions is %q", o.out)
	}
}

// TestStatusBesideAHungSlave: a slave whose file system does not answer keeps nobody from seeing how the rest stands.
func TestStatusBesideAHungSlave(t *testing.T) {
	state, hung := t.TempDir(), t.TempDir()
	georep(t, state, "volume", "create", "copy", hung).check(t, exitDone)
	registered(t, state, status.Status{State: status.Active})
	store, err := volume.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	log := store.Runtime("copy").AgentLog
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	line := `{"time":"2026-01-02T03:04:05Z","event":"began","slave":"copy","master":"07000000-0000-0000-0000-000000000000","session":"S"}` + "\n"
	if err := os.WriteFile(log, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	fstest.MountSilent(t, hung)
	answer := make(chan outcome, 1)
	go func() { answer <- georep(t, state, "status") }()
	select {
	case o := <-answer:
		o.check(t, exitDone, "Active", "copy: the file system of "+hung+" does not answer")
	case <-time.After(time.Minute):
		t.Fatal("status does not come back")
	}
}
