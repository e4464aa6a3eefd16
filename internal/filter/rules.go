package filter

import (
	"fmt"
	"strings"
)

// rule is one line. It does not change once it is parsed.
type rule struct {
	line    string
	include bool      // it began with !
	dir     bool      // it ends with /: directories only
	path    []segment // of a pattern with a slash; nil: the name alone counts
	name    segment
}

// Lines parses patterns under gitignore's rules. The error names the line, and what is wrong with
// it: git passes over such a line silently. A byte order mark and carriage returns are taken off,
// as editors on other systems leave them.
func lines(text string, include bool) ([]rule, error) {
	var out []rule
	text = strings.TrimPrefix(text, "\uFEFF")
	for i, line := range strings.Split(text, "\n") {
		r, err := parse(strings.TrimSuffix(line, "\r"))
		if err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", i+1, line, err)
		}
		if r == nil {
			continue
		}
		if include {
			r.include = !r.include
		}
		out = append(out, *r)
	}
	return out, nil
}

// parse gives nil for a line without a pattern. An error says what is wrong with the pattern; lines
// adds which line it is.
func parse(line string) (*rule, error) {
	text := trimSpaces(line)
	if text == "" || text[0] == '#' {
		return nil, nil
	}
	r := &rule{line: text}
	text, r.include = strings.CutPrefix(text, "!")
	if rest, is := strings.CutSuffix(text, "/"); is {
		text, r.dir = rest, true
	}
	if text == "" {
		return nil, fmt.Errorf("there is no pattern in it")
	}
	parts, err := split(text)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		r.name = newSegment(parts[0])
		return r, nil
	}
	if parts[0] == "" { // it began with a slash
		parts = parts[1:]
	}
	for _, p := range parts {
		s := newSegment(p)
		if s.deep && len(r.path) > 0 && r.path[len(r.path)-1].deep {
			continue
		}
		r.path = append(r.path, s)
	}
	return r, nil
}

// trimSpaces takes spaces off the end, but for one behind a backslash. Only spaces count, as in
// gitignore; tabs belong to the name.
func trimSpaces(line string) string {
	end := len(line)
	for end > 0 && line[end-1] == ' ' {
		end--
	}
	slashes := 0
	for slashes < end && line[end-1-slashes] == '\\' {
		slashes++
	}
	if slashes%2 == 1 && end < len(line) {
		end++
	}
	return line[:end]
}

// split cuts a pattern at its slashes, and refuses what git takes for a pattern that matches
// nothing. A slash in a bracket expression does not cut.
func split(text string) (parts []string, err error) {
	from := 0
	for p := 0; p < len(text); {
		switch text[p] {
		case '/':
			parts, from = append(parts, text[from:p]), p+1
		case '\\':
			if p++; p == len(text) {
				return nil, fmt.Errorf("it ends in a backslash; write two for one")
			}
			if text[p] == '/' {
				parts, from = append(parts, text[from:p-1]), p+1
			}
		case '[':
			end, wrong := endOf(text, p)
			if wrong != "" {
				return nil, fmt.Errorf("%s", wrong)
			}
			p = end - 1
		case 0:
			return nil, fmt.Errorf("a NUL byte is in it")
		}
		p++
	}
	return append(parts, text[from:]), nil
}
