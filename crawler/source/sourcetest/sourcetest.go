// Package sourcetest is the contract that every source.Source must pass: what the crawler, and with it the proofs in docs/design.md, takes
// for granted of a master.
package sourcetest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Kind is a kind of master.
type Kind struct {
	// New makes an empty master for one test.
	New func(t *testing.T) Master
	// Content is what the source gives for a file in which text was written; nil: the text itself.
	Content func(text string) string
}

// Master is an empty tree.
type Master struct {
	// Path is where its users see it, and change it.
	Path string
	// Begin begins a pass. What it opens lives until the end of the test.
	Begin func() source.Source
	// Marked returns once every change before its call is marked, which changed the entries at these paths, or names in these
	// directories.
	Marked func(paths ...string)
	// Away takes the master from its place, or has another take it.
	Away func()
}

// fixture is what one test works with.
type fixture struct {
	*testing.T
	Master
	content func(string) string
	source.Source
}

// Run runs the contract.
func Run(t *testing.T, k Kind) {
	for _, c := range []struct {
		name string
		run  func(f *fixture)
	}{
		{"the root has an xtime that moves, and one GFID", head},
		{"a directory is opened by its GFID", opened},
		{"the xtime of a directory is from before it is listed", readThenList},
		{"the names are listed, each in one part", listed},
		{"an entry is its inode, under whatever name", entries},
		{"a file is newer once it has changed, by whatever means", newer},
		{"a content is that of the file that was listed", contents},
		{"a version is that of one content", versions},
		{"a file is read at any place", reads},
		{"attributes are those of the entry that was listed", attributes},
		{"a master that is not there is not empty", away},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{T: t, Master: k.New(t), content: k.Content}
			if f.content == nil {
				f.content = func(text string) string { return text }
			}
			f.write("d/f", "one")
			f.Marked("d/f")
			f.Source = f.Begin()
			c.run(f)
		})
	}
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) at(path string) string { return filepath.Join(f.Path, path) }

func (f *fixture) write(path, text string) {
	f.Helper()
	f.ok(os.MkdirAll(filepath.Dir(f.at(path)), 0o755))
	f.ok(os.WriteFile(f.at(path), []byte(text), 0o644))
}

func (f *fixture) dir(path string) *beneath.Dir {
	f.Helper()
	d, err := f.OpenDir(path)
	f.ok(err)
	f.Cleanup(func() { d.Close() })
	return d
}

func (f *fixture) entry(path string) plan.Entry {
	f.Helper()
	dir, name := beneath.Split(path)
	e, err := f.Entry(dir, f.dir(dir), name)
	f.ok(err)
	return e
}

func (f *fixture) isGone(what string, err error) {
	f.Helper()
	if !source.Gone(err) {
		f.Errorf("%s: %v", what, err)
	}
}

func head(f *fixture) {
	before, g, err := f.Head()
	f.ok(err)
	f.write("d/f", "two")
	f.Marked("d/f")
	after, again, err := f.Head()
	f.ok(err)
	if before == 0 || after <= before || g.IsZero() || again != g {
		f.Errorf("%v of %v, then %v of %v", before, g, after, again)
	}
	if here, err := f.GFID(f.dir(""), ""); err != nil || here != g {
		f.Errorf("the root is %v, %v; want %v", here, err, g)
	}
	f.ok(f.Check())
	f.ok(f.Intact())
}

func opened(f *fixture) {
	e := f.entry("d")
	d, err := f.Open("d", e.Record.GFID)
	f.ok(err)
	f.ok(d.Dir.Close())
	if d.Xtime < e.Record.Xtime || !d.Stat.IsDir() || !f.LeadsTo("d", e.Record.GFID) {
		f.Errorf("%+v, listed as %+v", d, e)
	}
	f.ok(os.Rename(f.at("d"), f.at("moved")))
	f.write("d/f", "another")
	f.Marked("d", "d/f", "moved", "")
	_, err = f.Open("d", e.Record.GFID)
	f.isGone("another directory of this name", err)
	_, err = f.Open("none", e.Record.GFID)
	f.isGone("no directory", err)
	_, err = f.OpenDir("d/f")
	f.isGone("a file", err)
	if f.LeadsTo("d", e.Record.GFID) || !f.LeadsTo("moved", e.Record.GFID) {
		f.Error("the directory is not where it was moved to")
	}
}

