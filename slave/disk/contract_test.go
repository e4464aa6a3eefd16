package disk

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// nobodyDir tells a re-executed test that it is the ordinary user's run, and where it may write.
const nobodyDir = "GEOREP_TEST_NOBODY_DIR"

// opener opens slaves on new directories below base.
func opener(base string) slavetest.Opener {
	return func(t *testing.T) (slave.Tree, string) {
		root, err := os.MkdirTemp(base, "slave")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(root) })
		tree, err := Open(testOptions(t, root))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Close() })
		return tree, root
	}
}

func testOptions(t *testing.T, root string) Options {
	return Options{
		Path: root, Master: xtime.UUID{1}, Session: xtime.UUID{2}, Version: "test",
		Logger: zerolog.New(zerolog.NewTestWriter(t)),
	}
}

func TestContract(t *testing.T) {
	t.Run("default", func(t *testing.T) { slavetest.Run(t, opener(t.TempDir())) })
	t.Run("tmpfs", func(t *testing.T) {
		base, err := os.MkdirTemp("/dev/shm", "georep")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		slavetest.Run(t, opener(base))
	})
}

// TestContractAsNobody runs the suite again as an ordinary user.
func TestContractAsNobody(t *testing.T) {
	if base := os.Getenv(nobodyDir); base != "" {
		slavetest.Run(t, opener(base))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("TestContract ran as an ordinary user already")
	}
	asNobody(t, nil)
}

// asNobody runs a test again as an ordinary user, in a directory of his; where between is set twice, with that in between.
func asNobody(t *testing.T, between func(dir string)) {
	t.Helper()
	// t.TempDir lies below directories that others may not enter.
	base, err := os.MkdirTemp("", "georep")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(base, "disk.test")
	mine := filepath.Join(base, "mine")
	for _, err := range []error{
		os.Chmod(base, 0o755), os.WriteFile(program, self, 0o755), os.Mkdir(mine, 0o700), os.Chown(mine, 65534, 65534),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func() {
		cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
		cmd.Dir, cmd.Env = mine, append(os.Environ(), nobodyDir+"="+mine, "TMPDIR="+mine)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	run()
	if between != nil {
		between(mine)
		run()
	}
}

// TestFinishOfAnothersDirectory: a directory that became another user's cannot be finished, which is no reason to stand still.
func TestFinishOfAnothersDirectory(t *testing.T) {
	if root := os.Getenv(nobodyDir); root != "" {
		tree, err := Open(testOptions(t, root))
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if _, err := os.Lstat(filepath.Join(root, "d")); errors.Is(err, fs.ErrNotExist) {
			return // the first time: the slave is made
		}
		results, err := tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{slavetest.Finish("d", slavetest.Rec(1, 2), 1)}})
		if err != nil || !errors.Is(results[0].Err, fs.ErrPermission) {
			t.Errorf("%+v, %v", results, err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another user")
	}
	asNobody(t, func(dir string) {
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

func TestContractInspector(t *testing.T) {
	slavetest.RunInspector(t, opener(t.TempDir()), func(t *testing.T, root string) slave.Reader {
		inspector, err := OpenInspector(testOptions(t, root))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { inspector.Close() })
		return inspector
	})
}

// TestInspectorOfNobody: what is not this master's copy cannot be examined, and nothing is made of it.
func TestInspectorOfNobody(t *testing.T) {
	root := t.TempDir()
	if _, err := OpenInspector(testOptions(t, root)); !errors.Is(err, slave.ErrUnfit) {
		t.Errorf("an empty directory: %v", err)
	}
	if list, _ := os.ReadDir(root); len(list) > 0 {
		t.Errorf("%v was made", list)
	}
	tree, err := Open(testOptions(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	other := testOptions(t, root)
	other.Master, other.Force = xtime.UUID{9}, true
	if _, err := OpenInspector(other); !errors.Is(err, slave.ErrForeign) {
		t.Errorf("another master's: %v", err)
	}
	other = testOptions(t, root+"/none")
	if _, err := OpenInspector(other); !errors.Is(err, slave.ErrNoVolume) {
		t.Errorf("none: %v", err)
	}
}
