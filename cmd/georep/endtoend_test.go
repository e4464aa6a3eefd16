package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	built "georep/integration/harness/program"
	"georep/internal/sshdtest"
	"georep/status"
)

// nobody is an ordinary user.
const nobody = 65534

// patience bounds waits for what must happen. It measures nothing.
const patience = time.Minute

// program is the built georep, where every user can reach it, and a directory of that user.
type program struct {
	t         *testing.T
	path, dir string
	user      uint32
	env       []string
}

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

func build(t *testing.T, user uint32) *program {
	t.Helper()
	dir, err := os.MkdirTemp("", "georep-cli-") // t.TempDir lies where others may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &program{t: t, path: filepath.Join(dir, "georep"), dir: filepath.Join(dir, "work"), user: user}
	built.Link(t, p.path)
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.dir, int(user), int(user)); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "GEOREP_STATE_DIR="+filepath.Join(p.dir, "state"), "HOME="+p.dir, "TMPDIR="+p.dir,
		"GEOREP_SSH_CONFIG=none", "SSH_AUTH_SOCK=")
	t.Cleanup(p.noneLeft)
	return p
}

func (p *program) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...) // also in clean-ups, when the test's context has ended
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.user, Gid: p.user}}
	return cmd
}

func (p *program) run(args ...string) outcome {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (p *program) ok(args ...string) { p.t.Helper(); p.run(args...).check(p.t, exitDone) }

// noneLeft checks that no process runs the program.
func (p *program) noneLeft() {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	left := p.left()
	for len(left) > 0 && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond) // an agent ends after its connection
		left = p.left()
	}
	for _, pid := range left {
		p.t.Errorf("process %d is left", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (p *program) left() (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(text), p.path+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (p *program) mkdir(name string) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

func (p *program) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// waitStatus waits until the only session's status is as wanted. The program has the last word.
func (p *program) waitStatus(ok func(status.Status) bool) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		st := p.glance()
		if ok(st) {
			if st = p.status(); ok(st) {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the status stays %+v", st)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// status is the only session's.
func (p *program) status() status.Status {
	p.t.Helper()
	var list []status.Status
	o := p.run("status", "--json")
	if err := json.Unmarshal([]byte(o.out), &list); err != nil || len(list) != 1 {
		p.t.Fatalf("status: %v\n%s%s", err, o.out, o.errors)
	}
	return list[0]
}

// glance is status without a process of its own, for what asks again and again.
func (p *program) glance() status.Status {
	p.t.Helper()
	list, err := built.Statuses(filepath.Join(p.dir, "state"))
	if err != nil || len(list) != 1 {
		p.t.Fatalf("%d sessions: %v", len(list), err)
	}
	return list[0]
}

func TestDemo(t *testing.T) {
	for _, user := range []uint32{0, nobody} {
		t.Run(fmt.Sprint(user), func(t *testing.T) {
			p := build(t, user)
			p.run("demo").check(t, exitDone, "Active", "all equal on the slave", "symbolic link")
			if left, _ := filepath.Glob(filepath.Join(p.dir, "*")); len(left) > 0 {
				t.Errorf("the demo leaves %v", left)
			}
		})
	}
}

// TestDemoKeep ends the demo with Ctrl-C while it runs for good.
func TestDemoKeep(t *testing.T) {
	p := build(t, 0)
	cmd := p.command("demo", "--keep")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text, buf := "", make([]byte, 4096)
	for !strings.Contains(text, "config data") {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		text += string(buf[:n])
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v\n%s", err, text)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "*")); len(left) > 0 {
		t.Errorf("the demo leaves %v", left)
	}
}

// TestSession is start, status, pause, sync and stop, with a directory and over a real sshd.
func TestSession(t *testing.T) {
	for _, kind := range []string{"file", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			p := build(t, 0)
			master, slave := p.mkdir("master"), p.mkdir("slave")
			p.write(filepath.Join(master, "a"), "one")
			args := []string{master, "file://" + slave}
			var flags []string
			if kind == "ssh" {
				d := sshdtest.Start(t, sshdtest.Env("GEOREP_STATE_DIR", filepath.Join(p.dir, "far")))
				args[1] = d.Host + ":" + slave
				flags = []string{"--ssh-port", strconv.Itoa(d.Port), "--identity", d.IdentityFile, "--known-hosts",
					d.KnownHostsFile, "--remote-georep", p.path}
			}
			with := func(command string) []string { return append([]string{command}, args...) }
			t.Cleanup(func() { p.run(with("stop")...) })
			p.ok(append(with("start"), flags...)...)
			p.run(with("start")...).check(t, exitFailed, "already running (pid ")
			p.run(with("delete")...).check(t, exitFailed, "stop")
			p.run(with("sync")...).check(t, exitDone, "in step")
			p.sameText(master, slave, "a")
			p.ok(with("pause")...)
			p.run(with("sync")...).check(t, exitFailed, "paused")
			p.ok(with("resume")...)
			p.run(append(with("config"), "max-delete", "60")...).check(t, exitDone, "now")
			p.write(filepath.Join(master, "a"), "two")
			changed := time.Now()
			p.waitStatus(func(st status.Status) bool { return st.LastSynced.After(changed) && st.State == status.Active })
			p.sameText(master, slave, "a")
			p.ok(with("stop")...)
			p.noneLeft()
			p.waitStatus(func(st status.Status) bool { return st.State == status.Stopped })
			p.ok(with("start")...)
			p.ok(with("stop")...)
			p.write(filepath.Join(master, "a"), "three")
			p.run(with("sync")...).check(t, exitDone, "in step")
			p.sameText(master, slave, "a")
			p.ok(with("delete")...)
		})
	}
}

func (p *program) sameText(master, slave, name string) {
	p.t.Helper()
	want, err := os.ReadFile(filepath.Join(master, name))
	if err != nil {
		p.t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(slave, name)); err != nil || string(got) != string(want) {
		p.t.Errorf("the slave has %q, %v; want %q", got, err, want)
	}
}

// TestStartRefused: what waiting does not heal stops the session again, and forgets a new one.
func TestStartRefused(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.write(filepath.Join(slave, "mine"), "precious")
	p.write(filepath.Join(master, "a"), "one")
	p.run("start", master, "file://"+slave).check(t, exitFailed, "not empty", "--force")
	p.noneLeft()
	p.run("status").check(t, exitDone, "no sessions")
	p.run("start", master, "file://"+slave, "--force", "--yes", "--max-delete", "100").check(t, exitDone)
	p.ok("stop", master, "file://"+slave)
}

// TestStartKeepsTrying: a host that cannot be reached may come back.
func TestStartKeepsTrying(t *testing.T) {
	p := build(t, 0)
	d := sshdtest.Start(t)
	args := []string{p.mkdir("master"), d.Host + ":" + p.mkdir("slave")}
	flags := []string{"--ssh-port", strconv.Itoa(d.Port), "--identity", d.IdentityFile, "--known-hosts",
		d.KnownHostsFile, "--remote-georep", p.path, "--retry-max", "1s"}
	d.Stop()
	p.run(append(append([]string{"start"}, args...), flags...)...).check(t, exitFailed, "refused", "georep stop")
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	p.ok(append([]string{"stop"}, args...)...)
}

// TestStartAll carries on after the monitor died with its host.
func TestStartAll(t *testing.T) {
	p := build(t, 0)
	args := []string{p.mkdir("master"), "file://" + p.mkdir("slave")}
	p.ok(append([]string{"start"}, args...)...)
	p.waitStatus(func(st status.Status) bool { return st.MonitorPid != 0 })
	if err := syscall.Kill(p.glance().MonitorPid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.noneLeft() // worker and marker see that the monitor is gone
	p.ok("start")
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	p.ok(append([]string{"stop"}, args...)...)
}

// TestForeground ends with Ctrl-C, and the session is stopped then.
func TestForeground(t *testing.T) {
	p := build(t, 0)
	cmd := p.command("start", "--foreground", p.mkdir("master"), "file://"+p.mkdir("slave"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(p.dir, "state", "sessions")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(state, "*", "status")); len(found) == 1 {
			break
		}
	}
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "monitor started") {
		t.Errorf("the end: %v\n%s", err, said.String())
	}
	p.waitStatus(func(st status.Status) bool { return st.State == status.Stopped })
}
