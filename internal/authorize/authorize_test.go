package authorize

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestLine: what sshd's own grammar reads of the line is the key, and the command byte for byte; what it could not read is refused.
func TestLine(t *testing.T) {
	key, made, err := Key(filepath.Join(t.TempDir(), "key"), "georep:data@host")
	if err != nil || !made {
		t.Fatal(made, err)
	}
	for command, fits := range map[string]bool{
		"georep agent --volume copy":     true,
		`georep agent --path '/it'\''s'`: true,
		`georep agent --path '/a "b" c'`: true,
		`georep agent --path '/a,b\c'`:   true,
		"georep agent --path '/a\nb'":    false,
		`georep agent --path '/a\"b'`:    false,
		`georep agent --path /a\`:        false,
	} {
		line, err := Line(key, command, "georep: data\n@host")
		if (err == nil) != fits {
			t.Errorf("%s: %v", command, err)
		}
		if err != nil {
			continue
		}
		got, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || !bytes.Equal(got.Marshal(), key.Marshal()) || len(rest) > 0 || comment != "georep:_data_@host" {
			t.Errorf("%s: %v, comment %q, rest %q", line, err, comment, rest)
		}
		want := `command="` + strings.ReplaceAll(command, `"`, `\"`) + `"`
		if len(options) != 2 || options[0] != "restrict" || options[1] != want {
			t.Errorf("options %q, want restrict and %s", options, want)
		}
	}
}

// TestKey: a key is made once, for its owner alone, and one that is damaged is not replaced.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, made, err := Key(path, "c")
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := Key(path, "c")
	if err != nil || made || !bytes.Equal(first.Marshal(), again.Marshal()) {
		t.Errorf("a second time: made %v, %v", made, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Key(path, "c"); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged key: %v", err)
	}
	if _, _, err := Key(filepath.Join(path, "below"), "c"); err == nil {
		t.Error("a key where none can be")
	}
}

// TestKeyAtOnce: commands that make a session's key at the same time have one key: a line of another would let nobody in.
func TestKeyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keys := make([]ssh.PublicKey, 16)
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, new, err := Key(path, "c")
			if err != nil {
				t.Error(err)
				return
			}
			if keys[i] = key; new {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key == nil || !bytes.Equal(key.Marshal(), keys[0].Marshal()) {
			t.Fatal("there are several keys")
		}
	}
	if made.Load() != 1 {
		t.Errorf("%d of them made it", made.Load())
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
