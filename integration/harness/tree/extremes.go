package tree

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// OddNames returns names that are legal and hard: each as a file or directory may bear it.
func OddNames() []string {
	return []string{
		"new\nline", "\n", "not-utf8-\xff\xfe\x80", "-leading-dash", "--help", " leading space", "trailing space ",
		"two  spaces", `back\slash`, `\n`, "tab\there", "control\x01\x02\x1b[31m\x7f", "~", "~root", "...", "..x",
		"quote'quote\"", "$HOME", "`id`", "*", "?", "[a]", "{a,b}", "#hash", "%s%n", "percent%20", ":colon", ";", "&", "|",
		"ünïcödé", "u\u0308", "日本語", "\u202eright-to-left", ".hidden", ".georep", ".georep.tmp", "con",
		"x,v", "file.~1~", strings.Repeat("n", 255), strings.Repeat("\xc3\xa4", 127), "=", "@", "a:b@c::d", "\\#012",
	}
}

// names makes files and directories with odd names below "names", so that ".georep" is not the root's reserved one.
func (b *builder) names() {
	b.mkdir("names/files")
	b.mkdir("names/dirs")
	b.mkdir("names/bytes")
	b.mkdir("names/.georep/parked")
	b.file("names/.georep/parked/file", 10)
	for _, name := range OddNames() {
		b.file("names/files/"+name, 20)
		b.mkdir("names/dirs/" + name)
		b.file("names/dirs/"+name+"/"+name, 5)
		b.do("symlink", os.Symlink(name, b.path("names/dirs/"+name+"/l")))
	}
	for c := 1; c < 256; c++ {
		if c != '/' && c != '.' {
			b.file("names/bytes/"+string([]byte{byte(c)}), 1)
		}
	}
}

// longPath makes, step by step, a path of over 6,000 bytes with a file, a symlink, hard links and an attribute at its
// end. Every level has a file too, so that the walk back up is seen.
func (b *builder) longPath() {
	b.mkdir(LongTop)
	dir, err := b.openDir(LongTop)
	if !b.do(LongTop, err) {
		return
	}
	for level := range 26 {
		next, err := b.longStep(dir, level)
		if !b.do(LongTop, err) {
			unix.Close(dir)
			return
		}
		unix.Close(dir)
		dir = next
	}
	defer unix.Close(dir)
	b.do("end of "+LongTop, b.longEnd(dir))
}

// longStep makes one more directory in dir and opens it.
func (b *builder) longStep(dir, level int) (int, error) {
	name := fmt.Sprintf("%02d-%s", level, strings.Repeat("p", 247))
	if err := unix.Mkdirat(dir, name, 0o755); err != nil {
		return -1, err
	}
	if err := writeAt(dir, "beside", content(name, 100)); err != nil {
		return -1, err
	}
	return at.OpenDir(dir, name)
}

// longEnd fills the deepest directory. One file there has a name near the root as well.
func (b *builder) longEnd(dir int) error {
	top, err := b.openDir(LongTop)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	b.doXattr("xattr at the end of "+LongTop, at.SetXattr(dir, ".", "user.deep", "down"))
	return errors.Join(
		writeAt(dir, "file", content("long", 5000)),
		unix.Symlinkat("file", dir, "symlink"),
		unix.Symlinkat("../../no-such-thing", dir, "dangling"),
		unix.Linkat(dir, "file", dir, "hard-link", 0),
		unix.Linkat(dir, "file", top, "hard-link-up", 0),
		unix.Mkdirat(dir, "empty-dir", 0o700),
		chtime(dir, "symlink", time.Date(1999, 1, 2, 3, 4, 5, 6, time.UTC)),
		chtime(dir, ".", time.Date(1998, 1, 2, 3, 4, 5, 6, time.UTC)),
	)
}

// writeAt makes the file name in dir.
func writeAt(dir int, name string, data []byte) error {
	fd, err := at.Open(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
		data = data[n:]
	}
	return nil
}

// manyEntries makes a directory that no single call lists.
func (b *builder) manyEntries() {
	b.mkdir("many")
	for i := range 1000 {
		b.file(fmt.Sprintf("many/entry-%04d-%s", i, strings.Repeat("long", 15)), i%7)
	}
}

// deepChain makes 60 directories in each other.
func (b *builder) deepChain() {
	chain := "deep"
	for i := range 60 {
		chain += fmt.Sprintf("/%d", i)
	}
	b.mkdir(chain)
	b.file(chain+"/file", 10)
}

// times sets odd modification times, last of all so that nothing changes them again.
func (b *builder) times() {
	b.mkdir("times")
	for name, when := range map[string]time.Time{
		"before-1970": time.Unix(-300_000_000, 123_456_789), "just-before-1970": time.Unix(-1, 999_999_999),
		"zero": time.Unix(0, 0), "one-ns": time.Unix(0, 1), "zero-ns": time.Unix(1_700_000_000, 0),
		"last-ns": time.Unix(1_700_000_000, 999_999_999), "end-of-32-bits": time.Unix(1<<31-1, 999_999_999),
		"after-2038": time.Unix(1<<31, 5), "after-2106": time.Unix(1<<32, 7), "year-2200": time.Unix(7_258_118_400, 1),
	} {
		b.file("times/"+name, 10)
		b.mkdir("times/" + name + ".dir")
		b.do("symlink", os.Symlink(name, b.path("times/"+name+".link")))
		for _, suffix := range []string{"", ".dir", ".link"} {
			b.chtime("times/"+name+suffix, when)
		}
	}
	for i, dir := range []string{"dirs/empty", "dirs/a", "dirs/0555", "names", "many", "links", "acl/dir"} {
		b.chtime(dir, time.Unix(1_000_000_000+int64(i), 987_654_321))
	}
}

// rootItself changes what tools forget, the root. It must be last, as every new entry changes the root's time.
func (b *builder) rootItself() {
	b.chmod(".", 0o2751)
	b.setxattr(".", "user.on-the-root", "yes")
	b.chtime(".", time.Unix(1_234_567_890, 123_456_789))
}
