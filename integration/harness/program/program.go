// Package program gives tests the georep of this module as a program of its own, which is built once in a process of tests, and tells
// how its sessions stand.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// built is where the program lies, once a test has asked for it.
var built struct {
	sync.Mutex
	dir string
}

// Main runs the tests, and removes the program afterwards. A TestMain calls it, and exits with what it returns.
func Main(m *testing.M) int {
	code := m.Run()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		return code
	}
	if err := os.RemoveAll(built.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Link gives the program the name path, on the file system of temporary files. A name of its own is how a test tells its
// processes from those of others.
func Link(t testing.TB, path string) {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "georep-program-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir = dir
	}
	program := filepath.Join(built.dir, "georep")
	if _, err := os.Stat(program); err != nil {
		if out, err := exec.Command("go", "build", "-o", program, "georep/cmd/georep").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	if err := os.Link(program, path); err != nil {
		t.Fatal(err)
	}
}

// Statuses is what `georep status --json` says of the sessions of a state directory, without a process of its own: for what asks again
// and again.
func Statuses(state string) ([]status.Status, error) {
	store, err := volume.OpenStore(state)
	if err != nil {
		return nil, err
	}
	sessions, err := store.Sessions()
	if err != nil {
		return nil, err
	}
	out := make([]status.Status, len(sessions))
	for i, s := range sessions {
		if out[i], err = monitor.Status(store, s); err != nil {
			return nil, err
		}
	}
	return out, nil
}
