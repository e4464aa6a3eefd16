package integration

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/status"
)

// TestComesBackChanged: a directory leaves the master, is changed elsewhere and comes back while the slave hears nothing, so
// that it never knew that it was away. Each source of events has to see to it that a crawl looks at all of it.
func TestComesBackChanged(t *testing.T) {
	for _, source := range []string{"fanotify", "inotify"} {
		t.Run(source, func(t *testing.T) {
			top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
			master, slave := twoSides(t, top)
			s := newSession(t, master, slave)
			sh := func(script string) {
				t.Helper()
				cmd := exec.Command("sh", "-ec", script)
				cmd.Dir = top
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", script, err, out)
				}
			}
			sh("mkdir -p master/d/e master/x; echo one > master/d/f; echo one > master/d/e/f; echo one > master/x/f")
			s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
			s.must(s.run("config", s.masterArg, s.spec, "marker-source", source))
			s.must(s.start("--hints", "off"))
			s.waitSynced()
			sh("for f in $(find master -name f); do echo two > $f; done") // of what has no mark the ctime decides
			s.waitSynced()
			worker := s.status().WorkerPid
			if !isGeorep(worker) {
				t.Fatalf("%d is no worker", worker)
			}
			if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			sh("mv master/d away; echo changed > away/f; echo changed > away/e/f")
			pause(t, 500*time.Millisecond) // inotify does not watch it any more
			sh("mv away master/d; mv master/d/e master/x/e")
			if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.waitStatus("another worker", func(st status.Status) bool { return st.WorkerPid > 0 && st.WorkerPid != worker })
			s.waitSynced() // and equal
		})
	}
}
