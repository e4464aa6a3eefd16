package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/tree"
	"georep/status"
)

// appends writes to a file every few milliseconds until the returned function is called, which tells how often it did.
func appends(t *testing.T, path string) (stop func() int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		defer f.Close()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-end:
				ended <- n
				return
			case <-tick.C:
				fmt.Fprintln(f, "one more line of a log", n)
			}
		}
	}()
	return func() int { close(end); return <-ended }
}

// TestHotFile: a log that is written all the time is shipped now and then, is named in the status, and holds nothing back:
// neither what changes beside it, nor the stamps for long; and no directory is listed for it.
func TestHotFile(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	if err := tree.Many(master, 6000, 3000, 10); err != nil {
		t.Fatal(err)
	}
	s.must(s.sync())
	s.must(s.start("--settle", "200ms", "--max-delay", "1s"))
	s.waitStatus("idle", func(st status.Status) bool { return st.State == status.Active && st.Crawl == status.ChangelogCrawl })
	begun := time.Now()
	stop := appends(t, filepath.Join(master, "d000000", "log"))
	s.waitStatus("the log is named", func(st status.Status) bool {
		return len(st.Waiting) == 1 && st.Waiting[0].Path == "d000000/log" && st.LagSeconds > 0 && st.Pending.Files > 0
	})
	for i := range 20 {
		for _, name := range []string{"d000000/new", "d000001/new"} {
			content := fmt.Sprint("new", i)
			if err := os.WriteFile(filepath.Join(master, name+content), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(patience); ; pause(t, time.Millisecond) {
				if got, err := os.ReadFile(filepath.Join(slave, name+content)); err == nil && string(got) == content {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s never came", name+content)
				}
			}
		}
	}
	// The log is never quiet, and yet what the slave has for sure goes on.
	now := time.Now()
	s.waitStatus("stamped meanwhile", func(st status.Status) bool { return st.LastSynced.After(now) })
	took := time.Since(begun)
	writes := stop()
	s.waitSynced()
	s.waitStatus("in step", func(st status.Status) bool { return st.LagSeconds == 0 && len(st.Waiting) == 0 })
	s.must(s.run("stop", s.masterArg, s.spec))
	files, visited := s.lastLogged("the worker ends", "files").(int), s.lastLogged("the worker ends", "visited").(int)
	if most := 40 + 5 + int(took/time.Second); files > most {
		t.Errorf("%d files were shipped for 40 new ones and %d writes to a log in %v, want at most %d", files, writes, took, most)
	}
	if visited > 8 {
		t.Errorf("%d directories were listed", visited)
	}
	left, err := os.ReadFile(filepath.Join(slave, "d000000", "log"))
	if err != nil || strings.Count(string(left), "\n") != writes {
		t.Errorf("%d lines of %d, %v", strings.Count(string(left), "\n"), writes, err)
	}
}
