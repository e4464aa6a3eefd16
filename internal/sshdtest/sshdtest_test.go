package sshdtest

import (
	"bufio"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func run(t *testing.T, s *Server, command string) string {
	t.Helper()
	out, err := exec.Command("ssh", "-F", s.ConfigFile, Alias, command).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh %s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestStartServesOpenSSHClient(t *testing.T) {
	s := Start(t, Env("GEOREP_STATE_DIR", "/some where"), Env("PATH", "/opt/x:/usr/bin:/bin"), WithRSA())
	// The user's shell may put directories of its own before ours.
	got := run(t, s, `echo "$GEOREP_STATE_DIR:$PATH"`)
	if !strings.HasPrefix(got, "/some where:") || !strings.HasSuffix(got, "/opt/x:/usr/bin:/bin") {
		t.Errorf("environment of the remote command: %q", got)
	}
	if len(s.HostKeys) != 3 || s.HostKeys[2].Type() != ssh.KeyAlgoRSA {
		t.Errorf("host keys: %v", s.HostKeys)
	}
}

func TestRestartKeepsPortAndKeys(t *testing.T) {
	s := Start(t)
	port, pid := s.Port, s.Pid()
	s.Stop()
	s.Stop()
	if s.Pid() != 0 {
		t.Error("a stopped server has a pid")
	}
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = c.Close()
		t.Error("a stopped server takes connections")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.Port != port || s.Pid() == pid {
		t.Errorf("port %d (was %d), pid %d (was %d)", s.Port, port, s.Pid(), pid)
	}
	if got := run(t, s, "echo again"); got != "again" {
		t.Errorf("after a restart: %q", got)
	}
}

// session runs a remote command that says hello and then waits for its input to end.
func session(t *testing.T, s *Server) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("ssh", "-F", s.ConfigFile, Alias, "echo hello; cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("read %q: %v", line, err)
	}
	return cmd
}

func TestStopEndsSessions(t *testing.T) {
	s := Start(t)
	cmd := session(t, s)
	if len(s.Children()) < 2 {
		t.Errorf("children of a server with a session: %v", s.Children())
	}
	s.Stop()
	if err := cmd.Wait(); err == nil {
		t.Error("the client did not notice that the server was stopped")
	}
}

func TestKillSessionsLeavesTheServer(t *testing.T) {
	s := Start(t)
	cmd := session(t, s)
	s.KillSessions()
	if err := cmd.Wait(); err == nil {
		t.Error("the client did not notice that its session was killed")
	}
	if got := run(t, s, "echo alive"); got != "alive" {
		t.Errorf("after killed sessions: %q", got)
	}
}