// readThenList: invariant 4. What changes after the xtime was read gets a later one.
func readThenList(f *fixture) {
	d, err := f.Open("d", f.entry("d").Record.GFID)
	f.ok(err)
	defer d.Dir.Close()
	f.write("d/g", "later")
	f.Marked("d/g")
	now, err := f.Describe(d.Dir)
	f.ok(err)
	if e := f.entry("d/g"); now.Xtime <= d.Xtime || e.Record.Xtime <= d.Xtime {
		f.Errorf("opened at %v, and after a change at %v, the file at %v", d.Xtime, now.Xtime, e.Record.Xtime)
	}
}

func listed(f *fixture) {
	want := []string{"d", "\xff\x80 not UTF-8", strings.Repeat("n", 255), "a\nb"}
	for _, name := range want[1:] {
		f.write(name, "")
	}
	f.ok(os.MkdirAll(f.at(slave.Reserved), 0o755))
	f.ok(os.MkdirAll(f.at("d/"+slave.Reserved), 0o755))
	slices.Sort(want)
	root := f.dir("")
	var got, parts []string
	f.ok(f.Names(root, true, func(e beneath.Entry) error { got = append(got, e.Name); return nil }))
	for part := range uint32(3) {
		list, total, err := f.List(root, part, 3, true)
		if err != nil || total != len(want) {
			f.Errorf("part %d of %d names, %v", part, total, err)
		}
		for _, e := range list {
			parts = append(parts, e.Name)
		}
	}
	slices.Sort(got)
	slices.Sort(parts)
	if !slices.Equal(got, want) || !slices.Equal(parts, want) {
		f.Errorf("%q, in parts %q; want %q", got, parts, want)
	}
	if _, total, err := f.List(f.dir("d"), 0, 1, false); err != nil || total != 2 {
		f.Errorf("%d names below the root, %v", total, err)
	}
	enough := errors.New("enough")
	if err := f.Names(root, true, func(beneath.Entry) error { return enough }); !errors.Is(err, enough) {
		f.Errorf("each failed, and Names says %v", err)
	}
}

func entries(f *fixture) {
	f.ok(os.Symlink("target", f.at("d/link")))
	f.ok(unix.Mkfifo(f.at("d/fifo"), 0o600))
	f.ok(os.Mkdir(f.at("d/dir"), 0o700))
	f.ok(os.Link(f.at("d/f"), f.at("d/name")))
	f.Marked("d/link", "d/fifo", "d/dir", "d/name", "d/f")
	seen := map[xtime.GFID]string{}
	r := f.Reader("d", f.dir("d"), true)
	for name, kind := range map[string]slave.Kind{"f": slave.File, "link": slave.Symlink, "fifo": slave.Fifo, "dir": slave.Dir} {
		e, err := r.Entry(name)
		f.ok(err)
		g, err := f.GFID(f.dir("d"), name)
		if err != nil || e.Kind != kind || e.Name != name || e.Record.Xtime == 0 || g != e.Record.GFID || seen[g] != "" || r.Covered(name) {
			f.Errorf("%s: %+v, GFID %v, %v", name, e, g, err)
		}
		seen[g] = name
	}
	was := f.entry("d/f")
	if e := f.entry("d/name"); e.Record.GFID != was.Record.GFID || e.Stat.Nlink != 2 {
		f.Errorf("a further name is %+v of %+v", e, was)
	}
	f.ok(os.Rename(f.at("d/f"), f.at("elsewhere")))
	f.write("d/f", "another")
	f.Marked("d/f", "elsewhere", "d", "")
	if e := f.entry("elsewhere"); e.Record.GFID != was.Record.GFID {
		f.Errorf("renamed, %v is %v", was.Record.GFID, e.Record.GFID)
	}
	if e := f.entry("d/f"); e.Record.GFID == was.Record.GFID {
		f.Error("another file has the same GFID")
	}
	_, err := r.Entry("none")
	f.isGone("no entry", err)
}

