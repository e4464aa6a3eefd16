package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// child, in the environment, makes this test's binary the process that is confined.
const child = "GEOREP_CONFINED"

// TestProcess confines a process of its own, which then tries what it must still be able to do, and what it must not.
func TestProcess(t *testing.T) {
	if os.Getenv(child) != "" {
		confined(t)
		return
	}
	dir, other := t.TempDir(), t.TempDir()
	for _, name := range []string{dir + "/f", other + "/f"} {
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other+"/zone", []byte(zone), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcess$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1", "TMPDIR="+dir)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "OTHER="+other, "TZ="+other+"/zone")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// zone is a file of a time zone, named HERE: an hour east, always. See tzfile(5).
const zone = "TZif\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x01" + "\x00\x00\x00\x05" +
	"\x00\x00\x0e\x10\x00\x00" + "HERE\x00"

// confined is what the child does.
func confined(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	other := os.Getenv("OTHER")
	r := Process(Needs{Write: []string{dir}, Read: []string{dir + "/missing"}, Caps: []cap.Value{cap.CHOWN, cap.DAC_OVERRIDE}})
	if want := []string{NoNewPrivs, Capabilities, Landlock, Seccomp}; !slices.Equal(r.Holds, want) || len(r.Lacks) > 0 {
		t.Fatalf("it holds %q, lacks %q", r.Holds, r.Lacks)
	}
	for what, do := range map[string]func() error{
		"write": func() error { return os.WriteFile("g", []byte("y"), 0o600) },
		"move": func() error { // in no order with the others
			return errors.Join(os.WriteFile("m", nil, 0o600), os.Rename("m", "a/b/m"), os.Link("a/b/m", "a/h"))
		},
		"chown":      func() error { return os.Chown("f", 1, 1) },
		"proc":       func() error { _, err := os.ReadFile("/proc/self/mountinfo"); return err },
		"xattr":      func() error { return unix.Lsetxattr("f", "user.x", []byte("1"), 0) },
		"temporary":  func() error { f, err := os.CreateTemp(dir, ""); return errors.Join(err, f.Close()) },
		"truncation": func() error { return os.Truncate("f", 0) },
		"threads":    manyThreads,
	} {
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, do := range map[string]func() error{
		"read elsewhere":  func() error { _, err := os.ReadFile(filepath.Join(other, "f")); return err },
		"write elsewhere": func() error { return os.WriteFile(filepath.Join(other, "g"), nil, 0o600) },
		"move elsewhere":  func() error { return os.Rename("f", filepath.Join(other, "h")) },
		"passwd":          func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"exec":            func() error { return exec.Command("/bin/true").Run() },
		"socket":          func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err },
		"unix socket":     func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"mount":           func() error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"ptrace":          func() error { return unix.PtraceAttach(os.Getppid()) },
		"mknod":           func() error { return unix.Mknod("dev", unix.S_IFBLK|0o600, 0) },
		"io_uring":        func() error { return errnoOf(unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)) },
		"mount of a tree": func() error { return errnoOf(unix.Syscall(unix.SYS_OPEN_TREE_ATTR, 0, 0, 0)) },
		"shared memory":   func() error { return errnoOf(unix.Syscall(unix.SYS_SHMGET, 0, 4096, 0o600)) },
		"attached memory": func() error { return errnoOf(unix.Syscall(unix.SYS_SHMAT, 0, 0, 0)) },
		"semaphores":      func() error { return errnoOf(unix.Syscall(unix.SYS_SEMGET, 0, 1, 0o600)) },
		"messages":        func() error { return errnoOf(unix.Syscall(unix.SYS_MSGGET, 0, 0o600, 0)) },
		"POSIX messages":  func() error { return errnoOf(unix.Syscall(unix.SYS_MQ_OPEN, 0, 0, 0)) },
		"aio":             func() error { return errnoOf(unix.Syscall(unix.SYS_IO_SETUP, 1, 0, 0)) },
		"ioctl":           func() error { _, err := unix.IoctlGetInt(0, unix.TIOCINQ); return err },
		"signal":          func() error { return unix.Kill(os.Getppid(), 0) },
		"memory file":     func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"inotify":         func() error { _, err := unix.InotifyInit1(0); return err },
		"process":         func() error { return clone(0) },
		"namespace":       func() error { return clone(unix.CLONE_NEWNS) },
		"thread's space":  func() error { return clone(unix.CLONE_THREAD | unix.CLONE_NEWNET) },
	} {
		if err := do(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EXDEV) {
			t.Errorf("%s: %v, want EPERM", what, err)
		}
	}
	for what, nr := range map[string]uintptr{"clone3": unix.SYS_CLONE3, "a call that nobody knows yet": 4000} {
		if err := errnoOf(unix.Syscall(nr, 0, 0, 0)); err != unix.ENOSYS {
			t.Errorf("%s: %v, want ENOSYS", what, err)
		}
	}
	if name, east := time.Now().Zone(); name != "HERE" || east != 3600 {
		t.Errorf("the local time zone is %s, %d", name, east)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") || !strings.Contains(string(status), "Seccomp:\t2") {
		t.Errorf("%v, %s", err, status)
	}
}

// clone asks for what the kernel itself refuses: shared signal handlers without shared memory.
func clone(flags uintptr) error {
	return errnoOf(unix.RawSyscall6(unix.SYS_CLONE, flags|unix.CLONE_SIGHAND, 0, 0, 0, 0, 0))
}

func errnoOf(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// manyThreads has threads made anew, each of which is confined as well.
func manyThreads() error {
	errs := make(chan error)
	for range 20 {
		go func() {
			_, err := os.ReadFile("/etc/passwd")
			if !errors.Is(err, unix.EACCES) {
				errs <- fmt.Errorf("a thread of its own read it: %w", err)
				return
			}
			errs <- nil
		}()
	}
	var all []error
	for range 20 {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func TestFilter(t *testing.T) {
	whole, err := filter(nil)
	if err != nil {
		t.Fatal(err)
	}
	less, err := filter([]string{"socket", "execve"})
	if err != nil || len(less) >= len(whole) {
		t.Fatalf("%d instructions with all forbidden, %d without two, %v", len(whole), len(less), err)
	}
}
