package sshconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"georep/internal/sshdtest"
)

// revoking gives the target an ssh_config that names a file of revoked keys.
func revoking(t *testing.T, to Target, file string) Target {
	t.Helper()
	to.ConfigFile = write(t, "config", "RevokedHostKeys \""+file+"\"\n")
	return to
}

// keygen makes a key revocation list by OpenSSH's own program.
func keygen(t *testing.T, args ...string) string {
	t.Helper()
	list := filepath.Join(t.TempDir(), "krl")
	out, err := exec.Command("ssh-keygen", append([]string{"-q", "-k", "-f", list}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return list
}

func authorised(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

func stranger(t *testing.T) ssh.PublicKey {
	t.Helper()
	key, err := ssh.NewPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRevokedHostKeys(t *testing.T) {
	noLeaks(t)
	server := sshdtest.Start(t)
	to := target(t, server)
	key := server.HostKeys[0]
	plain := write(t, "key.pub", authorised(key))
	for name, file := range map[string]string{
		"a file of keys":     write(t, "revoked", "# revoked\n\n"+authorised(stranger(t))+authorised(key)),
		"a list of keys":     keygen(t, plain),
		"a list of SHA-1":    keygen(t, write(t, "spec", "sha1: "+authorised(key))),
		"a list of SHA-256":  keygen(t, write(t, "spec", "sha256: "+authorised(key))),
		"a list by its hash": keygen(t, write(t, "spec", "hash: "+ssh.FingerprintSHA256(key)+"\n")),
	} {
		t.Run(name, func(t *testing.T) { refused(t, revoking(t, to, file), ErrHostKeyRevoked, file, "RevokedHostKeys") })
	}
	for name, file := range map[string]string{
		"another key":         write(t, "revoked", authorised(stranger(t))),
		"another key, listed": keygen(t, write(t, "other.pub", authorised(stranger(t)))),
		"an empty list":       keygen(t),
	} {
		t.Run(name, func(t *testing.T) { dial(t, revoking(t, to, file), Options{}) })
	}
	truncated, err := os.ReadFile(keygen(t, plain))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"missing":   "/no/such/file",
		"no key":    write(t, "revoked", "ssh-future AAAA\n"),
		"truncated": write(t, "revoked", string(truncated[:len(truncated)-1])),
	} {
		t.Run(name, func(t *testing.T) { refused(t, revoking(t, to, file), ErrConfig, file, "RevokedHostKeys") })
	}
}

func TestRevokedHostCertificates(t *testing.T) {
	noLeaks(t)
	authority, err := ssh.NewSignerFromSigner(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	ca := write(t, "ca.pub", authorised(authority.PublicKey()))
	path := filepath.Join(t.TempDir(), "host_key")
	pub, err := sshdtest.WriteKey(path, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{
		Key: pub, CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity,
		Serial: 1000, KeyId: "backup host",
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	server := sshdtest.Start(t, sshdtest.Config("HostKey "+path), sshdtest.Config("HostCertificate "+path+"-cert.pub"))
	to := target(t, server)
	to.KnownHosts = []string{write(t, "known_hosts", "@cert-authority * "+authorised(authority.PublicKey()))}
	of := func(spec string) string { return keygen(t, "-s", ca, write(t, "spec", spec)) }
	for name, file := range map[string]string{
		"its serial":          of("serial: 1000\n"),
		"a range":             of("serial: 900-1100\n"),
		"a bitmap":            of("serial: 990\nserial: 992\nserial: 994\nserial: 996\nserial: 998\nserial: 1000\nserial: 1002\n"),
		"its id":              of("id: backup host\n"),
		"its key":             write(t, "revoked", authorised(pub)),
		"its authority":       write(t, "revoked", authorised(authority.PublicKey())),
		"its authority, list": keygen(t, ca),
	} {
		t.Run(name, func(t *testing.T) { refused(t, revoking(t, to, file), ErrHostKeyRevoked, file) })
	}
	other := write(t, "other.pub", authorised(stranger(t)))
	for name, file := range map[string]string{
		"other serials":         of("serial: 999\nserial: 1001-2000\n"),
		"other ids":             of("id: backup\n"),
		"of another authority":  keygen(t, "-s", other, write(t, "spec", "serial: 1000\nid: backup host\n")),
		"a bitmap without that": of("serial: 991\nserial: 993\nserial: 995\nserial: 997\nserial: 999\nserial: 1001\n"),
	} {
		t.Run(name, func(t *testing.T) { dial(t, revoking(t, to, file), Options{}) })
	}
}

// Whatever the file has, it is a list or an error, and a list answers.
func FuzzRevocationList(f *testing.F) {
	key, err := ssh.NewPublicKey(fuzzKey())
	if err != nil {
		f.Fatal(err)
	}
	list := []byte(revocationMagic + "\x00\x00\x00\x01" + strings.Repeat("\x00", 24+8))
	f.Add(list)
	f.Add(append(bytes.Clone(list), fmt.Sprintf("\x02\x00\x00\x00\x3b\x00\x00\x00\x37%s", key.Marshal())...))
	f.Add(append(bytes.Clone(list), "\x01\x00\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"...))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := parseRevoked("list", text)
		if err != nil {
			return
		}
		parsed.has(key)
		parsed.has(&ssh.Certificate{Key: key, SignatureKey: key, Serial: 7})
	})
}

func fuzzKey() ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
}
