package tree_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/asuser"
	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/internal/at"
	"georep/integration/harness/tree"
)

// mayLack are the things that a file system is known not to have; whatever else is left out fails the test.
func mayLack() map[string][]string {
	big := []string{"xattr user.test.16k", "xattr trusted.test.16k", "xattr user.test.64k", "xattr trusted.test.64k"}
	return map[string][]string{
		fstest.Ext4:    append(big, "xattr user.many"),
		fstest.XFS:     {"symlink 4000-bytes", "special/char-huge-minor", "special/block-huge-major"},
		fstest.Btrfs:   big,
		fstest.Tmpfs:   {},
		fstest.Overlay: {"special/char-0-0"},
	}
}

func known(leftOut string, allowed []string) bool {
	for _, prefix := range allowed {
		if strings.HasPrefix(leftOut, prefix) {
			return true
		}
	}
	return false
}

func TestOneOfEverythingOnEveryFileSystem(t *testing.T) {
	for _, kind := range append(fstest.All(), fstest.Overlay) {
		t.Run(kind, func(t *testing.T) {
			mnt := fstest.Mount(t, kind, fstest.Options{})
			a, b := filepath.Join(mnt, "a"), filepath.Join(mnt, "b")
			for _, root := range []string{a, b} {
				if err := os.Mkdir(root, 0o755); err != nil {
					t.Fatal(err)
				}
				leftOut, err := tree.OneOfEverything(root)
				if err != nil {
					t.Fatal(err)
				}
				for _, what := range leftOut {
					if !known(what, mayLack()[kind]) {
						t.Errorf("left out on %s: %s", kind, what)
					}
				}
			}
			compare.MustEqual(t, a, b, compare.Options{IgnoreMtime: true, Holes: true, HoleSlack: 1})
			census(t, a)
		})
	}
}

// census counts what was made, so that a part that silently makes nothing is noticed.
func census(t *testing.T, root string) {
	fd, err := at.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var c counts
	c.kinds = map[uint32]int{}
	c.walk(t, fd, 0)
	for kind, least := range map[uint32]int{
		unix.S_IFREG: 1400, unix.S_IFDIR: 180, unix.S_IFLNK: 60, unix.S_IFIFO: 5, unix.S_IFSOCK: 1, unix.S_IFCHR: 3, unix.S_IFBLK: 2,
	} {
		if c.kinds[kind] < least {
			t.Errorf("%d entries of type %o, want at least %d", c.kinds[kind], kind, least)
		}
	}
	if c.longest <= 6000 {
		t.Errorf("longest path has %d bytes", c.longest)
	}
	if c.linked < 10 {
		t.Errorf("%d paths with several names", c.linked)
	}
	if c.negative < 3 {
		t.Errorf("%d times before 1970", c.negative)
	}
	for _, attr := range []string{"security.capability", at.ACLAccess, at.ACLDefault, "trusted.test.2k", "user.test.empty"} {
		if !c.xattrs[attr] {
			t.Errorf("no entry has %s", attr)
		}
	}
}

type counts struct {
	kinds                     map[uint32]int
	xattrs                    map[string]bool
	longest, linked, negative int
}

func (c *counts) walk(t *testing.T, dir, length int) {
	t.Helper()
	names, err := at.Names(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st, err := at.Stat(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		c.add(t, dir, name, st)
		c.longest = max(c.longest, length+1+len(name))
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			sub, err := at.OpenDir(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			c.walk(t, sub, length+1+len(name))
			unix.Close(sub)
		}
	}
}

func (c *counts) add(t *testing.T, dir int, name string, st unix.Stat_t) {
	kind := st.Mode & unix.S_IFMT
	c.kinds[kind]++
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		c.linked++
	}
	if st.Mtim.Sec < 0 {
		c.negative++
	}
	attrs, err := at.Xattrs(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	if c.xattrs == nil {
		c.xattrs = map[string]bool{}
	}
	for attr := range attrs {
		c.xattrs[attr] = true
	}
}

// TestOneOfEverythingAsAnOrdinaryUser wants left out what only root may have, the rest made, and all of it taken
// away by a plain removal.
func TestOneOfEverythingAsAnOrdinaryUser(t *testing.T) {
	root, here := asuser.Again(t)
	if !here {
		return
	}
	leftOut, err := tree.OneOfEverything(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"owner of", "xattr trusted.", "special/block"} {
		if !slices.ContainsFunc(leftOut, func(what string) bool { return strings.HasPrefix(what, want) }) {
			t.Errorf("nothing with %q is left out: %q", want, leftOut)
		}
	}
	names, err := os.ReadDir(root)
	if err != nil || len(names) != 16 {
		t.Errorf("%d names at the root (%v)", len(names), err)
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(root, name.Name())); err != nil {
			t.Error(err)
		}
	}
}

func TestManyIsSeededAndComplete(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, root := range []string{a, b} {
		if err := tree.Many(root, 1050, 100, 333); err != nil {
			t.Fatal(err)
		}
	}
	compare.MustEqual(t, a, b, compare.Options{IgnoreMtime: true, IgnoreRoot: true})
	files, err := filepath.Glob(a + "/d*/f*")
	if err != nil || len(files) != 1050 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	seen := map[string]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || len(data) != 333 {
			t.Fatalf("%s: %d bytes (%v)", file, len(data), err)
		}
		if twin, ok := seen[string(data)]; ok {
			t.Fatalf("%s and %s have the same content", file, twin)
		}
		seen[string(data)] = file
	}
}

func TestManyRefusesNonsense(t *testing.T) {
	for _, args := range [][3]int{{-1, 1, 1}, {1, 0, 1}, {1, 1, -1}} {
		if err := tree.Many(t.TempDir(), args[0], args[1], args[2]); err == nil {
			t.Errorf("Many accepted %v", args)
		}
	}
	if err := tree.Many(t.TempDir()+"/absent", 1, 1, 1); err == nil {
		t.Error("Many made files in a directory that is not there")
	}
}
