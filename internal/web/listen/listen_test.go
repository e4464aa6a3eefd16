package listen

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	tls := Options{TLSCert: "c", TLSKey: "k"}
	with := func(o Options, listen string) Options { o.Listen = listen; return o }
	token, ca := tls, tls
	token.TokenFile, ca.ClientCA = "t", "ca"
	for _, c := range []struct {
		o    Options
		want string // "": it may be
	}{
		{Options{Listen: "127.0.0.1:1"}, ""},
		{Options{Listen: "[::1]:1"}, ""},
		{Options{Listen: "localhost:0"}, ""},
		{Options{Listen: "127.3.2.1:80"}, ""},
		{Options{Listen: "unix:/run/x"}, ""},
		{Options{Listen: "unix:x"}, "absolute"},
		{Options{}, "empty"},
		{Options{Listen: "9847"}, "no address"},
		{Options{Listen: "localhost:http"}, "no address"},
		{Options{Listen: ":9847"}, "has no TLS"},
		{Options{Listen: "0.0.0.0:9847"}, "has no TLS"},
		{Options{Listen: "localhost.example.org:1"}, "has no TLS"},
		{Options{Listen: "0.0.0.0:1", TokenFile: "t"}, "has no TLS"},
		{with(tls, "0.0.0.0:1"), "no authentication"},
		{with(token, "0.0.0.0:1"), ""},
		{with(ca, ":1"), ""},
		{with(tls, "127.0.0.1:1"), ""},
		{Options{Listen: "127.0.0.1:1", TLSCert: "c"}, "go together"},
		{Options{Listen: "127.0.0.1:1", ClientCA: "c"}, "needs TLS"},
	} {
		err := c.o.Check()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

func TestHost(t *testing.T) {
	d, err := Open(Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for host, want := range map[string]bool{"localhost": true, "LOCALHOST:99": true, "127.0.0.1:8": true, "[::1]:8": true, "::1": true,
		"evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example:80": false, "": false, "0.0.0.0": false, "192.0.2.1": false} {
		if d.Host(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, c := range []struct {
		text, want string
		mode       os.FileMode
	}{
		{"0123456789abcdef\n", "", 0o600},
		{"0123456789abcdef\n", "read by others", 0o640},
		{"short\n", "16 characters", 0o600},
		{"0123456789 abcdef\n", "one word", 0o600},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		d, err := Open(Options{Listen: "127.0.0.1:0", TokenFile: path})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %o: %v", c.text, c.mode, err)
		}
		if err == nil {
			if d.Knows("") || d.Knows("0123456789abcdeF") || !d.Knows("0123456789abcdef") || !d.AsksToken() {
				t.Error("the wrong token will do")
			}
			d.Close()
		}
	}
}

// TestSocket: what a server left that is gone is no obstacle; a server that lives, and another file, are.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Listen: "unix:" + path}); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("%v", err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	d, err := Open(Options{Listen: "unix:" + path})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	d.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Listen: "unix:" + path}); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("%v", err)
	}
}
