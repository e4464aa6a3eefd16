package crawler_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/slave"
)

// scenario changes a master whose slave is in step, and what a dry run says of that: what is done, the path, where it comes from, what
// of it changes, and how much is sent or removed.
type scenario struct {
	name   string
	change func(w *world)
	want   []string
	// unseen: all of it is kept beside the files of a slave by SFTP, which show nothing of it; unshown: snapshot shows it nowhere.
	unseen, unshown bool
}

// itemLine is a change as scenarios have it.
func itemLine(c crawler.Change) string {
	text := fmt.Sprintf("%s %s %q", c.Do, c.Kind, c.Path)
	if c.From != "" {
		text += fmt.Sprintf(" from %q", c.From)
	}
	if len(c.Props) > 0 {
		text += " " + strings.Join(c.Props, ",")
	}
	if c.Bytes > 0 {
		text += fmt.Sprint(" ", c.Bytes, "B")
	}
	if c.Entries != 1 {
		text += fmt.Sprint(" ", c.Entries, " entries")
	}
	return text
}

// acl is an ACL that gives a user more than the mode does.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 6, 4711}, {4, 4, ^uint32(0)}, {16, 6, ^uint32(0)}, {32, 4, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, e.tag), e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// oldTimes gives everything the same old times, so that a scenario changes those that it means to.
func (w *world) oldTimes() {
	w.t.Helper()
	at := unix.NsecToTimespec(time.Unix(1_700_000_000, 123_456_789).UnixNano())
	w.ok(filepath.WalkDir(w.master, func(p string, _ os.DirEntry, err error) error {
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	}))
}

