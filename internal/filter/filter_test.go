package filter_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"georep/internal/filter"
)

// tree is what the patterns are tried on; directories end in a slash.
var tree = []string{"a", "b.tmp", "cache/", "cache/x", "dir/", "dir/a", "dir/b.tmp", "dir/cache/", "dir/cache/y", "dir/sub/", "dir/sub/a",
	"dir/sub/cache", "dir/sub/deep/", "dir/sub/deep/a", "dir/sub/deep/b.tmp", "#hash", "!bang", "sp ace", "end ", "end", "br[x]", "brx", "br]",
	"q?", "qq", "st*r", "stir", "back\\slash", "a-b", "A", "0", "x1", "é", "tmp/", "tmp/keep", "tmp/keep.me/", "tmp/keep.me/k", ".hid", ".d/", ".d/.e"}

// table are gitignore files; each is held against git.
var table = []string{"*.tmp", "cache", "cache/", "/cache", "/a", "dir/a", "/dir/*", "dir/**", "**/a", "**/cache/", "dir/**/a", "dir/**/deep/*", "**",
	"**/", "/**", "*", "*\n!*/", "/*\n!/dir\n/dir/*\n!/dir/sub", "tmp/\n!tmp/keep", "tmp/*\n!tmp/keep", "tmp/*\n!tmp/keep.me/", "\\#hash", "#hash", "\\!bang", "!bang",
	"sp ace", "end\\ ", "end ", "end   ", "br[[]x]", "br\\[x\\]", "br[]]", "br[x]", "q\\?", "q?", "st\\*r", "st[*]r", "back\\\\slash", "[a-c]", "[!a-c]", "[^a-c]", "a[-]b",
	"a[+--]b", "[]-a]", "[[:upper:]]", "[[:digit:]]", "x[[:digit:]]", "[[:alpha:][:digit:]]", "[[:a]", "?", "??", "é", ".*", "*/", "*/*", "*/*/", "***/a", "d**r", "**a", "dir/sub\\/a",
	"/dir/sub/", "dir//a", "a\nb.tmp\n!a", "\n\n  \n# c\na\r\nb.tmp", "*.t[m]p", "*[!.]tmp", "dir/**/**/a", "dir/***/a", "/**/deep", "**/sub/**/a", "sub/a", "/sub", "**/**"}

func TestAsGit(t *testing.T) {
	root := makeTree(t)
	for _, text := range table {
		compare(t, root, text)
	}
}

// TestRandomAsGit: random patterns of the pieces that patterns are made of.
func TestRandomAsGit(t *testing.T) {
	root := makeTree(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	pieces := []string{"*", "**", "?", "/", "/", "/**/", "**/", "/**", "a", "b", ".tmp", "cache", "dir", "sub", "deep", "[a-d]", "[!a]", "tmp", "keep", "\\a", "[[:alpha:]]", "*a*"}
	for range 150 {
		var text strings.Builder
		for range 1 + r.IntN(4) {
			if r.IntN(4) == 0 {
				text.WriteString("!")
			}
			for range 1 + r.IntN(4) {
				text.WriteString(pieces[r.IntN(len(pieces))])
			}
			if r.IntN(4) == 0 {
				text.WriteString("/")
			}
			text.WriteString("\n")
		}
		// Against its manual, git takes ** for any number of directories behind a literal beginning, too: dir**/x.
		if behindOther.MatchString(text.String()) {
			continue
		}
		if compare(t, root, text.String()); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

var behindOther = regexp.MustCompile(`[^/!\n]\*\*`)

func makeTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, p := range tree {
		path, isDir := strings.CutSuffix(filepath.Join(root, p), "/")
		if isDir = isDir || strings.HasSuffix(p, "/"); isDir {
			must(t, os.MkdirAll(path, 0o755))
		} else {
			must(t, os.WriteFile(path, nil, 0o644))
		}
	}
	if out, err := exec.Command("git", "init", "-q", root).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	return root
}

// compare holds the filter against git check-ignore. Lines that git passes over, and the filter refuses, are left out.
func compare(t *testing.T, root, text string) {
	t.Helper()
	var sound []string
	for _, line := range strings.Split(text, "\n") {
		if (&filter.Spec{Exclude: line}).Check() == nil {
			sound = append(sound, line)
		}
	}
	f, err := (&filter.Spec{Exclude: strings.Join(sound, "\n")}).Load()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, ".git", "info", "exclude"), []byte(text), 0o644))
	cmd := exec.Command("git", "-C", root, "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(strings.Join(tree, "\x00")+"\x00", "/\x00", "\x00"))
	out, err := cmd.Output()
	if exit, is := err.(*exec.ExitError); is && exit.ExitCode() == 1 {
		err = nil
	}
	must(t, err)
	git := strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00")
	for _, p := range tree {
		path, isDir := strings.CutSuffix(p, "/")
		if got, want := excluded(f, path, isDir), slices.Contains(git, path); got != want {
			t.Errorf("%q: %q excluded: %t, git says %t", text, p, got, want)
		}
	}
}

