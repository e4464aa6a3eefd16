package crawler_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
	"georep/slave/sftp"
)

// snapshot is what a tree shows, by path. With all it is everything that there is, ctimes too; else what replicas agree in.
func snapshot(t *testing.T, root string, all bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if rel == slave.Reserved && !all {
			return filepath.SkipDir
		}
		if rel == slave.Reserved+"/lease" {
			return nil // whoever has a slave by SFTP open changes it all the time
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d %d %d.%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			text = target // of which SFTP can set no time
		case e.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", content)
		}
		if all {
			text += fmt.Sprintf(" %d.%d %d", st.Ctim.Sec, st.Ctim.Nsec, st.Nlink) + xattrs(path)
		}
		out[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrs(path string) (text string) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return ""
	}
	names := strings.Split(string(buf[:n]), "\x00")
	slices.Sort(names)
	for _, name := range names {
		value := make([]byte, 4096)
		if k, err := unix.Lgetxattr(path, name, value); err == nil && name != "" {
			text += fmt.Sprintf(" %s=%x", name, value[:k])
		}
	}
	return text
}

// differing are the paths at which two snapshots differ.
func differing(a, b map[string]string) map[string]bool {
	out := map[string]bool{}
	for path := range a {
		out[path] = a[path] != b[path]
	}
	for path := range b {
		out[path] = a[path] != b[path]
	}
	maps.DeleteFunc(out, func(_ string, differs bool) bool { return !differs })
	return out
}

// dry tells what a dry run says, and that it leaves both trees as they are.
func (w *world) dry(there slave.Reader, since time.Time, marked bool) (list []crawler.Change) {
	w.t.Helper()
	before, slaveBefore := snapshot(w.t, w.master, true), snapshot(w.t, w.slave, true)
	_, err := crawler.DryRun(w.t.Context(), crawler.Options{Root: w.root, Path: w.master, Names: w.names,
		VolumeMark: func() xtime.Time { return w.volume }, Logger: zerolog.Nop(), Source: crawler.SourceOptions{Mounts: w.mounts}, Filter: w.filter, FilterSince: there.Info().Filter.Xtime},
		crawler.DryRunOptions{Slave: there, Since: since, Marked: marked, Found: func(c crawler.Change) { list = append(list, c) }})
	w.ok(err)
	for path := range differing(before, snapshot(w.t, w.master, true)) {
		w.t.Errorf("the dry run touched the master's %q", path)
	}
	for path := range differing(slaveBefore, snapshot(w.t, w.slave, true)) {
		w.t.Errorf("the dry run touched the slave's %q", path)
	}
	return list
}

// foretold are the paths of which a dry run said that they will differ: surely, and possibly, where something else may come to the
// same place.
func foretold(list []crawler.Change, bySFTP bool, before, after map[string]string) (surely, possibly map[string]bool) {
	surely, possibly = map[string]bool{}, map[string]bool{}
	below := func(dir string, in map[string]string) {
		for path := range in {
			if path == dir || strings.HasPrefix(path, dir+"/") {
				possibly[path] = true
			}
		}
	}
	for _, c := range list {
		path := c.Path
		if path == "" {
			path = "."
		}
		switch c.Do {
		case crawler.Remove:
			below(path, before)
		case crawler.Move:
			below(c.From, before)
			below(path, after)
			below(path, before)
		case crawler.Modify:
			// A slave by SFTP shows no times below a second, and keeps them all the same.
			surely[path] = !slices.Equal(c.Props, []string{"mtime"}) || !bySFTP
			possibly[path] = true
		default:
			possibly[path] = true
		}
	}
	return surely, possibly
}

