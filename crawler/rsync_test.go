package crawler_test

import (
	"os/exec"
	"testing"
)

// rsync copies as people do before they come to georep.
func rsync(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("rsync", "-aHAX", "--filter=-x trusted.*", from, to).CombinedOutput()
	if err != nil {
		t.Fatalf("rsync: %v\n%s", err, out)
	}
}
