package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

func root(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := OpenRoot(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestValidPath(t *testing.T) {
	long := strings.Repeat("n", 255)
	for path, want := range map[string]bool{
		"": true, "a": true, "a/b": true, "\xff\n": true, long: true, long + "/" + long: true, "...": true, ".a/..b": true,
		"/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/..": false, "a/./b": false,
		"a\x00": false, long + "n": false,
	} {
		if ValidPath(path) != want {
			t.Errorf("ValidPath(%.20q) = %v", path, !want)
		}
		if want && path != "" {
			if dir, name := Split(path); Join(dir, name) != path || !ValidPath(dir) || !ValidName(name) {
				t.Errorf("Split(%.20q) = %.20q, %.20q", path, dir, name)
			}
		}
	}
}

func FuzzValidPath(f *testing.F) {
	for _, s := range []string{"", "a/b", "../x", "a//", "\x00", "a/./b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if ValidPath(path) && path != "" && (filepath.Clean(path) != path || filepath.IsAbs(path) || !filepath.IsLocal(path)) {
			t.Fatalf("%q is not local and clean", path)
		}
	})
}

// TestNothingIsFollowed plants symbolic links where directories are wanted, inside and outside, and at the entry.
func TestNothingIsFollowed(t *testing.T) {
	d, path := root(t)
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/f", []byte("outside"), 0o644), os.Mkdir(path+"/real", 0o755),
		os.Symlink(outside, path+"/out"), os.Symlink("real", path+"/in"), os.Symlink(outside+"/f", path+"/file"))
	for _, p := range []string{"out", "in", "out/x", "real/../in"} {
		for _, open := range []func(string) (*Dir, error){d.OpenDir, d.OpenPath} {
			if got, err := open(p); err == nil {
				got.Close()
				t.Errorf("%s was opened", p)
			} else if p == "out" && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	if f, err := d.OpenFile("file", unix.O_RDONLY, 0); !errors.Is(err, unix.ELOOP) {
		f.Close()
		t.Errorf("the file behind a link: %v", err)
	}
	if _, err := d.OpenInode("file"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("the inode behind a link: %v", err)
	}
	must(t, d.SetMtime("file", Time{Sec: 5}))
	if err := d.Chmod("file", 0o600); err == nil {
		t.Error("the mode of a link was set")
	}
	if os.Geteuid() == 0 {
		must(t, d.Chown("file", 1, 1), d.Setxattr("file", "trusted.x", []byte("1")))
	}
	st, err := os.Stat(outside + "/f")
	must(t, err)
	if st.Mode().Perm() != 0o644 || st.ModTime().Unix() == 5 {
		t.Errorf("the file outside was changed: %v, %v", st.Mode(), st.ModTime())
	}
	if n, _ := unix.Listxattr(outside+"/f", make([]byte, 64)); n != 0 && os.Geteuid() == 0 {
		t.Error("the file outside got an xattr")
	}
	for _, p := range []string{"..", "a/../..", "/", "/etc"} {
		if _, err := d.OpenDir(p); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestMountsAreNotEntered(t *testing.T) {
	d, err := OpenRoot("/", true)
	must(t, err)
	defer d.Close()
	if got, err := d.OpenDir("proc"); !errors.Is(err, unix.EXDEV) {
		got.Close()
		t.Errorf("got %v, want EXDEV", err)
	}
}

func TestLongPaths(t *testing.T) {
	d, _ := root(t)
	at, path := d, ""
	for len(path) < 3*4096 {
		name := strings.Repeat("x", 200+len(path)%50)
		must(t, at.Mkdir(name, 0o755))
		path = Join(path, name)
		next, err := at.OpenDir(name)
		must(t, err)
		defer next.Close()
		at = next
	}
	f, err := at.Create("file", 0o600)
	must(t, err)
	must(t, f.Close())
	got, err := d.OpenDir(path)
	must(t, err)
	defer got.Close()
	a, err1 := got.Stat("")
	b, err2 := at.Stat("")
	must(t, err1, err2)
	if a.Ino != b.Ino {
		t.Fatal("another directory was opened")
	}
	if _, err := got.Stat("file"); err != nil {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	d, path := root(t)
	want := []string{"\n", "\xff", strings.Repeat("l", 255), "dir", "link"}
	must(t, os.Mkdir(path+"/dir", 0o755), os.Symlink("x", path+"/link"))
	for _, name := range want[:3] {
		must(t, os.WriteFile(path+"/"+name, nil, 0o644))
	}
	for i := range 3000 {
		name := fmt.Sprint("many", i)
		must(t, os.WriteFile(path+"/"+name, nil, 0o644))
		want = append(want, name)
	}
	for range 2 { // it starts over at each call
		var got []string
		must(t, d.List(func(e Entry) error {
			got = append(got, e.Name)
			st, err := d.Stat(e.Name)
			if err != nil || st.Ino != e.Ino || e.Type != 0 && uint32(e.Type) != st.Mode>>12 {
				t.Errorf("%q: %+v, %+v, %v", e.Name, e, st, err)
			}
			return nil
		}))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%d names, want %d", len(got), len(want))
		}
	}
	stop := errors.New("stop")
	if err := d.List(func(Entry) error { return stop }); err != stop {
		t.Fatalf("got %v", err)
	}
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x18\x00\x08ab\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = eachDirent(b, func(e Entry) error {
			if strings.ContainsRune(e.Name, 0) {
				t.Fatalf("name %q", e.Name)
			}
			return nil
		})
	})
}

func TestInode(t *testing.T) {
	d, path := root(t)
	f, err := d.Create("f", 0o600)
	must(t, err)
	defer f.Close()
	if _, err := d.Create("f", 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("got %v", err)
	}
	if _, err := d.Create("a/b", 0o600); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("got %v", err)
	}
	_, err = f.WriteAt([]byte("tail"), 1<<20)
	must(t, err, f.Truncate(2<<20))
	f.StartFlush(0, 2<<20)
	// Both ways to the same inode: by descriptor, and by name after the close.
	for i := range 2 {
		must(t, f.Chmod(0o640), f.Setxattr("user.a", []byte("v")), f.Setxattr("user.b", nil))
		must(t, f.SetMtime(Time{Sec: -5, Nsec: 7}))
		names, err := f.Listxattr()
		must(t, err)
		if !slices.Contains(names, "user.a") || !slices.Contains(names, "user.b") {
			t.Fatalf("xattrs %q", names)
		}
		must(t, f.Removexattr("user.b"))
		if err := f.Removexattr("user.b"); !errors.Is(err, unix.ENODATA) {
			t.Fatalf("got %v", err)
		}
		st, err := f.Stat()
		must(t, err)
		if st.Size != 2<<20 || st.Mode&0o7777 != 0o640 || st.Mtime != (Time{Sec: -5, Nsec: 7}) || st.Blocks > 1024 {
			t.Fatalf("%+v", st)
		}
		if i == 0 {
			must(t, f.Fsync(), f.Close(), f.Close(), os.Chmod(path+"/f", 0o600), os.Chtimes(path+"/f", time.Unix(1, 0), time.Unix(1, 0)))
		}
	}
	in, err := d.OpenInode("f")
	must(t, err)
	defer in.Close()
	n, err := in.Read(make([]byte, 10))
	if n != 10 || err != nil || in.Name() != "f" {
		t.Fatalf("read %d, %v", n, err)
	}
}

