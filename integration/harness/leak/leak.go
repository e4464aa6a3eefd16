// Package leak fails tests that leave something behind: goroutines, descriptors, processes. It counts, and changes
// nothing.
package leak

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience bounds the wait for what is on its way out.
const patience = time.Minute

// Check fails t when, at its end, this process has more goroutines of our own or more descriptors than now. It is to be
// called before anything that registers a cleanup, and in a test that runs beside no other.
func Check(t testing.TB) {
	t.Helper()
	goroutines, files := len(ours()), len(descriptors())
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); ; {
			left, open := ours(), descriptors()
			if len(left) <= goroutines && len(open) <= files {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines at the end, %d at the beginning; %d descriptors, %d at the beginning\n%s\n%s", len(left),
					goroutines, len(open), files, strings.Join(left, "\n\n"), strings.Join(open, "\n"))
				return
			}
			<-time.After(5 * time.Millisecond)
		}
	})
}

// ours are the stacks of goroutines that run code of this project, but for tests.
func ours() (stacks []string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "georep/") && !strings.Contains(stack, "testing.tRunner") && !strings.Contains(stack, "testing.(*M)") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// descriptors are what this process has open, but for what the runtime keeps for itself.
func descriptors() (open []string) {
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") && !strings.HasPrefix(to, "/proc/") {
			open = append(open, e.Name()+" "+to)
		}
	}
	return open
}

// Processes are the living processes that run the program at path with variable=value in their environment.
func Processes(path, variable, value string) (pids []int) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range list {
		exe, err := os.Readlink(proc + "/exe")
		if err != nil || exe != path {
			continue
		}
		env, _ := os.ReadFile(proc + "/environ")
		if !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"="+value+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
