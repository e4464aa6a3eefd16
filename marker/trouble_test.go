package marker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/tree"
	"georep/marker/xtime"
)

func TestEntriesThatRefuseAMark(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir a; touch a/log a/fixed; chattr +a a/log")
			t.Cleanup(func() { v.sh("chattr -R -a -i .") })
			v.start().quiet()
			before := v.all()
			v.sh("echo line >> a/log; echo x > a/fixed; chattr +i a/fixed")
			v.settle()
			v.settle()
			if v.xtime("a") <= before["a"] || v.xtime("") <= before[""] || v.xtime("a/log") != 0 {
				t.Errorf("directory %v, was %v; root %v; file %v", v.xtime("a"), before["a"], v.xtime(""), v.xtime("a/log"))
			}
			if err := v.m.writeStatus(); err != nil {
				t.Fatal(err)
			}
			s, err := ReadStatus(v.o.Dir)
			if err != nil || s.Unmarked == 0 || !strings.Contains(strings.Join(s.UnmarkedSample, " "), "a/log") {
				t.Errorf("status %+v, %v: want a/log among the unmarked", s, err)
			}
		})
	}
}

// TestDirectoryThatRefusesAMark has those above it marked all the same.
func TestDirectoryThatRefusesAMark(t *testing.T) {
	for _, source := range []string{SourceFanotify, SourceInotify} {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir -p a/b; touch a/b/f; chattr +i a/b")
			t.Cleanup(func() { v.sh("chattr -R -i .") })
			v.start().quiet()
			before := v.all()
			v.sh("echo x > a/b/f")
			v.quiet()
			v.checkMarked(before, "", "a", "a/b/f")
		})
	}
}

// TestFailedMarksAreTriedAgain makes the n-th mark, and some after it, fail.
func TestFailedMarksAreTriedAgain(t *testing.T) {
	for _, source := range sources() {
		for n := range int64(10) {
			t.Run(fmt.Sprint(source, n), func(t *testing.T) { testFailAt(t, source, n) })
		}
	}
}

func testFailAt(t *testing.T, source string, n int64) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.o.Source = source
	v.sh("mkdir -p a/b c; touch a/b/f a/b/g c/h")
	v.start().quiet()
	v.halt()
	var armed atomic.Bool
	var calls, failures atomic.Int64
	v.start(func(m *marker) {
		set := m.set
		m.set = func(d *beneath.Dir, name string, x xtime.Time) error {
			if i := calls.Add(1); armed.Load() && i >= n && i < n+2 {
				failures.Add(1)
				return &os.PathError{Op: "setxattr", Path: name, Err: unix.EIO}
			}
			return set(d, name, x)
		}
	})
	v.quiet()
	before := v.all()
	calls.Store(-1)
	armed.Store(true)
	v.sh("echo x > a/b/f; echo y > a/b/g; echo z > c/h; chmod 700 a/b")
	v.settle()
	after := v.all()
	for path, x := range after {
		if x <= before[path] {
			t.Errorf("%q is not marked", path)
		}
		if dir, _ := beneath.Split(path); x > after[dir] {
			t.Errorf("%q has %v, the directory above only %v", path, x, after[dir])
		}
	}
	// All in one batch are seven marks.
	if failures.Load() == 0 && n < 7 {
		t.Error("nothing failed: the test tests nothing")
	}
}

// TestReadOnlyForAWhile has the file system turn read-only between a change and its mark, as after an error of the disk.
func TestReadOnlyForAWhile(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir -p a/b; touch a/b/f a/b/g")
			v.start().quiet()
			v.sh("echo 1 > a/b/f")
			v.quiet()
			before := v.all()
			v.m.core.mu.Lock()
			v.sh("echo 2 > a/b/f; sync -f .; mount -o remount,ro .")
			v.m.core.mu.Unlock()
			v.until("a mark that failed", func() bool { return v.m.counts.retrying.Load() > 0 || source == SourceScan })
			v.sh("mount -o remount,rw .")
			v.settle()
			v.checkMarked(before, "", "a", "a/b", "a/b/f")
		})
	}
}