func newer(f *fixture) {
	for _, change := range []struct {
		name string
		do   func(path string) error
	}{
		{"content", func(path string) error { return os.WriteFile(path, []byte("two"), 0o644) }},
		{"mode", func(path string) error { return os.Chmod(path, 0o600) }},
		{"xattr", func(path string) error { return unix.Setxattr(path, "user.a", []byte("b"), 0) }},
		{"times set back", func(path string) error {
			return os.Chtimes(path, source.UnixTime(beneath.Time{}), source.UnixTime(beneath.Time{Sec: 1}))
		}},
		{"a further name", func(path string) error { return os.Link(path, path+"2") }},
	} {
		was := f.entry("d/f")
		f.ok(change.do(f.at("d/f")))
		f.Marked("d/f")
		now := f.entry("d/f")
		above := f.entry("d")
		if now.Record.Xtime <= was.Record.Xtime || above.Record.Xtime < now.Record.Xtime {
			f.Errorf("%s: from %v to %v, above it %v", change.name, was.Record.Xtime, now.Record.Xtime, above.Record.Xtime)
		}
		d := f.dir("d")
		if !f.Newer(d, "f", &now.Stat, was.Record.Xtime) || f.Newer(d, "f", &now.Stat, now.Record.Xtime) {
			f.Errorf("%s: not newer than before, or than now", change.name)
		}
	}
}

// read reads a content to its end.
func read(c slave.Content) (text string, end slave.End, err error) {
	var b []byte
	for {
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			end = c.End()
			return string(append(b, make([]byte, end.Size-int64(len(b)))...)), end, c.Close()
		}
		if err != nil {
			return "", end, errors.Join(err, c.Close())
		}
		b = append(append(b, make([]byte, p.Off-int64(len(b)))...), p.Data...)
	}
}

func contents(f *fixture) {
	long := strings.Repeat("0123456789abcdef", slave.MaxPiece/16) + "end"
	f.write("d/empty", "")
	f.write("d/long", long)
	f.write("d/holes", "x")
	f.ok(os.Truncate(f.at("d/holes"), 3*slave.MaxPiece))
	f.Marked("d/empty", "d/long", "d/holes")
	for name, want := range map[string]string{"f": "one", "empty": "", "long": long, "holes": "x" + strings.Repeat("\x00", 3*slave.MaxPiece-1)} {
		e := f.entry("d/" + name)
		c, err := f.OpenContent(f.dir("d"), &e)
		f.ok(err)
		got, end, err := read(c)
		if err != nil || end.Torn || strings.TrimRight(got, "\x00") != strings.TrimRight(f.content(want), "\x00") || len(got) != len(f.content(want)) {
			f.Errorf("%s: %d bytes, %+v, %v; want %d", name, len(got), end, err, len(want))
		}
	}
	was := f.entry("d/f")
	f.write("d/f", "two")
	f.Marked("d/f")
	c, err := f.OpenContent(f.dir("d"), &was)
	f.ok(err)
	if got, end, err := read(c); err != nil || !end.Torn {
		f.Errorf("changed since it was listed: %q, %+v, %v", got, end, err)
	}
	f.replace("d/f", "three")
	_, err = f.OpenContent(f.dir("d"), &was)
	f.isGone("the content of another file", err)
	_, err = f.OpenFile(f.dir("d"), &was)
	f.isGone("another file", err)
}

// replace puts another file in the place of one.
func (f *fixture) replace(path, text string) {
	f.Helper()
	f.write(path+".new", text)
	f.ok(os.Rename(f.at(path+".new"), f.at(path)))
	f.Marked(path)
}

