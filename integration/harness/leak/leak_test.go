package leak

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestSeesWhatIsLeft counts a descriptor, and a goroutine of this project.
func TestSeesWhatIsLeft(t *testing.T) {
	Check(t)
	files, stacks := len(descriptors()), len(ours())
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	go wait(end)
	for deadline := time.Now().Add(patience); len(ours()) != stacks+1; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, want one more than %d", len(ours()), stacks)
		}
	}
	if n := len(descriptors()); n != files+1 {
		t.Errorf("%d descriptors, want one more than %d", n, files)
	}
	close(end)
	f.Close()
}

func wait(end chan struct{}) { <-end }

func TestProcesses(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(os.Environ(), "GEOREP_LEAK_TEST=here")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exe := ""
	for deadline := time.Now().Add(patience); exe == "" || exe == os.Args[0]; {
		exe, _ = os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/exe")
		if time.Now().After(deadline) {
			t.Fatal("no sleep")
		}
	}
	if pids := Processes(exe, "GEOREP_LEAK_TEST", "here"); !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("%v, want %d", pids, cmd.Process.Pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if pids := Processes(exe, "GEOREP_LEAK_TEST", "here"); len(pids) > 0 {
		t.Errorf("%v live", pids)
	}
}