func TestHeartbeatStandsStillWhileAMarkFails(t *testing.T) {
	for _, source := range []string{SourceFanotify, SourceInotify} {
		t.Run(source, func(t *testing.T) { testHeartbeatStandsStill(t, source) })
	}
}

func testHeartbeatStandsStill(t *testing.T, source string) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	v.o.Source = source
	v.sh("mkdir a; touch a/f")
	var broken atomic.Bool
	var failures atomic.Int64
	v.start(func(m *marker) {
		set := m.set
		m.set = func(d *beneath.Dir, name string, x xtime.Time) error {
			if name == "f" && broken.Load() {
				failures.Add(1)
				return unix.EIO
			}
			return set(d, name, x)
		}
	})
	v.quiet()
	broken.Store(true)
	v.sh("echo x > a/f; touch a/other")
	changed := time.Now()
	v.until("two failures", func() bool { return failures.Load() >= 2 })
	v.until("a mark of the other file", func() bool { return v.xtime("a/other") != 0 })
	if hb := v.m.beats.get(); hb.Time.After(changed) {
		t.Errorf("heartbeat %v after a change before %v that is not marked", hb.Time, changed)
	}
	held := v.m.beats.get().Time
	v.until("more failures", func() bool { return failures.Load() >= 3 })
	if v.m.beats.get().Time != held {
		t.Error("the heartbeat went on")
	}
	broken.Store(false)
	v.settle()
	if v.xtime("a/f") == 0 || v.xtime("") < v.xtime("a/f") {
		t.Errorf("file %v, root %v", v.xtime("a/f"), v.xtime(""))
	}
}

// TestFailedMarksDoNotFillTheLog has thousands of marks fail, again and again.
func TestFailedMarksDoNotFillTheLog(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			v.o.Source = source
			var lines atomic.Int64
			v.o.Logger = v.o.Logger.Hook(zerolog.HookFunc(func(e *zerolog.Event, l zerolog.Level, _ string) {
				if l >= zerolog.WarnLevel {
					lines.Add(1)
				}
			}))
			var broken atomic.Bool
			var failures atomic.Int64
			v.start(func(m *marker) {
				set := m.set
				m.set = func(d *beneath.Dir, name string, x xtime.Time) error {
					if broken.Load() {
						failures.Add(1)
						return unix.EIO
					}
					return set(d, name, x)
				}
			})
			v.quiet()
			broken.Store(true)
			v.sh("mkdir d; seq 2000 | sed 's,^,d/,' | xargs touch")
			v.until("thousands of failures", func() bool { return failures.Load() > 4000 })
			broken.Store(false)
			v.settle()
			if n := lines.Load(); n == 0 || n > 3*warnBurst {
				t.Errorf("%d lines for %d failures", n, failures.Load())
			}
		})
	}
}

func TestTwoVolumesOnOneFileSystem(t *testing.T) {
	dir := fstest.Mount(t, fstest.XFS, fstest.Options{})
	shIn(t, dir, "mkdir one two; touch one/f two/f")
	one, two := newVol(t, filepath.Join(dir, "one")).start(), newVol(t, filepath.Join(dir, "two")).start()
	one.quiet()
	two.quiet()
	before := two.all()
	one.sh("echo x > f")
	one.quiet()
	two.quiet()
	two.checkMarked(before)
	if one.xtime("f") == 0 {
		t.Error("the changed volume is not marked")
	}
}

