package sshconn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"
)

const (
	systemConfig     = "/etc/ssh/ssh_config"
	systemKnownHosts = "/etc/ssh/ssh_known_hosts"
	noConfig         = "none"
)

// hop is one host on the way, with everything that ssh_config has to say about it. It is made by
// resolve and read only after that.
type hop struct {
	alias string // as given, for lookups and messages
	host  string
	port  int
	user  string

	// knownAs is the name to look up in known_hosts instead of host and port; "" for none.
	knownAs        string
	knownHosts     []string
	hostKey        string   // the fingerprint to expect in place of them
	revokedKeys    []string // files of RevokedHostKeys
	identities     []string
	ownIdentities  bool // given, rather than OpenSSH's defaults
	identitiesOnly bool
	agentSocket    string // "" for no agent

	// timeout is for connecting and for the handshake, of this host alone.
	timeout      time.Duration
	jumps        []string // the way to this host, nearest to us first
	proxyCommand string
}

// addr is where to connect to, and what messages say.
func (h *hop) addr() string { return joinAddr(h.host, h.port) }

// request asks for a host; jumps, when not empty, replace what ssh_config says of the way to it.
// depth counts the jump hosts on the way, to find a circle.
type request struct {
	Target
	jumps []string
	depth int
}

// configFiles are parsed ssh_config files; the first value found counts. The zero value has no
// file, and every value is the default.
type configFiles []*ssh_config.Config

// readConfig reads one file if one is named, and else the user's and then the system's, either of
// which may be missing.
func readConfig(file string) (configFiles, error) {
	switch file {
	case noConfig:
		return nil, nil
	case "":
		return readConfigFiles(true, filepath.Join(homeDir(), ".ssh", "config"), systemConfig)
	}
	return readConfigFiles(false, file)
}

// A file that others may write is refused: whoever writes it decides what runs as this user
// (ProxyCommand).
func readConfigFiles(optional bool, paths ...string) (configFiles, error) {
	var files configFiles
	for _, path := range paths {
		text, err := readTrusted(path, othersWrite)
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = checkIncluded(text, path == systemConfig, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: read ssh_config: %w", ErrConfig, err)
		}
		parsed, err := ssh_config.DecodeBytes(adapt(text, path == systemConfig))
		if err != nil {
			return nil, fmt.Errorf("%w: parse %s: %w; correct the file, or name another one", ErrConfig, path, err)
		}
		files = append(files, parsed)
	}
	return files, nil
}

