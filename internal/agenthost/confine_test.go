package agenthost

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/internal/confine"
	"georep/slave/policy"
)

// confinedDir, in the environment, makes this test's binary a process that is confined, and changes that directory.
const confinedDir = "GEOREP_CONFINED_DIR"

// A directory's set-gid bit stays under no-setuid, whatever its group: the kernel drops it without a word where a capability is missing.
func TestConfinedKeepsSetgidOfDirectories(t *testing.T) {
	if dir := os.Getenv(confinedDir); dir != "" {
		confine.Process(confine.Needs{Write: []string{dir}, Caps: capabilities(&policy.Policy{NoSetuid: true})})
		if err := os.Chmod(dir, 0o755|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), confinedDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("%v, %v: the set-gid bit is lost", info.Mode(), err)
	}
}

// What a policy does without root cannot give any more, whatever a master makes the agent do.
func TestCapabilitiesOfAPolicy(t *testing.T) {
	owner := &policy.Owner{UID: 1, GID: 1}
	for _, c := range []struct {
		policy policy.Policy
		not    []cap.Value
	}{
		{policy.Policy{}, nil},
		{policy.Policy{NoSetuid: true}, []cap.Value{cap.SETFCAP}},
		{policy.Policy{NoDevices: true}, []cap.Value{cap.MKNOD}},
		{policy.Policy{Owner: owner}, nil},
		{policy.Policy{FakeOwner: true}, []cap.Value{cap.CHOWN, cap.FSETID, cap.SETFCAP, cap.MKNOD}},
		{policy.Policy{FakeOwner: true, Owner: owner}, []cap.Value{cap.FSETID, cap.SETFCAP, cap.MKNOD}},
	} {
		has := capabilities(&c.policy)
		for _, v := range []cap.Value{cap.CHOWN, cap.FSETID, cap.SETFCAP, cap.MKNOD} {
			if slices.Contains(has, v) == slices.Contains(c.not, v) {
				t.Errorf("under %+v: %v is wrong", c.policy, v)
			}
		}
	}
}
