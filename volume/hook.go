package volume

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"georep/internal/events"
)

// Hook says who is told of a session's events.
type Hook struct {
	Command []string      // a program with its arguments; nil: none
	URL     string        // "": none
	KeyFile string        // what signs is in it; "": nothing is signed
	Kinds   []events.Kind // nil: all
	Changed bool          // also of paths that have become durable on the slave
	Pattern string        // of these paths; "": all
}

// Equal tells whether nothing would be told otherwise.
func (h *Hook) Equal(o *Hook) bool {
	return slices.Equal(h.Command, o.Command) && h.URL == o.URL && h.KeyFile == o.KeyFile && slices.Equal(h.Kinds, o.Kinds) &&
		h.Changed == o.Changed && h.Pattern == o.Pattern
}

// WantsChanged tells whether anybody is told of paths.
func (h *Hook) WantsChanged() bool { return h.Changed && (len(h.Command) > 0 || h.URL != "") }

// hookURL accepts http and https.
func hookURL(to *string, v string) error {
	if v == "" {
		*to = ""
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("not a URL that begins with http:// or https://")
	}
	return text(to, v)
}

// hookKinds accepts kinds of events with commas or spaces between them.
func hookKinds(to *[]events.Kind, v string) error {
	var list []events.Kind
	for _, word := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
		if !slices.Contains(events.Kinds(), events.Kind(word)) {
			return fmt.Errorf("there is no kind %q", word)
		}
		list = append(list, events.Kind(word))
	}
	*to = list
	return nil
}

// command splits words at blanks. Quotes of both kinds keep blanks, and a backslash outside of single quotes takes what follows as it is.
// There is no shell, and nothing else is special.
func command(to *[]string, v string) error {
	var words []string
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range v {
		switch {
		case r == 0:
			return fmt.Errorf("a NUL byte is in it")
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
		return fmt.Errorf("a quote or backslash at its end is open")
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) > 0 && !strings.HasPrefix(words[0], "/") {
		return fmt.Errorf("the program is not an absolute path")
	}
	*to = words
	return nil
}