func TestSpecialFiles(t *testing.T) {
	d, _ := root(t)
	must(t, d.Mknod("fifo", unix.S_IFIFO|0o644, 0), d.Symlink("to\xff", "link"), d.Mkdir("dir", 0o700))
	target, err := d.Readlink("link")
	if err != nil || target != "to\xff" {
		t.Fatalf("%q, %v", target, err)
	}
	// Opening must not wait for a writer.
	f, err := d.OpenInode("fifo")
	must(t, err)
	must(t, f.Close(), d.Chmod("fifo", 0o600), d.Link("link", d, "link2"))
	if st, err := d.Stat("link2"); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Nlink != 2 {
		t.Fatalf("%+v, %v", st, err)
	}
	must(t, d.Rename("dir", d, "dir2", unix.RENAME_NOREPLACE), d.Rmdir("dir2"), d.Unlink("fifo"))
	if err := d.Rename("link", d, "link2", unix.RENAME_NOREPLACE); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("got %v", err)
	}
	must(t, d.Fsync(), d.Syncfs())
}

func TestGFIDIsTheInodes(t *testing.T) {
	for _, base := range []string{t.TempDir(), "/dev/shm"} {
		path, err := os.MkdirTemp(base, "beneath")
		must(t, err)
		defer os.RemoveAll(path)
		d, err := OpenRoot(path, true)
		must(t, err)
		defer d.Close()
		must(t, os.WriteFile(path+"/a", nil, 0o644), os.Mkdir(path+"/sub", 0o755))
		first, err := d.GFID("a")
		must(t, err, d.Link("a", d, "b"), d.Rename("a", d, "c", 0), os.WriteFile(path+"/c", []byte("x"), 0o644))
		for _, name := range []string{"b", "c"} {
			if g, err := d.GFID(name); err != nil || g != first {
				t.Errorf("%s: %v, %v, want %v", name, g, err, first)
			}
		}
		// A new inode, perhaps of the same number.
		must(t, d.Unlink("b"), d.Unlink("c"), os.WriteFile(path+"/c", nil, 0o644))
		if g, err := d.GFID("c"); err != nil || g == first {
			t.Errorf("a new file has the GFID %v, %v", g, err)
		}
		sub, err := d.OpenPath("sub")
		must(t, err)
		defer sub.Close()
		g1, err1 := sub.GFID("")
		g2, err2 := d.GFID("sub")
		id, err3 := sub.Identity()
		must(t, err1, err2, err3)
		if g1 != g2 || id.GFID != g1 || id.FSID == "" {
			t.Errorf("%v, %v, %+v of one directory", g1, g2, id)
		}
		if _, err := d.GFID("none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
}

// oldAndNew runs a test with the system calls for xattrs that this kernel has, and with those of before Linux 6.13.
func oldAndNew(t *testing.T, test func(t *testing.T, d *Dir, path string)) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old=%v", old), func(t *testing.T) {
			d, path := root(t)
			d.xattrAt = d.xattrAt && !old
			test(t, d, path)
		})
	}
}

