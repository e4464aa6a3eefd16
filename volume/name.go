package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// maxName leaves a session's directory, named after master and slave, room for the slave within 255 bytes (see
// maxEscaped).
const maxName = 64

// CheckName accepts the names that volumes may have: 1 to 64 of the characters A-Z a-z 0-9 . _ -,
// the first of them neither a dot nor a dash. Errors are ErrSyntax. The rules leave names that need
// no quoting anywhere, and that are no options.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '.' || name[0] == '-' || strings.TrimLeft(name, nameChars) != "" {
		return kindf(ErrSyntax, "%q is no volume name: use 1 to %d of A-Z a-z 0-9 . _ -, not starting with . or -",
			name, maxName)
	}
	return nil
}

// nameChars need no quoting in a shell, a file name or a URL.
const nameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// NameForPath makes a name for a path that becomes a volume on first use: its last component, with
// other characters turned to dashes, and a number behind it where the name is taken. It reserves
// nothing. Two commands at once may get the same name; the one that creates second is refused by
// ErrVolumeExists.
func (s *Store) NameForPath(path string) (string, error) {
	base := nameFrom(filepath.Base(filepath.Clean(path)))
	name := base
	for i := 2; ; i++ {
		_, err := s.Volume(name)
		if errors.Is(err, ErrNoVolume) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		suffix := fmt.Sprintf("-%d", i)
		name = base[:min(len(base), maxName-len(suffix))] + suffix
	}
}

// nameFrom gives a valid name, whatever base is.
func nameFrom(base string) string {
	safe := strings.Map(func(r rune) rune {
		if r < 0x80 && strings.ContainsRune(nameChars, r) {
			return r
		}
		return '-'
	}, base)
	safe = strings.Trim(strings.TrimLeft(safe, ".-"), "-")
	if safe == "" {
		return "volume"
	}
	return safe[:min(len(safe), maxName)]
}

// Master is the MASTER argument: a volume's name or an absolute path, exactly one of them.
type Master struct {
	Name string
	Path string // clean, not resolved
}

// ParseMaster reads a MASTER argument; errors are ErrSyntax.
func ParseMaster(arg string) (Master, error) {
	if strings.HasPrefix(arg, "/") {
		if strings.ContainsRune(arg, 0) {
			return Master{}, kindf(ErrSyntax, "%q: a path has no NUL byte", arg)
		}
		return Master{Path: filepath.Clean(arg)}, nil
	}
	if err := CheckName(arg); err != nil {
		return Master{}, kindf(ErrSyntax, "%q is no master: give a volume's name (georep volume list) or an absolute path",
			arg)
	}
	return Master{Name: arg}, nil
}

// Master returns the volume that the argument means, or ErrNoVolume; only for a path may the caller
// then create one, under NameForPath. A path is resolved first, so it finds its volume through
// symbolic links.
func (s *Store) Master(m Master) (Volume, error) {
	if m.Path != "" {
		return s.VolumeByPath(m.Path)
	}
	return s.Volume(m.Name)
}
