package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/status"
	"georep/volume"
)

// registered makes a session whose monitor this process plays, with a status.
func registered(t *testing.T, state string, st status.Status) {
	t.Helper()
	master, slave := t.TempDir(), "file://"+t.TempDir()
	name := filepath.Base(filepath.Dir(master)) + filepath.Base(master)
	georep(t, state, "volume", "create", name, master).check(t, exitDone)
	georep(t, state, "create", name, slave).check(t, exitDone)
	store, err := volume.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	to, err := volume.ParseSlave(slave)
	if err != nil {
		t.Fatal(err)
	}
	files := store.Files(name, to)
	pid, err := status.AcquirePid(files.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pid.Close() })
	st.MonitorPid, st.Updated = os.Getpid(), status.Time{Time: time.Now()}
	if err := status.Write(files.Status, st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Log, []byte(`{"level":"warn","path":"a\u001bb","message":"an entry is held back"}`+"\nno \x1b JSON\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCheck: the exit codes and the one line are those of monitoring plug-ins, whatever goes wrong.
func TestCheck(t *testing.T) {
	good := status.Status{State: status.Active, LastSynced: status.Time{Time: time.Now().Add(-time.Hour)}}
	faulty := good
	faulty.State, faulty.Reason = status.Faulty, "no route | to host"
	behind := good
	behind.LagSeconds = 400
	for _, c := range []struct {
		sessions []status.Status
		args     string
		code     int
		line     string
	}{
		{nil, "", 3, "GEOREP UNKNOWN - no sessions"},
		{[]status.Status{good}, "--max-lag 5m", 0, "GEOREP OK - "},
		{[]status.Status{good, behind}, "", 0, "GEOREP OK - all 2 sessions"},
		{[]status.Status{good, behind}, "--max-lag 5m", 2, "GEOREP CRITICAL - 1 of 2 sessions: "},
		{[]status.Status{good, behind}, "--max-lag 1h --warn-lag 5m", 1, "GEOREP WARNING - 1 of 2 sessions: "},
		{[]status.Status{faulty, behind}, "--warn-lag 5m", 2, "GEOREP CRITICAL - 2 of 2 sessions: "},
		{nil, "nothere", 3, "GEOREP UNKNOWN - no volume"},
		{nil, "--max-lag soon", 3, "GEOREP UNKNOWN - "},
		{nil, "--max-lag 1m --warn-lag 2m", 3, "GEOREP UNKNOWN - --warn-lag 2m0s is more"},
		{nil, "--json", 3, "GEOREP UNKNOWN - "},
		{nil, "a b c", 3, "GEOREP UNKNOWN - "},
	} {
		state := t.TempDir()
		for _, st := range c.sessions {
			registered(t, state, st)
		}
		o := georep(t, state, append([]string{"status", "--check"}, strings.Fields(c.args)...)...)
		if o.code != c.code || !strings.HasPrefix(o.out, c.line) || strings.Count(o.out, "\n") != 1 || o.errors != "" ||
			strings.Count(o.out, "|") > 1 {
			t.Errorf("%s: exit code %d, want %d %s\n%s%s", c.args, o.code, c.code, c.line, o.out, o.errors)
		}
	}
	state := t.TempDir()
	registered(t, state, good)
	files, err := filepath.Glob(filepath.Join(state, "sessions", "*", "status"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := georep(t, state, "status", "--check"); o.code != 3 || !strings.HasPrefix(o.out, "GEOREP UNKNOWN - ") {
		t.Errorf("a damaged status: exit code %d\n%s%s", o.code, o.out, o.errors)
	}
}

func TestLogs(t *testing.T) {
	state := t.TempDir()
	registered(t, state, status.Status{State: status.Active})
	list := georep(t, state, "volume", "list")
	name := strings.Fields(list.out)[2]
	o := georep(t, state, "logs", name)
	o.check(t, exitDone, "WRN an entry is held back", `no \x1b JSON`)
	if strings.Contains(o.out, "\x1b") || strings.Count(o.out, "\n") != 2 {
		t.Errorf("%q", o.out)
	}
	if o := georep(t, state, "logs", name, "-n", "1", "--json"); o.out != `no \x1b JSON`+"\n" {
		t.Errorf("%q", o.out)
	}
	georep(t, state, "logs", name, "-n", "-1").check(t, exitUsage, "--lines")
	georep(t, state, "logs", "nothere").check(t, exitFailed, "no such session")
}
