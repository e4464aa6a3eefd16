package connect_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"georep/internal/connect"
	"georep/internal/sshdtest"
	"georep/marker/xtime"
	"georep/volume"
)

// TestAgentEnded: an agent that somebody ended while the session began is tried again at the usual pace, and said to have
// been ended; what was no agent at all is not.
func TestAgentEnded(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("GEOREP_SSH_CONFIG", "none")
	server := sshdtest.Start(t)
	const magic = `printf '\000\377georep-agent\r\n\032\n\376\001'`
	for name, tt := range map[string]struct {
		script string
		ended  bool
		says   string
	}{
		"SIGKILL":            {"kill -9 $$", true, "signal KILL"},
		"SIGTERM":            {"kill -15 $$", true, "signal TERM"},
		"killed child":       {"sh -c 'kill -9 $$'; exit $?", true, "status 137"},
		"relayed":            {"echo 'Connection reset by peer' >&2; exit 255", true, "Connection reset"},
		"killed and noisy":   {"echo welcome; kill -9 $$", true, "signal KILL"},
		"after the magic":    {magic + "; sleep 0.1; kill -9 $$", true, "signal KILL"},
		"after it by itself": {magic + "; exit 2", true, "status 2"},
		"no memory":          {"echo 'fatal error: runtime: cannot allocate memory' >&2; exit 2", true, "cannot allocate"},
		"no processes":       {"echo 'sh: 0: Cannot fork' >&2; exit 2", true, "Cannot fork"},
		"being replaced":     {"echo 'sh: georep: Text file busy' >&2; exit 126", true, "Text file busy"},
		"not found":          {"echo 'sh: georep: not found' >&2; exit 127", false, "status 127"},
		"not executable":     {"echo 'sh: georep: Permission denied' >&2; exit 126", false, "status 126"},
		"another program":    {"echo 'usage: georep'; exit 2", false, "usage: georep"},
		"SFTP alone":         {"echo 'This service allows sftp connections only.'; exit 1", false, "name the slave sftp://"},
		"nothing":            {"exit 0", false, "without an answer"},
		"noise":              {"head -c 100000 /dev/zero; cat >/dev/null", false, "install georep"},
	} {
		t.Run(name, func(t *testing.T) {
			err := begin(t, server, tt.script)
			if got := errors.Is(err, connect.ErrAgentEnded); got != tt.ended || errors.Is(err, connect.ErrNoAgent) == got {
				t.Errorf("taken for an agent that ended: %v; the error is %v", got, err)
			}
			if connect.Final(err) == tt.ended {
				t.Errorf("final: %v, of %v", !tt.ended, err)
			}
			if strings.Count(fmt.Sprint(err), "no georep there") > 1 || strings.Count(fmt.Sprint(err), "install") > 1 {
				t.Errorf("said twice: %v", err)
			}
			if !strings.Contains(fmt.Sprint(err), tt.says) || tt.ended && strings.Contains(err.Error(), "install") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// begin tries to begin a session with an agent that is a shell script.
func begin(t *testing.T, server *sshdtest.Server, script string) error {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "georep")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	to, err := volume.ParseSlave(server.Host + ":" + filepath.Join(dir, "slave"))
	if err != nil {
		t.Fatal(err)
	}
	s := volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()}
	for key, value := range map[string]string{"ssh-port": strconv.Itoa(server.Port), "identity": server.IdentityFile,
		"known-hosts": server.KnownHostsFile, "remote-georep": program} {
		if err := s.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := connect.Slave(t.Context(), connect.Config{Session: s, Logger: zerolog.Nop(), Wire: new(atomic.Int64),
		Volume: volume.Volume{Name: "data", UUID: xtime.NewUUID().String(), Path: t.TempDir()}})
	if err == nil {
		tree.Close()
	}
	return err
}

// TestServerEnded is the same of a slave by SFTP: its servers are ended at once, or after a few requests.
func TestServerEnded(t *testing.T) {
	type ends struct{ script, says string }
	cases := map[string]ends{"at once": {"kill -9 $$", "signal KILL"}}
	for bytes := 9; bytes <= 459; bytes += 50 { // a path has a few dozen: each of the first requests is met
		script := fmt.Sprintf("dd bs=1 count=%d 2>/dev/null | /usr/lib/openssh/sftp-server; kill -9 $$", bytes)
		cases[fmt.Sprintf("after %d bytes", bytes)] = ends{script, ""}
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "server")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("SSH_AUTH_SOCK", "")
			t.Setenv("GEOREP_SSH_CONFIG", "none")
			server := sshdtest.Start(t, sshdtest.Config("ForceCommand "+script))
			to, err := volume.ParseSlave(server.Host + ":" + filepath.Join(t.TempDir(), "slave"))
			if err != nil {
				t.Fatal(err)
			}
			s := volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()}
			for key, value := range map[string]string{"ssh-port": strconv.Itoa(server.Port), "identity": server.IdentityFile,
				"known-hosts": server.KnownHostsFile, "agentless": "true"} {
				if err := s.Set(key, value); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := connect.Slave(t.Context(), connect.Config{Session: s, Logger: zerolog.Nop(), Wire: new(atomic.Int64),
				Volume: volume.Volume{Name: "data", UUID: xtime.NewUUID().String(), Path: t.TempDir()}})
			if err == nil {
				tree.Close()
				t.Fatal("it was opened")
			}
			if connect.Final(err) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("final: %v, of %v", connect.Final(err), err)
			}
		})
	}
}
