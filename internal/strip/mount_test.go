package strip_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/strip"
)

// TestRemoveCrossesNoMount: what is mounted in .georep is somebody's. It stays, and so does all that would go with it, until it
// is unmounted.
func TestRemoveCrossesNoMount(t *testing.T) {
	for name, bind := range map[string]func(from, to string) (mounted, kept string){
		"a directory": func(from, to string) (string, string) {
			must(t, os.Mkdir(from, 0o755), os.WriteFile(filepath.Join(from, "theirs"), nil, 0o600), os.Mkdir(to, 0o755))
			return to, filepath.Join(from, "theirs")
		},
		"a file": func(from, to string) (string, string) {
			must(t, os.WriteFile(from, nil, 0o600), os.WriteFile(to, nil, 0o600))
			return to, from
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
			slaveRoot := filepath.Join(dir, "slave")
			parked := filepath.Join(slaveRoot, ".georep", "parked", "x")
			must(t, os.MkdirAll(parked, 0o700), os.WriteFile(filepath.Join(slaveRoot, ".georep", "owner"), nil, 0o600),
				os.WriteFile(filepath.Join(parked, "a"), nil, 0o600))
			at, kept := bind(filepath.Join(dir, "elsewhere"), filepath.Join(parked, "m"))
			must(t, unix.Mount(filepath.Join(dir, "elsewhere"), at, "", unix.MS_BIND, ""))
			unmount := func() { _ = unix.Unmount(at, unix.MNT_DETACH) }
			defer unmount()
			b, err := strip.Hold(slaveRoot)
			must(t, err)
			defer b.Close()
			if err := b.Remove(); err == nil || !strings.Contains(err.Error(), "parked/x/m") {
				t.Errorf("%v; it does not say what is in the way", err)
			}
			for _, path := range []string{kept, filepath.Join(parked, "a"), filepath.Join(slaveRoot, ".georep", "owner")} {
				if _, err := os.Lstat(path); err != nil {
					t.Error(err)
				}
			}
			unmount()
			if err := b.Remove(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(kept); err != nil {
				t.Error(err)
			}
		})
	}
}
