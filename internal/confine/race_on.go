//go:build race

package confine

import (
	"os"
	"path/filepath"
	"strings"
)

// reports is where the race detector, which this build has, writes what it finds: see GORACE in its manual.
func reports() []string {
	for _, option := range strings.Fields(os.Getenv("GORACE")) {
		if path, ok := strings.CutPrefix(option, "log_path="); ok && filepath.IsAbs(path) {
			return []string{filepath.Dir(path)}
		}
	}
	return nil
}
