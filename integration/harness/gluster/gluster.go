// Package gluster runs a real GlusterFS for a test: a glusterd with a state of its own, volumes on loopback, and mounts. It owns every
// process and mount that it starts, and takes them away when the test ends. It touches no glusterd of the machine.
package gluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is the name of this machine for its bricks, which must have one: integration/setup.sh gives it the loopback address.
const Host = "georep-gluster"

// patience bounds each wait for something that must happen.
const patience = time.Minute

// Cluster is a running glusterd. It is for one test at a time.
type Cluster struct {
	t   testing.TB
	dir string
}

// Start starts a glusterd, and waits for another test's to end: a machine has one, since its port is fixed. A machine without GlusterFS
// skips the test.
func Start(t testing.TB) *Cluster {
	t.Helper()
	if _, err := exec.LookPath("glusterd"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and GlusterFS: run integration/setup.sh")
	}
	alone(t)
	// What daemons leave behind becomes this process's child, for end to wait for: not every machine's init does.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	// Sockets of glusterd lie in it, and their paths are short.
	dir, err := os.MkdirTemp("/tmp", "georep-gluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{t: t, dir: dir}
	for _, name := range []string{"work", "run"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(c.at("glusterd.vol"), []byte(c.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	run(t, "glusterd", "-f", c.at("glusterd.vol"), "-p", c.at("run/glusterd.pid"), "-l", c.at("glusterd.log"))
	within(t, "glusterd answers", func() bool { return c.command("pool", "list").Run() == nil })
	return c
}

// alone holds the machine's lock until the test ends. It is in one place, whatever directory for temporary files a run has.
func alone(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/tmp/georep-gluster.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) at(name string) string { return filepath.Join(c.dir, name) }

// config binds glusterd, and by it its bricks, to the loopback address.
func (c *Cluster) config() string {
	return fmt.Sprintf(`volume management
    type mgmt/glusterd
    option working-directory %s
    option run-directory %s
    option glusterd-sockfile %s
    option transport-type socket
    option transport.socket.bind-address 127.0.0.1
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option max-port 60999
end-volume
`, c.at("work"), c.at("run"), c.at("run/glusterd.sock"))
}

// command is one of gluster's command line, with its answers given.
func (c *Cluster) command(args ...string) *exec.Cmd {
	return exec.Command("gluster", append([]string{"--mode=script", "--glusterd-sock=" + c.at("run/glusterd.sock")}, args...)...)
}

// Run runs a command of gluster's and returns what it says. A failure ends the test.
func (c *Cluster) Run(args ...string) string {
	c.t.Helper()
	out, err := c.command(args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("gluster %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// stop ends glusterd first, which would start others again, and then whatever it has started.
func (c *Cluster) stop() {
	end(c.t, c.at("run/glusterd.pid"), "glusterd", unix.SIGTERM)
	err := filepath.WalkDir(c.at("run"), func(path string, _ os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && strings.HasSuffix(path, ".pid") {
			end(c.t, path, "glusterfs", unix.SIGTERM)
		}
		return err
	})
	if err != nil {
		c.t.Errorf("end what glusterd has started: %v", err)
	}
}

// end ends the process of a pid file, if it is one of these still, and waits for that.
func end(t testing.TB, pidFile, command string, signal unix.Signal) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	pid, perr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || perr != nil || pid <= 1 {
		return
	}
	lives := func() bool { return living(pid, command) }
	if !lives() {
		return
	}
	if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Errorf("end %s (%d): %v", command, pid, err)
		return
	}
	for deadline := time.Now().Add(patience); lives(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s (%d) does not end", command, pid)
			return
		}
	}
}

// living tells whether a process is there and one of these. One that has ended is waited for where it is ours to do: glusterd takes a brick that
// nobody has waited for to be running.
func living(pid int, command string) bool {
	ended, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
	if err == nil && ended == pid {
		return false
	}
	others := err != nil
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !strings.HasPrefix(string(comm), command) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !(others && strings.Contains(string(stat), ") Z "))
}

// run runs a command that must succeed. Its output goes to a file: daemons that it leaves behind would keep a pipe open.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		t.Fatalf("%s: %v: %s", name, err, said)
	}
}

// within waits until something holds that must come to hold.
func within(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
