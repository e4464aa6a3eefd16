package inotify

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"georep/internal/beneath"
)

// sh runs a script in dir.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// markAll drains, marks what was reported, and drains what that brings, as the marker does.
func markAll(t *testing.T, s *Source) (scans int) {
	t.Helper()
	for range 10 {
		got := drain(t, s)
		scans += got["?"]
		delete(got, "?")
		if len(got) == 0 {
			return scans
		}
		for path := range got {
			dir, name := "", path
			if i := strings.LastIndexByte(path, '/'); i >= 0 {
				dir, name = path[:i], path[i+1:]
			}
			d, err := s.tree.dir.OpenPath(dir)
			if err != nil {
				continue
			}
			// What is gone is gone.
			_ = s.Quietly(d, name, func(d *beneath.Dir, name string) error { return d.Setxattr(name, attr, []byte("x")) })
			d.Close()
		}
	}
	t.Fatal("it never becomes quiet")
	return 0
}

// TestChangedThroughANameThatIsGone asks for a scan where an inode may have changed that has other names, and not where
// it is known that none was missed.
func TestChangedThroughANameThatIsGone(t *testing.T) {
	for _, c := range []struct {
		name, before, do string
		scan             bool
	}{
		{"write, unlink one of two", "echo > f; ln f g", "echo x >> f; rm f", true},
		{"write, replace one of two", "echo > f; ln f g; echo > n", "echo x >> f; mv n f", true},
		{"write, move one of two away", "mkdir ../away; echo > f; ln f g", "echo x >> f; mv f ../away", true},
		{"write through a further name", "echo > f", "ln f g; echo x >> g; rm g", true},
		{"the second name is new", "echo > f", "ln f g; echo x >> f; rm f", false},
		{"chmod, unlink one of two", "echo > f; ln f g", "chmod 600 f; rm f", true},
		{"write through a file that lost its name", "echo > f; ln f g", "exec 3>>f; rm f; echo x >&3", true},
		{"unlink only", "echo > f; ln f g", "rm f", false},
		{"write, unlink the only name", "echo > f", "echo x >> f; rm f", false},
		{"write, replace the only name", "echo > f; echo > n", "echo x >> f; mv n f", false},
		{"save by rename", "echo > f", "echo x > n; mv n f", false},
		{"move within", "mkdir d; echo > f; ln f g", "echo x >> f; mv f d/h", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			dir := top + "/tree"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			s := newSource(t, dir)
			markAll(t, s)
			sh(t, dir, c.before)
			markAll(t, s)
			sh(t, dir, c.do)
			scans := markAll(t, s)
			for range 3 { // epochs
				scans += markAll(t, s)
			}
			if (scans > 0) != c.scan {
				t.Errorf("%d scans are asked for", scans)
			}
		})
	}
}

// TestMissedIsBounded: what is remembered of names does not grow with their number.
func TestMissedIsBounded(t *testing.T) {
	s := newSource(t, t.TempDir())
	s.mu.Lock()
	defer s.mu.Unlock()
	scans := 0
	for i := range 3 * maxTouches {
		s.follow(place{1, strconv.Itoa(i)}, &raw{mask: 2})
		scans += len(s.out)
		s.out = nil
		if n := len(s.recent); n > maxTouches {
			t.Fatalf("%d names are remembered", n)
		}
	}
	if scans == 0 {
		t.Error("names were forgotten without a scan")
	}
	s.forgetMissed()
	for i := range keptTouches + 1 {
		at := place{2, strconv.Itoa(i)}
		s.follow(at, &raw{mask: 2})
		s.recent[at].marked = s.epoch
	}
	s.epoch += 2
	s.endEpoch()
	if n := len(s.recent); n > keptTouches {
		t.Errorf("%d names are remembered across the end of the queue", n)
	}
}
