package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/status"
)

// served is a georep serve that runs, with a registry of its own.
type served struct {
	state, port string
	stop        func()
}

// serves starts it, and waits until it listens.
func (p *program) serves(state string, args ...string) *served {
	p.t.Helper()
	cmd := p.command(append([]string{"--state-dir", state, "--log-format", "json", "serve"}, args...)...)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	s, lines := &served{state: state}, bufio.NewScanner(out)
	for s.port == "" && lines.Scan() {
		var said struct{ Listen string }
		if json.Unmarshal(lines.Bytes(), &said) == nil && said.Listen != "" {
			s.port = said.Listen[strings.LastIndex(said.Listen, ":")+1:]
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
	s.stop = func() {
		if cmd.ProcessState != nil {
			return
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("georep serve: %v", err)
		}
	}
	p.t.Cleanup(s.stop)
	if s.port == "" {
		p.t.Fatal("georep serve does not listen")
	}
	return s
}

// TestServe is a session to a host without sshd, from the first key to the end: authorize, doctor, start, a server that goes and
// comes back, a key that is taken away, and what its host's audit log says.
func TestServe(t *testing.T) {
	p := build(t, 0)
	master, slave, far := p.mkdir("master"), p.mkdir("slave"), filepath.Join(p.dir, "far")
	p.write(filepath.Join(master, "a"), "one")
	p.ok("--state-dir", far, "volume", "create", "copy", slave)
	print := strings.TrimSpace(p.run("--state-dir", far, "serve", "--fingerprint").out)
	s := p.serves(far, "--listen", "127.0.0.1:0")
	to := "georep://127.0.0.1:" + s.port + "/copy"
	if o := p.run("doctor", master, to); o.code != exitFailed || !strings.Contains(o.out, "host key unknown") || !strings.Contains(o.out, "--host-key") {
		t.Errorf("doctor: %+v", o)
	}
	wrong := "SHA256:" + strings.Repeat("A", 43)
	p.run("start", master, to, "--host-key", "SHA256:short").check(t, exitUsage, "fingerprint")
	p.run("start", master, to, "--host-key", wrong).check(t, exitFailed, "host key changed")
	o := p.run("authorize", master, to, "--host-key", print)
	o.check(t, exitDone, "georep serve --authorize")
	_, line, _ := strings.Cut(o.out, "--authorize '")
	line, _, _ = strings.Cut(line, "'\n")
	p.run("start", master, to).check(t, exitFailed, "authentication refused", "georep authorize")
	p.run("--state-dir", far, "serve", "--authorize", line).check(t, exitDone, "may log in now")
	p.run("--state-dir", far, "serve", "--authorize", line).check(t, exitDone, "could log in already")
	p.run("--state-dir", far, "serve", "--authorize", "nonsense").check(t, exitFailed, "no key")
	p.ok("start", master, to)
	t.Cleanup(func() { p.run("stop", master, to) })
	p.run("sync", master, to).check(t, exitDone, "in step")
	p.sameText(master, slave, "a")
	p.run("doctor", master, to).check(t, exitDone, "remote program")
	p.run("verify", master, to).check(t, exitDone)
	p.run("status").check(t, exitDone, to)
	if st := p.status(); !strings.Contains(st.Slave, to) {
		t.Errorf("status shows %q", st.Slave)
	}
	p.run("--state-dir", far, "status", "--incoming").check(t, exitDone, "connected", "127.0.0.1 port")
	log := p.run("--state-dir", far, "volume", "log", "copy")
	log.check(t, exitDone, "began", "SHA256:")

	// The server goes, and comes back at the same place.
	s.stop()
	p.write(filepath.Join(master, "a"), "two")
	p.waitStatus(func(st status.Status) bool { return st.State == status.Faulty })
	p.serves(far, "--listen", "127.0.0.1:"+s.port)
	changed := time.Now()
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active && st.LastSynced.After(changed) })
	p.sameText(master, slave, "a")

	// Another master has no business there, by whatever key.
	p.run("create", p.mkdir("other"), to, "--host-key", print, "--identity", p.keyOf()).check(t, exitFailed, "bound to the master")
	p.ok("stop", master, to)
	if err := os.Remove(filepath.Join(far, "serve", "authorized_keys")); err != nil {
		t.Fatal(err)
	}
	p.run("start", master, to).check(t, exitFailed, "authentication refused")
}

// keyOf is a copy of the key that authorize made, of the only session with one.
func (p *program) keyOf() string {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dir, "state", "sessions", "*", "key"))
	if err != nil || len(found) != 1 {
		p.t.Fatalf("keys: %q, %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.dir, "id") // without what ssh_config takes for a token
	if err := os.WriteFile(path, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// TestServeAsUser: an agent runs as the user that the line names.
func TestServeAsUser(t *testing.T) {
	p := build(t, 0)
	for _, c := range []struct{ user, want string }{{"", "0"}, {"nobody", "65534"}, {"no-such-user", ""}} {
		var none bytes.Buffer
		cmd := p.command("--version")
		cmd.Stdout = &none
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		err := runAs(cmd, c.user)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%s: no error", c.user)
		case c.want == "":
		case err != nil:
			t.Errorf("%s: %v", c.user, err)
		case c.user == "nobody" && (cmd.SysProcAttr.Credential == nil || cmd.SysProcAttr.Credential.Uid != nobody):
			t.Errorf("%s: %+v", c.user, cmd.SysProcAttr.Credential)
		case c.user == "" && cmd.SysProcAttr.Credential != nil:
			t.Errorf("nobody was named: %+v", cmd.SysProcAttr.Credential)
		}
	}
}
