package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"georep/integration/harness/fstest"
)

// TestChangeThroughAShortLivedName: a further name of a file is made, written through and removed before the slave ever
// had it. No event leads to the directory of the name that stays.
func TestChangeThroughAShortLivedName(t *testing.T) {
	for _, hints := range []string{"on", "off"} {
		t.Run(hints, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			s := newSession(t, master, slave)
			for i := range 40 {
				dir := filepath.Join(master, "a", fmt.Sprint(i))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				writeFile(t, filepath.Join(dir, "f"), "content")
			}
			if err := os.Mkdir(filepath.Join(master, "b"), 0o755); err != nil {
				t.Fatal(err)
			}
			s.must(s.start("--hints", hints, "--log-level", "debug"))
			s.waitSynced()
			for i := range 40 {
				script := fmt.Sprintf("ln a/%d/f b/g && echo changed >> b/g && ", i) + []string{"rm b/g", "mv b/new b/g",
					"mv b/g b/h && rm b/h", "sleep 0.1; rm b/g", "sleep 0.1; mv b/new b/g", "sleep 0.1; mv b/g b/h; sleep 0.1; rm b/h",
					"mkdir b/d && mv b/g b/d && rm -r b/d", "mkdir b/d && mv b/g b/d; sleep 0.1; rm -r b/d",
					"mv b c; rm -r c; mkdir b", "sleep 0.1; mv b/g ../outside$$; rm ../outside$$"}[i%10]
				cmd := exec.Command("sh", "-c", "rm -f b/*; echo new > b/new; "+script)
				cmd.Dir = master
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			s.waitSynced()
		})
	}
}
