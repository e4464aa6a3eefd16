// Package asuser runs a test as an ordinary user, from a test process that runs as root. It owns the second process and
// its directory and ends both with the test. It never changes the ids of the process it is called in.
//
//	func TestUnprivileged(t *testing.T) {
//		dir, here := asuser.Again(t)
//		if !here {
//			return // The other process has passed the test.
//		}
//		... work in dir as an ordinary user ...
//	}
package asuser

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"georep/integration/harness/fstest"
)

// nobody is the user and group that the second process runs as.
const nobody = 65534

// variable tells the second process where its directory is, and that it is the second one.
const variable = "GEOREP_TEST_AS_USER_DIR"

// Again runs the calling test once more, alone, as an ordinary user with the id 65534, and fails it here when it fails
// there. In that process, and where the caller is an ordinary user to begin with, it returns an empty directory of that
// user and true: go on. In the process of root it returns "" and false when the other has passed: there is nothing left
// to do. The directory lies on a tmpfs of its own. The caller may be a subtest, but whatever its parents do happens in
// the other process too.
func Again(t *testing.T) (dir string, here bool) {
	t.Helper()
	if dir := os.Getenv(variable); dir != "" {
		return dir, true
	}
	if os.Geteuid() != 0 {
		return t.TempDir(), true
	}
	mnt := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	dir, binary := filepath.Join(mnt, "dir"), filepath.Join(mnt, "test")
	if err := errors.Join(reachable(mnt), copyOwn(binary), os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatalf("asuser: prepare %s: %v", mnt, err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run="+pattern(t.Name()), "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), variable+"="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("asuser: as an ordinary user: %v\n%s", err, out)
	}
	return "", false
}

// pattern matches exactly the named test.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + part + "$"
	}
	return strings.Join(parts, "/")
}

// reachable lets everybody into the directories of this test above mnt, which are made for their owner alone.
func reachable(mnt string) error {
	temp := filepath.Clean(os.TempDir())
	for up := filepath.Dir(mnt); up != temp && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// copyOwn copies this process's program to where everybody can run it; "go test" keeps it in a directory of its own.
func copyOwn(path string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
