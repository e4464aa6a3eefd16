package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"georep/monitor/report"
	"georep/status"
)

// outcome is what a command left.
type outcome struct {
	code        int
	out, errors string
}

// georep runs a command in this process with a registry of its own.
func georep(t *testing.T, state string, args ...string) outcome {
	t.Helper()
	var out, errs strings.Builder
	code := run(t.Context(), append([]string{"georep", "--state-dir", state}, args...), &out, &errs)
	return outcome{code, out.String(), errs.String()}
}

// check wants an exit code, and one line that has the words where that is not 0.
func (o outcome) check(t *testing.T, code int, words ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", o.code, code, o.out, o.errors)
	}
	text := o.out
	if code != 0 {
		text = o.errors
		if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "georep: ") || !strings.HasSuffix(text, "\n") {
			t.Errorf("not one line:\n%s", text)
		}
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the text lacks %q:\n%s", w, text)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	state := t.TempDir()
	for line, word := range map[string]string{
		"":                              "no command",
		"nonsense":                      "nonsense",
		"volume":                        "create, list, info, set, log, delete or purge",
		"volume create":                 "NAME PATH",
		"volume create -x /":            `"-x"`,
		"volume create .x /":            ".x",
		"volume create a relative":      "absolute",
		"volume create a / b":           `"b"`,
		"volume list a":                 "no arguments",
		"volume info":                   "NAME",
		"volume delete":                 "NAME",
		"create m":                      "MASTER SLAVE",
		"create m h::v x":               `"x"`,
		"start m":                       "MASTER SLAVE",
		"start --force":                 "MASTER SLAVE",
		"start m nowhere":               "file:///path",
		"start m/ h::v":                 "m/",
		"start m h::v --ssh-port x":     "ssh-port",
		"start m h::v --max-delete 101": "max-delete",
		"stop":                          "MASTER [SLAVE]",
		"pause":                         "MASTER [SLAVE]",
		"restart":                       "MASTER [SLAVE]",
		"verify m h::v p x":             `"x"`,
		"stop m/":                       "m/",
		"start m h::v --sync-job 3":     `unknown flag "--sync-job"; did you mean --sync-jobs?`,
		"start m h::v --quiet-perod=3":  "did you mean --quiet-period?",
		"status --jsno":                 "did you mean --json?",
		"--state-dri=x status":          "did you mean --state-dir?",
		"sttaus":                        "did you mean status?",
		"volume crate a /b":             `"volume crate"; did you mean create?`,
		"resume m h::v x":               `"x"`,
		"sync":                          "MASTER [SLAVE]",
		"status a b::c d":               `"d"`,
		"status --nonsense":             "--nonsense",
		"config m":                      "MASTER SLAVE",
		"config m h::v a b c":           `"c"`,
		"config m h::v a --reset b":     `"a"`,
		"delete m":                      "MASTER SLAVE",
		"demo x":                        `"x"`,
		"agent x":                       `"x"`,
		"agent --volume a --path /b":    "not both",
		"marker":                        "VOLUME",
		"worker m":                      "MASTER SLAVE",
		"monitor m":                     "MASTER SLAVE",
		"status --log-level loud":       "loud",
		"status --log-format xml":       "xml",
		"--state-dir= status":           "--state-dir",
	} {
		t.Run(line, func(t *testing.T) {
			georep(t, state, strings.Fields(line)...).check(t, exitUsage, word, "--help")
		})
	}
}

func TestFails(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, words := range map[string][]string{
		"volume create a /nonexistent/x": {"/nonexistent/x"},
		"volume create a " + file:        {file},
		"volume create a /proc":          {"/proc", "extended attributes"},
		"volume info a":                  {"no volume a"},
		"volume delete a":                {"no volume a"},
		"create a h::v":                  {"no volume a", "volume create"},
		"start a h::v":                   {"no volume a", "volume create"},
		"sync a h::v":                    {"no volume a", "volume create"},
		"stop a h::v":                    {"no such session"},
		"pause a h::v":                   {"no such session"},
		"resume a h::v":                  {"no such session"},
		"config a h::v":                  {"no such session"},
		"delete a h::v":                  {"no such session"},
		"stop a":                         {"no such session"},
		"sync a":                         {"no such session"},
		"verify a":                       {"no such session"},
		"restart a h::v":                 {"no such session"},
		"status a":                       {"no volume a"},
		"marker a":                       {"no volume a"},
		"worker a h::v":                  {"no such session"},
		"monitor a h::v":                 {"no such session"},
		"demo --dir /proc":               {"--dir"},
	} {
		t.Run(line, func(t *testing.T) {
			georep(t, state, strings.Fields(line)...).check(t, exitFailed, words...)
		})
	}
}

// TestNothingIsLeftRegistered: a session that cannot be is forgotten, and the volume that was made for it too.
func TestNothingIsLeftRegistered(t *testing.T) {
	for _, command := range []string{"create", "sync"} { // start runs the program: TestStartRefused
		state, master, slave := t.TempDir(), t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(slave, "mine"), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		georep(t, state, command, master, "file://"+slave).check(t, exitFailed, "not empty", "--force")
		georep(t, state, command, master, "file://"+master+"/x").check(t, exitFailed)
		georep(t, state, "status").check(t, exitDone, "no sessions")
		if o := georep(t, state, "volume", "list", "--json"); o.out != "[]\n" {
			t.Errorf("%s leaves %s", command, o.out)
		}
	}
}