// TestMovedIn has a directory that was busy outside, and known as such, moved into the volume, and out again.
func TestMovedIn(t *testing.T) {
	eachEvents(t, func(t *testing.T, source, dir string) {
		shIn(t, dir, "mkdir -p vol/a out/x/y; touch out/x/y/f")
		v := newVol(t, filepath.Join(dir, "vol"))
		v.o.Source = source
		v.start()
		shIn(t, dir, "echo 1 > out/x/y/f")
		v.quiet()
		before := v.all()
		v.sh("mv ../out/x a/x; echo 2 > a/x/y/f")
		v.quiet()
		v.checkMarked(before, "", "a", "a/x", "a/x/y", "a/x/y/f")
		v.sh("mv a/x ../out/x")
		v.quiet()
		before = v.all()
		shIn(t, dir, "echo 3 > out/x/y/f")
		v.quiet()
		v.checkMarked(before)
	})
}

// TestMappedWrites changes a file through a mapping that stays: no event tells.
func TestMappedWrites(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.sh("mkdir a; head -c 4096 /dev/zero > a/f; head -c 4096 /dev/zero > a/g")
	v.aged()
	v.start().quiet()
	f, err := os.OpenFile(filepath.Join(v.o.Root, "a/f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	v.aged() // Older than a mark may be later than its xtime.
	page[0] = 1
	if err := unix.Msync(page, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	v.settle()
	before := v.all()
	if before["a/f"] != 0 {
		t.Fatal("there was an event: the test tests nothing")
	}
	if _, err := v.m.scanner.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.checkMarked(before, "", "a", "a/f")
	before = v.all()
	if _, err := v.m.scanner.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.checkMarked(before)
}

// TestDeepAndMounted scans paths longer than PATH_MAX, and stays out of other file systems.
func TestDeepAndMounted(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			v := newVol(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			v.o.Source = source
			v.sh("mkdir other; mount -t tmpfs tmpfs other; touch other/f")
			t.Cleanup(func() { v.sh("umount other") })
			v.start().quiet()
			_, end := startSelf(t, "deep", v.o.Root, "")
			end()
			v.sh("echo x > other/f")
			v.quiet()
			deep := strings.TrimSuffix(strings.Repeat(deepName+"/", deepLevels), "/")
			if x := v.xtime(deep + "/end"); x == 0 || x > v.xtime(deep) || v.xtime(deep) > v.xtime("") {
				t.Errorf("file %v, directory %v, root %v", x, v.xtime(deep), v.xtime(""))
			}
			if x := v.xtime("other/f"); x != 0 {
				t.Error("marked across a mount point")
			}
		})
	}
}

// TestOrdinaryUser has neither fanotify nor trusted xattrs.
func TestOrdinaryUser(t *testing.T) {
	for _, source := range []string{SourceAuto, SourceInotify, SourceScan} {
		t.Run(source, func(t *testing.T) { testOrdinaryUser(t, source) })
	}
}

func testOrdinaryUser(t *testing.T, source string) {
	dir := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	shIn(t, dir, "mkdir vol run; echo x > vol/f; ln -s f vol/l; chown -hR 65534:65534 vol run; chmod 755 .")
	v := newVol(t, filepath.Join(dir, "vol"))
	v.o.Namespace, v.o.Dir = xtime.User, filepath.Join(dir, "run")
	openPath(t, dir)
	end := v.startCommand(source, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 65534, HostID: 65534, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 65534, HostID: 65534, Size: 1}},
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true},
	}, "/proc/self/exe")
	asUser(t, v.o.Root, "echo y > f; mkdir n; touch n/g w; chmod 222 w")
	v.waitMark()
	want := SourceInotify
	if source == SourceScan {
		want = SourceScan
	}
	s, err := ReadStatus(v.o.Dir)
	if err != nil || s.Source != want || s.Reason == "" {
		t.Errorf("status %+v, %v: want %s and the reason", s, err, want)
	}
	if source == SourceAuto && !strings.Contains(s.Reason, "no fanotify: ") {
		t.Errorf("reason %q: want why fanotify was refused", s.Reason)
	}
	for _, path := range []string{"", "f", "n", "n/g", "w"} {
		if v.xtime(path) == 0 {
			t.Errorf("%q is not marked", path)
		}
	}
	v.waitQuiet()
	end()
}

