package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/mutate"
	"georep/integration/harness/proxy"
	"georep/status"
)

// server is a georep serve on the slave's host of a session.
type server struct {
	s    *session
	addr string
	cmd  *exec.Cmd
}

// begin starts it, and returns when it listens. It may be called again after it has ended.
func (v *server) begin() {
	v.s.t.Helper()
	v.cmd = v.s.command(context.Background(), "--state-dir", v.s.far, "serve", "--listen", v.addr)
	if err := v.cmd.Start(); err != nil {
		v.s.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; pause(v.s.t, 10*time.Millisecond) {
		conn, err := net.Dial("tcp", v.addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			v.s.t.Fatalf("georep serve does not listen: %v", err)
		}
	}
}

// end ends it by a signal, and waits for it.
func (v *server) end(signal syscall.Signal) {
	v.s.t.Helper()
	if err := v.cmd.Process.Signal(signal); err != nil {
		v.s.t.Fatal(err)
	}
	if err := v.cmd.Wait(); err != nil && signal != syscall.SIGKILL {
		v.s.t.Errorf("georep serve: %v", err)
	}
}

// agents are the processes that it has started.
func (v *server) agents() (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", v.cmd.Process.Pid))
	for _, path := range lists {
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// freeAddr is a loopback address that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestServeUnderTrouble does random operations while the line is cut, and while agents, the server and the worker are killed. The
// slave must become equal. A failing seed replays with GEOREP_SEED.
func TestServeUnderTrouble(t *testing.T) {
	seed, operations := uint64(number(t, "GEOREP_SEED", 1)), number(t, "GEOREP_OPERATIONS", 1050)
	master, slave := t.TempDir(), t.TempDir()
	s := &session{t: t, master: master, slave: slave, state: t.TempDir(), far: t.TempDir(), races: t.TempDir(), masterArg: "data"}
	t.Cleanup(s.end)
	v := &server{s: s, addr: freeAddr(t)}
	s.must(s.farRun("volume", "create", "copy", slave))
	s.must(s.run("volume", "create", "data", master))
	line, err := proxy.New(v.addr, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	s.spec = "georep://" + line.Addr() + "/copy"
	print := strings.TrimSpace(s.must(s.farRun("serve", "--fingerprint")).stdout)
	key := s.must(s.run("authorize", "--print", "--host-key", print, "data", s.spec)).stdout
	s.must(s.farRun("serve", "--authorize", key))
	v.begin()
	t.Cleanup(func() { v.end(syscall.SIGTERM) })
	s.must(s.run("start", "data", s.spec))
	for _, option := range [][]string{{"max-delete", "100"}, {"retry-max", "1s"}, {"log-level", logLevel()}} {
		s.must(s.run(append([]string{"config", "data", s.spec}, option...)...))
	}
	m, err := mutate.New(master, seed, mutate.Options{Profile: profileOf(int(seed), "default", "links", "renames", "exchange")})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 20))
	kill := func(pids []int) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
	trouble := []func(){
		line.Cut,
		func() { line.CutAfter(rnd.Int64N(200_000)) },
		func() { kill(v.agents()) },
		func() { v.end(syscall.SIGKILL); v.begin() },
		func() { v.end(syscall.SIGTERM); v.begin() },
		func() {
			kill([]int{s.waitStatus("worker", func(st status.Status) bool { return st.WorkerPid != 0 }).WorkerPid})
		},
		func() { _ = v.cmd.Process.Signal(syscall.SIGHUP) }, // which cuts nobody
	}
	for i := range trouble {
		if err := m.Run(t.Context(), operations/len(trouble), 0); err != nil {
			t.Fatalf("%v\n%s", err, m)
		}
		s.waitStatus("active", func(st status.Status) bool { return st.State == status.Active })
		trouble[i]()
	}
	s.converge(m)
}
