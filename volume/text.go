package volume

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// toText makes a string of any bytes fit for a TOML file, which must be UTF-8. What is not is kept in Go's quotes; a
// string that itself begins with a quote is quoted too, so that reading is unambiguous.
func toText(s string) string {
	if utf8.ValidString(s) && !strings.HasPrefix(s, `"`) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// fromText reverses toText.
func fromText(text string) (string, error) {
	if !strings.HasPrefix(text, `"`) {
		return text, nil
	}
	s, err := strconv.Unquote(text)
	if err != nil {
		return "", fmt.Errorf("unquote %q: %w", text, err)
	}
	return s, nil
}
