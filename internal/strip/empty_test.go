package strip_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/strip"
)

// TestRemoveBounded: what was parked may be deeper than a process may have files open, and wider than is listed at once.
func TestRemoveBounded(t *testing.T) {
	const levels, wide, spare = 300, 3000, 100
	base := filepath.Join(fstest.Mount(t, fstest.Tmpfs, fstest.Options{}), ".georep")
	parked := filepath.Join(base, "parked")
	for _, branch := range []string{"a", "b"} {
		deep := filepath.Join(parked, strings.Repeat(branch+"/", levels))
		must(t, os.MkdirAll(deep, 0o700), os.WriteFile(filepath.Join(deep, "f"), nil, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(base, "owner"), nil, 0o600), os.MkdirAll(filepath.Join(base, "deep-2", "left"), 0o700))
	for i := range wide {
		must(t, os.WriteFile(filepath.Join(parked, fmt.Sprint("x", i)), nil, 0o600))
	}
	b, err := strip.Hold(filepath.Dir(base))
	must(t, err)
	defer b.Close()
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	open, err := os.ReadDir("/proc/self/fd")
	few := was
	few.Cur = uint64(len(open) + spare)
	must(t, err, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	err = b.Remove()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was), err)
	if _, err := os.Lstat(base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}
