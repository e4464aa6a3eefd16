package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
)

// listed is a line of divergence, or of a dry run.
type listed struct {
	Do    string `json:"do"`
	Path  string `json:"path"`
	Bytes []byte `json:"path_bytes"`
	Below bool   `json:"below"`
	Read  *int   `json:"directories_read"`
}

func (l *listed) name() string {
	if l.Bytes != nil {
		return string(l.Bytes)
	}
	return l.Path
}

// lines runs a command that says one JSON object a line.
func (s *session) lines(args ...string) (out []listed) {
	s.t.Helper()
	for line := range strings.Lines(s.must(s.run(args...)).stdout) {
		var l listed
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		out = append(out, l)
	}
	return out
}

// TestDivergenceIsWhole: whatever a sync would send, or take away, is told by divergence, which asks nobody: the entry itself, or where an
// entry has moved or gone, something in the directory where it is or was.
func TestDivergenceIsWhole(t *testing.T) {
	for seed := range number(t, "GEOREP_SEEDS", 3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			s := newSession(t, master, slave)
			s.spec = "file://" + slave
			m, err := mutate.New(master, uint64(seed), mutate.Options{Profile: profileOf(seed, "renames", "exchange")})
			if err != nil {
				t.Fatal(err)
			}
			run := func(operations int) {
				t.Helper()
				if err := m.Run(t.Context(), operations, 0); err != nil {
					t.Fatalf("%v\n%s", err, m)
				}
			}
			run(400)
			s.must(s.run("sync", s.masterArg, s.spec))
			run(60)
			told := map[string]bool{}
			for _, l := range s.lines("divergence", s.masterArg, s.spec, "--json") {
				told[l.name()] = true
			}
			for _, l := range s.lines("sync", s.masterArg, s.spec, "--dry-run", "--json") {
				name := l.name()
				switch l.Do {
				case "make", "change":
					if !told[name] && !told[path.Dir(name)] {
						t.Errorf("%s %q is not told", l.Do, name)
					}
				case "move", "link":
					if !told[path.Dir(name)] {
						t.Errorf("%s to %q: its directory is not told", l.Do, name)
					}
				case "remove": // from a directory that may have moved or gone, too
					for name = path.Dir(name); name != "." && !aDirectory(filepath.Join(master, name)); {
						name = path.Dir(name)
					}
					if !told[name] {
						t.Errorf("remove %q: %q is not told", l.name(), name)
					}
				}
			}
		})
	}
}

func aDirectory(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

// TestDivergenceFollowsTheChanges: with many directories, and few changes, few directories are read.
func TestDivergenceFollowsTheChanges(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	s.spec = "file://" + slave
	s.shell("for d in $(seq 200); do mkdir -p a/$d; echo $d > a/$d/f; done")
	// The marker runs all the time: a scan also marks what had changed shortly before the one before it.
	s.must(s.run("start", s.masterArg, s.spec))
	s.inStep()
	s.must(s.run("pause", s.masterArg))
	count := func(want ...string) {
		t.Helper()
		var got []string
		lines := s.lines("divergence", s.masterArg, "--json")
		for _, l := range lines[:len(lines)-1] {
			if !l.Below {
				got = append(got, l.name())
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("told %q, want %q", got, want)
		}
		if read := lines[len(lines)-1].Read; read == nil || *read > 4 {
			t.Errorf("more directories were read than have changed: %v", read)
		}
	}
	count()
	s.shell("echo more >> a/7/f; rm a/9/f")
	lines := s.lines("divergence", s.masterArg, "--json")
	names := map[string]bool{}
	for _, l := range lines[:len(lines)-1] {
		if !l.Below {
			names[l.name()] = true
		}
	}
	if len(names) != 2 || !names["a/7/f"] || !names["a/9"] {
		t.Errorf("told %+v", lines)
	}
	s.must(s.run("resume", s.masterArg))
	s.inStep()
	s.must(s.run("pause", s.masterArg))
	count()
	s.shell("echo more > 'a/7/new\nline'")
	count("a/7/new\nline", "a/7")
	if r := s.must(s.run("divergence", s.masterArg, "--null")); r.stdout != "a/7/new\nline\x00a/7\x00a\x00.\x00" {
		t.Errorf("%q", r.stdout)
	}
}
