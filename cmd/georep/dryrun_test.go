package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"georep/internal/sshdtest"
)

// TestDryRun says what a first sync would do, and a later one, of each kind of slave, and leaves nothing behind: no session, no
// volume, no directory on the slave.
func TestDryRun(t *testing.T) {
	p := build(t, 0)
	d := sshdtest.Start(t, sshdtest.Env("GEOREP_STATE_DIR", filepath.Join(p.dir, "far")))
	flags := []string{"--ssh-port", strconv.Itoa(d.Port), "--identity", d.IdentityFile, "--known-hosts", d.KnownHostsFile,
		"--remote-georep", p.path}
	for kind, spec := range map[string]func(dir string) []string{
		"file": func(dir string) []string { return []string{"file://" + dir} },
		"ssh":  func(dir string) []string { return append([]string{d.Host + ":" + dir}, flags...) },
		"sftp": func(dir string) []string { return append([]string{d.Host + ":" + dir, "--agentless"}, flags...) },
	} {
		t.Run(kind, func(t *testing.T) {
			master, slave := p.mkdir("master-"+kind), filepath.Join(p.dir, "slave-"+kind)
			p.write(filepath.Join(master, "a"), "one")
			p.write(filepath.Join(master, "gone"), "two")
			if err := os.Mkdir(filepath.Join(master, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			run := func(command string, more ...string) outcome {
				return p.run(append(append([]string{command, master}, spec(slave)...), more...)...)
			}
			run("sync", "--dry-run").check(t, exitDone, `make   "a"  (file, 3 B)`, `make   "d/"  (directory)`, "would make 3, change 0")
			p.run("status", master).check(t, exitFailed, "is no volume")
			if _, err := os.Lstat(slave); err == nil {
				t.Error("the dry run made the slave")
			}
			run("create").check(t, exitDone)
			run("sync", "--dry-run").check(t, exitDone, "would make 3, change ") // a slave that was made, and nothing more
			run("sync").check(t, exitDone, "in step")
			if err := os.Rename(filepath.Join(master, "a"), filepath.Join(master, "d", "a")); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(master, "gone")); err != nil {
				t.Fatal(err)
			}
			run("sync", "--dry-run").check(t, exitDone, `move   "a" -> "d/a"`, `remove "gone"`, "move 1, link 0 and remove 1 entries")
			lines := strings.Split(strings.TrimSpace(run("sync", "--dry-run", "--json").out), "\n")
			var last struct{ Summary struct{ Moved, Removed int } }
			for _, line := range lines {
				if err := json.Unmarshal([]byte(line), &last); err != nil {
					t.Errorf("%v: %s", err, line)
				}
			}
			if last.Summary.Moved != 1 || last.Summary.Removed != 1 {
				t.Errorf("%q", lines)
			}
			if _, err := os.Lstat(filepath.Join(slave, "gone")); err != nil {
				t.Error(err)
			}
			p.write(filepath.Join(slave, "own"), "precious")
			other := p.mkdir("other-" + kind)
			force := func(more ...string) outcome {
				return p.run(append(append([]string{"sync", other}, spec(slave)...), append(more, "--force")...)...)
			}
			asked := force()
			asked.check(t, exitFailed, "--yes")
			if !strings.Contains(asked.out, "--force would remove 4 entries") || !strings.Contains(asked.out, `remove "own"`) {
				t.Errorf("asked: %s", asked.out)
			}
			p.run("status", other).check(t, exitFailed, "is no volume")
			force("--max-delete", "100", "--yes").check(t, exitDone, "in step")
		})
	}
}

// TestFlagsThatSayNothing: a sync that was asked for JSON, and a start that was told yes to nothing, say so instead of going on.
func TestFlagsThatSayNothing(t *testing.T) {
	dir := t.TempDir()
	for _, command := range []string{"sync", "start"} {
		for _, tt := range []struct{ flag, want string }{
			{"--json", "--json goes with --dry-run: " + command}, {"--yes", "--yes answers what --force asks"},
		} {
			georep(t, dir, command, dir, "file://"+dir+"/s", tt.flag).check(t, exitUsage, tt.want)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "s")); err == nil {
		t.Error("the slave was made")
	}
}

// TestForceOverADamagedOwner: what a slave with a damaged owner's file has of its own is shown before it goes, as of any other one.
func TestForceOverADamagedOwner(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.write(filepath.Join(master, "a"), "one")
	p.write(filepath.Join(slave, "own"), "precious")
	if err := os.Mkdir(filepath.Join(slave, ".georep"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write(filepath.Join(slave, ".georep", "owner"), "master = ")
	p.run("sync", master, "file://"+slave).check(t, exitFailed, "--force")
	asked := p.run("sync", master, "file://"+slave, "--force")
	asked.check(t, exitFailed, "--yes")
	if !strings.Contains(asked.out, `remove "own"`) {
		t.Errorf("asked: %s", asked.out)
	}
	if _, err := os.Stat(filepath.Join(slave, "own")); err != nil {
		t.Error(err)
	}
	p.run("sync", master, "file://"+slave, "--force", "--yes").check(t, exitDone, "in step")
}

// TestNamesInJSONAreNoCommands: what a terminal would obey in a name is escaped, whichever command prints it.
func TestNamesInJSONAreNoCommands(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	const name = "red \u009b31m"
	p.write(filepath.Join(master, name), "one")
	spec := "file://" + slave
	for _, args := range [][]string{{"sync", master, spec, "--dry-run", "--json"}, {"sync", master, spec}, {"sync", master, spec}} { // see docs/limits.md
		p.run(args...).check(t, exitDone)
	}
	p.write(filepath.Join(slave, name), "two")
	escaped := func(args ...string) {
		t.Helper()
		o := p.run(args...)
		if strings.Contains(o.out+o.errors, "\u009b") {
			t.Errorf("%q: a control character comes through: %q", args, o.out+o.errors)
		}
		if !strings.Contains(o.out+o.errors, "red ") {
			t.Errorf("%q does not name it: %q", args, o.out+o.errors)
		}
	}
	escaped("verify", master, spec, "--json")
	p.ok("config", master, spec, "max-delete", "0")
	if err := os.Remove(filepath.Join(master, name)); err != nil {
		t.Fatal(err)
	}
	escaped("sync", master, spec, "--dry-run", "--json")
	p.run("sync", master, spec)
	escaped("approve", master, spec, "--json")
}