func TestRegistry(t *testing.T) {
	state, master, slave := t.TempDir(), t.TempDir(), t.TempDir()
	spec := "file://" + slave
	georep(t, state, "volume", "create", "data", master).check(t, exitDone)
	georep(t, state, "volume", "create", "data", slave).check(t, exitFailed, "data")
	georep(t, state, "volume", "list").check(t, exitDone, "data", master)
	georep(t, state, "volume", "info", "data", "--json").check(t, exitDone, `"namespace": "`, `"root_gfid": "`)
	georep(t, state, "create", "data", spec, "--max-delete", "7").check(t, exitDone)
	georep(t, state, "create", "data", spec).check(t, exitFailed, "exists already")
	georep(t, state, "config", "data", spec).check(t, exitDone, "max-delete", "7", "50")
	georep(t, state, "config", "data", spec, "max-delete").check(t, exitDone, "7\n")
	georep(t, state, "config", "data", spec, "max-delete", "no").check(t, exitFailed, "max-delete")
	georep(t, state, "config", "data", spec, "nonsense").check(t, exitFailed, "nonsense")
	georep(t, state, "config", "data", spec, "retry-max", "3s").check(t, exitDone, "next start")
	georep(t, state, "config", master, spec, "--reset", "max-delete").check(t, exitDone)
	georep(t, state, "config", "data", spec, "--json").check(t, exitDone, `"value": "50"`, `"value": "3s"`)
	georep(t, state, "status", "data", spec, "--json").check(t, exitDone, `"status": "Created"`)
	georep(t, state, "status", "data", "file:///elsewhere").check(t, exitFailed, "no such session")
	georep(t, state, "stop", "data", spec).check(t, exitFailed, "not running")
	georep(t, state, "pause", "data", spec).check(t, exitDone)
	georep(t, state, "volume", "delete", "data").check(t, exitFailed, "data")
	georep(t, state, "delete", "data", spec).check(t, exitDone)
	georep(t, state, "volume", "delete", "data").check(t, exitDone)
}

func TestSyncToDirectory(t *testing.T) {
	state, master, slave := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(master, "f"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	georep(t, state, "sync", master, "file://"+slave).check(t, exitDone, "in step: 1 files")
	text, err := os.ReadFile(filepath.Join(slave, "f"))
	if err != nil || string(text) != "text" {
		t.Errorf("the slave has %q, %v", text, err)
	}
	o := georep(t, state, "status", "--json")
	o.check(t, exitDone)
	if strings.Contains(o.out, `"last_synced": null`) {
		t.Errorf("the status does not know of the sync:\n%s", o.out)
	}
	georep(t, state, "sync", master, "file://"+slave).check(t, exitDone, "in step: ")
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	code := run(ctx, []string{"georep", "--state-dir", t.TempDir(), "sync", t.TempDir(), "file://" + t.TempDir()}, &out, &errs)
	if code != exitInterrupted || errs.String() != "georep: interrupted\n" {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}

func TestSyncLine(t *testing.T) {
	r := report.Progress{Synced: status.Synced{Files: 5, BytesContent: 2 << 20}, ETASeconds: 6}
	got := syncLine(r, counts{entries: 100, seen: 25, elapsed: 2 * time.Second})
	if want := "25 of 100 entries, 5 files, 2.0 MiB, 1.0 MiB/s, ETA 6s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.ETASeconds = 0
	if got := syncLine(r, counts{seen: 25}); strings.Contains(got, "ETA") || strings.Contains(got, "of") {
		t.Errorf("%q guesses", got)
	}
}

// TestMonitorKeepsSmall: the monitor, in the background or not, does not let garbage gather up to Go's 4 MiB; GOGC outweighs
// that.
func TestMonitorKeepsSmall(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	defer debug.SetGCPercent(percent())
	state := t.TempDir()
	t.Setenv("GOGC", "")
	debug.SetGCPercent(100)
	georep(t, state, "monitor", "data", "file://"+t.TempDir()).check(t, exitFailed, "data")
	if got := percent(); got > 25 {
		t.Errorf("garbage of %d%% gathers in a monitor, want 25", got)
	}
	t.Setenv("GOGC", "100")
	debug.SetGCPercent(100)
	georep(t, state, "monitor", "data", "file://"+t.TempDir()).check(t, exitFailed, "data")
	if got := percent(); got != 100 {
		t.Errorf("GOGC=100 became %d", got)
	}
}

func TestSeenLine(t *testing.T) {
	for want, got := range map[string]string{
		"25 of 100 entries, 4.0 MiB, 2.0 MiB/s, ETA 6s": seenLine(25, 4<<20, 100, 2*time.Second),
		"25 entries, 4.0 MiB, 2.0 MiB/s":                seenLine(25, 4<<20, 0, 2*time.Second),
		"120 of 120 entries, 0 B, 0 B/s":                seenLine(120, 0, 100, time.Second),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