// excluded walks down to a path as a crawl does.
func excluded(f *filter.Filter, path string, isDir bool) bool {
	d := f.Root()
	for {
		name, rest, more := strings.Cut(path, "/")
		if d.Excludes(name, more || isDir, -1) {
			return true
		}
		if !more {
			return false
		}
		d, path = d.Down(name), rest
	}
}

func TestBadLines(t *testing.T) {
	for _, bad := range []string{"a\\", "[a", "x[", "[[:nope:]]", "/", "!", "!/", "a[\\", "a\x00b"} {
		err := (&filter.Spec{Exclude: "*.ok\n" + bad}).Check()
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOrder(t *testing.T) {
	from := filepath.Join(t.TempDir(), "patterns")
	must(t, os.WriteFile(from, []byte("# ours\n*.log\n!keep.log\n"), 0o644))
	f, err := (&filter.Spec{From: from, Exclude: "keep.*\n*.tmp", Include: "a.tmp", Larger: 100}).Load()
	must(t, err)
	for name, want := range map[string]bool{"x.log": true, "keep.log": true, "b.tmp": true, "a.tmp": false, "other": false} {
		if got := f.Root().Excludes(name, false, 100); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if !f.Root().Excludes("other", false, 101) || f.Root().Excludes("other", true, -1) {
		t.Error("by size")
	}
	must(t, os.WriteFile(from, []byte("a\n*.[x\n"), 0o644))
	if _, err := (&filter.Spec{From: from}).Load(); err == nil || !strings.Contains(err.Error(), from+": line 2") {
		t.Error(err)
	}
	if _, err := (&filter.Spec{From: from + ".not"}).Load(); err == nil {
		t.Error("a missing file is no error")
	}
	if f, err := (&filter.Spec{Include: "a", Deletes: true}).Load(); f != nil || err != nil {
		t.Error("a filter that leaves out nothing")
	}
}

// TestSame: only what can still match below tells directories apart.
func TestSame(t *testing.T) {
	f, err := (&filter.Spec{Exclude: "*.tmp\n/a/b/c\n/x/**/y\nd/e"}).Load()
	must(t, err)
	r := f.Root()
	if !r.Down("p").Same(r.Down("q").Down("r")) {
		t.Error("where nothing can match below")
	}
	for _, two := range [][2]*filter.Dir{{r.Down("a"), r.Down("p")}, {r.Down("a"), r.Down("a").Down("b")}, {r.Down("x"), r.Down("p")}, {r.Down("d"), r.Down("p")}, {r, r.Down("p")}} {
		if two[0].Same(two[1]) {
			t.Error("the same, where a pattern matches in one of them")
		}
	}
	if !r.Down("x").Same(r.Down("x").Down("any")) {
		t.Error("below **")
	}
}

func TestSum(t *testing.T) {
	specs := []filter.Spec{{Exclude: "a"}, {Exclude: "b"}, {Exclude: "a\nb"}, {Exclude: "a", Include: "b"}, {Exclude: "a", Deletes: true}, {Larger: 5}, {Caches: true}}
	seen := map[[16]byte]string{{}: "nothing"}
	for _, s := range specs {
		f, err := s.Load()
		must(t, err)
		if was, is := seen[f.Sum()]; is {
			t.Errorf("%+v has the sum of %s", s, was)
		}
		seen[f.Sum()] = fmt.Sprintf("%+v", s)
	}
	one, _ := (&filter.Spec{Exclude: "a\n# comment\n\n!b"}).Load()
	two, _ := (&filter.Spec{Exclude: "a ", Include: "b"}).Load()
	if one.Sum() != two.Sum() {
		t.Error("the same rules, written differently, have different sums")
	}
}

func BenchmarkExcludes(b *testing.B) {
	f, err := (&filter.Spec{Exclude: "*.tmp\n*~\n.cache/\nnode_modules/\n/var/lib/**/lock\n*.o"}).Load()
	if err != nil {
		b.Fatal(err)
	}
	d := f.Root().Down("home").Down("user")
	b.ReportAllocs()
	for b.Loop() {
		d.Excludes("a-file-of-some-name.txt", false, 100)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
