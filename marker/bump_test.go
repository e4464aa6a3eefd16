package marker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// fill leaves an inode of ext4 no room for one more xattr of ours, and tells which it got.
func fill(t *testing.T, path string) {
	t.Helper()
	n := 0
	for size := 2048; size >= 8; {
		err := unix.Setxattr(path, fmt.Sprintf("user.k%d", n), make([]byte, size), 0)
		switch {
		case err == nil:
			n++
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		default:
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Fatal("nothing was filled")
	}
}

// seenAs is the xtime that a crawl takes an entry to have (master.effective of the crawler).
func (v *vol) seenAs(path string) xtime.Time {
	v.t.Helper()
	x := v.xtime(path)
	if x == 0 {
		x = v.ctime(path)
	}
	return max(x, v.o.VolumeMark)
}

func (v *vol) ctime(path string) xtime.Time {
	v.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(v.o.Root, path), &st); err != nil {
		v.t.Fatal(err)
	}
	return xtime.FromTime(time.Unix(st.Ctim.Sec, st.Ctim.Nsec))
}

// TestDirectoryWithoutRoom has changes below a directory whose xattrs leave no room for a mark. A crawl finds them by its
// ctime, the heartbeat goes on, and the status names it; once it has room again it is marked.
func TestDirectoryWithoutRoom(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir -p a/full/sub/full; touch a/full/sub/f a/full/sub/full/g")
			fill(t, filepath.Join(v.o.Root, "a/full"))
			fill(t, filepath.Join(v.o.Root, "a/full/sub/full"))
			v.aged()
			v.start().quiet()
			for n := range 3 { // the same directories again and again
				before, saw := v.all(), v.seenAs("a/full")
				v.sh(fmt.Sprintf("echo %d > a/full/sub/f; echo %d > a/full/sub/full/g", n, n))
				v.quiet()
				v.checkMarked(before, "", "a", "a/full/sub", "a/full/sub/f", "a/full/sub/full/g")
				if now := v.seenAs("a/full"); now <= saw || now < v.seenAs("a/full/sub") {
					t.Errorf("round %d: a crawl sees the directory as %v, as before %v; what lies in it as %v", n, now, saw, v.seenAs("a/full/sub"))
				}
				if v.seenAs("a/full/sub/full") < v.xtime("a/full/sub/full/g") {
					t.Errorf("round %d: a crawl does not see the directory below", n)
				}
			}
			v.names(`"a/full": no space left on device`, `"a/full/sub/full": no space left on device`)
			v.sh("setfattr -x user.k0 a/full")
			v.quiet()
			if v.xtime("a/full") == 0 || v.xtime("a/full") > v.xtime("a") {
				t.Errorf("with room it has %v, the one above %v", v.xtime("a/full"), v.xtime("a"))
			}
			v.sh("rm -r a/full/sub/full")
			v.quiet()
			v.names()
		})
	}
}

// names waits until the status names these entries as not marked, and no others.
func (v *vol) names(want ...string) {
	v.t.Helper()
	v.until(fmt.Sprintf("the status names %q", want), func() bool {
		s, err := ReadStatus(v.o.Dir)
		if err != nil || len(s.UnmarkedSample) != len(want) {
			return false
		}
		text := strings.Join(s.UnmarkedSample, "\n")
		for _, one := range want {
			if !strings.Contains(text, one) {
				return false
			}
		}
		return true
	})
}

// TestOnceWithoutRoom: a sync without a marker does not fail for it.
func TestOnceWithoutRoom(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.sh("mkdir -p full/sub; touch full/sub/f full/sub/g")
	fill(t, filepath.Join(v.o.Root, "full"))
	v.aged()
	if _, err := Once(t.Context(), v.o); err != nil {
		t.Fatal(err)
	}
	saw := v.seenAs("full")
	v.sh("echo x > full/sub/f")
	s, err := Once(t.Context(), v.o)
	if now := v.seenAs("full"); err != nil || now <= saw || now < v.seenAs("full/sub") || v.xtime("full/sub/f") == 0 {
		t.Errorf("%v, %+v: seen as %v, before as %v", err, s, now, saw)
	}
	seen := v.seenAs("full")
	if _, err := Once(t.Context(), v.o); err != nil || v.seenAs("full") < seen {
		t.Errorf("once more: %v, seen as %v, before as %v", err, v.seenAs("full"), seen)
	}
}

