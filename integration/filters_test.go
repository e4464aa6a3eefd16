package integration

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/internal/filter"
)

// TestFiltersLive changes the filter of a running session by hints again and again, while files come, go and move across its
// border: what is included is equal then, and what somebody else has on the slave where it leaves out is left alone. By an
// agent and by SFTP. GEOREP_FILTERS says how many filters are tried. The crawler has the same with far more of them.
func TestFiltersLive(t *testing.T) {
	for _, kind := range []string{"agent", "sftp"} {
		t.Run(kind, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			f := &filterSession{rnd: rand.New(rand.NewPCG(uint64(number(t, "GEOREP_SEED", 1)), 41)), shows: compare.Replica()}
			start := (*session).start
			if kind == "agent" {
				f.session = newSession(t, master, slave)
			} else {
				f.session = sftpSession(t, master, slave, sftpServers()["OpenSSH"])
				f.shows = sftpShows(master, slave, true)
				start = func(s *session, more ...string) result {
					return s.run(append(append([]string{"start", s.masterArg, s.spec}, s.sftpFlags()...), more...)...)
				}
			}
			f.shell("mkdir -p kept d0/d1 d1 cache; for d in . d0 d0/d1 d1 cache; do for f in f0 f1 f2 a.tmp; do echo $d $f > $d/$f; done; done")
			f.must(start(f.session, "--max-delete", "100", "--exclude", "*.own"))
			f.spec.Exclude = "*.own"
			f.agree()
			own := []string{filepath.Join(slave, "mine.own"), filepath.Join(slave, "kept", "mine.own")}
			for _, path := range own {
				if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range number(t, "GEOREP_FILTERS", 3) {
				f.newFilter()
				f.changes(15)
				f.agree()
			}
			for _, path := range own {
				if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
					t.Errorf("what was left out is not left alone: %q, %v", text, err)
				}
			}
		})
	}
}

type filterSession struct {
	*session
	rnd   *rand.Rand
	spec  filter.Spec
	shows compare.Options
}

// newFilter gives the running session another filter.
func (f *filterSession) newFilter() {
	pool := []string{"*.tmp", "!b.tmp", "cache/", "/d0/f1", "d1/*", "/d0/**/f2", "!/d1/f0", "/d0", "**/d1", "f3"}
	lines := []string{"*.own"}
	for range 1 + f.rnd.IntN(3) {
		lines = append(lines, pool[f.rnd.IntN(len(pool))])
	}
	f.spec.Exclude = strings.Join(lines, "\n")
	f.spec.Include = []string{"", "a.tmp", "d0/d1/"}[f.rnd.IntN(3)]
	f.t.Logf("exclude %q, include %q", f.spec.Exclude, f.spec.Include)
	f.must(f.run("config", f.masterArg, f.session.spec, "exclude", f.spec.Exclude))
	f.must(f.run("config", f.masterArg, f.session.spec, "include", f.spec.Include))
}

// changes makes, removes and moves files and directories. What cannot be done is no matter.
func (f *filterSession) changes(n int) {
	var script strings.Builder
	path := func() string {
		dirs, names := []string{".", "d0", "d0/d1", "d1", "cache"}, []string{"f0", "f1", "f2", "f3", "a.tmp", "b.tmp"}
		return dirs[f.rnd.IntN(len(dirs))] + "/" + names[f.rnd.IntN(len(names))]
	}
	for i := range n {
		switch f.rnd.IntN(6) {
		case 0:
			fmt.Fprintf(&script, "rm -f %s || :\n", path())
		case 1, 2:
			fmt.Fprintf(&script, "mv -fT %s %s 2>&1 || :\n", path(), path())
		case 3:
			dirs := []string{"d0", "d1", "cache", "d2"}
			fmt.Fprintf(&script, "mv -T %s %s 2>&1 || :\n", dirs[f.rnd.IntN(4)], dirs[f.rnd.IntN(4)])
		default:
			p := path()
			fmt.Fprintf(&script, "mkdir -p %s; echo %d >> %s\n", filepath.Dir(p), i, p)
		}
	}
	f.shell(script.String())
}

// agree waits until the slave has everything, and compares what is included.
func (f *filterSession) agree() {
	f.t.Helper()
	rules, err := f.spec.Load()
	if err != nil {
		f.t.Fatal(err)
	}
	f.inStep()
	opts := f.shows
	opts.Holes, opts.IgnoreDirMtime = false, true // what is left alone there was put in a directory
	skip := opts.Skip
	opts.Skip = func(path string) bool {
		return skip != nil && skip(path) || f.leftOut(rules, path) || f.onlyLeftOut(rules, path)
	}
	found, err := compare.Trees(f.master, f.slave, opts)
	if err != nil || len(found) > 0 {
		f.t.Fatalf("%v, %d differences:\n%s", err, len(found), compare.List(found))
	}
}

// onlyLeftOut tells of a directory that is gone on the master, and stays on the slave for what is left out in it and nothing else.
func (f *filterSession) onlyLeftOut(rules *filter.Filter, path string) bool {
	if _, err := os.Lstat(filepath.Join(f.master, path)); err == nil {
		return false
	}
	some, others := 0, 0
	err := filepath.WalkDir(filepath.Join(f.slave, path), func(at string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.slave, at)
		switch {
		case err != nil:
			return err
		case f.leftOut(rules, rel):
			some++
		case !e.IsDir():
			others++
		}
		return nil
	})
	return err == nil && some > 0 && others == 0
}

// leftOut walks down to a path as a crawl does.
func (f *filterSession) leftOut(rules *filter.Filter, path string) bool {
	d := rules.Root()
	for rest := path; ; {
		name, below, more := strings.Cut(rest, "/")
		st, err := os.Lstat(filepath.Join(f.master, path))
		if err != nil {
			st, err = os.Lstat(filepath.Join(f.slave, path))
		}
		if d.Excludes(name, more || err == nil && st.IsDir(), -1) {
			return true
		}
		if !more {
			return false
		}
		d, rest = d.Down(name), below
	}
}
