package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxEscaped leaves room for the master's name and an underscore in a directory name of 255 bytes.
	maxEscaped = 255 - maxName - 1
	// hashMark stands before the digest of what was too long; Escape writes a literal one as %7E.
	hashMark = "~"
)

// Escape makes a slave's canonical form a directory name of at most 190 bytes: letters, digits and
// .@- as they are, other bytes as %XX, also the underscore, which divides it from the master's
// name. What would be longer ends in ~ and a digest, and only then Unescape cannot reverse it. The
// names are those of directories in the registry, so what this gives for a slave must never change.
func Escape(s Slave) string {
	esc := escape(s.String(), func(c byte) bool { return c != '_' && strings.IndexByte(nameChars+"@", c) >= 0 })
	if len(esc) <= maxEscaped {
		return esc
	}
	sum := sha256.Sum256([]byte(s.String()))
	tail := hashMark + hex.EncodeToString(sum[:16])
	return esc[:maxEscaped-len(tail)] + tail
}

// Unescape reverses Escape; ok is false for a digest and for what Escape never wrote.
func Unescape(name string) (s Slave, ok bool) {
	if strings.Contains(name, hashMark) {
		return Slave{}, false
	}
	raw, ok := unescape(name)
	if !ok {
		return Slave{}, false
	}
	s, err := ParseSlave(raw)
	return s, err == nil && Escape(s) == name
}

// urlPath decodes and cleans the path of a URL. why says what is wrong; "" where nothing is.
func urlPath(raw string) (clean, why string) {
	if !strings.HasPrefix(raw, "/") {
		return "", "the path must be absolute"
	}
	p, ok := unescape(raw)
	if !ok {
		return "", "a % in a URL begins %XX, write %25 for the character itself"
	}
	if strings.ContainsRune(p, 0) {
		return "", "a NUL byte is in it"
	}
	return path.Clean(p), ""
}

// urlEscape leaves readable what people write in paths and escapes what a URL or a terminal would misread.
func urlEscape(p string) string {
	var b strings.Builder
	for len(p) > 0 {
		r, n := utf8.DecodeRuneInString(p)
		if (r == utf8.RuneError && n == 1) || !strconv.IsPrint(r) || strings.ContainsRune(" %?#\"", r) {
			b.WriteString(escape(p[:n], func(byte) bool { return false }))
		} else {
			b.WriteString(p[:n])
		}
		p = p[n:]
	}
	return b.String()
}

// printable tells whether a terminal shows s as it is.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0
}

// escape writes each byte that keep refuses as %XX. It is undone by unescape whatever keep lets through, as long as
// that is not the percent sign.
func escape(s string, keep func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; keep(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

// unescape reverses escape; ok is false where a % is not followed by two hexadecimal digits.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), true
}
