package marker

import (
	"slices"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
	"georep/marker/xtime"
)

// script is what happens to a volume that a marker watches, and what must be marked by it: exactly these paths, besides
// the root. "" marks nothing, not even the root.
type script struct {
	name, before, do, marks string
	// scanned: a source that names what changed by its place cannot know what this changed, and has a scan find it.
	scanned bool
}

func scripts() []script {
	rows := [][4]string{
		{"create", "mkdir -p a/b", "echo x > a/b/f", "a a/b a/b/f"},
		{"write", "mkdir -p a/b; echo x > a/b/f; echo y > a/b/g", "echo z >> a/b/f", "a a/b a/b/f"},
		{"overwrite same size, mtime put back", "echo x > f; touch -d 2020-01-01 f",
			"echo y > f; touch -d 2020-01-01 f", "f"},
		{"chmod", "mkdir a; touch a/f", "chmod 600 a/f", "a a/f"},
		{"chown", "mkdir a; touch a/f", "chown 7:8 a/f", "a a/f"},
		{"xattr", "mkdir a; touch a/f", "setfattr -n user.x -v 1 a/f", "a a/f"},
		{"chmod of a directory", "mkdir -p a/b; touch a/b/f", "chmod 700 a/b", "a a/b"},
		{"chmod of the root", "mkdir a", "chmod 711 .", "."},
		{"delete", "mkdir -p a/b; touch a/b/f a/b/g", "rm a/b/f", "a a/b"},
		{"rmdir", "mkdir -p a/b; touch a/g", "rmdir a/b", "a"},
		{"remove a tree", "mkdir -p a/b/c; touch a/b/c/f a/g", "rm -r a/b", "a"},
		{"mkdir", "mkdir a", "mkdir a/n", "a a/n"},
		{"mkdir deep", "", "mkdir -p a/b/c", "a a/b a/b/c"},
		{"rename in a directory", "mkdir a; touch a/f a/g", "mv a/f a/h", "a a/h"},
		{"rename between directories", "mkdir a b c; touch a/f", "mv a/f b/f", "a b b/f"},
		{"rename over", "mkdir a b; touch a/f b/f", "mv a/f b/f", "a b b/f"},
		{"rename of a directory", "mkdir -p a/b/c d; touch a/b/c/f", "mv a/b d/e", "a d d/e"},
		{"hard link", "mkdir a b; touch a/f", "ln a/f b/g", "b b/g a/f"},
		{"unlink one of two names", "mkdir a b; touch a/f; ln a/f b/g", "rm a/f", "a"},
		{"write through a name that goes at once", "mkdir a b; touch a/f; ln a/f b/g", "echo x >> a/f; rm a/f", "a b/g"},
		{"write through a name that is replaced", "mkdir a b; touch a/f a/n; ln a/f b/g", "echo x >> a/f; mv a/n a/f", "a a/f b/g"},
		{"symlink", "mkdir a", "ln -s nowhere a/l", "a a/l"},
		{"fifo", "mkdir a", "mkfifo a/p", "a a/p"},
		{"device", "mkdir a", "mknod a/d c 1 3", "a a/d"},
		{"truncate", "mkdir a; echo x > a/f", "truncate -s 0 a/f", "a a/f"},
		{"punch a hole", "mkdir a; head -c 100000 /dev/urandom > a/f", "fallocate -p -o 0 -l 65536 a/f", "a a/f"},
		{"odd names", "mkdir a", "touch \"$(printf 'a/x\\nb\\377')\"", "a a/x\nb\xff"},
		{"mkdir and at once in it", "mkdir a", "mkdir -p a/b/c && echo x > a/b/c/f && ln -s x a/b/l", "a a/b a/b/c a/b/c/f a/b/l"},
		{"rename of a directory, then in it", "mkdir -p a/b d", "mv a/b d/e; touch d/e/f", "a d d/e d/e/f"},
		{"directories change places", "mkdir -p a/b d/e; touch a/b/1 d/e/2", "swap a/b d/e; touch a/b/3 d/e/4",
			"a a/b a/b/3 d d/e d/e/4"},
		{"a directory over an empty one", "mkdir -p a/b d/e; touch a/b/1", "mv -T a/b d/e; touch d/e/3", "a d d/e d/e/3"},
		{"a directory becomes a file and again one", "mkdir a a/b", "rmdir a/b; touch a/b; rm a/b; mkdir a/b; touch a/b/f",
			"a a/b a/b/f"},
		{"unreadable, then readable", "mkdir a", "mkdir a/b; chmod 0 a/b; chmod 755 a/b; touch a/b/f", "a a/b a/b/f"},
		{"read", "mkdir a; echo x > a/f", "cat a/f; ls a", ""},
	}
	var all []script
	for _, r := range rows {
		all = append(all, script{r[0], r[1], r[2], r[3], strings.HasPrefix(r[0], "write through a name")})
	}
	return all
}

