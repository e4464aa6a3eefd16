package service

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"georep/volume"
)

// TestFreshHost: a service runs before anything is registered, and where its directory cannot be it does not blame another service.
func TestFreshHost(t *testing.T) {
	dir := t.TempDir()
	s, err := volume.OpenStore(filepath.Join(dir, "lib", "georep"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, store: s}
	h.run()
	h.until("it is ready", func() bool { return h.heard("READY=1") })
	if err := h.end(); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(dir, "blocked")
	if s, err = volume.OpenStore(blocked); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Options{Store: s, Log: zerolog.Nop()}); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("a file in its place: %v", err)
	}
}