// TestHintsWithoutRoom: a directory that took no mark is told as a whole, also when it takes one again, after a restart of
// the marker too: from none to that mark, names would not tell what it was bumped for.
func TestHintsWithoutRoom(t *testing.T) {
	for _, source := range []string{SourceFanotify, SourceInotify} {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir -p full/sub; touch full/sub/f full/g")
			fill(t, filepath.Join(v.o.Root, "full"))
			v.aged()
			v.start().quiet()
			l := hear(t, v)
			v.sh("echo x > full/sub/f")
			l.reached(v)
			if whole, told := l.whole(t, v, "full"); !whole || !told {
				t.Errorf("after a change below: whole %v, told %v", whole, told)
			}
			v.quiet()
			v.halt()
			v.start().quiet()
			l = hear(t, v)
			v.sh("setfattr -x user.k0 full; echo y > full/g")
			l.reached(v)
			if whole, told := l.whole(t, v, "full"); !whole || !told || v.xtime("full") == 0 {
				t.Errorf("with room: whole %v, told %v, xtime %v", whole, told, v.xtime("full"))
			}
			v.quiet()
			l.forget()
			v.sh("echo z > full/g")
			l.reached(v)
			if whole, told := l.whole(t, v, "full"); whole || !told {
				t.Errorf("after that: whole %v, told %v", whole, told)
			}
		})
	}
}

// whole tells whether the first hint of a directory is of all of it, and whether there is one.
func (l *listener) whole(t *testing.T, v *vol, path string) (whole, told bool) {
	t.Helper()
	d, err := v.m.Root.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	g, err := d.GFID("")
	if err != nil {
		t.Fatal(err)
	}
	heard := l.heard()
	for _, h := range heard.hints {
		for _, one := range h.Dirs {
			if one.GFID == g {
				return one.Whole, true
			}
		}
	}
	return heard.gaps > 0, heard.gaps > 0
}

// TestTroubleIsNamed: every line of the log about what will be tried again names the entry from the root, and so does the
// status.
func TestTroubleIsNamed(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			v.o.Source = source
			var lines linesOf
			v.o.Logger = zerolog.New(&lines)
			v.sh("mkdir -p a/b; touch a/b/f")
			broken := unix.Errno(0)
			var mu sync.Mutex
			v.start(func(m *marker) {
				set := m.set
				m.set = func(d *beneath.Dir, name string, x xtime.Time) error {
					mu.Lock()
					defer mu.Unlock()
					if broken != 0 {
						return broken
					}
					return set(d, name, x)
				}
			})
			v.quiet()
			mu.Lock()
			broken = unix.EIO
			mu.Unlock()
			v.sh("echo x > a/b/f")
			for _, path := range []string{`"."`, `"a"`, `"a/b"`, `"a/b/f"`} {
				v.until("a line about "+path, func() bool { return lines.has(`"path":` + path + `,"error":"input/output error"`) })
			}
			if source != SourceScan {
				v.until("the status names one", func() bool {
					s, err := ReadStatus(v.o.Dir)
					return err == nil && strings.Contains(s.Reason, `such as ".": input/output error`)
				})
			}
			mu.Lock()
			broken = 0
			mu.Unlock()
			v.quiet()
			if lines.has(`"path":""`) || lines.has("  ") {
				t.Errorf("a line names nothing:\n%s", lines.text)
			}
		})
	}
}

// linesOf collects a log.
type linesOf struct {
	mu   sync.Mutex
	text string
}

func (l *linesOf) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

func (l *linesOf) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text, part)
}

// TestBumpByErrno: whatever keeps a directory that has no xtime from a mark, it gets a later ctime, each time; with one, the
// mark is tried again. Of a file nothing is changed, which would cost its setuid bit.
func TestBumpByErrno(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.sh("mkdir none marked; touch file; chmod 4755 file")
	o, err := v.o.checked()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := newCore(&o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	x, err := c.clock.Next()
	if err != nil {
		t.Fatal(err)
	}
	if c.stamp(c.Root, "marked", x) != tree.Done {
		t.Fatal("a directory was not marked")
	}
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE, unix.EINVAL, unix.EACCES, unix.EPERM} {
		c.set = func(*beneath.Dir, string, xtime.Time) error { return errno }
		if x, err = c.clock.Next(); err != nil {
			t.Fatal(err)
		}
		before, marked := v.seenAs("none"), v.xtime("marked")
		if got := c.stamp(c.Root, "none", x); got != tree.Bumped || v.seenAs("none") <= before || v.seenAs("none") < x {
			t.Errorf("%v: %v, seen as %v, before as %v, for %v", errno, got, v.seenAs("none"), before, x)
		}
		if got := c.stamp(c.Root, "marked", x); got != tree.Again || v.xtime("marked") != marked {
			t.Errorf("%v: of one that has a mark %v", errno, got)
		}
		if got := c.stamp(c.Root, "file", x); got != tree.Refused {
			t.Errorf("%v: of a file %v", errno, got)
		}
	}
	if fi, err := os.Stat(filepath.Join(v.o.Root, "file")); err != nil || fi.Mode()&os.ModeSetuid == 0 {
		t.Errorf("the file is %v, %v", fi.Mode(), err)
	}
}