func versions(f *fixture) {
	seen := map[slave.Version]string{}
	for _, text := range []string{"one", "two", "one", "longer"} {
		f.write("d/f", text)
		f.ok(os.Chtimes(f.at("d/f"), source.UnixTime(beneath.Time{}), source.UnixTime(beneath.Time{Sec: 1})))
		f.Marked("d/f")
		e := f.entry("d/f")
		file, err := f.OpenFile(f.dir("d"), &e)
		f.ok(err)
		if v := file.Version(); v != f.Version(&e) || seen[v] != "" {
			f.Errorf("%q: %x, listed as %x; before it was of %q", text, v, f.Version(&e), seen[v])
		}
		seen[file.Version()] = text
		f.ok(file.Close())
	}
}

func reads(f *fixture) {
	e := f.entry("d/f")
	file, err := f.OpenFile(f.dir("d"), &e)
	f.ok(err)
	defer file.Close()
	b := make([]byte, 8)
	if n, err := file.ReadAt(b, 1); err != nil || string(b[:n]) != "ne" || file.Size() != 3 || file.Sparse() {
		f.Errorf("%q, %v, of %d", b[:n], err, file.Size())
	}
	if start, end, err := file.Data(1, 3); start != 1 || end != 3 || err != nil {
		f.Errorf("data from %d to %d, %v", start, end, err)
	}
	live := func() error { return nil }
	whole := file.Digest(live)
	if changed, err := file.Changed(); whole.Err != nil || whole.Size != 3 || changed || err != nil {
		f.Errorf("%+v, changed %v, %v", whole, changed, err)
	}
	f.write("d/same", "one")
	if other := f.Digest("d/same", nil, live); other.Err != nil || other.Sum != whole.Sum {
		f.Errorf("the same content elsewhere: %+v, not %+v", other, whole)
	}
	stop := errors.New("stop")
	if res := file.Digest(func() error { return stop }); !errors.Is(res.Err, stop) {
		f.Errorf("stopped: %+v", res)
	}
	f.write("d/f", "longer")
	f.Marked("d/f")
	if changed, err := file.Changed(); !changed || err != nil {
		f.Errorf("changed %v, %v", changed, err)
	}
	if res := file.Digest(live); !errors.Is(res.Err, slave.ErrConflict) {
		f.Errorf("changed: %+v", res)
	}
}

func attributes(f *fixture) {
	f.ok(unix.Setxattr(f.at("d/f"), "user.a", []byte("b"), 0))
	f.ok(unix.Chmod(f.at("d/f"), 0o4750))
	f.ok(os.Symlink("target", f.at("d/link")))
	f.Marked("d/f", "d/link")
	e, link := f.entry("d/f"), f.entry("d/link")
	for what, read := range map[string]func(*beneath.Dir, *plan.Entry) (slave.Meta, error){"MetaOf": f.MetaOf, "FileMeta": f.FileMeta} {
		m, err := read(f.dir("d"), &e)
		if err != nil || m.Mode != 0o4750 || m.Size != 3 || len(m.Xattrs) != 1 || m.Xattrs[0].Name != "user.a" || string(m.Xattrs[0].Value) != "b" {
			f.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	if m, err := f.MetaOf(f.dir("d"), &link); err != nil || m.Target != "target" {
		f.Errorf("%+v, %v", m, err)
	}
	f.replace("d/f", "three")
	_, err := f.MetaOf(f.dir("d"), &e)
	f.isGone("attributes of another file", err)
	_, err = f.FileMeta(f.dir("d"), &e)
	if e.Bare {
		err = source.ErrMoved // nothing of it is read
	}
	f.isGone("attributes of another file for a content", err)
}

func away(f *fixture) {
	f.Away()
	if err := f.Check(); !errors.Is(err, source.ErrNotMaster) {
		f.Errorf("%v", err)
	}
}
