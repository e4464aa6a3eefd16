package volume

import (
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// Slave is a parsed SLAVE argument: where the copy lives. It is a plain, comparable value; two arguments that mean the
// same place, letter for letter, give the same value. Exactly one of Volume and Path is set.
type Slave struct {
	User   string // "" for the ssh configuration's or the caller's own
	Host   string // name, alias of the ssh configuration, or IP address without brackets; "" for a local slave
	Port   int    // 0 for the ssh configuration's or 22
	Volume string // a name in the registry of the slave's host
	Path   string // an absolute, clean path on the slave's host; any bytes but NUL
	SFTP   bool   // reached by SFTP alone: nothing of ours runs there; Path is set
	Serve  bool   // reached by georep serve instead of sshd; Volume is set
}

// ServePort is where georep serve listens unless somebody says otherwise, and where a slave of it is looked for.
const ServePort = 8922

// forms ends every message about a malformed SLAVE.
const forms = "use [user@]host::volume, [user@]host:/path, ssh://[user@]host[:port]/path, sftp://[user@]host[:port]/path, " +
	"georep://[user@]host[:port]/volume or file:///path"

// Local tells whether the slave is a directory of this host, reached without SSH. Such a slave is
// opened by the worker itself.
func (s Slave) Local() bool { return s.Host == "" }

// ParseSlave reads a SLAVE argument. In the URL forms %XX is a byte; elsewhere a path is taken as it is. IPv6 addresses
// stand in brackets. Errors are one line that lists the accepted forms, and ErrSyntax.
func ParseSlave(arg string) (Slave, error) {
	s, why := parseSlave(arg)
	if why == "" {
		return s, nil
	}
	return Slave{}, kindf(ErrSyntax, "slave %q: %s: %s", arg, why, forms)
}

// parseSlave returns why arg is no slave, or "". An argument without a scheme that is known is read
// as [user@]host.
func parseSlave(arg string) (s Slave, why string) {
	if strings.ContainsRune(arg, 0) {
		return s, "a NUL byte is in it"
	}
	scheme, rest, ok := strings.Cut(arg, "://")
	switch {
	case !ok || strings.ContainsAny(scheme, "@:/[]"):
		return parseRemote(arg)
	case scheme == "ssh":
		return parseURL(rest)
	case scheme == "file":
		return parseFile(rest)
	case scheme == "sftp":
		s, why = parseURL(rest)
		s.SFTP = true
		return s, why
	case scheme == "georep":
		return parseServe(rest)
	}
	return s, "unknown scheme " + strconv.Quote(scheme)
}

// parseRemote reads [user@]host::volume and [user@]host:/path. A path with a colon in it is the
// host's, as with scp: file:/// is how a local one is written.
func parseRemote(arg string) (s Slave, why string) {
	if strings.HasPrefix(arg, "/") {
		return s, "a local path is written file:///path"
	}
	s, rest, why := parseLogin(arg)
	if why != "" {
		return s, why
	}
	switch {
	case strings.HasPrefix(rest, "::"):
		s.Volume = rest[2:]
		if CheckName(s.Volume) != nil {
			return s, strconv.Quote(s.Volume) + " is no volume name"
		}
	case strings.HasPrefix(rest, ":/"):
		s.Path = path.Clean(rest[1:])
	case strings.HasPrefix(rest, ":"):
		return s, "the path after the host must be absolute"
	default:
		return s, "no volume or path after the host"
	}
	return s, ""
}

// parseURL reads what follows ssh:// or sftp://.
func parseURL(rest string) (s Slave, why string) {
	s, rest, why = parseLogin(rest)
	if why != "" {
		return s, why
	}
	if port, ok := strings.CutPrefix(rest, ":"); ok {
		port, rest, _ = strings.Cut(port, "/")
		rest = "/" + rest
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strings.TrimLeft(port, "0123456789") != "" {
			return s, "the port " + strconv.Quote(port) + " is not 1 to 65535"
		}
		s.Port = int(n)
	}
	s.Path, why = urlPath(rest)
	return s, why
}

// parseServe reads what follows georep://. The port that is meant anyway is left out, so that one place has one name.
func parseServe(rest string) (s Slave, why string) {
	s, why = parseURL(rest)
	if why != "" {
		return s, why
	}
	s.Serve, s.Volume, s.Path = true, strings.TrimPrefix(s.Path, "/"), ""
	if s.Port == ServePort {
		s.Port = 0
	}
	if CheckName(s.Volume) != nil {
		return s, strconv.Quote(s.Volume) + " is no volume name"
	}
	return s, ""
}

// parseFile reads what follows file://.
func parseFile(rest string) (s Slave, why string) {
	if rest, ok := strings.CutPrefix(rest, "localhost/"); ok {
		s.Path, why = urlPath("/" + rest)
		return s, why
	}
	s.Path, why = urlPath(rest)
	return s, why
}

// parseLogin reads [user@]host and returns what follows it.
func parseLogin(arg string) (s Slave, rest, why string) {
	if i := strings.IndexAny(arg, "@:/["); i >= 0 && arg[i] == '@' {
		s.User, arg = arg[:i], arg[i+1:]
		if !validLogin(s.User, userChars) {
			return s, "", strconv.Quote(s.User) + " is no user name"
		}
	}
	if strings.HasPrefix(arg, "[") {
		return parseBracketed(s, arg)
	}
	end := strings.IndexAny(arg, ":/")
	if end < 0 {
		end = len(arg)
	}
	s.Host = arg[:end]
	if !validLogin(s.Host, nameChars) {
		return s, "", strconv.Quote(s.Host) + " is no host name"
	}
	return s, arg[end:], ""
}

// parseBracketed reads an IPv6 address in brackets, with its zone, and returns what follows it.
func parseBracketed(s Slave, arg string) (Slave, string, string) {
	host, rest, ok := strings.Cut(arg[1:], "]")
	addr, err := netip.ParseAddr(host)
	if !ok || err != nil || !addr.Is6() || strings.Trim(addr.Zone(), nameChars) != "" {
		return s, "", "no IPv6 address within the brackets"
	}
	s.Host = addr.String()
	return s, rest, ""
}

// userChars has what occurs in user names, the DOMAIN\user and user+tag of directory services included.
const userChars = nameChars + `\+$~`

// validLogin refuses a leading dash: an ssh program could take such a host for an option.
func validLogin(s, chars string) bool {
	return s != "" && len(s) <= 255 && s[0] != '-' && strings.Trim(s, chars) == ""
}

// String gives the canonical form, which ParseSlave reads back to the same value. It is printable UTF-8 whatever the
// path holds: a path that is not makes it a URL.
func (s Slave) String() string {
	switch {
	case s.Local():
		return "file://" + urlEscape(s.Path)
	case s.Serve && s.Port != 0:
		return "georep://" + s.login() + ":" + strconv.Itoa(s.Port) + "/" + s.Volume
	case s.Serve:
		return "georep://" + s.login() + "/" + s.Volume
	case s.Volume != "":
		return s.login() + "::" + s.Volume
	case s.Port != 0:
		return s.scheme() + s.login() + ":" + strconv.Itoa(s.Port) + urlEscape(s.Path)
	case s.SFTP:
		return s.scheme() + s.login() + urlEscape(s.Path)
	case !printable(s.Path):
		return "ssh://" + s.login() + urlEscape(s.Path)
	}
	return s.login() + ":" + s.Path
}

// scheme begins a URL of a slave on another host.
func (s Slave) scheme() string {
	if s.SFTP {
		return "sftp://"
	}
	return "ssh://"
}

// login is [user@]host as it stands before the volume or path.
func (s Slave) login() string {
	host := s.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if s.User == "" {
		return host
	}
	return s.User + "@" + host
}

// MarshalText gives String.
func (s Slave) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSlave.
func (s *Slave) UnmarshalText(b []byte) error {
	parsed, err := ParseSlave(string(b))
	if err == nil {
		*s = parsed
	}
	return err
}
