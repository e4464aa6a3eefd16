package sshconn

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"georep/internal/sshdtest"
)

func TestRefusedKey(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	path := filepath.Join(t.TempDir(), "stranger")
	if _, err := sshdtest.WriteKey(path, newKey(t)); err != nil {
		t.Fatal(err)
	}
	to.Identities = []string{path, "/no/such/key"}
	refused(t, to, ErrAuth, path, "/no/such/key (no such file or directory)",
		fmt.Sprintf("ssh-copy-id -i %s -p %d", path, server.Port))
}

func TestTooManyKeys(t *testing.T) {
	noLeaks(t)
	to := target(t, sshdtest.Start(t, sshdtest.Config("MaxAuthTries 2")))
	to.Identities = nil
	ring := agent.NewKeyring()
	for range 4 {
		if err := ring.Add(agent.AddedKey{PrivateKey: newKey(t)}); err != nil {
			t.Fatal(err)
		}
	}
	serveAgent(t, ring)
	refused(t, to, ErrAuth, "4 of ssh-agent", "Too many authentication failures")
}

// serveAgent serves a keyring as SSH_AUTH_SOCK. Its end checks that every client has hung up.
func serveAgent(t *testing.T, ring agent.Agent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = agent.ServeAgent(ring, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	t.Setenv("SSH_AUTH_SOCK", socket)
	return socket
}

func TestEncryptedKey(t *testing.T) {
	noLeaks(t)
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "locked")
	pub, err := sshdtest.WriteEncryptedKey(path, key, "secret")
	if err != nil {
		t.Fatal(err)
	}
	to := target(t, sshdtest.Start(t, sshdtest.Authorise(pub)))
	to.Identities = []string{path}
	refused(t, to, ErrAuth, path+" (encrypted, add it to ssh-agent")

	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	serveAgent(t, ring)
	// Only the agent's key that belongs to the named file is used here.
	to.ConfigFile = write(t, "config", "IdentitiesOnly yes\n")
	dial(t, to, Options{})
	// The name of the public key is enough to choose it.
	to.Identities = []string{path + ".pub"}
	dial(t, to, Options{})
}

func TestAgent(t *testing.T) {
	noLeaks(t)
	key := newKey(t)
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	to := target(t, sshdtest.Start(t, sshdtest.Authorise(pub)))
	to.Identities = nil
	ring := agent.NewKeyring()
	for _, k := range []any{newKey(t), key} {
		if err := ring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	socket := serveAgent(t, ring)
	dial(t, to, Options{})

	t.Setenv("SSH_AUTH_SOCK", "/no/such/socket")
	refused(t, to, ErrAuth, "/no/such/socket")
	to.ConfigFile = write(t, "config", "IdentityAgent "+socket+"\n")
	dial(t, to, Options{})
	to.ConfigFile = write(t, "config", "IdentityAgent none\n")
	refused(t, to, ErrAuth, "no key found")
}

func TestUserCertificate(t *testing.T) {
	noLeaks(t)
	authority, err := ssh.NewSignerFromSigner(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	ca := write(t, "ca.pub", string(ssh.MarshalAuthorizedKey(authority.PublicKey())))
	server := sshdtest.Start(t, sshdtest.Config("TrustedUserCAKeys "+ca))
	to := target(t, server)
	path := filepath.Join(t.TempDir(), "certified")
	pub, err := sshdtest.WriteKey(path, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{
		Key: pub, CertType: ssh.UserCert, ValidPrincipals: []string{server.User}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	to.Identities = []string{path}
	dial(t, to, Options{})
}

func TestHostCertificate(t *testing.T) {
	noLeaks(t)
	authority, err := ssh.NewSignerFromSigner(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "host_key")
	pub, err := sshdtest.WriteKey(path, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{
		Key: pub, CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	server := sshdtest.Start(t, sshdtest.Config("HostKey "+path), sshdtest.Config("HostCertificate "+path+"-cert.pub"))
	to := target(t, server)
	to.KnownHosts = []string{write(t, "known_hosts",
		"@cert-authority * "+string(ssh.MarshalAuthorizedKey(authority.PublicKey())))}
	dial(t, to, Options{})

	stranger, err := ssh.NewPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	to.KnownHosts = []string{write(t, "known_hosts", "@cert-authority * "+string(ssh.MarshalAuthorizedKey(stranger)))}
	refused(t, to, ErrHostKeyUnknown, "no @cert-authority line")
}
