package volume

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"georep/internal/events"
	"georep/internal/words"
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

// command accepts a program by its absolute path, with arguments.
func command(to *[]string, v string) error {
	list, err := words.Command(v)
	*to = list
	return err
}
