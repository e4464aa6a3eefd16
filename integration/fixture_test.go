// Package integration has the tests that run the real thing: the georep binary, a real sshd, real file systems, and rsync
// as the judge. It has no code of its own; the parts are in harness.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/compare"
	"georep/integration/harness/leak"
	"georep/integration/harness/program"
	"georep/integration/harness/tree"
	"georep/internal/sshdtest"
	"georep/status"
	"georep/volume"
)

// binary is the georep under test; race-built when the tests are.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(sftpVariable) != "" {
		os.Exit(serveSFTP())
	}
	code, err := withBinary(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// binaryVariable hands the binary on to a test that runs again as an ordinary user.
const binaryVariable = "GEOREP_TEST_BINARY"

func withBinary(m *testing.M) (int, error) {
	if binary = os.Getenv(binaryVariable); binary != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "georep-integration-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	binary = filepath.Join(dir, "georep")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/georep")...)
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build georep: %w\n%s", err, out)
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// raceOptions have the race detector report to files, and not hold up the end of each program for a second.
func raceOptions(path string) string { return "log_path=" + path + " atexit_sleep_ms=20" }

// patience bounds every wait for something that must happen. It is no measure of anything.
const patience = 5 * time.Minute

// everywhere are the file systems that a test runs on: the first of them, or all where GEOREP_EVERYWHERE is set, which
// takes longer than CI has time for.
func everywhere(kinds ...string) []string {
	if os.Getenv("GEOREP_EVERYWHERE") != "" {
		return kinds
	}
	return kinds[:1]
}

// session is a master and a slave, each with a state directory of its own as on two hosts, and a real sshd between.
type session struct {
	t             testing.TB
	master, slave string
	state, far    string // state directories of the two hosts
	program       string // of the master's host, where it is not binary
	sshd          *sshdtest.Server
	spec          string // the SLAVE argument
	port          int    // where the master connects; the sshd's, or a proxy's
	races         string // where race reports of the processes go
	extra         []string
	masterArg     string
	patience      time.Duration
}

// newSession prepares a session between two empty directories. Nothing is started.
func newSession(t testing.TB, master, slave string, more ...sshdtest.Option) *session {
	t.Helper()
	return newSessionIn(t, t.TempDir(), master, slave, more...)
}

// newSessionIn is newSession with a given state directory of the master's host.
func newSessionIn(t testing.TB, state, master, slave string, more ...sshdtest.Option) *session {
	t.Helper()
	s := &session{t: t, master: master, slave: slave, state: state, far: t.TempDir(), races: t.TempDir(),
		masterArg: "data"}
	s.sshd = sshdtest.Start(t, append(more, sshdtest.Env("GEOREP_STATE_DIR", s.far),
		sshdtest.Env("GORACE", raceOptions(filepath.Join(s.races, "agent"))))...)
	s.port = s.sshd.Port
	s.spec = s.sshd.Host + "::copy"
	s.must(s.farRun("volume", "create", "copy", slave))
	s.must(s.run("volume", "create", "data", master))
	t.Cleanup(s.end)
	return s
}

// end stops the session and checks that nothing is left and nothing raced.
func (s *session) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.command(ctx, "stop", s.masterArg, s.spec).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not running") && !strings.Contains(string(out), "no such session") {
		s.t.Errorf("stop: %v\n%s", err, out)
	}
	if s.t.Failed() {
		s.dump()
	}
	s.noneLeft()
	reports, _ := filepath.Glob(filepath.Join(s.races, "*"))
	for _, r := range reports {
		text, _ := os.ReadFile(r)
		s.t.Errorf("a data race:\n%s", text)
	}
}

// noneLeft waits until every process of the session has ended, on both hosts.
func (s *session) noneLeft() {
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		left := leak.Processes(binary, "GEOREP_STATE_DIR", s.state)
		if s.far != "" {
			left = append(left, leak.Processes(binary, "GEOREP_STATE_DIR", s.far)...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("processes left: %v", left)
			return
		}
	}
}

