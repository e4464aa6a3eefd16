package lint

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"georep/internal/lint/metrics"
)

// minComments is the share of comments, in percent of the lines with anything on them, that every package has at least.
const minComments = 15

// fewComments are the packages that have less, with the share that they have. It may only rise: whoever adds code there adds what a
// reader of it has to know. A package with a whole point more than it says here gets its new share.
var fewComments = map[string]float64{
	"cmd/georep":          6.4,
	"crawler":             10.9,
	"internal/agenthost":  12.8,
	"internal/changes":    14.5,
	"internal/config":     11.7,
	"internal/connect":    13.4,
	"internal/demo":       9.1,
	"internal/doctor":     8.1,
	"internal/filter":     13.6,
	"internal/history":    14.9,
	"internal/hooks":      12.3,
	"internal/logs":       13.7,
	"internal/screen":     6.9,
	"internal/service":    12.6,
	"internal/sshserver":  14.0,
	"internal/strip":      12.2,
	"internal/timetable":  14.8,
	"internal/web":        6.3,
	"internal/web/listen": 7.8,
	"internal/words":      13.1,
	"internal/worker":     11.3,
	"marker/inotify":      14.8,
	"marker/scan":         14.9,
	"monitor":             14.3,
	"slave/agent":         14.9,
	"slave/disk":          13.7,
	"slave/gfidindex":     14.9,
	"slave/policy":        12.8,
	"slave/sftp":          12.8,
	"slave/sftp/index":    14.9,
	"slave/sshconn":       13.3,
	"status":              13.9,
	"volume":              13.4,
}

// TestComments counts comments: a line that has only a comment, against those that have code.
func TestComments(t *testing.T) {
	lines := map[string]metrics.Lines{}
	for _, path := range goFiles(t) {
		f, err := metrics.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		dir, _ := filepath.Rel(root(t), filepath.Dir(path))
		sum := lines[dir]
		sum.Add(f.Lines)
		lines[dir] = sum
	}
	for dir, l := range lines {
		now := math.Floor(1000*l.Share()) / 10
		switch least, few := fewComments[dir]; {
		case !few && now < minComments:
			t.Errorf("%q: %.1f, // comments; at least %d are wanted: say what each name means, who owns it, what locks it, and why", dir, now, minComments)
		case few && now >= minComments:
			t.Errorf("%s has %.1f %% comments, and needs no exception", dir, now)
		case few && now < least:
			t.Errorf("%s has %.1f %% comments, and had %.1f: say what the new code means", dir, now, least)
		case few && now >= least+1:
			t.Errorf("%q: %.1f, // comments by now, not %.1f: write it down", dir, now, least)
		}
	}
	for dir := range fewComments {
		if _, there := lines[dir]; !there {
			t.Errorf("the exception for %s has no package", dir)
		}
	}
}

// maxSubject is how long the first line of a commit's message may be, so that one line of git log holds it.
const maxSubject = 72

// subjectsSince is the commit after which the rule counts; those before are as they are.
const subjectsSince = "c721502b6daa"

// TestCommitSubjects reads the history, where there is one: a source archive, and a clone that does not go back so far, have none.
func TestCommitSubjects(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root(t), ".git")); err != nil {
		return
	}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-c", "safe.directory=*", "-C", root(t)}, args...)...).Output()
		return string(out), err
	}
	if _, err := git("cat-file", "-e", subjectsSince+"^{commit}"); err != nil {
		return
	}
	out, err := git("log", "--format=%h %s", subjectsSince+"..HEAD")
	if err != nil {
		t.Fatalf("git log: %v", err)
	}
	for line := range strings.Lines(out) {
		if commit, subject, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); tooLong(subject) {
			t.Errorf("commit %s: its subject has more than %d characters: %s", commit, maxSubject, subject)
		}
	}
}

func tooLong(subject string) bool { return len([]rune(subject)) > maxSubject }

// TestTooLong holds the rule itself to its bound, in characters and not in bytes.
func TestTooLong(t *testing.T) {
	for subject, want := range map[string]bool{strings.Repeat("ä", maxSubject): false, strings.Repeat("a", maxSubject+1): true} {
		if tooLong(subject) != want {
			t.Errorf("%q: %t", subject, !want)
		}
	}
}
