package volume

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestFree: a directory that a session uses is not free, on either end, and neither is one around it, or within.
func TestFree(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	master, slave := mkdir(t, base, "m", "master"), mkdir(t, base, "s", "slave")
	create(t, s, "data", master)
	create(t, s, "idle", mkdir(t, base, "idle"))
	if _, err := s.CreateSession(Session{Master: "data", Slave: Slave{Path: slave}}); err != nil {
		t.Fatal(err)
	}
	for path, free := range map[string]bool{
		master: false, filepath.Dir(master): false, mkdir(t, master, "in"): false,
		slave: false, filepath.Dir(slave): false, mkdir(t, slave, "in"): false,
		"/": false, filepath.Join(base, "idle"): true, mkdir(t, base, "m", "beside"): true, master + "2": true,
	} {
		if err := s.Free(path); free != (err == nil) || err != nil && !errors.Is(err, ErrVolumeBusy) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
