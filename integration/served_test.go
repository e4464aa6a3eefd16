package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
)

// inodesOf are the inode numbers of what lies below dir, by path.
func inodesOf(t *testing.T, dir string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == ".georep" {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		all[strings.TrimPrefix(path, dir+"/")] = st.Ino
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMasterOnFUSE: the daemon that serves the master starts anew, and counts the handles of its files up in another order. Nothing is
// another file for that: what the slave has stays, and what changed and moved meanwhile arrives. What moved may be sent again: where there
// are no birth times, nothing tells it from what is new.
func TestMasterOnFUSE(t *testing.T) {
	top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	source, slave := twoSides(t, top)
	master := filepath.Join(t.TempDir(), "master")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"a", "b", "d/c", "d/e/f", "g/h"}
	for _, name := range names {
		must(os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755))
		must(os.WriteFile(filepath.Join(source, name), []byte(name), 0o644))
	}
	fstest.Bindfs(t, source, master)
	s := newSession(t, master, slave)
	s.must(s.run(append([]string{"sync", s.masterArg, s.spec}, s.flags()...)...))
	before := inodesOf(t, slave)

	fstest.Unserve(t, master)
	fstest.Bindfs(t, source, master)
	for i := range names { // the last one gets the handle that the first one had
		_, err := os.Lstat(filepath.Join(master, names[len(names)-1-i]))
		must(err)
	}
	must(os.Rename(filepath.Join(master, "d/e"), filepath.Join(master, "moved")))
	must(os.WriteFile(filepath.Join(master, "g/h"), []byte("changed"), 0o644))
	s.must(s.run("sync", s.masterArg, s.spec))
	s.must(s.run("verify", s.masterArg, s.spec))

	after := inodesOf(t, slave)
	for was, is := range map[string]string{"a": "a", "b": "b", "d": "d", "d/c": "d/c", "g": "g"} {
		if before[was] == 0 || before[was] != after[is] {
			t.Errorf("%s was inode %d on the slave; as %s it is %d", was, before[was], is, after[is])
		}
	}
	if got, err := os.ReadFile(filepath.Join(slave, "g/h")); string(got) != "changed" {
		t.Errorf("what changed is %q, %v", got, err)
	}
}

// TestMasterOnSshfs: nothing identifies its files, and that is said once, with what helps.
func TestMasterOnSshfs(t *testing.T) {
	master, slave := twoSides(t, t.TempDir())
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out := newSession(t, master, slave).run("volume", "create", "served", fstest.Sshfs(t, source))
	if out.code != 1 || strings.Count(out.stderr, "\n") != 1 || !strings.Contains(out.stderr, "replicate from the host that has the files") {
		t.Errorf("exit %d: %s", out.code, out.stderr)
	}
}