// startCommand runs a marker in a process of its own.
func (v *vol) startCommand(source string, attr *syscall.SysProcAttr, argv ...string) (end func()) {
	v.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), roleVar+"=marker", paramsVar+"="+fmt.Sprintf(
		`{"Root":%q,"Dir":%q,"UUID":%q,"Namespace":%q,"Source":%q}`, v.o.Root, v.o.Dir, v.o.UUID, v.o.Namespace, source))
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, attr
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		v.t.Fatal(err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		in.Close()
		if err := cmd.Wait(); err != nil {
			v.t.Errorf("the marker ended with %v", err)
		}
	}
	v.t.Cleanup(end)
	eventually(v.t, "a status", func() bool { _, err := ReadStatus(v.o.Dir); return err == nil })
	return end
}

// asUser runs a script as the ordinary user.
func asUser(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

func (v *vol) waitMark() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	defer cancel()
	if err := WaitMark(ctx, v.o.Dir, time.Now()); err != nil {
		v.t.Fatal(err)
	}
}

// waitQuiet waits until a marker in another process marks no more, by what it says of the newest xtime.
func (v *vol) waitQuiet() {
	v.t.Helper()
	last := xtime.Time(0)
	v.until("no more marks", func() bool {
		v.waitMark()
		s, err := ReadStatus(v.o.Dir)
		same := err == nil && s.HeartbeatXtime == last
		last = s.HeartbeatXtime
		return same
	})
}

// TestWatchesRunOut gives the user fewer watches than there are directories, from the start, or when more are made: the
// marker scans then, and says what would help.
func TestWatchesRunOut(t *testing.T) {
	for name, c := range map[string]struct{ set, reason string }{
		"queues at the start":  {"echo 0 > /proc/sys/user/max_inotify_instances", "sysctl user.max_inotify_instances=128"},
		"watches at the start": {"echo 4 > /proc/sys/user/max_inotify_watches", "sysctl user.max_inotify_watches=8192"},
		"watches later":        {"echo 15 > /proc/sys/user/max_inotify_watches", "sysctl user.max_inotify_watches=8192"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
			shIn(t, dir, "mkdir -p vol/1/2/3/4/5/6/7/8/9 run; touch vol/1/2/f")
			v := newVol(t, filepath.Join(dir, "vol"))
			v.o.Namespace, v.o.Dir = xtime.User, filepath.Join(dir, "run")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			end := v.startCommand(SourceInotify, nil, "unshare", "--user", "--map-root-user", "--",
				"sh", "-ec", c.set+`; exec "$0"`, self)
			if later := strings.Contains(name, "later"); later {
				v.waitMark()
				if s, err := ReadStatus(v.o.Dir); err != nil || s.Source != SourceInotify {
					t.Fatalf("status %+v, %v: want inotify at first", s, err)
				}
			}
			v.sh("mkdir -p a/b/c/d/e/f/g/h; echo x > a/b/c/d/e/f/g/h/i; echo y > 1/2/f; echo z > 1/2/3/4/5/6/7/8/9/j")
			v.until("it scans", func() bool {
				s, err := ReadStatus(v.o.Dir)
				return err == nil && s.Source == SourceScan && strings.Contains(s.Reason, c.reason)
			})
			v.waitMark()
			v.sh("echo x > a/b/c/d/later")
			v.waitMark()
			for _, path := range []string{"", "a/b/c/d/e/f/g/h", "a/b/c/d/e/f/g/h/i", "1/2/f", "1/2/3/4/5/6/7/8/9/j", "a/b/c/d/later"} {
				if x := v.xtime(path); x == 0 || x > v.xtime("") {
					t.Errorf("%q has %v, the root %v", path, x, v.xtime(""))
				}
			}
			end()
		})
	}
}

