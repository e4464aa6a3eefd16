package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	// It is quiet for a moment now and then on a busy machine, and goes early then.
	if most := 40 + 5 + 3*int(took/time.Second); files > most {
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

// storm is how many files a storm has: few in CI, 100,000 in make storms.
func storm(t *testing.T) int { return number(t, "GEOREP_STORM", 2000) }

// inodes are mkfs's arguments for a file system of that many more than a few.
func inodes(n int) []string { return []string{"-N", strconv.Itoa(50_000 + n)} }

// TestStorms: a burst, a tree that goes, files that live shortly, an archive that is unpacked, and a checkout between far
// commits end with equal trees, and cost what they have to.
func TestStorms(t *testing.T) {
	n := storm(t)
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: int64(512<<20 + n*32<<10), Mkfs: inodes(10 * n)}))
	s := newSession(t, master, slave)
	if err := os.WriteFile(filepath.Join(master, "stays"), []byte("stays"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.must(s.start("--max-delete", "100"))
	s.waitSynced()
	before := s.status().Synced

	// A burst: the lag is reported while there is one, and is none in the end.
	if err := tree.Many(filepath.Join(mustMkdir(t, master, "burst")), n, 500, 100); err != nil {
		t.Fatal(err)
	}
	worst := s.settled()
	made := s.status().Synced
	t.Logf("burst of %d files: lag up to %.2f s", n, worst)
	if got := made.Files - before.Files; got < int64(n) || got > int64(n+n/5) {
		t.Errorf("%d files were shipped for %d", got, n)
	}

	// A tree that is gone is one purge, whatever was in it.
	s.must(s.run("pause", s.masterArg, s.spec))
	s.waitStatus("paused", func(st status.Status) bool { return st.State == status.Paused })
	if err := os.RemoveAll(filepath.Join(master, "burst")); err != nil {
		t.Fatal(err)
	}
	for i := range n { // and what came and went is nothing
		short := filepath.Join(master, fmt.Sprint("short", i))
		if err := os.WriteFile(short, []byte("short"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(short); err != nil {
			t.Fatal(err)
		}
	}
	s.must(s.run("resume", s.masterArg, s.spec))
	s.settled()
	gone := s.status().Synced
	if purges, files := gone.Purges-made.Purges, gone.Files-made.Files; purges != 1 || files != 0 {
		t.Errorf("%d purges and %d files for a tree that is gone and files that are; want 1 and 0", purges, files)
	}

	// The same while the worker looks on: a file has to live for as long as a mark takes to be seen at all.
	for i := range n {
		short := filepath.Join(master, fmt.Sprint("short", i))
		if err := os.WriteFile(short, []byte("short"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(short); err != nil {
			t.Fatal(err)
		}
	}
	s.settled()
	if files := s.status().Synced.Files - gone.Files; files > int64(n/10) {
		t.Errorf("%d of %d files that lived shortly were shipped", files, n)
	}
}

// settled waits until the slave has everything that there is now, and gives the longest lag that was reported meanwhile.
func (s *session) settled() (worst float64) {
	s.t.Helper()
	now := time.Now()
	s.waitStatus("everything", func(st status.Status) bool {
		worst = max(worst, st.LagSeconds)
		return st.LastSynced.After(now) && st.LagSeconds == 0
	})
	s.equal()
	return worst
}

func mustMkdir(t *testing.T, parts ...string) string {
	t.Helper()
	path := filepath.Join(parts...)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCheckouts unpacks an archive, and goes to and fro between two commits that have little in common.
func TestCheckouts(t *testing.T) {
	n := storm(t) / 4
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: int64(512<<20 + n*32<<10), Mkfs: inodes(10 * n)}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100"))
	s.waitSynced()
	source := t.TempDir()
	if err := tree.Many(source, n, max(n/20, 1), 300); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = master
		cmd.Env = append(os.Environ(), "SOURCE="+source, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	sh(`tar -C "$SOURCE" -cf - . | tar -xf -`)
	t.Logf("tar x of %d files: lag up to %.2f s", n, s.settled())
	sh(`git init -q -b main .
		git config user.email test@example.org; git config user.name test; git config gc.auto 0
		git add -A; git commit -qm one; git tag one
		for d in d*[02468]; do git mv -k "$d" "moved-$d"; done
		for d in d*[13]; do rm -r "$d"; done
		for d in d*[57]; do for f in "$d"/*0; do echo changed >> "$f"; done; done
		git add -A; git commit -qm two; git tag two`)
	s.settled()
	for _, tag := range []string{"one", "two", "one"} {
		sh("git checkout -q " + tag)
		t.Logf("checkout of %s: lag up to %.2f s", tag, s.settled())
	}
}
