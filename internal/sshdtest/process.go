package sshdtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// runOnThread starts cmd, says on started how that went, and waits for it, all on one thread.
func runOnThread(p *process, cmd *exec.Cmd, log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err := cmd.Start()
	_ = log.Close()
	if err != nil {
		started <- fmt.Errorf("run %s: %w", cmd.Path, err)
		return
	}
	p.pid = cmd.Process.Pid
	started <- nil
	// How it ended does not matter: Stop kills it.
	_ = cmd.Wait()
}

// kill ends one process for good; waiting for it is its parent's.
func kill(pid int) {
	// Gone already is as good.
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// isSSHD tells by the program that a process runs; newer versions have one for sessions.
func isSSHD(pid int) bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return err == nil && strings.HasPrefix(filepath.Base(exe), "sshd")
}

// descendants lists the processes below root, parents first.
func descendants(root int) []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		if pid, parent, ok := readParent(stat); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	found := append([]int(nil), children[root]...)
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// readParent reads the parent's id after the command name, which may itself hold spaces and brackets.
func readParent(stat string) (pid, parent int, ok bool) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0, 0, false
	}
	text := string(b)
	end := strings.LastIndexByte(text, ')')
	if _, err := fmt.Sscanf(text, "%d", &pid); err != nil || end < 0 {
		return 0, 0, false
	}
	var state string
	_, err = fmt.Sscanf(text[end+1:], "%s %d", &state, &parent)
	return pid, parent, err == nil
}
