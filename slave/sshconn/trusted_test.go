package sshconn

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"georep/internal/sshdtest"
)

// What the message says to do must let exactly the key in that was seen, also where the directory is missing.
func TestUnknownHostIsAcceptedAsSeen(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	to.KnownHosts = []string{filepath.Join(t.TempDir(), "a b", "it's", "known_hosts")}
	_, err := Dial(t.Context(), to, Options{})
	if err == nil {
		t.Fatal("an unknown host was let in")
	}
	_, command, ok := strings.Cut(err.Error(), "then: ")
	if !ok {
		t.Fatalf("no remedy: %v", err)
	}
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%s: %v %s", command, err, out)
	}
	dial(t, to, Options{})
}

func TestIdentityThatOthersRead(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o602} {
		if err := os.Chmod(server.IdentityFile, mode); err != nil {
			t.Fatal(err)
		}
		refused(t, to, ErrAuth, "others may read it", "chmod 600 "+server.IdentityFile)
	}
	if err := os.Chmod(server.IdentityFile, 0o400); err != nil {
		t.Fatal(err)
	}
	dial(t, to, Options{})
}

// A configuration that somebody else may write runs that somebody's ProxyCommand.
func TestConfigurationThatOthersWrite(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	ran := filepath.Join(t.TempDir(), "ran")
	evil := write(t, "config", "Host *\n  ProxyCommand touch "+ran+"\n")
	including := write(t, "outer", "# more\n  include \""+evil+"\"\n")
	for _, file := range []string{evil, including} {
		for _, mode := range []os.FileMode{0o606, 0o620, 0o666} {
			if err := os.Chmod(evil, mode); err != nil {
				t.Fatal(err)
			}
			to := target(t, server)
			to.ConfigFile = file
			refused(t, to, ErrConfig, evil, "others may write", "chmod go-w")
		}
	}
	if err := os.Chmod(evil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(evil, 65534, -1); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{evil, including} {
		to := target(t, server)
		to.ConfigFile = file
		refused(t, to, ErrConfig, evil, "belongs to another user")
	}
	if _, err := os.Lstat(ran); err == nil {
		t.Error("the command ran")
	}
}

func TestKnownHostsThatOthersWrite(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	to.KnownHosts = []string{os.DevNull, server.KnownHostsFile}
	if err := os.Chmod(server.KnownHostsFile, 0o666); err != nil {
		t.Fatal(err)
	}
	refused(t, to, ErrConfig, server.KnownHostsFile, "others may write")
	if err := os.Chmod(server.KnownHostsFile, 0o664); err != nil {
		t.Fatal(err)
	}
	dial(t, to, Options{})
}

// Nothing that rests on SHA-1 is offered to a server, which may be one that somebody has set up in between.
func TestNoSHA1IsOffered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	offered := make(chan string, 1)
	go func() {
		defer close(offered)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "SSH-2.0-test\r\n")
		var got bytes.Buffer
		for b := make([]byte, 1); got.Len() < 255 && b[0] != '\n'; {
			if _, err := io.ReadFull(conn, b); err != nil {
				return
			}
			got.Write(b)
		}
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		packet := make([]byte, min(binary.BigEndian.Uint32(length[:]), 1<<16))
		_, _ = io.ReadFull(conn, packet)
		offered <- string(packet)
	}()
	t.Setenv("SSH_AUTH_SOCK", "")
	to := Target{User: "u", Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, ConfigFile: noConfig, KnownHosts: []string{os.DevNull}}
	if c, err := Dial(t.Context(), to, Options{}); err == nil {
		_ = c.Close()
		t.Fatal("connected to nothing")
	}
	packet := <-offered
	if !strings.Contains(packet, "curve25519-sha256") || !strings.Contains(packet, "hmac-sha2-256") {
		t.Fatalf("this is no offer: %q", packet)
	}
	for _, old := range []string{"sha1", "md5", ssh.KeyAlgoRSA + ",", ssh.CertAlgoRSAv01, "-cbc", "arcfour"} {
		if strings.Contains(packet, old) {
			t.Errorf("%s is offered: %q", old, packet)
		}
	}
}
