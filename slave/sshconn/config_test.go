package sshconn

import (
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kevinburke/ssh_config"
)

func parse(t *testing.T, text string) configFiles {
	t.Helper()
	files, err := readConfig(write(t, "config", text))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func resolve(t *testing.T, text string, to Target) *hop {
	t.Helper()
	h, err := parse(t, text).resolve(request{Target: to}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestResolveFromConfig(t *testing.T) {
	t.Setenv("HOME", "/home/100%h")
	t.Setenv("OTHER_AGENT", "/run/other")
	h := resolve(t, strings.Join([]string{
		"Host backup",
		"  HostName %h.Example.COM",
		"  User keeper",
		"  Port 2022",
		`  IdentityFile "~/keys/%r at %h"`,
		"  IdentityFile /keys/%n:%p",
		"  IdentitiesOnly yes",
		"  IdentityAgent $OTHER_AGENT",
		`  UserKnownHostsFile ~/a "/b c"`,
		"  GlobalKnownHostsFile none",
		"  HostKeyAlias Vault",
		"  ConnectTimeout 7",
		"  ProxyCommand nc -X %h %p 100%%",
		"Host *",
		"  User somebody",
		"  Port 1",
	}, "\n"), Target{Host: "backup"})
	want := hop{
		alias: "backup", host: "backup.example.com", port: 2022, user: "keeper", knownAs: "vault",
		timeout: 7 * time.Second, proxyCommand: "nc -X backup.example.com 2022 100%", agentSocket: "/run/other",
	}
	if h.alias != want.alias || h.addr() != want.addr() || h.user != want.user || h.knownAs != want.knownAs ||
		h.timeout != want.timeout || h.proxyCommand != want.proxyCommand || h.agentSocket != want.agentSocket {
		t.Errorf("got %+v", h)
	}
	if want := []string{"/home/100%h/keys/keeper at backup.example.com", "/keys/backup:2022"}; !slices.Equal(h.identities, want) {
		t.Errorf("identities: %q", h.identities)
	}
	if want := []string{"/home/100%h/a", "/b c"}; !slices.Equal(h.knownHosts, want) {
		t.Errorf("known hosts: %q", h.knownHosts)
	}
	if !h.identitiesOnly || !h.ownIdentities {
		t.Error("IdentitiesOnly or IdentityFile is not seen")
	}
}

func TestTargetWinsOverConfig(t *testing.T) {
	config := "User keeper\nPort 2022\nIdentityFile /a\nUserKnownHostsFile /b\nConnectTimeout 7\n"
	to := Target{Host: "[::1]", User: "me", Port: 22, Identities: []string{"/x"}, KnownHosts: []string{"/y"}}
	h, err := parse(t, config).resolve(request{Target: to}, Options{ConnectTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if h.addr() != "[::1]:22" || h.user != "me" || !slices.Equal(h.identities, to.Identities) ||
		!slices.Equal(h.knownHosts, to.KnownHosts) || h.timeout != time.Minute {
		t.Errorf("got %+v", h)
	}
}

func TestDefaults(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	h := resolve(t, "# nothing\n", Target{Host: "Backup"})
	if h.addr() != "backup:22" || h.user != localUser() || h.agentSocket != "/run/agent" ||
		h.timeout != DefaultConnectTimeout || h.ownIdentities || len(h.jumps) != 0 || h.proxyCommand != "" {
		t.Errorf("got %+v", h)
	}
	if len(h.identities) != 3 || h.identities[0] != "/home/me/.ssh/id_ed25519" {
		t.Errorf("identities: %q", h.identities)
	}
	if len(h.knownHosts) != 4 || h.knownHosts[0] != "/home/me/.ssh/known_hosts" || h.knownHosts[2] != systemKnownHosts {
		t.Errorf("known hosts: %q", h.knownHosts)
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		line  string
		holds bool
	}{
		{"Match all", true},
		{"match host other,back*", true},
		{"MATCH=originalhost backup", true},
		{"Match host other", false},
		{"Match host backup exec true", false},
		{"Match user root", false},
		{"Match", false},
	}
	for _, test := range tests {
		want := 22
		if test.holds {
			want = 2022
		}
		h := resolve(t, test.line+"\n  Port 2022\nHost *\n  User keeper\n", Target{Host: "backup"})
		if h.port != want || h.user != "keeper" {
			t.Errorf("%s: port %d, user %s", test.line, h.port, h.user)
		}
	}
}

func TestIncludeOfTheSystemFile(t *testing.T) {
	got := string(adapt([]byte("Include conf.d/*\n include=a\nInclude /b\nInclude ~/c"), true))
	if want := "Include /etc/ssh/conf.d/*\n include=/etc/ssh/a\nInclude /b\nInclude ~/c"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestBadConfig(t *testing.T) {
	if _, err := readConfig("/no/such/file"); !errors.Is(err, ErrConfig) || !Final(err) {
		t.Errorf("no file: %v", err)
	}
	circle := filepath.Join(t.TempDir(), "circle")
	for _, text := range []string{"Port many", "IdentityFile ~/%Z", "HostName a%", "Port -1", "Include " + circle} {
		if text == "Include "+circle {
			circle = write(t, "circle", "Include /no/such/directory/*\nPort x\n")
			text = "Include " + circle
		}
		files, err := readConfig(write(t, "config", text+"\n"))
		if err == nil {
			_, err = files.resolve(request{Target: Target{Host: "h"}}, Options{})
		}
		if !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := configFiles(nil).resolve(request{}, Options{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no host: %v", err)
	}
}

func TestParseJump(t *testing.T) {
	tests := map[string]Target{
		"host":                     {Host: "host"},
		" me@host ":                {User: "me", Host: "host"},
		"me@corp@host:22":          {User: "me@corp", Host: "host", Port: 22},
		"ssh://me@[fe80::1]:2022/": {User: "me", Host: "fe80::1", Port: 2022},
		"fe80::1":                  {Host: "fe80::1"},
	}
	for text, want := range tests {
		got, err := parseJump(text)
		if err != nil || got.User != want.User || got.Host != want.Host || got.Port != want.Port {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "me@", "host:many", "host:99999"} {
		if _, err := parseJump(text); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestSilenceAtDefaults runs on a false clock: a silent peer is asked, and dead within 30 seconds.
func TestSilenceAtDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := &Conn{addr: "host:22", wire: &wire{Conn: ours}, done: make(chan struct{})}
		ask := make(chan struct{}, 1)
		c.start(func() { c.countSilence(DefaultKeepAlive, ask) })
		for range 10 {
			<-ask // an answer to each keeps it alive
			c.wire.received.Add(1)
		}
		answered := time.Now()
		if err := c.Wait(); !errors.Is(err, ErrPeerDead) {
			t.Errorf("got %v", err)
		}
		if silence := time.Since(answered); silence > 30*time.Second {
			t.Errorf("took %v", silence)
		}
		if len(ask) != 1 {
			t.Error("the silent peer was not asked")
		}
		_ = c.Close()
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31m\n\tb\xff\u202e  c ")
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(text)
		if clean(got) != got || strings.ContainsAny(got, "\n\r\x1b\x00\u202e") {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func FuzzAdapt(f *testing.F) {
	f.Add("Match exec \"x\"\n  Port 1\nHost a\n  HostName %h")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "include") {
			t.Skip("would read files")
		}
		adapted := adapt([]byte(text), false)
		if strings.Count(string(adapted), "\n") != strings.Count(text, "\n") {
			t.Fatal("line numbers moved")
		}
		if _, err := ssh_config.DecodeBytes(adapted); err != nil && strings.Contains(err.Error(), "Match") {
			t.Errorf("a Match line was left: %v", err)
		}
	})
}