// change makes one random change of a tree.
func changeAtRandom(t *testing.T, rnd *rand.Rand, root string) {
	t.Helper()
	var dirs, files []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if e.IsDir() {
			dirs = append(dirs, path)
		} else {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := dirs[rnd.IntN(len(dirs))]
	fresh := filepath.Join(dir, fmt.Sprint("n", rnd.IntN(1_000_000)))
	text := []byte(strings.Repeat("x", rnd.IntN(9)) + fmt.Sprint(rnd.IntN(1000)))
	var file, other string
	if len(files) > 0 {
		file, other = files[rnd.IntN(len(files))], files[rnd.IntN(len(files))]
	}
	switch n := rnd.IntN(12); {
	case n == 0:
		err = os.Mkdir(fresh, 0o755)
	case n == 1 || file == "":
		err = os.WriteFile(fresh, text, 0o644)
	case n == 2:
		err = os.Remove(file)
	case n == 3 && dir != root:
		err = os.RemoveAll(dir)
	case n == 4:
		err = os.Rename(file, fresh)
	case n == 5 && dir != root:
		if to := dirs[rnd.IntN(len(dirs))]; to != dir && !strings.HasPrefix(to, dir+"/") {
			err = os.Rename(dir, filepath.Join(to, filepath.Base(fresh)))
		}
	case n == 6 && file != other:
		err = os.Rename(file, other)
	case n == 7:
		err = os.Link(file, fresh)
	case n == 8:
		err = os.Symlink(string(text), fresh)
	case n == 9:
		if st, serr := os.Lstat(file); serr == nil && st.Mode().IsRegular() {
			err = os.WriteFile(file, text, 0o644)
		}
	case n == 10 && file != other:
		err = unix.Renameat2(unix.AT_FDCWD, file, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
	default:
		err = syscall.Chmod(dir, uint32(0o700+rnd.IntN(8)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDryRun changes the master at random, with marks or without: what a dry run says is what a sync does then, and it touches nothing.
func TestDryRun(t *testing.T) {
	kinds(t, func(t *testing.T, w *world, connect func()) {
		for seed := range seeds(t, 8) {
			w.dryAgainst(seed, connect)
		}
	})
}

// dryAgainst holds a dry run against the sync that follows.
func (w *world) dryAgainst(seed uint64, connect func()) {
	t, rnd := w.t, rand.New(rand.NewPCG(seed, 5))
	w.maxDelete = 100
	connect()
	for range 25 {
		changeAtRandom(t, rnd, w.master)
	}
	w.markAll()
	w.follows()
	since := realTime()
	for range 1 + rnd.IntN(8) {
		changeAtRandom(t, rnd, w.master)
	}
	aside := w.aside()
	before := snapshot(t, w.slave, false)
	marked := seed%2 == 1 // as by a marker that runs
	if marked {
		w.markAll()
	}
	list := w.dry(aside, since, marked)
	w.ok(aside.Close())
	w.markAll()
	w.follows()
	after := snapshot(t, w.slave, false)
	_, bySFTP := w.tree.(*sftp.Tree)
	differ := differing(before, after)
	surely, possibly := foretold(list, bySFTP, before, after)
	for path := range differ {
		if !possibly[path] {
			t.Errorf("seed %d: %q differs, and the dry run said nothing of it: %q, then %q", seed, path, before[path], after[path])
		}
	}
	for path, is := range surely {
		if is && !differ[path] {
			t.Errorf("seed %d: the dry run said that %q changes: %q", seed, path, after[path])
		}
	}
	if t.Failed() {
		t.Fatalf("%+v", list)
	}
}

// aside opens the slave to be looked at.
func (w *world) aside() slave.Reader {
	w.t.Helper()
	if _, ok := w.tree.(*sftp.Tree); !ok {
		tree, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test", DryRun: true})
		w.ok(err)
		return tree
	}
	tree, err := sftp.OpenInspector(w.t.Context(), sftp.Options{Path: w.slave, Host: "test", Master: w.uuid, Session: w.session, Version: "test",
		Logger: zerolog.Nop(), Open: func(context.Context, int) (io.ReadWriteCloser, error) { return serveSFTP(w.t) }})
	w.ok(err)
	return tree
}

// TestDryRunOfAFirstSync: each entry is made once, further names of an inode are links, and nobody's slave stays nobody's.
func TestDryRunOfAFirstSync(t *testing.T) {
	w := newMaster(t, t.TempDir(), t.TempDir())
	for i := range 5 {
		w.write(fmt.Sprint("d/e", i, "/f"), strings.Repeat("x", i))
	}
	w.ok(os.Link(w.at("d/e4/f"), w.at("link")))
	w.ok(os.Symlink("d", w.at("symlink")))
	told, bytes := map[string]crawler.Doing{}, int64(0)
	for _, c := range w.dry(w.aside(), time.Time{}, false) {
		if told[c.Path] != "" {
			t.Errorf("%q twice", c.Path)
		}
		told[c.Path], bytes = c.Do, bytes+c.Bytes
	}
	delete(told, "") // the root's own times
	links := 0
	for path := range snapshot(t, w.master, false) {
		if path != "." && told[path] == "" {
			t.Errorf("nothing of %q: %v", path, told)
		}
		if told[path] == crawler.Link {
			links++
		}
	}
	if len(told) != 13 || links != 1 || bytes != 0+1+2+3+4 {
		t.Errorf("%d entries, %d links, %d bytes: %v", len(told), links, bytes, told)
	}
}
