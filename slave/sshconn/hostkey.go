package sshconn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// hostKeys decides on the keys of one host, after known_hosts. It is made anew for each connection,
// and used on the handshake's goroutine.
type hostKeys struct {
	hop     *hop
	check   ssh.HostKeyCallback
	names   []string // to look up, best first
	lines   map[string][][]byte
	revoked revokedKeys

	// err is why the last key was refused; the handshake's own error hides it.
	err      error
	accepted bool
}

// It reads all files at once, so a file that cannot be read refuses the connection before anything
// is sent.
func newHostKeys(h *hop) (*hostKeys, error) {
	k := &hostKeys{hop: h, lines: make(map[string][][]byte)}
	var err error
	if k.revoked, err = readRevoked(h.revokedKeys); err != nil {
		return nil, err
	}
	if err := k.load(); err != nil {
		return nil, err
	}
	if h.knownAs != "" {
		// OpenSSH writes an alias without a port.
		k.names = []string{joinAddr(h.knownAs, defaultPort)}
		return k, nil
	}
	k.names = []string{h.addr()}
	if h.port != defaultPort {
		// As OpenSSH does, a host that is not known with its port may be known without.
		k.names = append(k.names, joinAddr(h.host, defaultPort))
	}
	return k, nil
}

// load reads the known_hosts files that exist. A line that the library does not understand, such as one with a newer
// key type, must not cost the others: it is blanked in a copy that only memory holds.
func (k *hostKeys) load() error {
	var sources []string
	origin := make(map[string]string)
	for _, path := range k.hop.knownHosts {
		text, err := readTrusted(path, worldWrites)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: read known hosts: %w; correct its permissions", ErrConfig, err)
		}
		lines := blankUnknown(text)
		copied, err := memoryFile(bytes.Join(lines, []byte("\n")))
		if err != nil {
			return err
		}
		defer copied.Close()
		name := "/proc/self/fd/" + strconv.Itoa(int(copied.Fd()))
		sources, origin[name] = append(sources, name), path
		k.lines[path] = lines
	}
	check, err := knownhosts.New(sources...)
	if err != nil {
		return fmt.Errorf("%w: read known hosts: %s; correct that line", ErrConfig, rename(err.Error(), origin))
	}
	k.check = func(name string, remote net.Addr, key ssh.PublicKey) error {
		return restoreNames(check(name, remote, key), origin)
	}
	return nil
}

// rename puts the real paths into a message of the library, which knows only the copies.
func rename(text string, origin map[string]string) string {
	for name, path := range origin {
		text = strings.ReplaceAll(text, name+":", path+":")
	}
	return text
}

// restoreNames puts the real file names into an error of the library.
func restoreNames(err error, origin map[string]string) error {
	var mismatch *knownhosts.KeyError
	if errors.As(err, &mismatch) {
		for i := range mismatch.Want {
			mismatch.Want[i].Filename = origin[mismatch.Want[i].Filename]
		}
	}
	var revoked *knownhosts.RevokedError
	if errors.As(err, &revoked) {
		revoked.Revoked.Filename = origin[revoked.Revoked.Filename]
	}
	return err
}

// blankUnknown empties the lines that do not parse; line numbers stay.
func blankUnknown(text []byte) [][]byte {
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		if _, _, _, _, _, err := ssh.ParseKnownHosts(line); err != nil {
			lines[i] = nil
		}
	}
	return lines
}

// memoryFile is a file without a name, which ends with its descriptor; the caller closes it.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("known_hosts", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copy known hosts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "known_hosts")
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(fmt.Errorf("copy known hosts: %w", err), f.Close())
	}
	return f, nil
}

// verify is the callback for the handshake.
func (k *hostKeys) verify(_ string, _ net.Addr, key ssh.PublicKey) error {
	k.err = k.decide(key)
	k.accepted = k.err == nil
	return k.err
}

// Revocation comes first. A certificate counts if its authority is listed for the host; a plain key
// if it is listed itself.
func (k *hostKeys) decide(key ssh.PublicKey) error {
	if path := k.revoked.find(key); path != "" {
		return fmt.Errorf("%w: %s offers %s, which %s revokes (RevokedHostKeys in ssh_config); give the host a new key",
			ErrHostKeyRevoked, k.name(), describe(key), path)
	}
	if k.hop.hostKey != "" {
		return k.pinned(key)
	}
	refused := k.unknownError(key)
	for _, name := range k.names {
		err := k.check(name, &net.TCPAddr{}, key)
		if err == nil {
			return nil
		}
		var mismatch *knownhosts.KeyError
		var revoked *knownhosts.RevokedError
		switch {
		case errors.As(err, &revoked):
			return k.revokedError(key, revoked)
		case !errors.As(err, &mismatch):
			refused = k.certificateError(key, err)
			continue
		}
		// An authority's key is not the host's, so a plain key beside it is unknown rather than changed.
		hostsOwn := slices.DeleteFunc(slices.Clone(mismatch.Want), k.authority)
		if len(hostsOwn) > 0 && name == k.names[0] {
			return k.changedError(key, hostsOwn)
		}
	}
	return refused
}

// pinned compares a key with the fingerprint that somebody gave.
func (k *hostKeys) pinned(key ssh.PublicKey) error {
	if ssh.FingerprintSHA256(key) == k.hop.hostKey {
		return nil
	}
	return fmt.Errorf("%w: %s offers %s, and the host-key of the session is %s: somebody may be in between; if the host really has a new key, "+
		"set host-key to its fingerprint", ErrHostKeyChanged, k.name(), describe(key), k.hop.hostKey)
}