// adapt rewrites what the parser does not take, line by line so that its line numbers stay right.
// Of Match it knows some forms only and rejects the whole file for any other: Match on plain host
// names becomes Host, and any other condition becomes one that never holds. Relative names of the
// system's file are below /etc/ssh. A condition that never holds is the safe reading: nothing is
// done on behalf of a line that was not understood.
func adapt(text []byte, system bool) []byte {
	match := regexp.MustCompile(`(?i)^\s*match(?:\s*=\s*|\s+|$)(.*)$`)
	include := regexp.MustCompile(`(?i)^(\s*include(?:\s*=\s*|\s+))([^/~].*)$`)
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if m := match.FindStringSubmatch(line); m != nil {
			lines[i] = "Host " + matchPatterns(strings.Fields(m[1]))
		}
		if m := include.FindStringSubmatch(line); system && m != nil {
			lines[i] = m[1] + "/etc/ssh/" + m[2]
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// maxIncludes is how deep files may include others; the parser has the same bound.
const maxIncludes = 5

// checkIncluded refuses what text includes, at whatever depth, where others may write it: the
// parser opens those files itself. An error names the file, and ends the reading.
func checkIncluded(text []byte, system bool, depth int) error {
	include := regexp.MustCompile(`(?im)^\s*include(?:\s*=\s*|\s+)(.*)$`)
	for _, m := range include.FindAllSubmatch(text, -1) {
		for _, pattern := range strings.Fields(string(m[1])) {
			// A pattern that cannot be read is the parser's to complain of.
			paths, _ := filepath.Glob(includedPath(strings.Trim(pattern, `"`), system))
			for _, path := range paths {
				more, err := readTrusted(path, othersWrite)
				if err == nil && depth < maxIncludes {
					err = checkIncluded(more, system, depth+1)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// includedPath is where a pattern leads: the home directory for the user's file, /etc/ssh for the
// system's.
func includedPath(pattern string, system bool) string {
	rest, home := strings.CutPrefix(pattern, "~/")
	switch {
	case filepath.IsAbs(pattern):
		return pattern
	case home:
		return filepath.Join(homeDir(), rest)
	case system:
		return filepath.Join(filepath.Dir(systemConfig), pattern)
	}
	return filepath.Join(homeDir(), ".ssh", pattern)
}

// matchPatterns gives the Host patterns that say the same as a Match line's criteria, or one that never holds.
func matchPatterns(criteria []string) string {
	switch {
	case len(criteria) == 1 && strings.EqualFold(criteria[0], "all"):
		return "*"
	case len(criteria) == 2 && (strings.EqualFold(criteria[0], "host") || strings.EqualFold(criteria[0], "originalhost")):
		return strings.ReplaceAll(criteria[1], ",", " ")
	}
	return "!*"
}

// get is the first value of a keyword for an alias, "" for none.
func (f configFiles) get(alias, key string) (string, error) {
	for _, file := range f {
		value, err := file.Get(alias, key)
		if err != nil {
			return "", fmt.Errorf("%w: look up %s for %s: %w", ErrConfig, key, alias, err)
		}
		if value != "" {
			return value, nil
		}
	}
	return "", nil
}

// all are the values of a keyword that may be given many times.
func (f configFiles) all(alias, key string) ([]string, error) {
	var values []string
	for _, file := range f {
		more, err := file.GetAll(alias, key)
		if err != nil {
			return nil, fmt.Errorf("%w: look up %s for %s: %w", ErrConfig, key, alias, err)
		}
		values = append(values, more...)
	}
	return values, nil
}

// lookup reads keywords for one alias and keeps the first error, so that it needs looking at only once.
type lookup struct {
	files configFiles
	alias string
	err   error
}

// get keeps the first error, and then gives fallbacks.
func (l *lookup) get(key, fallback string) string {
	value, err := l.files.get(l.alias, key)
	if err != nil && l.err == nil {
		l.err = err
	}
	if value == "" {
		return fallback
	}
	return value
}

// number is a setting that is zero or more; "none" is the fallback.
func (l *lookup) number(key string, fallback int) int {
	text := l.get(key, "")
	if text == "" || strings.EqualFold(text, noConfig) {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		l.fail(fmt.Errorf("%w: %s %q for %s: want a number", ErrConfig, key, text, l.alias))
	}
	return n
}

// yes is false for a setting that is absent.
func (l *lookup) yes(key string) bool { return strings.EqualFold(l.get(key, "no"), "yes") }

// Later errors often follow from the first, so they are dropped.
func (l *lookup) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// resolve finds out all about a host. Relative order matters: tokens may use what was resolved
// before. It asks no name server and connects to nobody. Errors are ErrConfig, and name the
// keyword.
func (f configFiles) resolve(r request, opts Options) (*hop, error) {
	if r.Host == "" {
		return nil, fmt.Errorf("%w: no host given", ErrConfig)
	}
	alias := strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
	l := &lookup{files: f, alias: alias}
	h := &hop{alias: alias, user: r.User, port: r.Port, timeout: opts.ConnectTimeout, hostKey: r.HostKey}
	if h.user == "" {
		h.user = l.get("User", localUser())
	}
	if h.port == 0 {
		h.port = l.number("Port", defaultPort)
	}
	h.host = alias // what %h means inside HostName itself
	h.host = strings.ToLower(l.expand(h, l.get("HostName", "%h")))
	if h.timeout <= 0 {
		seconds := l.number("ConnectTimeout", 0)
		h.timeout = defaultTo(time.Duration(seconds)*time.Second, DefaultConnectTimeout)
	}
	l.resolveKeys(h, r.Target)
	l.resolveWay(h, r)
	if l.err != nil {
		return nil, l.err
	}
	return h, nil
}

// resolveKeys finds the files of known hosts and identities, and the agent.
func (l *lookup) resolveKeys(h *hop, t Target) {
	h.knownAs = strings.ToLower(l.get("HostKeyAlias", ""))
	h.knownHosts = t.KnownHosts
	if len(h.knownHosts) == 0 {
		h.knownHosts = append(
			l.paths(h, l.get("UserKnownHostsFile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")),
			l.paths(h, l.get("GlobalKnownHostsFile", systemKnownHosts+" "+systemKnownHosts+"2"))...)
	}
	h.revokedKeys = l.paths(h, l.get("RevokedHostKeys", noConfig))
	h.identitiesOnly = l.yes("IdentitiesOnly")
	h.identities, h.ownIdentities = l.resolveIdentities(h, t)
	h.agentSocket = l.resolveAgent(h)
}

// resolveIdentities returns the private key files, and whether somebody named them.
func (l *lookup) resolveIdentities(h *hop, t Target) (files []string, own bool) {
	names := t.Identities
	if len(names) == 0 {
		var err error
		if names, err = l.files.all(l.alias, "IdentityFile"); err != nil {
			l.fail(err)
		}
	}
	for _, name := range names {
		if !strings.EqualFold(name, noConfig) {
			files = append(files, l.path(h, name))
		}
	}
	if len(names) > 0 {
		return files, true
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		files = append(files, filepath.Join(homeDir(), ".ssh", name))
	}
	return files, false
}

// resolveAgent is the socket of the agent, "" for none: from the configuration, which may name a
// variable, or SSH_AUTH_SOCK.
func (l *lookup) resolveAgent(h *hop) string {
	const variable = "SSH_AUTH_SOCK"
	name := l.get("IdentityAgent", variable)
	switch {
	case strings.EqualFold(name, noConfig):
		return ""
	case name == variable:
		return os.Getenv(variable)
	case strings.HasPrefix(name, "$"):
		return os.Getenv(strings.Trim(name[1:], "{}"))
	}
	return l.path(h, name)
}

// resolveWay reads ProxyJump and ProxyCommand. The first of them in the file counts for OpenSSH; here a ProxyJump
// wins, which is the same wherever only one is set.
func (l *lookup) resolveWay(h *hop, r request) {
	if h.jumps = r.jumps; len(h.jumps) > 0 {
		return
	}
	jump := l.get("ProxyJump", noConfig)
	if !strings.EqualFold(jump, noConfig) {
		h.jumps = strings.Split(jump, ",")
		return
	}
	command := l.get("ProxyCommand", noConfig)
	if !strings.EqualFold(command, noConfig) {
		h.proxyCommand = l.expand(h, command)
	}
}

// paths splits a list of file names, of which each may be quoted, and expands every one.
func (l *lookup) paths(h *hop, list string) []string {
	words := regexp.MustCompile(`"[^"]*"|[^\s"]+`).FindAllString(list, -1)
	paths := make([]string, 0, len(words))
	for _, word := range words {
		if !strings.EqualFold(word, noConfig) {
			paths = append(paths, l.path(h, strings.Trim(word, `"`)))
		}
	}
	return paths
}

// path expands a leading tilde, then tokens.
func (l *lookup) path(h *hop, name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		// The home directory must not be searched for tokens.
		return filepath.Join(homeDir(), l.expand(h, rest))
	}
	return l.expand(h, name)
}

// expand replaces OpenSSH's percent tokens. An unknown token is an error and not left as it is:
// OpenSSH would refuse it, too.
func (l *lookup) expand(h *hop, text string) string {
	token := regexp.MustCompile(`%.?`)
	return token.ReplaceAllStringFunc(text, func(t string) string {
		switch t {
		case "%%":
			return "%"
		case "%h":
			return h.host
		case "%n":
			return h.alias
		case "%k":
			if h.knownAs != "" {
				return h.knownAs
			}
			return h.alias
		case "%p":
			return strconv.Itoa(h.port)
		case "%r":
			return h.user
		case "%u":
			return localUser()
		case "%i":
			return strconv.Itoa(os.Getuid())
		case "%d":
			return homeDir()
		}
		l.fail(fmt.Errorf("%w: %q for %s: unknown token %s; write %%%% for a percent sign", ErrConfig, text, l.alias, t))
		return t
	})
}

// homeDir is where ~ leads: $HOME, as in a shell, else what the user database says.
func homeDir() string {
	if home := os.Getenv("HOME"); home != "" {
		return home
	}
	if me, err := user.Current(); err == nil {
		return me.HomeDir
	}
	return "/"
}

// localUser is the login that OpenSSH would take.
func localUser() string {
	if me, err := user.Current(); err == nil {
		return me.Username
	}
	return os.Getenv("USER")
}
