package filter

import "strings"

// segment is one part of a pattern, between slashes. It is parsed once, when the filter is loaded.
type segment struct {
	text    string
	literal bool // text has no special characters
	suffix  bool // "*" and then text, which has none
	deep    bool // "**": any number of directories, or at the end of a pattern all that is below
}

// newSegment recognises the two common forms, a plain name and *.suffix, which need no matching.
func newSegment(text string) segment {
	switch {
	case len(text) > 1 && strings.Trim(text, "*") == "":
		return segment{deep: true}
	case !strings.ContainsAny(text, `*?[\`):
		return segment{text: text, literal: true}
	case text[0] == '*' && !strings.ContainsAny(text[1:], `*?[\`):
		return segment{text: text[1:], suffix: true}
	}
	return segment{text: text}
}

// match tells whether a name matches; a deep segment matches any.
func (s *segment) match(name string) bool {
	switch {
	case s.deep:
		return true
	case s.literal:
		return s.text == name
	case s.suffix:
		return strings.HasSuffix(name, s.text)
	}
	return glob(s.text, name)
}

// glob matches a name without slashes as git's wildmatch does. It keeps one place to go back to,
// that of the last *, so it is linear but for patterns with many of them.
func glob(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0 // where the last * stands, and what it has not taken yet
	for {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
			continue
		case n == len(name):
			return p == len(pattern)
		}
		if p < len(pattern) {
			if next, ok := one(pattern, p, name[n]); ok {
				p, n = next, n+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star+1, mark
	}
}

// one matches one byte against what stands at p, which is no *, and gives what follows that.
func one(pattern string, p int, c byte) (next int, ok bool) {
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return class(pattern, p, c)
	case '\\':
		p++ // parse has refused one at the end
	}
	return p + 1, pattern[p] == c
}

// class matches one byte against the bracket expression at p. parse has made sure that it ends.
// Ranges go by bytes, as in the C locale, whatever the locale of the process is.
func class(pattern string, p int, c byte) (next int, ok bool) {
	p++
	negated := pattern[p] == '!' || pattern[p] == '^'
	if negated {
		p++
	}
	found := false
	last := byte(0) // the beginning of a range; 0: none
	for first := true; first || pattern[p] != ']'; first = false {
		switch {
		case pattern[p] == '-' && last != 0 && pattern[p+1] != ']':
			p++
			if pattern[p] == '\\' {
				p++
			}
			found = found || last <= c && c <= pattern[p]
			last = 0
		case posix(pattern[p:]) != "":
			name := posix(pattern[p:])
			found = found || named[name](c)
			p += len(name) + 3
			last = 0
		default:
			if pattern[p] == '\\' {
				p++
			}
			found = found || c == pattern[p]
			last = pattern[p]
		}
		p++
	}
	return p + 1, found != negated
}

// named are the classes of POSIX, in the C locale.
var named = map[string]func(c byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return c > ' ' && c < 0x7f },
	"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
	"print":  func(c byte) bool { return c >= ' ' && c < 0x7f },
	"punct":  func(c byte) bool { return c > ' ' && c < 0x7f && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
	"xdigit": func(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' },
}

// The classes know ASCII only, as git's do in the C locale.
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// posix is the name of a class [:name:] that text begins with, "" where it begins with none.
func posix(text string) string {
	inner, is := strings.CutPrefix(text, "[:")
	if !is {
		return ""
	}
	inner, _, _ = strings.Cut(inner, "]")
	name, _ := strings.CutSuffix(inner, ":")
	if len(name) == len(inner) {
		return ""
	}
	return name
}

// endOf gives what follows the bracket expression at p, or what is wrong with it. It is asked once,
// when the pattern is parsed, so matching need not look for the end.
func endOf(pattern string, p int) (next int, wrong string) {
	q := p + 1
	if q < len(pattern) && (pattern[q] == '!' || pattern[q] == '^') {
		q++
	}
	for first := true; q < len(pattern); first = false {
		switch {
		case pattern[q] == ']' && !first:
			return q + 1, ""
		case pattern[q] == '\\':
			q++
		case posix(pattern[q:]) != "":
			name := posix(pattern[q:])
			if named[name] == nil {
				return 0, "there is no class [:" + name + ":]"
			}
			q += len(name) + 3
		}
		q++
	}
	return 0, "a [ has no ]; write \\[ for a bracket"
}
