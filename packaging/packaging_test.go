package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"georep/internal/config"
)

// command puts a shell script where PATH leads to, which notes how it is called.
func command(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// called runs a script of the package on a host with systemd, and tells what systemctl was asked to change.
func called(t *testing.T, name, enabled string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, dir, "systemctl", `note() { echo "$*" | sed 's/georep-unprivileged.service/u/; s/georep.service/g/; s/georep-serve.service/s/' >>"$LOG"; }
case $1 in
is-enabled) [ "$ENABLED $3" = 'yes georep.service' ] || [ "$ENABLED $3" = 'unprivileged georep-unprivileged.service' ] ;;
enable) note "$@"; [ "$ENABLED" != masked ] ;;
*) note "$@" ;;
esac
`)
	text, err := os.ReadFile(filepath.Join("scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	here := strings.ReplaceAll(string(text), "/run/systemd/system", dir)
	cmd := exec.Command("sh", append([]string{"-c", here, name}, args...)...)
	log := filepath.Join(dir, "log")
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "LOG=" + log, "ENABLED=" + enabled}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	said, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(said)), " ")
}

// TestScripts: an upgrade restarts what runs, and turns nothing on that the operator has turned off; none fails on that.
func TestScripts(t *testing.T) {
	for _, c := range []struct {
		script, enabled, args, want string
	}{
		{"postinstall.sh", "yes", "configure ", "enable g daemon-reload restart g try-restart u try-restart s"},
		{"postinstall.sh", "yes", "1", "enable g daemon-reload restart g try-restart u try-restart s"},
		{"postinstall.sh", "yes", "configure 0.0.1", "daemon-reload restart g try-restart u try-restart s"},
		{"postinstall.sh", "no", "configure 0.0.1", "daemon-reload try-restart g try-restart u try-restart s"},
		{"postinstall.sh", "no", "2", "daemon-reload try-restart g try-restart u try-restart s"},
		{"postinstall.sh", "masked", "configure ", "enable g daemon-reload try-restart g try-restart u try-restart s"},
		{"postinstall.sh", "unprivileged", "configure 0.0.1", "daemon-reload try-restart g restart u try-restart s"},
		{"preremove.sh", "yes", "upgrade 0.0.2", ""},
		{"preremove.sh", "yes", "failed-upgrade 0.0.1", ""},
		{"preremove.sh", "yes", "1", ""},
		{"preremove.sh", "yes", "remove", "stop g u s"},
		{"preremove.sh", "yes", "0", "disable g u s stop g u s"},
	} {
		if got := called(t, c.script, c.enabled, strings.Split(c.args, " ")...); got != c.want {
			t.Errorf("%s %s, %s: %q, not %q", c.script, c.args, c.enabled, got, c.want)
		}
	}
}

// TestUnitLeavesConfinement: no unit takes away any of the calls by which the marker and an agent confine themselves. Not every
// systemd has them in @system-service.
func TestUnitLeavesConfinement(t *testing.T) {
	for _, unit := range []string{"georep.service", "georep-unprivileged.service", "georep-serve.service"} {
		leavesConfinement(t, unit)
	}
}

func leavesConfinement(t *testing.T, unit string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("systemd", unit))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if list, ok := strings.CutPrefix(line, "SystemCallFilter="); ok && list[0] != '~' {
			for _, call := range strings.Fields(list) {
				allowed[call] = true
			}
		}
	}
	for _, call := range []string{"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "fanotify_init",
		"open_by_handle_at"} {
		if !allowed[call] {
			t.Errorf("%s forbids %s", unit, call)
		}
	}
}

// TestBashCompletion: a slave's colons are in its word, and what the program says is not expanded.
func TestBashCompletion(t *testing.T) {
	dir := t.TempDir()
	command(t, dir, "georep", `printf '%s\n' "$@" >"$LOG"; printf '%s\n' 'backup::copy' 'backup::c$(touch "$LOG.bad")*'`)
	for line, want := range map[string]string{
		"georep stop data backup::c": "copy|c$(touch \"$LOG.bad\")*|asked:stop|data|--complete|backup::c|",
		"georep stop data ":          "backup::copy|backup::c$(touch \"$LOG.bad\")*|asked:stop|data|--complete||",
	} {
		cmd := exec.Command("bash", "-c", `source completion/georep.bash
COMP_LINE=$1 COMP_POINT=${#1}
_georep
printf '%s|' "${COMPREPLY[@]}"
printf asked:; tr '\n' '|' <"$LOG"`, "bash", line)
		log := filepath.Join(dir, "log")
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "LOG=" + log}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, %v, not %q", line, out, err, want)
		}
		if _, err := os.Stat(log + ".bad"); err == nil {
			t.Error("what the program said was run")
		}
	}
}

// TestExampleIsRight: whoever uncomments all of the example has a file that configcheck takes.
func TestExampleIsRight(t *testing.T) {
	text, err := os.ReadFile("georep.toml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var lines []string
	for line := range strings.Lines(string(text)) {
		if rest, commented := strings.CutPrefix(line, "#"); commented && rest != "\n" && !strings.HasPrefix(rest, " ") {
			line = rest
		}
		lines = append(lines, strings.ReplaceAll(line, "/srv/", dir+"/"))
	}
	for _, name := range []string{"data", "copy", "conf.d"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "conf.d", "more.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "georep.toml")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sessions) != 2 || len(f.Volumes) != 2 {
		t.Errorf("%d sessions and %d volumes: what was uncommented?", len(f.Sessions), len(f.Volumes))
	}
}
