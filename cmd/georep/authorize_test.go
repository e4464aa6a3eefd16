package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"georep/internal/sshdtest"
	"georep/slave/policy"
)

// TestAuthorize: as the operator, with a key of the operator's own, a session gets a key that lets it in, is held to its slave, and
// goes with the session. Each kind of slave that is reached by SSH.
func TestAuthorize(t *testing.T) {
	p := build(t, 0)
	home := p.mkdir("home")
	far := filepath.Join(p.dir, "far")
	d := sshdtest.Start(t, sshdtest.Env("GEOREP_STATE_DIR", far), sshdtest.Env("HOME", home))
	// Where sshd looks is not below the home of this test.
	err := errors.Join(os.Mkdir(filepath.Join(home, ".ssh"), 0o700), os.Symlink(d.AuthorizedKeys, filepath.Join(home, ".ssh", "authorized_keys")))
	if err != nil {
		t.Fatal(err)
	}
	georep(t, far, "volume", "create", "copy", p.mkdir("copy")).check(t, exitDone)
	operator := "ssh -i " + d.IdentityFile + " -o IdentitiesOnly=yes -o UserKnownHostsFile=" + d.KnownHostsFile
	way := []string{"--ssh-port", strconv.Itoa(d.Port), "--known-hosts", d.KnownHostsFile, "--remote-georep", p.path}
	keys := func() string {
		text, err := os.ReadFile(d.AuthorizedKeys)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, slave := range map[string]string{"vol": d.Host + "::copy", "path": d.Host + ":" + filepath.Join(p.dir, "it's a copy"),
		"sftp": "sftp://" + d.Host + filepath.Join(p.dir, "by sftp")} {
		t.Run(name, func(t *testing.T) {
			master := p.mkdir("master-" + name)
			p.write(filepath.Join(master, "f"), "text")
			run := func(command string, more ...string) outcome {
				return p.run(append([]string{command, master, slave}, more...)...)
			}
			before := keys()
			run("authorize", append(way, "--print")...).check(t, exitDone, "restrict,command=", "ssh-ed25519 ")
			if keys() != before {
				t.Error("--print has put the line there")
			}
			run("authorize", "--ssh", operator).check(t, exitDone, "lets it in", "authorized_keys now")
			after := keys()
			if !strings.HasPrefix(after, before) || strings.Count(after, "\n") != strings.Count(before, "\n")+1 {
				t.Errorf("authorized_keys was\n%s\nand is\n%s", before, after)
			}
			run("authorize", "--ssh", operator).check(t, exitDone, "there already")
			if keys() != after {
				t.Error("a second time the file has changed")
			}
			// The operator's key is not the session's: this comes in by its own alone.
			run("sync").check(t, exitDone, "in step")
			files, err := filepath.Glob(filepath.Join(p.dir, "state", "sessions", "*", "key"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%q, %v", files, err)
			}
			if st, err := os.Stat(files[0]); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", st, err)
			}
			run("delete").check(t, exitDone)
			if _, err := os.Stat(files[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the key outlives its session: %v", err)
			}
		})
	}
}

// TestAuthorizeRefused: what fails leaves no session, no volume and no line behind, and says what to do.
func TestAuthorizeRefused(t *testing.T) {
	dir := t.TempDir()
	state, master := filepath.Join(dir, "state"), filepath.Join(dir, "data")
	if err := os.Mkdir(master, 0o755); err != nil {
		t.Fatal(err)
	}
	georep(t, state, "authorize", master, "file://"+dir+"/s").check(t, exitUsage, "no key is needed")
	georep(t, state, "authorize", master, "h::v", "--ssh", " ").check(t, exitUsage, "--ssh is empty")
	georep(t, state, "authorize", master, "h::v", "--ssh", "/no/such/ssh").check(t, exitFailed, "--print")
	georep(t, state, "authorize", master, "h::v", "--ssh", "false").check(t, exitFailed, "could not be put there", "--print")
	georep(t, state, "authorize", master, "h::v", "--ssh", "echo").check(t, exitFailed, "instead of doing it")
	georep(t, state, "status", "data").check(t, exitFailed)
	// By SFTP a key is held to no directory, which is said.
	for i, args := range [][]string{{"sftp://h/v"}, {"h:/v", "--agentless"}} {
		o := georep(t, state+strconv.Itoa(i), append([]string{"authorize", master, "--print"}, args...)...)
		o.check(t, exitDone, `command="internal-sftp"`)
		if !strings.Contains(o.errors, "ChrootDirectory") {
			t.Errorf("%q: it is not said what the key reaches: %s", args, o.errors)
		}
	}
	georep(t, state, "create", master, "file://"+dir+"/s").check(t, exitDone)
	for _, key := range policy.Keys() {
		if key.Name == "master" {
			return
		}
	}
	t.Error("the line's --master is no key of the policy")
}
