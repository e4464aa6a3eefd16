package lint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJSONReachesNoTerminalRaw: JSON allows control characters in names that a terminal obeys. So what commands print goes through
// status.JSONWriter, which escapes them.
func TestJSONReachesNoTerminalRaw(t *testing.T) {
	found := 0
	for _, path := range goFiles(t) {
		if rel, _ := filepath.Rel(root(t), path); !strings.HasPrefix(rel, "cmd/") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			switch {
			case strings.Contains(line, "json.Marshal"):
				t.Errorf("%s: %s: print JSON with printJSON", path, strings.TrimSpace(line))
			case strings.Contains(line, "json.NewEncoder("):
				if found++; !strings.Contains(line, "JSONWriter") {
					t.Errorf("%s: %s: write it through status.JSONWriter", path, strings.TrimSpace(line))
				}
			}
		}
	}
	if found == 0 {
		t.Error("no command prints JSON: the test tests nothing")
	}
}