// describe is a key as OpenSSH shows it, so that it can be compared by eye.
func describe(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

// name is the host as known_hosts writes it.
func (k *hostKeys) name() string { return knownhosts.Normalize(k.names[0]) }

// The operator compares the fingerprint, and then runs one command.
func (k *hostKeys) unknownError(key ssh.PublicKey) error {
	return fmt.Errorf("%w: %s offers %s, and no known_hosts file lists it; compare the fingerprint with the host's, then: %s",
		ErrHostKeyUnknown, k.name(), describe(key), k.acceptCommand(key))
}

// acceptCommand adds the very key that was seen: one that is fetched anew may be another's.
func (k *hostKeys) acceptCommand(key ssh.PublicKey) string {
	file, first := "~/.ssh/known_hosts", ""
	for _, path := range k.hop.knownHosts {
		if path != os.DevNull {
			file = path
			break
		}
	}
	if dir := filepath.Dir(file); file[0] != '~' {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			first = "mkdir -p -m 700 " + shellWord(dir) + " && "
		}
		file = shellWord(file)
	}
	return first + "echo " + shellWord(knownhosts.Line(k.names[:1], key)) + " >> " + file
}

// shellWord writes text so that a shell takes it for one word.
func shellWord(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@,=%", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// It is the one message that may mean an attack, so it shows both keys and the line.
func (k *hostKeys) changedError(key ssh.PublicKey, known []knownhosts.KnownKey) error {
	best := known[0]
	for _, candidate := range known {
		if candidate.Key.Type() == key.Type() {
			best = candidate
			break
		}
	}
	return fmt.Errorf("%w: %s offers %s, but %s line %d has %s: somebody may be in between; if the host was really reinstalled: ssh-keygen -f %s -R '%s'",
		ErrHostKeyChanged, k.name(), describe(key), best.Filename, best.Line, describe(best.Key), best.Filename, k.name())
}

// revokedError is for a key that known_hosts itself marks as revoked.
func (k *hostKeys) revokedError(key ssh.PublicKey, r *knownhosts.RevokedError) error {
	return fmt.Errorf("%w: %s offers %s, which %s line %d revokes; give the host a new key",
		ErrHostKeyRevoked, k.name(), describe(key), r.Revoked.Filename, r.Revoked.Line)
}

// certificateError says why a certificate does not count: its time, its principals, or its
// authority.
func (k *hostKeys) certificateError(key ssh.PublicKey, err error) error {
	why := err.Error()
	if strings.Contains(why, "no authorities for hostname") {
		why = "no @cert-authority line in known_hosts is for its authority"
	}
	return fmt.Errorf("%w: %s offers the certificate %s, which is not valid here: %s; renew it, or correct known_hosts",
		ErrHostKeyUnknown, k.name(), describe(key), clean(why))
}

// algorithms lists the host key algorithms to offer: first those of which known_hosts has a key for the host, in its
// order. Otherwise the server's preferred type decides, and a host known by another of its keys would be refused.
func (k *hostKeys) algorithms() []string {
	var first []string
	for _, known := range k.known() {
		if k.authority(known) {
			first = append(first, certificateAlgorithms()...)
			continue
		}
		first = append(first, signatureAlgorithms(known.Key.Type())...)
	}
	all := append(first, signatureAlgorithms(ssh.KeyAlgoED25519)...)
	for _, algorithm := range safe(ssh.SupportedAlgorithms().HostKeys) {
		if !strings.Contains(algorithm, "-cert-") {
			all = append(all, algorithm)
		}
	}
	var unique []string
	for _, algorithm := range all {
		if !slices.Contains(unique, algorithm) {
			unique = append(unique, algorithm)
		}
	}
	return unique
}

// known asks the library with a key that nobody can have, which makes it tell those it knows.
func (k *hostKeys) known() []knownhosts.KnownKey {
	var known []knownhosts.KnownKey
	for _, name := range k.names {
		var mismatch *knownhosts.KeyError
		if errors.As(k.check(name, &net.TCPAddr{}, nobodysKey{}), &mismatch) {
			known = append(known, mismatch.Want...)
		}
	}
	return known
}

// authority tells whether a known key is that of a certificate authority.
func (k *hostKeys) authority(known knownhosts.KnownKey) bool {
	lines := k.lines[known.Filename]
	return known.Line <= len(lines) && bytes.HasPrefix(bytes.TrimSpace(lines[known.Line-1]), []byte("@cert-authority"))
}

// certificateAlgorithms lists all of them: the authority's key does not tell the host's type.
func certificateAlgorithms() []string {
	var certs []string
	for _, algorithm := range safe(ssh.SupportedAlgorithms().HostKeys) {
		if strings.Contains(algorithm, "-cert-") {
			certs = append(certs, algorithm)
		}
	}
	return certs
}

// safe leaves out what rests on SHA-1 or MD5: RSA's signatures of old, and whatever else the library still knows.
func safe(algorithms []string) []string {
	return slices.DeleteFunc(algorithms, func(name string) bool {
		return strings.Contains(name, "sha1") || strings.Contains(name, "md5") ||
			name == ssh.KeyAlgoRSA || name == ssh.CertAlgoRSAv01
	})
}

// signatureAlgorithms are those that work with a type of key; RSA has two, and its old one with SHA-1 is not safe.
func signatureAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// nobodysKey is a public key that equals no other.
type nobodysKey struct{}

// Type is one that no host has.
func (nobodysKey) Type() string    { return "nobody" }
func (nobodysKey) Marshal() []byte { return []byte("nobody") }
func (nobodysKey) Verify([]byte, *ssh.Signature) error {
	return errors.New("nobody's key signs nothing")
}
