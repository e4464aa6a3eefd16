package serve

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// Names in the server's directory. The keys' lock lies beside them. Nothing else is ever written there, and nothing is
// removed: an operator who wants another host key moves the old one away.
const (
	hostKeyName = "host_key"
	keysName    = "authorized_keys"
)

// KeysFile is the file of keys in the server's directory, as ReadKeys and Authorize take it. It need not be there: nobody
// may log in then.
func KeysFile(dir string) string { return filepath.Join(dir, keysName) }

// HostKey reads the key of this host in the server's directory, and makes both where they are missing: an ed25519 key in
// OpenSSH's format, for its owner alone. Two that run at once get the same key. A key that cannot be read is never
// replaced: clients know this host by it.
func HostKey(dir string) (ssh.Signer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the server's directory: %w", err)
	}
	path := filepath.Join(dir, hostKeyName)
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		// Where another process has just made one, that is the key.
		if err = newHostKey(path); err == nil || errors.Is(err, fs.ErrExist) {
			text, err = readOwn(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("the host key %s: %w", path, err)
	}
	return key, nil
}

// newHostKey writes a key under another name and links it into place, which fails with ErrExist where there is one. So the
// key is whole whenever it is there, and never replaced.
func newHostKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "georep serve")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, hostKeyName)
	if err := replace(whole, pem.EncodeToMemory(block)); err != nil {
		return err
	}
	return os.Link(whole, path)
}
