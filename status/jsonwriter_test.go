package status

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONWriter(t *testing.T) {
	for text, want := range map[string]string{
		"plain \u00e9 \u2028":      "",
		"\u0080\u009b2J\x7f\u00a0": `"\u0080\u009b2J\u007f` + "\u00a0\"\n",
		"\x1b\a":                   `"\u001b\u0007"` + "\n",
	} {
		var out strings.Builder
		if err := json.NewEncoder(JSONWriter{&out}).Encode(text); err != nil {
			t.Fatal(err)
		}
		if want != "" && out.String() != want {
			t.Errorf("%q is written as %q, want %q", text, out.String(), want)
		}
		var back string
		if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back != text {
			t.Errorf("%q comes back as %q, %v", text, back, err)
		}
	}
}
