// Package authorize makes the key of a session's own, the line of authorized_keys that holds it to one slave, and puts that
// line on the slave's host by way of the operator's own ssh. It knows nothing of the registry.
package authorize

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key returns the public half of the key at path, and makes the key where there is none: an ed25519
// key without a passphrase, in OpenSSH's format, for nobody but the owner of the directory. made
// tells whether it did. Two commands that run at once get the same key. An error about a key that
// is there never replaces it: a line with its public half may stand on other hosts.
func Key(path, comment string) (public ssh.PublicKey, made bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newKey(path, comment)
		made = err == nil
		if errors.Is(err, fs.ErrExist) { // another command has just made it
			text, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("the session's key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, false, fmt.Errorf("the session's key %s: %w; remove it, and authorize makes another", path, err)
	}
	return signer.PublicKey(), made, nil
}

// newKey writes a key that is whole whenever it is there; ErrExist where one is there already. It
// is written under another name and linked into place, which fails where there is one, and never
// shows half a key.
func newKey(path, comment string) (text []byte, err error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	text = pem.EncodeToMemory(block)
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), ownedLike(f.Name(), filepath.Dir(path))); err != nil {
		return nil, err
	}
	return text, os.Link(f.Name(), path)
}

// ownedLike gives a file to the owner of a directory: the service may run as somebody else than the operator.
func ownedLike(path, dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid := owner(st)
	if uid == os.Geteuid() && gid == os.Getegid() {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

// Line is a line of authorized_keys that lets the key run one command and do nothing else. The
// error says why the command cannot stand there. The command is the operator's and may have quotes;
// a line break in it would begin a line with no restrictions.
func Line(key ssh.PublicKey, command, comment string) (string, error) {
	if strings.ContainsAny(command, "\n\r\x00") {
		return "", fmt.Errorf("no line of authorized_keys can hold the command %q", command)
	}
	// sshd knows one escape: a quote behind a backslash. A backslash by itself stands for itself.
	if strings.Contains(command, `\"`) || strings.HasSuffix(command, `\`) {
		return "", fmt.Errorf("no line of authorized_keys can hold the command %q", command)
	}
	comment = oneWord(comment)
	blob := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	return fmt.Sprintf(`restrict,command="%s" %s %s`, strings.ReplaceAll(command, `"`, `\"`), blob, comment), nil
}

// ServeLine is a line for georep serve's file of keys. It holds the key to one volume and one master.
func ServeLine(key ssh.PublicKey, volume, master, comment string) string {
	blob := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	return fmt.Sprintf(`volume="%s",master="%s" %s %s`, volume, master, blob, oneWord(comment))
}

// oneWord makes a comment that ends nothing and begins nothing.
func oneWord(comment string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, comment)
}

// Login says how the operator reaches the account on the slave's host. Nothing of it is kept, and
// no password passes through georep.
type Login struct {
	Command []string // of the ssh client, with the operator's options
	Account string   // [user@]host
	// Terminal is what the client may ask the operator on; its questions go to the controlling terminal by themselves.
	Stderr io.Writer
}

// ErrClient means that the operator's ssh did not do it; what it said stands on its standard error.
var ErrClient = errors.New("the line could not be put there")

// install is run by a POSIX shell there; the line comes on standard input. Where the key is new its
// line is added, so that nothing is lost of what somebody else adds meanwhile. Otherwise other
// lines with the key go: their options are those of another time, and the first one counts for
// sshd. grep takes the file for text (-a) whatever bytes comments have, or it would leave out the
// lines. The file stays the same file, since it may be a symbolic link. It prints one word at the
// end, by which Install knows what it did, whatever a login shell printed before.
const install = `set -eu
LC_ALL=C
export LC_ALL
umask 077
cd
IFS= read -r line
key=$1
mkdir -p .ssh
file=.ssh/authorized_keys
touch "$file"
have=$(grep -acF -e "$key" "$file") || [ $? -eq 1 ]
if [ "$have" -eq 0 ]; then
	before=
	if [ -s "$file" ] && [ "$(tail -c 1 "$file" | wc -l)" -eq 0 ]; then before="\n"; fi
	printf "$before%s\n" "$line" >>"$file"
elif [ "$have" -eq 1 ] && grep -aqxF -e "$line" "$file"; then
	echo there
	exit 0
else
	new=$(mktemp .ssh/.authorized_keys.XXXXXX)
	trap "rm -f $new" EXIT
	grep -avF -e "$key" "$file" >"$new" || [ $? -eq 1 ]
	printf "%s\n" "$line" >>"$new"
	cat "$new" >"$file" || {
		trap - EXIT
		echo "georep: ~/$file is not whole: what belongs there is in ~/$new" >&2
		exit 1
	}
fi
if command -v restorecon >/dev/null 2>&1; then restorecon -F .ssh "$file" 2>/dev/null || :; fi
echo added`

// Install puts the line into the account's authorized_keys, once; again tells that it was there
// already. It runs as long as the operator needs to answer what ssh asks. An error may leave the
// line added, since the answer can be lost; calling it again is safe.
func Install(ctx context.Context, l Login, key ssh.PublicKey, line string) (again bool, err error) {
	blob := strings.Fields(string(ssh.MarshalAuthorizedKey(key)))[1]
	remote := "exec sh -c '" + strings.ReplaceAll(install, "'", `'\''`) + "' sh " + blob
	cmd := exec.CommandContext(ctx, l.Command[0], append(l.Command[1:len(l.Command):len(l.Command)], "--", l.Account, remote)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(line+"\n"), &out, l.Stderr
	if err := cmd.Run(); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrClient, l.Account, err)
	}
	switch said := strings.TrimSpace(out.String()); {
	case strings.HasSuffix(said, "added"):
		return false, nil
	case strings.HasSuffix(said, "there"):
		return true, nil
	default:
		return false, fmt.Errorf("%w: %s answered %.200q instead of doing it", ErrClient, l.Account, said)
	}
}
