package volume

import (
	"reflect"
	"testing"

	"georep/internal/events"
)

func TestHookKeys(t *testing.T) {
	for text, want := range map[string][]string{
		"":                             nil,
		"  ":                           nil,
		"/bin/a":                       {"/bin/a"},
		"/bin/a b  c\td":               {"/bin/a", "b", "c", "d"},
		`/bin/a "b c" 'd"e' f\ g "" h`: {"/bin/a", "b c", `d"e`, "f g", "", "h"},
		`/bin/a "x\"y" 'x\y' $HOME;|`:  {"/bin/a", `x"y`, `x\y`, "$HOME;|"},
	} {
		s := Session{}
		if err := s.Set("hook-command", text); err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if o, err := s.Options(); err != nil || !reflect.DeepEqual(o.Hook.Command, want) {
			t.Errorf("%q is %q, %v", text, o.Hook.Command, err)
		}
	}
	for key, texts := range map[string][]string{
		"hook-command": {`/bin/a "b`, `/bin/a b\`, "a b", "./a", "/bin/a\x00"},
		"hook-url":     {"ftp://h/x", "h/x", "http://", "file:///etc/passwd", "https:/x"},
		"hook-events":  {"state,nothing"},
	} {
		for _, text := range texts {
			if err := (&Session{}).Set(key, text); err == nil {
				t.Errorf("%s takes %q", key, text)
			}
		}
	}
	s := Session{}
	if err := s.Set("hook-events", "state, failure"); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Options(); err != nil || !reflect.DeepEqual(o.Hook.Kinds, []events.Kind{events.StateChanged, events.Failure}) {
		t.Errorf("%v, %v", o.Hook.Kinds, err)
	}
}
