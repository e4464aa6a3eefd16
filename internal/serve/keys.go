package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"georep/slave/policy"
)

// maxKeys bounds the file of keys, in bytes.
const maxKeys = 1 << 20

// Grant is what a key is held to. Exactly one of Volume and Path is set. The policy narrows that of the volume, as the
// flags of a forced command under sshd do: it can forbid what the volume allows, and never the reverse. Without a word
// about it a key may not take a slave over by force, nor change the root's own mode.
type Grant struct {
	Volume, Path string
	// A user other than the one who runs the server takes root's rights to become. The agent has that user's groups.
	User   string            // whom the agent runs as; "" for whoever runs the server
	Policy map[string]string // of package policy, as text
}

// place is what the key is for, as messages have it: the name of a volume, or a path, which begins with a slash.
func (g Grant) place() string { return g.Volume + g.Path }

// equal tells whether two grants allow the same. Options that say the same in other words make another grant: a
// connection that is cut for that comes back at once.
func (g Grant) equal(o Grant) bool {
	return g.Volume == o.Volume && g.Path == o.Path && g.User == o.User && maps.Equal(g.Policy, o.Policy)
}

// Flags are the grant as flags of the agent's command. Each is one word with its value behind "=", so that no value can be
// taken for another flag.
func (g Grant) Flags() (flags []string) {
	if g.Volume != "" {
		flags = append(flags, "--volume="+g.Volume)
	} else {
		flags = append(flags, "--path="+g.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Policy)) {
		flags = append(flags, "--"+name+"="+g.Policy[name])
	}
	return flags
}

// Keys are the keys that may log in, as the file had them when it was read. The zero value has none. They are not changed
// any more, and may be read from any goroutine.
type Keys struct{ lines []keyLine }

// keyLine is a line of the file that has a key. The key is kept as its bytes on the wire, which is how keys are compared.
type keyLine struct {
	blob  []byte
	grant Grant
}

// Find gives what a key is held to. The first line with the key counts, as with sshd.
func (k Keys) Find(key ssh.PublicKey) (Grant, bool) {
	blob := key.Marshal()
	for _, l := range k.lines {
		if bytes.Equal(l.blob, blob) {
			return l.grant, true
		}
	}
	return Grant{}, false
}

// ReadKeys reads a file of keys: a line each, as in authorized_keys, with the options that ParseKey knows. A file that
// is not there has none. One that others could write, or with a line that is not understood, is an error as a whole: a
// restriction that is not understood must not be passed over.
func ReadKeys(path string) (Keys, error) {
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Keys{}, nil
	}
	if err != nil {
		return Keys{}, fmt.Errorf("read the keys: %w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return Keys{}, fmt.Errorf("read the keys: %s: %w", path, err)
	}
	return keys, nil
}

// parseKeys reads the text of a file. Lines that are empty or begin with "#" say nothing. An error names the line.
func parseKeys(text []byte) (k Keys, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, grant, err := ParseKey(string(line))
		if err != nil {
			return Keys{}, fmt.Errorf("line %d: %w", number, err)
		}
		k.lines = append(k.lines, keyLine{key.Marshal(), grant})
	}
	return k, nil
}

// ParseKey reads a line: OPTIONS TYPE KEY COMMENT. The options are volume="NAME" or path="/DIRECTORY", one of which
// is needed; user="NAME"; and those of a volume's policy, such as append-only or keep-deleted="7d".
func ParseKey(line string) (ssh.PublicKey, Grant, error) {
	if strings.ContainsAny(line, "\n\r\x00") {
		return nil, Grant{}, errors.New("a key takes one line")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, Grant{}, errors.New(`no key: write volume="NAME" TYPE KEY COMMENT`)
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, Grant{}, errors.New("a certificate is no key")
	}
	grant := Grant{Policy: make(map[string]string)}
	seen := make(map[string]bool)
	for _, o := range options {
		name, value, err := splitOption(o)
		if err == nil && seen[name] {
			err = fmt.Errorf("%s is there twice", name)
		}
		if err == nil {
			seen[name] = true
			err = grant.set(name, value)
		}
		if err != nil {
			return nil, Grant{}, err
		}
	}
	if (grant.Volume == "") == (grant.Path == "") {
		return nil, Grant{}, errors.New(`a key needs one of volume="NAME" and path="/DIRECTORY"`)
	}
	return key, grant, nil
}

