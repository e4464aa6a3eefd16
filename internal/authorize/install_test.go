package authorize

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// account is one on "another host": what stands for ssh runs the command there by a shell.
type account struct {
	t     *testing.T
	home  string
	login Login
	said  *bytes.Buffer
}

func newAccount(t *testing.T) *account {
	a := &account{t: t, home: t.TempDir(), said: &bytes.Buffer{}}
	client := filepath.Join(t.TempDir(), "ssh")
	script := "#!/bin/sh\nHOME='" + a.home + "' PATH=\"$HOME/bin:$PATH\" LC_ALL=C.UTF-8\nexport HOME PATH LC_ALL\n[ \"$1\" = -- ] && exec sh -c \"$3\"\n"
	if err := os.WriteFile(client, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	a.login = Login{Command: []string{client}, Account: "-oProxyCommand=none@host", Stderr: a.said}
	return a
}

func (a *account) at(name string) string { return filepath.Join(a.home, name) }

func (a *account) write(name, text string, mode os.FileMode) {
	a.t.Helper()
	if err := os.MkdirAll(filepath.Dir(a.at(name)), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(a.at(name), []byte(text), mode); err != nil {
		a.t.Fatal(err)
	}
}

func (a *account) keys() string {
	a.t.Helper()
	text, err := os.ReadFile(a.at(".ssh/authorized_keys"))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

func newLine(t *testing.T) (key ssh.PublicKey, blob, line string) {
	t.Helper()
	key, _, err := Key(filepath.Join(t.TempDir(), "key"), "c")
	if err != nil {
		t.Fatal(err)
	}
	if line, err = Line(key, `georep agent --path '/a "b"'`, "c"); err != nil {
		t.Fatal(err)
	}
	return key, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), line
}

// TestInstallKeepsOthers: whatever bytes the others' lines have, they stay, and the key has no other line than its own.
func TestInstallKeepsOthers(t *testing.T) {
	key, blob, line := newLine(t)
	const theirs = "ssh-ed25519 AAAA J\xfcrgen\nssh-rsa BBBB a\x00b\n# \\n %s $HOME"
	for name, c := range map[string]struct{ before, after string }{
		"none":                    {"", line + "\n"},
		"others":                  {theirs, theirs + "\n" + line + "\n"},
		"its key, held to more":   {"from=\"::1\" " + blob + "\n" + theirs, theirs + "\n" + line + "\n"},
		"its key, held to none":   {blob + "\n" + theirs + "\n" + line + "\n", theirs + "\n" + line + "\n"},
		"its line, and no end":    {theirs + "\n" + line, theirs + "\n" + line},
		"its line, already there": {line + "\n" + theirs, line + "\n" + theirs},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t)
			a.write("elsewhere", c.before, 0o600)
			a.write(".ssh/known_hosts", "", 0o600)
			if err := os.Symlink("../elsewhere", a.at(".ssh/authorized_keys")); err != nil {
				t.Fatal(err)
			}
			again, err := Install(t.Context(), a.login, key, line)
			if err != nil || again != (c.before == c.after) {
				t.Errorf("again %v, %v: %s", again, err, a.said)
			}
			if got := a.keys(); got != c.after {
				t.Errorf("authorized_keys is\n%q, want\n%q", got, c.after)
			}
			if st, err := os.Lstat(a.at(".ssh/authorized_keys")); err != nil || st.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link is no more: %v", err)
			}
			if left, _ := filepath.Glob(a.at(".ssh/.authorized_keys*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestInstallAtOnce: sessions that get their keys at the same time all get them.
func TestInstallAtOnce(t *testing.T) {
	a := newAccount(t)
	var wg sync.WaitGroup
	var lines []string
	for range 8 {
		key, _, line := newLine(t)
		lines = append(lines, line)
		wg.Go(func() {
			login := a.login
			login.Stderr = nil
			if _, err := Install(t.Context(), login, key, line); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, line := range lines {
		if !strings.Contains("\n"+a.keys(), "\n"+line+"\n") {
			t.Errorf("%s is not there:\n%s", line, a.keys())
		}
	}
}

// TestInstallFails: where the file cannot be written, as on a full disk, what belongs into it is kept, and it is said where.
func TestInstallFails(t *testing.T) {
	key, blob, line := newLine(t)
	a := newAccount(t)
	a.write(".ssh/authorized_keys", "ssh-rsa BBBB theirs\n"+blob+"\n", 0o600)
	a.write("bin/cat", "#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n", 0o700)
	if _, err := Install(t.Context(), a.login, key, line); err == nil {
		t.Fatal("no error")
	}
	kept, _ := filepath.Glob(a.at(".ssh/.authorized_keys*"))
	if len(kept) != 1 || !strings.Contains(a.said.String(), filepath.Base(kept[0])) {
		t.Fatalf("kept: %q; said: %s", kept, a.said)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != "ssh-rsa BBBB theirs\n"+line+"\n" {
		t.Errorf("%q, %v", text, err)
	}
}
