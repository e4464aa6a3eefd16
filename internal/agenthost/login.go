package agenthost

import (
	"io"
	"os"
	"os/user"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Login is who runs the agent, as sshd tells it.
type Login struct {
	User string
	From string // address and port of the client; "" where nobody logged in over SSH
	Key  string // fingerprint of the public key; "" where sshd does not tell (ExposeAuthInfo)
}

// maxAuthInfo bounds the file in which sshd tells how a client logged in, in bytes.
const maxAuthInfo = 64 << 10

// CurrentLogin reads the environment of this process. It is the login's own, so it only serves to tell logins apart that
// are all held to the same command.
func CurrentLogin() Login {
	var l Login
	if me, err := user.Current(); err == nil {
		l.User = me.Username
	}
	if fields := strings.Fields(os.Getenv("SSH_CONNECTION")); len(fields) == 4 {
		l.From = fields[0] + " port " + fields[1]
	}
	l.Key = exposedKey(os.Getenv("SSH_USER_AUTH"))
	return l
}

// exposedKey reads what sshd's ExposeAuthInfo left: a line "publickey TYPE BASE64". "" for a login
// without a key, or an sshd that does not say.
func exposedKey(path string) string {
	if path == "" {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAuthInfo))
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(text), "\n") {
		rest, ok := strings.CutPrefix(line, "publickey ")
		if !ok {
			continue
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(rest)); err == nil {
			return ssh.FingerprintSHA256(key)
		}
	}
	return ""
}

// String names the login for the audit log.
func (l Login) String() string {
	if l.Key == "" {
		return l.User
	}
	return l.User + " " + l.Key
}
