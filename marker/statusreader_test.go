package marker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/marker/statefile"
)

// TestStatusReader reads what ReadStatus does, through whatever happens to the file.
func TestStatusReader(t *testing.T) {
	dir := t.TempDir()
	r := NewStatusReader(dir)
	same := func(what string) {
		t.Helper()
		want, wantErr := ReadStatus(dir)
		for range 2 {
			got, err := r.Read()
			if (err == nil) != (wantErr == nil) || errors.Is(err, fs.ErrNotExist) != errors.Is(wantErr, fs.ErrNotExist) {
				t.Fatalf("%s: %v, want %v", what, err, wantErr)
			}
			if err == nil && (!got.Heartbeat.Equal(want.Heartbeat) || got.Source != want.Source) {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
	}
	same("none")
	at := time.Unix(1e9, 0).UTC()
	for i := range 20 { // all of one length
		s := Status{Source: SourceScan, Heartbeat: at.Add(time.Duration(i) * time.Second)}
		if err := writeStatus(statefile.FS{}, dir, &s); err != nil {
			t.Fatal(err)
		}
		same("replaced")
	}
	path := filepath.Join(dir, statusFile)
	if err := os.WriteFile(path, []byte("no JSON"), 0o644); err != nil {
		t.Fatal(err)
	}
	same("spoilt")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	same("gone")
}
