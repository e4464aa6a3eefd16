package status

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const pidVar = "STATUS_TEST_PID"

// TestMain makes the test binary, run again with a path, a process that holds that pid file until its input ends.
func TestMain(m *testing.M) {
	path := os.Getenv(pidVar)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := AcquirePid(path); err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("held\n")
	bufio.NewReader(os.Stdin).ReadByte()
}

func TestPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	if pid, ok := Running(path); ok || pid != 0 {
		t.Errorf("nothing there: %d, %v", pid, ok)
	}
	if err := os.WriteFile(path, []byte("1234567890\nrest"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, ok := Running(path); ok || pid != 0 {
		t.Errorf("left behind: %d, %v", pid, ok)
	}
	p, err := AcquirePid(path)
	if err != nil {
		t.Fatal(err)
	}
	if pid, ok := Running(path); !ok || pid != os.Getpid() {
		t.Errorf("held: %d, %v", pid, ok)
	}
	_, err = AcquirePid(path)
	var running *RunningError
	if !errors.Is(err, ErrRunning) || !errors.As(err, &running) || running.Pid != os.Getpid() {
		t.Errorf("the second: %v", err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if pid, ok := Running(path); ok {
		t.Errorf("given up: %d", pid)
	}
	if _, err := AcquirePid(filepath.Join(t.TempDir(), "missing", "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestPidFileEndsWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pidVar+"="+path, "GORACE=atexit_sleep_ms=0")
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if pid, ok := Running(path); !ok || pid != cmd.Process.Pid {
		t.Errorf("running: %d, %v; want %d", pid, ok, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if pid, ok := Running(path); ok {
		t.Errorf("killed: %d is taken for running", pid)
	}
	p, err := AcquirePid(path)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

func TestAcquireAmongReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if pid, ok := Running(path); ok && pid != 0 && pid != os.Getpid() {
					t.Errorf("running: %d", pid)
				}
			}
		}
	})
	for range 200 {
		p, err := AcquirePid(path)
		if err != nil {
			t.Error(err)
			break
		}
		p.Close()
	}
	close(stop)
	wg.Wait()
}