// openPath lets every user reach dir, which lies in a private temporary directory.
func openPath(t *testing.T, dir string) {
	t.Helper()
	for p := filepath.Dir(dir); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJudge(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	for _, c := range []struct {
		err  error
		seen func() bool // by a crawl
		want tree.Result
	}{
		{nil, no, tree.Done}, {unix.ENOENT, no, tree.Gone}, {unix.ESTALE, no, tree.Gone}, {unix.EPERM, yes, tree.Refused},
		{unix.EPERM, no, tree.Again}, {unix.EROFS, no, tree.Again}, {unix.EACCES, yes, tree.Refused}, {unix.EOPNOTSUPP, no, tree.Refused},
		{unix.ENOSPC, yes, tree.Refused}, {unix.ENOSPC, no, tree.Again}, {unix.EDQUOT, yes, tree.Refused}, {unix.EDQUOT, no, tree.Again},
		{unix.EIO, yes, tree.Again}, {unix.ENOMEM, no, tree.Again}, {errors.New("anything else"), no, tree.Again},
	} {
		if got := tree.Judge(c.err, c.seen); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// TestEventsWithoutAPlace ask for a scan when content changed, and for nothing when a link count did.
func TestEventsWithoutAPlace(t *testing.T) {
	for _, c := range []struct {
		mask  uint64
		blind bool
	}{{unix.FAN_MODIFY, true}, {unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB, true}, {unix.FAN_ATTRIB, false}} {
		blind := false
		l := newLive(&core{}, nil, nil)
		l.blind = func() { blind = true }
		l.take(&fanotify.Event{Mask: c.mask, PID: 1, Target: "handle"})
		if blind != c.blind || l.batch.size() != 0 {
			t.Errorf("event %x: scan %v, %d marks", c.mask, blind, l.batch.size())
		}
	}
}

// TestAnotherFileSystemIsNoMaster mounts another file system of the same kind, whose root has the same handle.
func TestAnotherFileSystemIsNoMaster(t *testing.T) {
	right, wrong := fstest.Mount(t, fstest.Ext4, fstest.Options{}), fstest.Mount(t, fstest.Ext4, fstest.Options{})
	v := newVol(t, right).start()
	v.settle()
	v.o.Identity = beneath.Identity{GFID: v.m.o.Identity.GFID}
	shIn(t, "/", fmt.Sprintf("mount --bind %q %q", wrong, right))
	if err := v.m.checkRoot(); !errors.Is(err, ErrNotMaster) {
		t.Errorf("seen while running: %v", err)
	}
	// Ends by itself, with this error, or by us.
	if err := v.stop(); err != nil && !errors.Is(err, ErrNotMaster) {
		t.Error(err)
	}
	v.stop = nil
	if err := Run(t.Context(), v.o); !errors.Is(err, ErrNotMaster) {
		t.Errorf("started on it: %v", err)
	}
	shIn(t, "/", fmt.Sprintf("umount %q", right))
	v.start().settle()
}

// TestSubvolumes has subvolumes in the volume, and the volume in one, where the kernel may refuse events.
func TestSubvolumes(t *testing.T) {
	dir := fstest.Mount(t, fstest.Btrfs, fstest.Options{})
	shIn(t, dir, "btrfs subvolume create sub; mkdir sub/a; touch sub/a/f; btrfs subvolume create sub/in; touch sub/in/f")
	for root, sub := range map[string]string{dir: "sub/", filepath.Join(dir, "sub"): ""} {
		v := newVol(t, root).start()
		v.quiet()
		v.sh("echo x > " + sub + "a/f; echo x > " + sub + "in/f")
		v.quiet()
		for _, path := range []string{"a/f", "a", "in/f", "in"} {
			if x := v.xtime(sub + path); x == 0 || x > v.xtime("") {
				t.Errorf("%s: %q has %v, the root %v", root, path, x, v.xtime(""))
			}
		}
		v.halt()
	}
}