func TestRecords(t *testing.T) { oldAndNew(t, testRecords) }

func testRecords(t *testing.T, d *Dir, path string) {
	ns, err := d.ProbeNamespace()
	must(t, err)
	if want := map[bool]xtime.Namespace{true: xtime.Trusted, false: xtime.User}[os.Geteuid() == 0]; ns != want {
		t.Fatalf("namespace %s, want %s", ns, want)
	}
	if names, err := d.Listxattr(""); err != nil || len(names) != 0 {
		t.Fatalf("the probe left %q, %v", names, err)
	}
	names := xtime.NamesFor(ns, xtime.UUID{1})
	must(t, os.WriteFile(path+"/f", nil, 0o644))
	for _, name := range []string{"f", ""} {
		x, err1 := d.Xtime(name, &names)
		g, err2 := d.RecordedGFID(name, &names)
		must(t, err1, err2)
		if x != 0 || !g.IsZero() {
			t.Fatalf("%q: %v, %v on record from the start", name, x, g)
		}
		want := xtime.GFID{1, 2, 3}
		must(t, d.SetXtime(name, &names, 77<<32|5), d.Setxattr(name, names.GFID, want[:]))
		x, err1 = d.Xtime(name, &names)
		g, err2 = d.RecordedGFID(name, &names)
		must(t, err1, err2)
		if x != 77<<32|5 || g != want {
			t.Fatalf("%q: %v, %v", name, x, g)
		}
		// What is no xtime and no GFID counts as none.
		for _, bad := range []string{"", "short", "123456789", strings.Repeat("x", 40)} {
			must(t, d.Setxattr(name, names.Xtime, []byte(bad)), d.Setxattr(name, names.GFID, []byte(bad)))
			x, err1 = d.Xtime(name, &names)
			g, err2 = d.RecordedGFID(name, &names)
			must(t, err1, err2)
			if x != 0 || !g.IsZero() {
				t.Fatalf("%q: %q counts as %v, %v", name, bad, x, g)
			}
		}
		must(t, d.Removexattr(name, names.Xtime))
	}
	if _, err := d.Xtime("none", &names); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	d, err := OpenRoot(t.TempDir(), false)
	must(t, err, d.Close(), d.Close())
}

// TestXattrsOfLinks: those of a symbolic link are its own, on every way to them.
func TestXattrsOfLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's xattrs exist on symbolic links")
	}
	oldAndNew(t, func(t *testing.T, d *Dir, path string) {
		must(t, os.WriteFile(path+"/f", nil, 0o644), d.Symlink("f", "l"), d.Mkdir("sub", 0o755))
		sub, err := d.OpenPath("sub")
		must(t, err)
		defer sub.Close()
		must(t, sub.Symlink("../f", "l"))
		for _, at := range []*Dir{d, sub} {
			must(t, at.Setxattr("l", "trusted.x", []byte("link")))
			v, err := at.Getxattr("l", "trusted.x")
			must(t, err)
			var buf [4]byte
			n, err := at.GetxattrInto("l", "trusted.x", buf[:])
			must(t, err)
			list, err := at.Listxattr("l")
			must(t, err)
			if string(v) != "link" || string(buf[:n]) != "link" || !slices.Equal(list, []string{"trusted.x"}) {
				t.Errorf("%q, %q, %q", v, buf[:n], list)
			}
			if list, err := d.Listxattr("f"); err != nil || len(list) != 0 {
				t.Errorf("the target has %q, %v", list, err)
			}
			if _, err := at.GetxattrInto("l", "trusted.x", buf[:2]); !errors.Is(err, unix.ERANGE) {
				t.Errorf("a short buffer: %v", err)
			}
			must(t, at.Removexattr("l", "trusted.x"))
			if err := at.Removexattr("l", "trusted.x"); !errors.Is(err, unix.ENODATA) {
				t.Errorf("removed twice: %v", err)
			}
		}
		for _, name := range []string{"none", "l\x00"} {
			if err := d.Setxattr(name, "trusted.x", nil); err == nil {
				t.Errorf("an xattr of %q was set", name)
			}
		}
	})
}

func TestLongXattrList(t *testing.T) { oldAndNew(t, testLongXattrList) }

func testLongXattrList(t *testing.T, d *Dir, path string) {
	must(t, os.WriteFile(filepath.Join(path, "f"), nil, 0o600))
	for n := range 40 {
		must(t, d.Setxattr("f", fmt.Sprintf("user.%040d", n), []byte("x")))
		for _, pinned := range []bool{false, true} {
			at, name := d, "f"
			if pinned {
				p, err := d.Pin("f")
				must(t, err)
				defer p.Close()
				at, name = p, ""
			}
			list, err := at.Listxattr(name)
			must(t, err)
			if len(list) != n+1 {
				t.Fatalf("%d of %d names: %q", len(list), n+1, list)
			}
		}
	}
}
