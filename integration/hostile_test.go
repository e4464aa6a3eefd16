package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
	"georep/status"
)

// TestForcedCommandReachesNothingElse tries what else a key can be used for that may only replicate to one volume.
func TestForcedCommandReachesNothingElse(t *testing.T) {
	s := small(t)
	other := t.TempDir()
	s.must(s.farRun("volume", "create", "other", other))
	key, err := os.ReadFile(s.sshd.AuthorizedKeys)
	if err != nil {
		t.Fatal(err)
	}
	command := fmt.Sprintf("%s --state-dir %s agent --volume copy", binary, s.far)
	writeFile(t, s.sshd.AuthorizedKeys, fmt.Sprintf("restrict,command=%q %s", command, key))
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "the secret")
	made := filepath.Join(other, "made")
	for _, c := range [][]string{
		{"cat", secret}, {"touch", made}, {binary, "agent"}, {binary, "--state-dir", t.TempDir(), "agent", "--path", other}, {""},
	} {
		cmd := exec.Command("ssh", append([]string{"-F", s.sshd.ConfigFile, "-T", s.sshd.Host}, c...)...)
		cmd.Stdin = strings.NewReader("cat " + secret + "\ntouch " + made + "\n")
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Contains(string(out), "the secret") {
			t.Errorf("%q ran: %v, %s", c, err, out)
		}
	}
	forward := exec.Command("ssh", "-F", s.sshd.ConfigFile, "-o", "ExitOnForwardFailure=yes", "-T", "-W",
		s.sshd.Addr(), s.sshd.Host)
	if out, err := forward.CombinedOutput(); err == nil || strings.Contains(string(out), "SSH-2.0") {
		t.Errorf("a port is forwarded: %s", out)
	}
	for _, spec := range []string{s.sshd.Host + "::other", s.sshd.Host + ":" + other, s.sshd.Host + ":" + s.slave} {
		r := s.run(append([]string{"sync", s.masterArg, spec}, s.flags()...)...)
		s.refused(r, 1, "may use only", `"copy"`)
	}
	if list, err := os.ReadDir(other); err != nil || len(list) > 0 {
		t.Errorf("%s has %v, %v", other, list, err)
	}
	s.must(s.sync())
	s.equal()
}

// TestControlCharactersStayInNames sees that a name with what a terminal obeys is never shown raw: not by the status, nor
// in a log, nor in an error.
func TestControlCharactersStayInNames(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	name := "evil\x1b]0;owned\a\n\rno\x9b2J\u009b"
	writeFile(t, filepath.Join(master, name), "1")
	s.must(s.sync())
	// The slave refuses the next version.
	chattr(t, "+i", filepath.Join(slave, name))
	t.Cleanup(func() { chattr(t, "-i", filepath.Join(slave, name)) })
	writeFile(t, filepath.Join(master, name), "version 2")
	shown := map[string]string{}
	r := s.sync("--log-level", "debug", "--retry-max", "1s")
	if r.code != 1 || !strings.Contains(r.stderr, "evil") {
		t.Errorf("the sync does not name what failed: %+v", r)
	}
	shown["sync"] = strings.ReplaceAll(r.stdout+r.stderr, "\n", "")
	s.must(s.start("--log-level", "debug"))
	s.waitStatus("a failure", func(st status.Status) bool { return len(st.Failures) > 0 })
	for _, how := range []string{"--detail", "--json"} {
		r := s.must(s.run("status", s.masterArg, s.spec, how))
		if !strings.Contains(r.stdout, "evil") {
			t.Errorf("status %s does not name what failed:\n%s", how, r.stdout)
		}
		shown["status "+how] = strings.ReplaceAll(r.stdout+r.stderr, "\n", "")
	}
	logs, err := filepath.Glob(filepath.Join(s.state, "sessions", "*", "log"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil || len(text) == 0 {
		t.Fatalf("the log: %d bytes, %v", len(text), err)
	}
	shown["log"] = strings.ReplaceAll(string(text), "\n", "")
	for where, text := range shown {
		if i := strings.IndexAny(text, "\x1b\a\r\u009b"); i >= 0 {
			t.Errorf("%s shows it raw: %q", where, text[max(0, i-40):min(len(text), i+40)])
		}
	}
}

func chattr(t *testing.T, flag, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", flag, path).CombinedOutput(); err != nil {
		t.Errorf("chattr: %v: %s", err, out)
	}
}
