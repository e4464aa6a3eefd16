package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
	"georep/status"
)

// TestPromoteOverSSH: the slave's host takes a slave from a master that is connected and writes. From then on nothing of the master's
// arrives, and it says why; given back, the slave follows it again.
func TestPromoteOverSSH(t *testing.T) {
	for _, kind := range []string{"agent", "sftp"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			var s *session
			more := []string{"--retry-max", "1s"}
			if kind == "agent" {
				s = newSession(t, master, slave)
				s.shell("mkdir d; echo before > d/f")
				s.must(s.start(more...))
			} else {
				s = sftpSession(t, master, slave, sftpServers()["OpenSSH"])
				s.far = t.TempDir() // georep is there, though the master does not use it
				s.shell("mkdir d; echo before > d/f")
				s.must(s.run(append(append([]string{"start", s.masterArg, s.spec}, s.sftpFlags()...), more...)...))
			}
			s.inStep()
			if r := s.farRun("promote", slave, "--yes"); r.code == 0 || !strings.Contains(r.stderr, "--force") {
				t.Fatalf("while a master is connected: %+v", r)
			}
			s.shell("echo more >> d/f; for i in 1 2 3 4 5; do echo $i > d/$i; done")
			s.must(s.farRun("promote", slave, "--yes", "--force"))
			if r := s.farRun("status", "--incoming"); kind == "agent" && !strings.Contains(r.stdout, "promoted") {
				t.Errorf("who replicates into the slave's host: %+v", r)
			}
			mine := filepath.Join(slave, "d", "mine")
			if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.shell("rm d/1; echo after > d/after; echo after >> d/f")
			s.waitStatus("refused", func(st status.Status) bool {
				return st.State == status.Faulty && strings.Contains(st.Reason, "promoted at")
			})
			if _, err := os.Stat(filepath.Join(slave, "d", "after")); err == nil {
				t.Error("what the master wrote after the promotion is on the slave")
			}
			if text, err := os.ReadFile(mine); err != nil || string(text) != "mine" {
				t.Errorf("what was written on the promoted side: %q, %v", text, err)
			}
			if r := s.run("doctor", s.masterArg, s.spec); r.code == 0 || !strings.Contains(r.stdout, "was promoted at") {
				t.Errorf("the doctor: %+v", r)
			}
			s.must(s.farRun("demote", slave, "--yes"))
			s.waitStatus("followed again", func(st status.Status) bool { return st.State == status.Active })
			s.inStep()
			if _, err := os.Stat(mine); err == nil {
				t.Error("what the promoted side had is there after it was given back")
			}
			if got, err := os.ReadFile(filepath.Join(slave, "d", "f")); err != nil || !strings.HasSuffix(string(got), "after\n") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
