package asuser

import (
	"os"
	"testing"
)

func TestAgainIsAnOrdinaryUser(t *testing.T) {
	dir, here := Again(t)
	if here != (os.Geteuid() != 0) {
		t.Fatalf("here = %v as user %d", here, os.Geteuid())
	}
	if !here {
		return
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Chown(dir+"/file", 1, 1); err == nil {
		t.Error("may give a file away: that is no ordinary user")
	}
}

func TestAgainInASubtest(t *testing.T) {
	t.Run("sub", func(t *testing.T) {
		if dir, here := Again(t); here && dir == "" {
			t.Error("no directory")
		}
	})
}

func TestPattern(t *testing.T) {
	if got := pattern("TestA/b/c"); got != "^TestA$/^b$/^c$" {
		t.Errorf("pattern = %s", got)
	}
}