// eachEvents runs test with each source of events on each file system where it works.
func eachEvents(t *testing.T, test func(t *testing.T, source, dir string)) {
	for _, kind := range fstest.All() {
		t.Run("fanotify "+kind, func(t *testing.T) {
			test(t, SourceFanotify, fstest.Mount(t, kind, fstest.Options{}))
		})
	}
	for _, kind := range []string{fstest.Ext4, fstest.Tmpfs, fstest.Overlay} {
		t.Run("inotify "+kind, func(t *testing.T) {
			test(t, SourceInotify, fstest.Mount(t, kind, fstest.Options{}))
		})
	}
}

// sources are all of them, by their names.
func sources() []string { return Sources()[1:] }

func TestScripts(t *testing.T) {
	eachEvents(t, func(t *testing.T, source, dir string) {
		for _, s := range scripts() {
			t.Run(s.name, func(t *testing.T) { testScript(t, newVolIn(t, dir), source, s) })
		}
	})
}

func TestScriptsByScanning(t *testing.T) {
	dir := fstest.Mount(t, fstest.Overlay, fstest.Options{})
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			v := newVolIn(t, dir)
			testScript(t, v, SourceScan, s)
			if s, err := ReadStatus(v.o.Dir); err != nil || s.Source != SourceScan || s.Reason == "" {
				t.Errorf("status %+v, %v: want a scan and the reason", s, err)
			}
		})
	}
}

// newVolIn makes a new directory of the file system a volume.
func newVolIn(t *testing.T, dir string) *vol {
	t.Helper()
	return newVol(t, strings.TrimSpace(read(t, dir, `mktemp -d -p "$PWD"`)))
}

func testScript(t *testing.T, v *vol, source string, s script) {
	v.o.Source = source
	v.sh(s.before)
	// Two scans must be able to tell before from after.
	v.start()
	v.quiet()
	before := v.all()
	if how := v.m.how.Load(); how.source != source {
		t.Fatalf("the source is %s: %s", how.source, how.reason)
	}
	v.sh(s.do)
	v.settle()
	v.quiet()
	want := []string{}
	if s.marks != "" {
		want = strings.Split("|"+strings.ReplaceAll(s.marks, " ", "|"), "|")
	}
	if s.marks == "." {
		want = []string{""}
	}
	var got []string
	for path, x := range v.all() {
		if x != before[path] {
			got = append(got, path)
		}
		if x < before[path] {
			t.Errorf("%q went back from %v to %v", path, before[path], x)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if source == SourceScan || source == SourceInotify && s.scanned {
		checkScanMarks(t, got, want)
		return
	}
	if s.name == "hard link" {
		// That the other name shows the mark too is the inode's doing; its directory has no change.
		got = slices.DeleteFunc(got, func(p string) bool { return p == "a" })
	}
	if strings.HasPrefix(s.name, "write through a name") {
		// Where that was gone by the time of its mark, the other name is led to.
		got = slices.DeleteFunc(got, func(p string) bool { return p == "b" })
	}
	if !slices.Equal(got, want) {
		t.Errorf("marked %q, want %q", got, want)
	}
}

// checkScanMarks is for scans, which also mark what a rename moved along or a link changed: never less.
func checkScanMarks(t *testing.T, got, want []string) {
	t.Helper()
	for _, path := range want {
		if !slices.Contains(got, path) {
			t.Errorf("%q is not marked; these are: %q", path, got)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		t.Errorf("marked %q for nothing", got)
	}
}

// quiet waits until the marker marks no more: a state that its own marks must let it reach.
func (v *vol) quiet() {
	v.t.Helper()
	var last xtime.Time
	v.until("no more marks", func() bool {
		v.settle()
		x := v.m.clock.Last()
		same := x == last
		last = x
		return same
	})
}
