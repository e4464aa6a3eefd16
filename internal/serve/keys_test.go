package serve_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"georep/internal/serve"
)

func TestParseKey(t *testing.T) {
	key := newKey(t)
	for options, want := range map[string]string{
		`volume="v"`:                      "--volume=v",
		`path="/srv/a b,c"`:               "--path=/srv/a b,c",
		`volume="v",append-only`:          "--volume=v --append-only=true",
		`volume="v",keep-root-mode="off"`: "--volume=v --keep-root-mode=false", `volume="v",keep-deleted="7d",read-only="false"`: "--volume=v --keep-deleted=168h0m0s --read-only=false",
		``: "", `volume="v",path="/p"`: "", `volume="v",volume="w"`: "", `volume=""`: "", `path="p"`: "", `volume="v",user=""`: "",
		`volume="v",no-such`: "", `volume="v",restrict`: "", `volume="v",command="sh"`: "", `volume="v",hook="/bin/sh"`: "",
		`volume="v",keep-deleted="x"`: "", `volume`: "", `volume=v`: "",
	} {
		_, grant, err := serve.ParseKey(line(options, key))
		got := strings.Join(grant.Flags(), " ")
		switch {
		case want == "" && err == nil:
			t.Errorf("%s is taken: %q", options, got)
		case want != "" && (err != nil || got != want):
			t.Errorf("%s: %q, %v", options, got, err)
		}
	}
	if _, grant, err := serve.ParseKey(line(`volume="v",user="bob"`, key)); err != nil || grant.User != "bob" {
		t.Errorf("user: %+v, %v", grant, err)
	}
	for _, text := range []string{"", "#", "volume=\"v\"", "ssh-ed25519 AAAA", line(`volume="v"`, key) + "\n" + line(`volume="w"`, key)} {
		if _, _, err := serve.ParseKey(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestOneBadLineLetsNobodyIn: a restriction that is not understood is not passed over.
func TestOneBadLineLetsNobodyIn(t *testing.T) {
	good := line(`volume="v"`, newKey(t))
	path := filepath.Join(t.TempDir(), "keys")
	for _, c := range []struct {
		text string
		ok   bool
	}{{"", true}, {"# none\n\n", true}, {good, true}, {good + "\n" + line(`nonsense`, newKey(t)) + "\n", false}, {good + "\nx\n", false},
		{strings.Repeat("#", 2<<20), false}} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := serve.ReadKeys(path); (err == nil) != c.ok {
			t.Errorf("%.40q: %v", c.text, err)
		}
	}
	if _, err := serve.ReadKeys(t.TempDir()); err == nil {
		t.Error("a directory is taken")
	}
	if _, err := serve.ReadKeys(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
}

func TestAuthorize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	one, two := newKey(t), newKey(t)
	if err := os.WriteFile(path, []byte("# mine\n"+line(`volume="o"`, two)), 0o600); err != nil { // no line break at the end
		t.Fatal(err)
	}
	for _, c := range []struct {
		options string
		again   bool
	}{{`volume="v"`, false}, {`volume="v"`, true}, {`volume="w"`, false}} {
		if _, again, err := serve.Authorize(path, line(c.options, one)); err != nil || again != c.again {
			t.Errorf("%s: %v, %v", c.options, again, err)
		}
	}
	text, err := os.ReadFile(path)
	if want := "# mine\n" + line(`volume="o"`, two) + "\n" + line(`volume="w"`, one) + "\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v, not %q", text, err, want)
	}
	var all sync.WaitGroup
	keys := make([]ssh.Signer, 20)
	for i := range keys {
		keys[i] = newKey(t)
		all.Go(func() {
			if _, _, err := serve.Authorize(path, line(`volume="c"`, keys[i])); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	have, err := serve.ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range append(keys, one, two) {
		if _, ok := have.Find(key.PublicKey()); !ok {
			t.Error("a key is lost")
		}
	}
}

func TestHostKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "serve")
	prints := make(chan string, 8)
	var all sync.WaitGroup
	for range cap(prints) {
		all.Go(func() {
			key, err := serve.HostKey(dir)
			if err != nil {
				t.Error(err)
				return
			}
			prints <- ssh.FingerprintSHA256(key.PublicKey())
		})
	}
	all.Wait()
	close(prints)
	first := <-prints
	for other := range prints {
		if other != first {
			t.Errorf("two keys: %s, %s", first, other)
		}
	}
	path := filepath.Join(dir, "host_key")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := serve.HostKey(dir); err == nil {
		t.Error("a key that cannot be read was replaced")
	}
}

// FuzzParseKey: whatever a line says, what is taken of it holds the key to one place, by flags that an agent understands.
func FuzzParseKey(f *testing.F) {
	const key = " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGSMXKxLlBxRHr+bUVxOYW/kzgzYA5vNL6FmkbMW1IbE x"
	for _, options := range []string{`volume="v"`, `path="/a\"b",append-only`, `volume="v",keep-deleted="7d"`, `volume`, `="`, `volume="`} {
		f.Add(options + key)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, grant, err := serve.ParseKey(text)
		if err != nil {
			return
		}
		if parsed == nil || (grant.Volume == "") == (grant.Path == "") {
			t.Fatalf("%q: %+v", text, grant)
		}
		for _, flag := range grant.Flags() {
			if !strings.HasPrefix(flag, "--") || !strings.Contains(flag, "=") || strings.ContainsAny(flag, "\x00\n") {
				t.Fatalf("%q: %q", text, flag)
			}
		}
	})
}
