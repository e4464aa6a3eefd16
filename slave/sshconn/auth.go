package sshconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyring collects the keys to offer to one host, in order, and a note on each for the case that none is accepted.
// It holds the connection to ssh-agent, which signs until the handshake is over, and must be closed then.
type keyring struct {
	hop     *hop
	agent   net.Conn
	inAgent []ssh.Signer
	signers []ssh.Signer
	notes   []string
}

// openKeyring reads the identity files and asks the agent. What cannot be used becomes a note,
// never an error: another key may do. Keys from files that somebody named come first, because
// servers let one try few keys only. Nothing is offered yet: a server sees a key only when the
// handshake asks for one.
func openKeyring(ctx context.Context, h *hop) *keyring {
	k := &keyring{hop: h}
	if h.agentSocket != "" {
		k.openAgent(ctx)
	}
	if h.ownIdentities {
		k.addFiles()
		k.addAgent()
		return k
	}
	k.addAgent()
	k.addFiles()
	return k
}

// Close ends the talk with the agent, and with it a signature that is waited for.
func (k *keyring) Close() {
	if k.agent != nil {
		// It was only read from and asked; nothing can be lost.
		_ = k.agent.Close()
	}
}

// note adds to what an error message lists as tried.
func (k *keyring) note(format string, args ...any) {
	k.notes = append(k.notes, fmt.Sprintf(format, args...))
}

// openAgent asks the agent once for all of its keys. One that does not answer costs no more than
// ctx allows.
func (k *keyring) openAgent(ctx context.Context) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", k.hop.agentSocket)
	if err != nil {
		k.note("ssh-agent (%v)", err)
		return
	}
	defer closeOn(ctx, func() { _ = conn.Close() })()
	k.agent = conn
	if k.inAgent, err = agent.NewClient(conn).Signers(); err != nil {
		k.note("ssh-agent (%v)", err)
	}
}

// addAgent offers the agent's keys, unless only those of files are wanted.
func (k *keyring) addAgent() {
	if k.hop.identitiesOnly || len(k.inAgent) == 0 {
		return
	}
	offered := 0
	for _, signer := range k.inAgent {
		if k.add(signer) {
			offered++
		}
	}
	if offered > 0 {
		k.note("%d of ssh-agent", offered)
	}
}

// add offers a key once, however many ways lead to it. False: it is among them already. The key is
// compared, not the way it was found.
func (k *keyring) add(signer ssh.Signer) bool {
	same := func(other ssh.Signer) bool {
		return bytes.Equal(other.PublicKey().Marshal(), signer.PublicKey().Marshal())
	}
	if slices.ContainsFunc(k.signers, same) {
		return false
	}
	k.signers = append(k.signers, signer)
	return true
}

// addFiles offers the keys of files. Of the default names only those that exist are worth a note.
func (k *keyring) addFiles() {
	for _, path := range k.hop.identities {
		signer, err := k.load(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !k.hop.ownIdentities:
			// One of the default names that is not in use.
		case err != nil:
			k.note("%s (%v)", path, err)
		default:
			k.addIdentity(path, signer)
		}
	}
}

// addIdentity offers a key, before that its certificate if there is one.
func (k *keyring) addIdentity(path string, signer ssh.Signer) {
	if certified, err := certify(path+"-cert.pub", signer); err == nil {
		if k.add(certified) {
			k.note("%s-cert.pub", path)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		k.note("%s-cert.pub (%v)", path, err)
	}
	if k.add(signer) {
		k.note("%s", path)
	}
}

var (
	errEncrypted = errors.New("encrypted, add it to ssh-agent with ssh-add")
	errNotAKey   = errors.New("not a private key")
)

// load reads a private key. For one that is encrypted, or a file with a public key only, the agent may hold the
// private one.
func (k *keyring) load(path string) (ssh.Signer, error) {
	text, err := readIdentity(path)
	if err != nil {
		return nil, shortPathError(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err == nil {
		return signer, nil
	}
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		public := locked.PublicKey
		if public == nil {
			public = readPublicKey(path + ".pub")
		}
		return k.fromAgent(public, errEncrypted)
	}
	if public := parsePublicKey(text); public != nil {
		return k.fromAgent(public, errors.New("a public key that ssh-agent does not hold"))
	}
	return nil, errNotAKey
}

// readIdentity reads a key file of a mode that OpenSSH takes: a private key that others may read is
// nobody's own any more. As with OpenSSH that is asked of this user's own files only. Others' files
// may be readable to many for good reasons, as in a container, so they are not asked about.
func readIdentity(path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTrusted))
	stat, ok := info.Sys().(*syscall.Stat_t)
	own := ok && int(stat.Uid) == os.Geteuid()
	if open := info.Mode().Perm() & othersRead; err == nil && own && open != 0 && parsePublicKey(text) == nil {
		return nil, fmt.Errorf("others may read it, mode %04o; run: chmod 600 %s", info.Mode().Perm(), path)
	}
	return text, err
}

// shortPathError leaves out the path, which stands beside it in the note.
func shortPathError(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// fromAgent finds the private half of a key in the agent; otherwise is the error where it has none.
func (k *keyring) fromAgent(public ssh.PublicKey, otherwise error) (ssh.Signer, error) {
	if public == nil {
		return nil, otherwise
	}
	for _, signer := range k.inAgent {
		if bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
			return signer, nil
		}
	}
	return nil, otherwise
}

// readPublicKey is nil for a file that cannot be read, or has no key.
func readPublicKey(path string) ssh.PublicKey {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parsePublicKey(text)
}

// parsePublicKey is nil for what is no public key.
func parsePublicKey(text []byte) ssh.PublicKey {
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return key
}

// certify joins a key with the certificate in a file. ErrNotExist is the usual case: there is none.
func certify(path string, signer ssh.Signer) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, shortPathError(err)
	}
	cert, ok := parsePublicKey(text).(*ssh.Certificate)
	if !ok {
		return nil, errors.New("not a certificate")
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, errors.New("not this key's certificate")
	}
	return certified, nil
}

// method offers every key under one method: the library tries each method only once.
func (k *keyring) method() []ssh.AuthMethod {
	return []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return k.signers, nil })}
}

// refused is the error when the host took none of the keys. It names every key that was tried, and
// the command that lets one in.
func (k *keyring) refused(cause error) error {
	tried := "no key found"
	if len(k.notes) > 0 {
		tried = strings.Join(k.notes, ", ")
	}
	identity := ""
	if k.hop.ownIdentities && len(k.hop.identities) > 0 {
		identity = "-i " + k.hop.identities[0] + " "
	}
	why := clean(cause.Error())
	if strings.Contains(why, "unable to authenticate") {
		why = "the host accepts none of these keys"
	}
	return fmt.Errorf("%w: %s@%s (tried: %s): %s; let a key in with: ssh-copy-id %s-p %d %s@%s",
		ErrAuth, k.hop.user, k.hop.addr(), tried, why, identity, k.hop.port, k.hop.user, k.hop.host)
}
