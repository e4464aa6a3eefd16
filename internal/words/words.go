// Package words reads a command as an operator writes it on one line.
package words

import (
	"fmt"
	"strings"
)

// Command splits a line at blanks. Quotes of both kinds keep blanks, and a backslash outside of
// single quotes takes what follows as it is. There is no shell, and nothing else is special. The
// program has an absolute path; no words are no command. The command is run directly and as given,
// so nothing in a path or a changed file's name is ever interpreted. The error says what is wrong
// with the line and does not repeat it. Errors come before anything is run, when the setting is
// made, and name no word of the line: it may hold a secret.
func Command(v string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range v {
		switch {
		case r == 0:
			return nil, fmt.Errorf("a NUL byte is in it")
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			in, quote = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote or backslash at its end is open")
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) > 0 && !strings.HasPrefix(words[0], "/") {
		return nil, fmt.Errorf("the program is not an absolute path")
	}
	return words, nil
}