// dump shows what the processes said.
func (s *session) dump() {
	logs, _ := filepath.Glob(filepath.Join(s.state, "sessions", "*", "log"))
	more, _ := filepath.Glob(filepath.Join(s.state, "volumes", "*.d", "marker.*"))
	for _, path := range append(logs, more...) {
		text, _ := os.ReadFile(path)
		if keep := number(s.t, "GEOREP_LOG_BYTES", 8<<10); len(text) > keep {
			text = text[len(text)-keep:]
		}
		s.t.Logf("%s:\n%s", filepath.Base(path), text)
	}
}

// command is georep on the master's host.
func (s *session) command(ctx context.Context, args ...string) *exec.Cmd {
	program := binary
	if s.program != "" {
		program = s.program
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "GEOREP_STATE_DIR="+s.state, "GORACE="+raceOptions(filepath.Join(s.races, "master")),
		"GEOREP_SSH_CONFIG=none", "SSH_AUTH_SOCK=")
	return cmd
}

// result is what a command said and how it ended.
type result struct {
	code           int
	stdout, stderr string
}

func (s *session) run(args ...string) result { return s.finish(s.command(s.t.Context(), args...)) }

// farRun is georep on the slave's host.
func (s *session) farRun(args ...string) result {
	cmd := s.command(s.t.Context(), args...)
	cmd.Env = append(cmd.Env, "GEOREP_STATE_DIR="+s.far)
	return s.finish(cmd)
}

func (s *session) finish(cmd *exec.Cmd) result {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", cmd, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (s *session) must(r result) result {
	s.t.Helper()
	if r.code != 0 {
		s.t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	return r
}

// jobsVar runs the tests with another number of streams.
const jobsVar = "GEOREP_SYNC_JOBS"

// flags are how the master reaches the sshd.
func (s *session) flags() []string {
	flags := append([]string{"--ssh-port", strconv.Itoa(s.port), "--identity", s.sshd.IdentityFile, "--known-hosts",
		s.sshd.KnownHostsFile, "--remote-georep", binary}, s.extra...)
	if jobs := os.Getenv(jobsVar); jobs != "" {
		flags = append(flags, "--sync-jobs", jobs)
	}
	return flags
}

func (s *session) sync(more ...string) result {
	return s.run(append(append([]string{"sync", s.masterArg, s.spec}, s.flags()...), more...)...)
}

func (s *session) start(more ...string) result {
	return s.run(append(append([]string{"start", s.masterArg, s.spec}, s.flags()...), more...)...)
}

// status is what `georep status --json` says of the session.
func (s *session) status() status.Status {
	s.t.Helper()
	var list []status.Status
	r := s.must(s.run("status", s.masterArg, s.spec, "--json"))
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 {
		s.t.Fatalf("status --json: %v\n%s", err, r.stdout)
	}
	return list[0]
}

// glance is status without a process of its own, for what asks again and again.
func (s *session) glance() status.Status {
	s.t.Helper()
	to, err := volume.ParseSlave(s.spec)
	if err != nil {
		s.t.Fatal(err)
	}
	list, err := program.Statuses(s.state)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, st := range list {
		if st.Slave == to.String() {
			return st
		}
	}
	return status.Status{}
}

// waitStatus waits for a status. The program has the last word.
func (s *session) waitStatus(what string, ok func(status.Status) bool) status.Status {
	s.t.Helper()
	deadline := time.Now().Add(max(s.patience, patience))
	for {
		st := s.glance()
		if ok(st) {
			if st = s.status(); ok(st) {
				return st
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: the status stays %+v", what, st)
		}
		pause(s.t, 20*time.Millisecond)
	}
}

func pause(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// waitSynced waits until the status says that the slave has everything that the master has now, and judges.
func (s *session) waitSynced() {
	s.t.Helper()
	s.inStep()
	s.equal()
}

// inStep is waitSynced without a judge.
func (s *session) inStep() {
	s.t.Helper()
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
}

// equal asks both judges.
func (s *session) equal() {
	s.t.Helper()
	opts := compare.Replica()
	opts.Holes = false
	found, err := compare.Trees(s.master, s.slave, opts)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(found) > 0 {
		s.evidence(found)
		s.t.Fatalf("%d differences:\n%s", len(found), compare.List(found))
	}
	if lines := compare.Rsync(s.t, s.master, s.slave, tree.LongTop); len(lines) > 0 {
		s.t.Fatalf("rsync would change:\n%s", strings.Join(lines, "\n"))
	}
}