func scenarios() []scenario {
	times := func(w *world, path string, sec, nsec int64) {
		at := unix.NsecToTimespec(time.Unix(sec, nsec).UnixNano())
		w.ok(unix.UtimesNanoAt(unix.AT_FDCWD, w.at(path), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
	rewrite := func(w *world, path, text string) {
		f, err := os.OpenFile(w.at(path), os.O_WRONLY|os.O_TRUNC, 0)
		w.ok(err)
		_, err = f.WriteString(text)
		w.ok(err)
		w.ok(f.Close())
	}
	return []scenario{
		{name: "nothing", change: func(*world) {}},
		{name: "a new file", change: func(w *world) { w.write("d/new", "12345") }, want: []string{`make file "d/new" 5B`}},
		{name: "new directories", change: func(w *world) { w.write("d/x/y/f", "1") },
			want: []string{`make directory "d/x"`, `make directory "d/x/y"`, `make file "d/x/y/f" 1B`}},
		{name: "a new link", change: func(w *world) { w.ok(os.Symlink("f", w.at("d/s2"))) }, want: []string{`make symbolic link "d/s2"`}},
		{name: "a new FIFO", change: func(w *world) { w.ok(unix.Mkfifo(w.at("d/p2"), 0o600)) }, want: []string{`make fifo "d/p2"`}, unseen: true},
		{name: "a new device", change: func(w *world) { w.ok(unix.Mknod(w.at("d/c2"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))) },
			want: []string{`make character device "d/c2"`}, unseen: true},
		{name: "a further name", change: func(w *world) { w.ok(os.Link(w.at("d/f"), w.at("d/g2"))) }, want: []string{`link file "d/g2" from "d/f"`}},
		{name: "content", change: func(w *world) { rewrite(w, "d/f", "another"); times(w, "d/f", 1_700_000_000, 123_456_789) },
			want: []string{`change file "d/f" content 7B`}},
		{name: "content of the same size and time", change: func(w *world) { rewrite(w, "d/f", "tfxe"); times(w, "d/f", 1_700_000_000, 123_456_789) },
			want: []string{`change file "d/f" content 4B`}},
		{name: "a file's mode", change: func(w *world) { w.ok(os.Chmod(w.at("d/f"), 0o600)) }, want: []string{`change file "d/f" mode`}},
		{name: "a directory's mode", change: func(w *world) { w.ok(os.Chmod(w.at("d/e"), 0o700)) }, want: []string{`change directory "d/e" mode`}},
		{name: "the root's mode", change: func(w *world) { w.ok(os.Chmod(w.master, 0o711)) }, want: []string{`change directory "" mode`}},
		{name: "an owner", change: func(w *world) { w.ok(os.Chown(w.at("d/f"), 4711, 4712)) }, want: []string{`change file "d/f" owner`}},
		{name: "a time", change: func(w *world) { times(w, "d/f", 1_700_000_001, 123_456_789) }, want: []string{`change file "d/f" mtime`}},
		{name: "a time below the second", change: func(w *world) { times(w, "d/f", 1_700_000_000, 5) }, want: []string{`change file "d/f" mtime`}, unseen: true},
		{name: "a directory's time below the second", change: func(w *world) { times(w, "d/e", 1_700_000_000, 5) },
			want: []string{`change directory "d/e" mtime`}, unseen: true},
		{name: "a link's time", change: func(w *world) { times(w, "d/s", 1_700_000_009, 5) }, want: []string{`change symbolic link "d/s" mtime`}, unshown: true},
		{name: "xattrs", change: func(w *world) { w.ok(unix.Lsetxattr(w.at("d/f"), "trusted.own", []byte("x"), 0)) },
			want: []string{`change file "d/f" xattrs`}, unshown: true},
		{name: "an ACL", change: func(w *world) { w.ok(unix.Lsetxattr(w.at("d/f"), slave.AttrACL, acl(), 0)) },
			want: []string{`change file "d/f" mode,acl`}},
		{name: "a default ACL", change: func(w *world) { w.ok(unix.Lsetxattr(w.at("d/e"), slave.AttrDefaultACL, acl(), 0)) },
			want: []string{`change directory "d/e" acl`}, unshown: true},
		{name: "a FIFO's mode", change: func(w *world) { w.ok(os.Chmod(w.at("d/p"), 0o640)) }, want: []string{`change fifo "d/p" mode`}, unseen: true},
		{name: "another device", change: func(w *world) {
			w.ok(os.Remove(w.at("d/c")))
			w.ok(unix.Mknod(w.at("d/c"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))))
			times(w, "d/c", 1_700_000_000, 123_456_789)
		}, want: []string{`change character device "d/c" device`}, unshown: true},
		{name: "another link", change: func(w *world) {
			w.ok(os.Remove(w.at("d/s")))
			w.ok(os.Symlink("elsewhere", w.at("d/s")))
			times(w, "d/s", 1_700_000_000, 123_456_789)
		}, want: []string{`change symbolic link "d/s" target`}},
		{name: "another kind", change: func(w *world) {
			w.ok(os.Remove(w.at("d/s")))
			w.write("d/s", "now a file")
		}, want: []string{`change file "d/s" type 10B`}},
		{name: "a move", change: func(w *world) { w.rename("d/f", "d/e/f") }, want: []string{`move file "d/e/f" from "d/f"`}},
		{name: "a move with a change", change: func(w *world) { w.rename("d/f", "d/e/f"); w.ok(os.Chmod(w.at("d/e/f"), 0o600)) },
			want: []string{`move file "d/e/f" from "d/f" mode`}},
		{name: "a directory moves", change: func(w *world) { w.rename("d", "e"); w.write("e/e/new", "1") },
			want: []string{`move directory "e" from "d"`, `make file "e/e/new" 1B`}},
		{name: "two change places", change: func(w *world) { w.exchange("d/f", "d/g") },
			want: []string{`move file "d/f" from "d/g"`, `move file "d/g" from "d/f"`}},
		{name: "a file goes", change: func(w *world) { w.ok(os.Remove(w.at("d/f"))) }, want: []string{`remove file "d/f"`}},
		{name: "a FIFO goes", change: func(w *world) { w.ok(os.Remove(w.at("d/p"))) }, want: []string{`remove fifo "d/p"`}, unseen: true},
		{name: "a directory goes", change: func(w *world) { w.ok(os.RemoveAll(w.at("d"))) }, want: []string{`remove directory "d" 9 entries`}},
	}
}

// slavesOf runs a test for each kind of slave; by SFTP also for one whose account may not give files away.
func slavesOf(t *testing.T, test func(t *testing.T, w *world, bySFTP bool)) {
	for _, kind := range []string{"disk", "sftp", "sftp, an ordinary account"} {
		t.Run(kind, func(t *testing.T) {
			w := inMemory(t, false)
			if kind == "disk" {
				test(t, w, false)
				return
			}
			w.ok(w.tree.Close())
			w.tree = nil
			w.ok(os.RemoveAll(w.slave))
			w.ok(os.Mkdir(w.slave, 0o755))
			w.connectSFTP()
			if kind != "sftp" {
				w.ok(os.Chown(w.there(slave.Reserved, "owner"), 4711, 4711))
			}
			test(t, w, true)
		})
	}
}

// TestDryRunItemises: what a dry run says of a change is the same for each kind of slave, and what a sync does then: the paths that
// are told differ afterwards, no others do, and after it nothing is left to be told.
func TestDryRunItemises(t *testing.T) {
	slavesOf(t, func(t *testing.T, w *world, bySFTP bool) {
		w.maxDelete = 100
		for _, s := range scenarios() {
			w.itemise(t, &s, bySFTP)
		}
	})
}

// itemise begins with a tree of one of everything, and goes through one scenario.
func (w *world) itemise(t *testing.T, s *scenario, bySFTP bool) {
	entries, err := os.ReadDir(w.master)
	w.ok(err)
	for _, e := range entries {
		w.ok(os.RemoveAll(w.at(e.Name())))
	}
	w.ok(os.Chmod(w.master, 0o755))
	w.write("stays", "")
	w.write("d/f", "text")
	w.write("d/g", "more")
	w.write("d/e/h", "h")
	w.ok(os.Symlink("f", w.at("d/s")))
	w.ok(unix.Mkfifo(w.at("d/p"), 0o600))
	w.ok(unix.Mknod(w.at("d/c"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	w.ok(os.Link(w.at("d/e/h"), w.at("d/h")))
	w.oldTimes()
	w.markAll()
	w.passes()
	s.change(w)
	directories := w.sameTimes()
	w.markAll()
	before := snapshot(t, w.slave, false)
	aside := w.aside()
	var got, want []string
	list := w.dry(aside, time.Time{}, true)
	w.ok(aside.Close())
	for _, c := range list {
		got = append(got, itemLine(c))
	}
	want = append(want, s.want...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: told\n  %s\nwant\n  %s", s.name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	w.passes()
	after := snapshot(t, w.slave, false)
	surely, possibly := foretold(list, bySFTP, before, after)
	for path := range differing(before, after) {
		if !possibly[path] && !directories[path] {
			t.Errorf("%s: %q differs, and nothing was told of it", s.name, path)
		}
	}
	for path, is := range surely {
		if is && before[path] == after[path] && !(bySFTP && s.unseen) && !s.unshown {
			t.Errorf("%s: %q was told to change, and does not", s.name, path)
		}
	}
	aside = w.aside()
	for _, c := range w.dry(aside, time.Time{}, true) {
		t.Errorf("%s: still told after it was done: %s", s.name, itemLine(c))
	}
	w.ok(aside.Close())
}

// passes brings the slave in step.
func (w *world) passes() {
	w.t.Helper()
	if out := w.pass(); out.Stime == 0 {
		list, total := w.crawler.Failures(10)
		w.t.Fatalf("not stamped; %d failures: %v", total, list)
	}
}

// sameTimes gives the directories whose entries a scenario changed their old times again. They are among what a sync sets.
func (w *world) sameTimes() map[string]bool {
	w.t.Helper()
	out := map[string]bool{}
	w.ok(filepath.WalkDir(w.master, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		st := unix.Stat_t{}
		if err := unix.Stat(p, &st); err != nil || st.Mtim.Sec == 1_700_000_000 {
			return err
		}
		rel, _ := filepath.Rel(w.master, p)
		out[rel] = true
		at := unix.NsecToTimespec(time.Unix(1_700_000_000, 123_456_789).UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, 0)
	}))
	return out
}