// splitOption reads name="value", or a name alone, which means "true".
func splitOption(o string) (name, value string, err error) {
	name, value, has := strings.Cut(o, "=")
	switch {
	case !has && (name == "volume" || name == "path" || name == "user"):
		return "", "", fmt.Errorf(`%s needs a value: %s="..."`, name, name)
	case !has:
		return name, "true", nil
	}
	// The library gives a value as it stands, with its quotes. Within, a quote has a backslash before it.
	inner, ok := strings.CutPrefix(value, `"`)
	if inner, ok2 := strings.CutSuffix(inner, `"`); ok && ok2 {
		return name, strings.ReplaceAll(inner, `\"`, `"`), nil
	}
	return "", "", fmt.Errorf(`the value of %s needs quotes: %s="..."`, name, name)
}

// set takes an option. Names that are none are an error: what was meant as a restriction is not passed over. Values of the
// policy are checked here, so that a mistake shows when the line is added and not at the next login.
func (g *Grant) set(name, value string) error {
	switch name {
	case "volume":
		// Whether there is such a volume is for the agent to say: it may be registered later.
		g.Volume = value
		return nil
	case "path":
		if !filepath.IsAbs(value) {
			return fmt.Errorf("path %q is not absolute", value)
		}
		g.Path = value
		return nil
	case "user":
		if value == "" {
			return errors.New("user is empty")
		}
		g.User = value
		return nil
	case "hook":
		// The hook runs programs of this host's administrator: it belongs into the volume's policy.
		return errors.New("a hook is set with georep volume set, not for a key")
	}
	var p policy.Policy
	if err := p.Set(name, value); err != nil {
		return err
	}
	text, err := p.Get(name)
	if err != nil {
		return err
	}
	// An agent's flags take no other words than these, and a policy writes on and off.
	if at := slices.IndexFunc(policy.Keys(), func(k policy.Key) bool { return k.Name == name }); policy.Keys()[at].Bool {
		text = strconv.FormatBool(text == "on")
	}
	g.Policy[name] = text
	return nil
}

// readOwn reads a file that nobody but root and this user may write. What it looks at is what it reads: both go through
// one descriptor. It never waits for the other end of a FIFO.
func readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another user, who could let anybody in; chown it", path)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("others may write %s (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(text) > maxKeys {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxKeys>>10)
	}
	return text, err
}

// Authorize adds a line to the file of keys, once; again tells that it was there already. Another line with the same key
// is replaced: the first one would count. The file is replaced as a whole, so a server that reads it meanwhile sees the
// old or the new one.
func Authorize(path, line string) (key ssh.PublicKey, again bool, err error) {
	line = strings.TrimSpace(line)
	key, grant, err := ParseKey(line)
	if err != nil {
		return nil, false, err
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("lock the keys: %w", err)
	}
	defer lock.Close() // which unlocks it
	// Two commands that add a line at once must not lose one of them.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, false, fmt.Errorf("lock the keys: %w", err)
	}
	old, err := readOwn(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("read the keys: %w", err)
	}
	keys, err := parseKeys(old)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w; correct it first", path, err)
	}
	if has, ok := keys.Find(key); ok && has.equal(grant) {
		return key, true, nil
	}
	var text bytes.Buffer
	for have := range bytes.Lines(old) {
		// Comments stay, and so do the lines of other keys as they were written.
		if other, _, err := ParseKey(string(bytes.TrimSpace(have))); err == nil && bytes.Equal(other.Marshal(), key.Marshal()) {
			continue
		}
		text.Write(bytes.TrimRight(have, "\n"))
		text.WriteByte('\n')
	}
	text.WriteString(line + "\n")
	return key, false, replace(path, text.Bytes())
}

// replace writes a file that is whole whenever it is there, for its owner alone. After a power cut the old one may be
// back, never half of one.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
