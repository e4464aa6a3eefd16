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

// configured is a registry and a configuration file for it.
type configured struct {
	t                   *testing.T
	state, file, master string
	slave               string
}

func configure(t *testing.T) *configured {
	t.Helper()
	return &configured{t: t, state: t.TempDir(), file: filepath.Join(t.TempDir(), "g.toml"), master: t.TempDir(), slave: "file://" + t.TempDir()}
}

// write writes the file; MASTER and SLAVE in it become those of the test.
func (c *configured) write(text string) {
	c.t.Helper()
	text = strings.NewReplacer("MASTER", c.master, "SLAVE", c.slave).Replace(text)
	if err := os.WriteFile(c.file, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *configured) run(args ...string) outcome {
	c.t.Helper()
	return georep(c.t, c.state, args...)
}

// apply wants these lines, and none from a second run.
func (c *configured) apply(lines ...string) {
	c.t.Helper()
	c.dry(lines...)
	c.says(c.run("apply", "--config", c.file), lines...)
	c.says(c.run("apply", "--config", c.file))
}

// dry wants them from a dry run, twice.
func (c *configured) dry(lines ...string) {
	c.t.Helper()
	var would []string
	for _, l := range lines {
		would = append(would, "would change: "+l)
	}
	for range 2 {
		c.says(c.run("apply", "--config", c.file, "--dry-run"), would...)
	}
}

func (c *configured) says(o outcome, lines ...string) {
	c.t.Helper()
	o.check(c.t, exitDone)
	want := strings.Join(append(lines, ""), "\n")
	if want = strings.NewReplacer("MASTER", c.master, "SLAVE", c.slave).Replace(want); o.out != want {
		c.t.Errorf("it says\n%swant\n%s", o.out, want)
	}
}

func TestApply(t *testing.T) {
	c := configure(t)
	c.write("[[volume]]\nname='data'\npath='MASTER'\n[[session]]\nmaster='data'\nslave='SLAVE'\nstarted=false\nquiet-period='2s'\n")
	c.apply("volume data: created of MASTER", "session data SLAVE: created with quiet-period 2s")
	c.run("config", "data", c.slave, "quiet-period").check(t, exitDone, "2s")
	// A default, another value, and one that is the default again.
	c.write("[defaults]\nmax-delete=7\n[[volume]]\nname='data'\npath='MASTER'\n[volume.policy]\nread-only=true\n\n" +
		"[[session]]\nmaster='data'\nslave='SLAVE'\nstarted=false\nretry-max='3s'\n")
	c.apply("volume data: policy read-only: off -> on", "session data SLAVE: max-delete: 50 -> 7",
		"session data SLAVE: retry-max: 60s -> 3s", "session data SLAVE: quiet-period: 2s -> 1s")
	c.run("config", "data", c.slave, "max-delete").check(t, exitDone, "7\n")
	c.run("volume", "set", "data", "read-only").check(t, exitDone, "on")
	// A policy that the file says nothing of stays; the policy itself is no longer the file's.
	c.write("[[volume]]\nname='data'\npath='MASTER'\n")
	c.apply()
	c.run("volume", "set", "data", "read-only").check(t, exitDone, "on")
	c.run("status").check(t, exitDone, "data")
	o := c.run("apply", "--config", c.file, "--prune", "--json")
	o.check(t, exitDone)
	var said struct {
		Changed bool
		Changes []change
	}
	if err := json.Unmarshal([]byte(o.out), &said); err != nil || !said.Changed || len(said.Changes) != 1 ||
		said.Changes[0] != (change{"session", "data " + c.slave, "deleted"}) {
		t.Errorf("%v: %s", err, o.out)
	}
	o = c.run("apply", "--config", c.file, "--prune", "--json")
	o.check(t, exitDone, `"changed": false`, `"changes": []`)
	c.run("status").check(t, exitDone, "no sessions")
}

// TestApplyLeavesTheOperatorsOwn: what no file ever named is not pruned; nor is anything while a master is not there.
func TestApplyLeavesTheOperatorsOwn(t *testing.T) {
	c := configure(t)
	other := "file://" + t.TempDir()
	c.run("create", c.master, other).check(t, exitDone)
	c.write("[[session]]\nmaster='MASTER'\nslave='SLAVE'\nstarted=false\n")
	c.apply("session MASTER SLAVE: created")
	c.run("apply", "--config", c.file, "--prune").check(t, exitDone)
	c.run("status").check(t, exitDone, other, c.slave)
	c.write("[[session]]\nmaster='MASTER/gone'\nslave='file:///else'\nstarted=false\n")
	o := c.run("apply", "--config", c.file, "--prune")
	o.check(t, exitFailed, "nothing is pruned", c.master+"/gone")
	c.run("status").check(t, exitDone, other, c.slave)
}

// TestApplyOneFails: a session that cannot be keeps no other from it, and a file with a mistake changes nothing.
func TestApplyOneFails(t *testing.T) {
	c := configure(t)
	c.write("[[session]]\nmaster='MASTER/gone'\nslave='SLAVE'\nstarted=false\n[[session]]\nmaster='MASTER'\nslave='SLAVE'\nstarted=false\n")
	c.run("apply", "--config", c.file).check(t, exitFailed, "/gone", "no such file")
	c.run("status").check(t, exitDone, c.slave)
	c.write("[[session]]\nmaster='MASTER'\nslave='file:///other'\nquiet-perid='1s'\n")
	c.run("apply", "--config", c.file).check(t, exitFailed, "nothing was changed", c.file+":4:", "did you mean quiet-period?")
	if o := c.run("status"); strings.Contains(o.out, "file:///other") {
		t.Errorf("it is made: %s", o.out)
	}
	// A volume keeps its directory.
	c.write("[[volume]]\nname='data'\npath='MASTER'\n")
	c.run("apply", "--config", c.file).check(t, exitFailed, "data", "use that name")
}

func TestConfigcheck(t *testing.T) {
	c := configure(t)
	c.write("include='none/*'\n[[session]]\nmaster='MASTER'\nslave='SLAVE'\nbwlimt=0\nmax-delete=101\n[[session]]\nmaster='MASTER'\nslave='SLAVE'\n")
	o := c.run("configcheck", "--config", c.file)
	for _, word := range []string{":1: include \"none/*\" matches nothing", ":5: unknown key bwlimt; did you mean bwlimit?",
		":6: max-delete cannot be \"101\"", ":7: session " + c.master + " " + c.slave + " is there already, in " + c.file + ":2"} {
		if !strings.Contains(o.out, c.file+word) {
			t.Errorf("no %q in\n%s", word, o.out)
		}
	}
	if o.code != exitFailed || o.errors != "" || strings.Count(o.out, "\n") != 4 {
		t.Errorf("exit code %d, %s%s", o.code, o.out, o.errors)
	}
	c.write("[[session]]\nmaster='MASTER/gone'\nslave='SLAVE'\n")
	if o := c.run("configcheck", "--config", c.file, "--json"); o.code != exitFailed || !strings.Contains(o.out, `"line": 1`) {
		t.Errorf("a missing directory: %d, %s%s", o.code, o.out, o.errors)
	}
	c.write("[[session]]\nmaster='MASTER'\nslave='SLAVE'\n")
	c.run("configcheck", "--config", c.file).check(t, exitDone, "sessions: 1")
	t.Setenv("GEOREP_CONFIG", filepath.Join(t.TempDir(), "none.toml"))
	c.run("configcheck").check(t, exitFailed, "none.toml", "GEOREP_CONFIG")
}

// TestManagedIsRefused: what a file says is changed in the file; what it says no more anybody may change.
func TestManagedIsRefused(t *testing.T) {
	c := configure(t)
	const data = "[[volume]]\nname='data'\npath='MASTER'\n[volume.policy]\nread-only=true\n"
	const session = "[[session]]\nmaster='MASTER'\nslave='SLAVE'\nstarted=false\n"
	c.write(data + session)
	c.apply("volume data: created of MASTER", "volume data: policy read-only: off -> on", "session MASTER SLAVE: created")
	c.write("# a line more\n" + data + session) // not applied yet: the place is that of today
	refused := [][]string{{"config", "data", c.slave, "quiet-period", "3s"}, {"config", "data", c.slave, "--reset", "quiet-period"},
		{"delete", "data", c.slave}, {"start", "data", c.slave, "--quiet-period", "3s"}, {"sync", "data", c.slave, "--quick"}}
	for _, args := range refused {
		c.run(args...).check(t, exitFailed, c.file+":7", "georep apply")
	}
	for _, args := range [][]string{{"volume", "set", "data", "read-only", "off"}, {"volume", "delete", "data"}} {
		c.run(args...).check(t, exitFailed, c.file+":2", "georep apply")
	}
	c.run("config", "data", c.slave, "quiet-period").check(t, exitDone, "1s")
	c.run("pause", "data", c.slave).check(t, exitDone)
	c.write("nonsense") // which may name the session, or not
	c.run(refused[0]...).check(t, exitFailed, c.file+":6")
	c.write(data)
	c.run(refused[0]...).check(t, exitDone)
	c.write(data + session)
	c.apply("session MASTER SLAVE: quiet-period: 3s -> 1s")
	if err := os.Remove(c.file); err != nil {
		t.Fatal(err)
	}
	c.run("delete", "data", c.slave).check(t, exitDone)
	c.run("volume", "delete", "data").check(t, exitDone)
}

// TestApplyRuns starts, reloads, stops and deletes sessions that run.
func TestApplyRuns(t *testing.T) {
	p := build(t, 0)
	master, slave, full := p.mkdir("master"), p.mkdir("slave"), p.mkdir("full")
	p.write(filepath.Join(master, "a"), "one")
	p.write(filepath.Join(full, "mine"), "precious")
	file := filepath.Join(p.dir, "g.toml")
	session := func(slave, more string) string {
		return fmt.Sprintf("[[session]]\nmaster=%q\nslave='file://%s'\n%s\n", master, slave, more)
	}
	apply := func(want string, more ...string) {
		t.Helper()
		for _, want := range []string{want, ""} {
			if o := p.run(append([]string{"apply", "--config", file}, more...)...); o.code != exitDone || o.out != want {
				t.Errorf("exit code %d\n%s%swant\n%s", o.code, o.out, o.errors, want)
			}
		}
	}
	name := "session " + master + " file://" + slave + ": "
	p.write(file, session(slave, ""))
	apply(name + "created\n" + name + "started\n")
	t.Cleanup(func() { p.run("stop", master, "file://"+slave) })
	p.run("sync", master, "file://"+slave).check(t, exitDone, "in step")
	p.sameText(master, slave, "a")
	p.write(file, session(slave, "max-delete=60"))
	apply(name + "max-delete: 50 -> 60\n")
	p.write(file, session(slave, "max-delete=60\nstarted=false"))
	apply(name + "stopped\n")
	p.noneLeft()
	p.write(file, session(slave, "max-delete=60"))
	apply(name + "started\n")
	// Stopped by hand it is started again; a slave that is another's is refused, and the session stays off.
	p.ok("stop", master, "file://"+slave)
	p.write(file, session(slave, "max-delete=60")+session(full, ""))
	o := p.run("apply", "--config", file)
	o.check(t, exitFailed, "not empty", "--force")
	if want := "session " + master + " file://" + full + ": created\n" + name + "started\n"; o.out != want {
		t.Errorf("it says\n%swant\n%s", o.out, want)
	}
	p.write(file, "")
	if o := p.run("apply", "--config", file); o.code != exitDone || o.out != "" {
		t.Errorf("without --prune: exit code %d\n%s%s", o.code, o.out, o.errors)
	}
	p.run("status").check(t, exitDone, slave, full)
	apply("session master file://"+full+": deleted\nsession master file://"+slave+": stopped\n"+
		"session master file://"+slave+": deleted\n", "--prune")
	p.noneLeft()
	p.run("status").check(t, exitDone, "no sessions")
}

// TestApplyKeepsTrying: a slave that is down is told, and no failure: the session is what the file says.
func TestApplyKeepsTrying(t *testing.T) {
	p := build(t, 0)
	master := p.mkdir("master")
	file := filepath.Join(p.dir, "g.toml")
	p.write(filepath.Join(p.dir, "known"), "")
	p.write(file, fmt.Sprintf("[[session]]\nmaster=%q\nslave='ssh://127.0.0.1:1/nowhere'\nknown-hosts='known'\n", master))
	t.Cleanup(func() { p.run("stop", master, "ssh://127.0.0.1:1/nowhere") })
	o := p.run("apply", "--config", file)
	if o.code != exitDone || !strings.Contains(o.errors, "keeps trying") || strings.Count(o.out, "\n") != 2 {
		t.Errorf("exit code %d\n%s%s", o.code, o.out, o.errors)
	}
	p.waitStatus(func(st status.Status) bool { return st.State == status.Faulty })
	if o := p.run("apply", "--config", file); o.code != exitDone || o.out != "" {
		t.Errorf("the second time: exit code %d\n%s%s", o.code, o.out, o.errors)
	}
}
