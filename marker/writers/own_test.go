package writers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holding is a shell that holds a file open for writing, and runs what it is told.
type holding struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	said *bufio.Scanner
	path string
}

func hold(t *testing.T, user int) *holding {
	t.Helper()
	h := &holding{t: t, path: filepath.Join(t.TempDir(), "written"), cmd: exec.Command("sh", "-c", "exec 7>&1 1>&2; exec sh")}
	file, err := os.Create(h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The shell reads its orders from a pipe, answers on its error output, and has the file as descriptor 7.
	h.cmd.Stdout = file
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = h.cmd.Wait() })
	h.in, h.said = in, bufio.NewScanner(out)
	h.tell(":")
	return h
}

// tell has the shell run a command, and waits until it has.
func (h *holding) tell(command string) {
	h.t.Helper()
	fmt.Fprintln(h.in, command, "; echo done")
	if !h.said.Scan() || h.said.Text() != "done" {
		h.t.Fatalf("the shell said %q, %v", h.said.Text(), h.said.Err())
	}
}

// become has the shell turn into another one. A shell may read more of its orders than the next one, so nothing is told until the new
// one is there.
func (h *holding) become(shell string) {
	h.t.Helper()
	runs := func() program {
		p, err := programOf(h.cmd.Process.Pid)
		if err != nil {
			h.t.Fatal(err)
		}
		return p
	}
	was := runs()
	fmt.Fprintln(h.in, "exec", shell)
	for end := time.Now().Add(time.Minute); runs() == was; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("the shell did not become %s", shell)
		}
	}
	h.tell(":")
}

// finder looks for the holders of that file's file system, as the program that the shell runs.
func (h *holding) finder() *Finder {
	h.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(h.path, &st); err != nil {
		h.t.Fatal(err)
	}
	f := New(Volume{Dev: st.Dev, Super: st.Dev})
	var err error
	if f.program, err = programOf(h.cmd.Process.Pid); err != nil {
		h.t.Fatal(err)
	}
	return f
}

// check fails unless a look finds the file, or does not.
func (h *holding) check(f *Finder, told, want bool, when string) {
	h.t.Helper()
	files, _, err := f.Look(told)
	if err != nil {
		h.t.Fatal(err)
	}
	found := false
	for _, one := range files {
		path, err := os.Readlink(one.Link)
		found = found || err == nil && path == h.path
	}
	if found != want {
		h.t.Errorf("%s: the file was found: %v, want %v", when, found, want)
	}
	if passed := f.known[h.cmd.Process.Pid].passed; passed == want {
		h.t.Errorf("%s: the process was passed over: %v, want %v", when, passed, !want)
	}
}

// TestOwnProcesses: a process of georep is not looked into, however often it runs, while events tell of its writes. It is as
// soon as they do not, and as soon as it has become another program.
func TestOwnProcesses(t *testing.T) {
	h := hold(t, os.Geteuid())
	f := h.finder()
	for range 3 {
		h.check(f, true, false, "events tell")
		h.tell(":")
	}
	h.check(f, true, false, "events tell, the last time")
	h.check(f, false, true, "no event tells, and it did not run since")
	h.check(f, false, true, "no event tells")
	h.tell(":")
	h.check(f, false, true, "no event tells, and it ran since")
	h.tell(":")
	h.check(f, true, false, "events tell again")
	h.become("bash")
	h.check(f, true, true, "it runs another program")
	h.become("sh")
	h.check(f, true, false, "it runs the program again")
}

// TestOwnProgramOfAnotherUser: what runs georep's program for another user may do what georep never does.
func TestOwnProgramOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run a process for another user")
	}
	h := hold(t, 65534)
	f := h.finder()
	h.check(f, true, true, "the program, for another user")
	h.tell(":")
	h.check(f, true, true, "the same, when it ran since")
}
