package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDoctor: a problem is exit code 1 with no line on standard error, and all else exit code 0; a registered session, one that is
// not, a master alone and the host alone can be looked at.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	state, master, slave := filepath.Join(dir, "state"), filepath.Join(dir, "data"), filepath.Join(dir, "copy")
	if err := os.Mkdir(master, 0o755); err != nil {
		t.Fatal(err)
	}
	georep(t, state, "doctor").check(t, exitDone, "This host", "kernel", "nothing is wrong")
	georep(t, state, "doctor", master).check(t, exitDone, "Master", "event source")
	georep(t, state, "doctor", master, "file://"+slave).check(t, exitDone, "Slave", "is not there yet")
	georep(t, state, "create", master, "file://"+slave).check(t, exitDone)
	georep(t, state, "doctor", "data").check(t, exitDone, "Created", "room")
	if err := os.RemoveAll(slave); err != nil {
		t.Fatal(err)
	}
	bad := georep(t, state, "doctor", "data", "--json")
	if bad.code != exitFailed || bad.errors != "" {
		t.Errorf("exit code %d, and on standard error %q", bad.code, bad.errors)
	}
	problems := 0
	for line := range strings.Lines(bad.out) {
		var f struct{ Place, Check, Level, Found string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Place == "" || f.Check == "" || f.Found == "" {
			t.Errorf("%v: %s", err, line)
		}
		if f.Level == "problem" {
			problems++
		}
	}
	if problems != 1 {
		t.Errorf("%d problems:\n%s", problems, bad.out)
	}
	georep(t, state, "doctor", "none").check(t, exitFailed, "none")
	georep(t, state, "doctor", "data", "nonsense").check(t, exitUsage, "nonsense")
}
