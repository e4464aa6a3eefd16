package sshconn

import (
	"bytes"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// revokedKeys are the host keys that RevokedHostKeys of ssh_config refuses: files of public keys, one a line, or OpenSSH's key
// revocation lists.
type revokedKeys []revokedFile

// The two kinds of files are told apart by how they begin.
type revokedFile struct {
	path string
	list *revocationList // nil for a file of public keys
	keys map[string]bool // by wire form
}

// readRevoked reads all files. One that cannot be read refuses every host, as with OpenSSH: it might list the key.
func readRevoked(paths []string) (revokedKeys, error) {
	var files revokedKeys
	for _, path := range paths {
		text, err := readTrusted(path, othersWrite)
		if err == nil {
			var f revokedFile
			if f, err = parseRevoked(path, text); err == nil {
				files = append(files, f)
				continue
			}
		}
		return nil, fmt.Errorf("%w: read RevokedHostKeys: %w; correct the file, or the line in ssh_config", ErrConfig, err)
	}
	return files, nil
}

// A line that is no key refuses the whole file, with its number.
func parseRevoked(path string, text []byte) (revokedFile, error) {
	if bytes.HasPrefix(text, []byte(revocationMagic)) {
		list, err := parseRevocationList(text)
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return revokedFile{path: path, list: list}, err
	}
	f := revokedFile{path: path, keys: map[string]bool{}}
	for n, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			// It may be the very key that must be refused.
			return f, fmt.Errorf("%s line %d is no public key", path, n+1)
		}
		f.keys[string(key.Marshal())] = true
	}
	return f, nil
}

// find gives the path of the file that revokes a key, or its certificate's key or authority; "" where none does.
func (r revokedKeys) find(key ssh.PublicKey) string {
	for _, f := range r {
		if f.has(key) {
			return f.path
		}
	}
	return ""
}

// A certificate is revoked by itself, by its key, and by its authority.
func (f revokedFile) has(key ssh.PublicKey) bool {
	if cert, ok := key.(*ssh.Certificate); ok {
		return f.list != nil && f.list.hasCertificate(cert) || f.keys[string(key.Marshal())] || f.has(cert.Key) || f.has(cert.SignatureKey)
	}
	return f.list != nil && f.list.hasKey(key) || f.keys[string(key.Marshal())]
}
