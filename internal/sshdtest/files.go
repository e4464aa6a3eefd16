package sshdtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// rsaBits is enough for every client that is tested; more would only take longer to make.
const rsaBits = 2048

// writeKeys makes the client's key, the authorised keys and the host keys.
func (s *Server) writeKeys(o *options) error {
	client, err := newEd25519()
	if err != nil {
		return err
	}
	pub, err := WriteKey(s.IdentityFile, client)
	if err != nil {
		return err
	}
	authorised := ssh.MarshalAuthorizedKey(pub)
	if o.client != nil {
		authorised = append(authorised, ssh.MarshalAuthorizedKey(o.client)...)
	}
	if err := os.WriteFile(s.AuthorizedKeys, authorised, 0o600); err != nil {
		return fmt.Errorf("write authorised keys: %w", err)
	}
	return s.writeHostKeys(o)
}

// writeHostKeys makes one key of each kind, so that clients have something to choose from.
func (s *Server) writeHostKeys(o *options) error {
	makers := []func() (crypto.Signer, error){newEd25519, newECDSA}
	if o.rsa {
		makers = append(makers, newRSA)
	}
	for i, make := range makers {
		key, err := make()
		if err != nil {
			return err
		}
		pub, err := WriteKey(s.hostKeyFile(i), key)
		if err != nil {
			return err
		}
		s.HostKeys = append(s.HostKeys, pub)
	}
	return nil
}

// hostKeyFile is of the i-th host key.
func (s *Server) hostKeyFile(i int) string { return s.file(fmt.Sprintf("host_key_%d", i)) }

// WriteKey writes a private key in OpenSSH's format to path, the public one to path+".pub", and returns the latter.
func WriteKey(path string, key crypto.Signer) (ssh.PublicKey, error) {
	block, err := ssh.MarshalPrivateKey(key, "sshdtest")
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", path, err)
	}
	return writeKeyPair(path, block, key)
}

// WriteEncryptedKey is WriteKey with a passphrase.
func WriteEncryptedKey(path string, key crypto.Signer, passphrase string) (ssh.PublicKey, error) {
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "sshdtest", []byte(passphrase))
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", path, err)
	}
	return writeKeyPair(path, block, key)
}

// writeKeyPair writes both halves, with the modes that ssh insists on.
func writeKeyPair(path string, block *pem.Block, key crypto.Signer) (ssh.PublicKey, error) {
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", path, err)
	}
	if err := os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(pub), 0o600); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pub, nil
}

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an ed25519 key: %w", err)
	}
	return key, nil
}

func newECDSA() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an ECDSA key: %w", err)
	}
	return key, nil
}

func newRSA() (crypto.Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	return key, nil
}

// writeConfigs writes the files that name the port: both configurations and the known hosts.
func (s *Server) writeConfigs(o *options) error {
	var known strings.Builder
	for _, key := range s.HostKeys {
		fmt.Fprintln(&known, knownhosts.Line([]string{s.Addr()}, key))
	}
	files := map[string]string{
		s.file("sshd_config"): s.serverConfig(o),
		s.ConfigFile:          s.clientConfig(),
		s.KnownHostsFile:      known.String(),
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// serverConfig puts the test's own lines first, where they win.
func (s *Server) serverConfig(o *options) string {
	lines := append([]string(nil), o.lines...)
	// A bash that sshd starts reads ~/.bashrc unless it believes to run within another: what the machine's own user has
	// there is not to be part of a test. Only the first SetEnv counts, so all go on one line.
	lines = append(lines, "SetEnv "+strings.Join(append([]string{"SHLVL=2"}, o.env...), " "))

	for i := range s.HostKeys {
		lines = append(lines, "HostKey "+s.hostKeyFile(i))
	}
	lines = append(lines,
		"ListenAddress "+s.Host,
		fmt.Sprintf("Port %d", s.Port),
		"PidFile none",
		"AuthorizedKeysFile "+s.AuthorizedKeys,
		"StrictModes no",
		"UsePAM no",
		"UseDNS no",
		"PermitRootLogin yes",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitUserEnvironment yes",
		"PermitTTY no",
		"PrintMotd no",
		"AllowTcpForwarding yes",
		"MaxStartups 1000",
		"MaxSessions 1000",
		"LoginGraceTime 60",
		"LogLevel VERBOSE",
		"Subsystem sftp internal-sftp",
	)
	return strings.Join(lines, "\n") + "\n"
}

// clientConfig is for OpenSSH's own client and for ours. It points away from all that the machine's user has: agent,
// keys, known hosts.
func (s *Server) clientConfig() string {
	return strings.Join([]string{
		"Host " + Alias + " " + s.Host,
		"  HostName " + s.Host,
		fmt.Sprintf("  Port %d", s.Port),
		"  User " + s.User,
		"  IdentityFile " + s.IdentityFile,
		"  IdentitiesOnly yes",
		"  IdentityAgent none",
		"  UserKnownHostsFile " + s.KnownHostsFile,
		"  GlobalKnownHostsFile /dev/null",
		"  StrictHostKeyChecking yes",
		"  LogLevel ERROR",
	}, "\n") + "\n"
}
