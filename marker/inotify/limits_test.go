package inotify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
)

func TestLocal(t *testing.T) {
	for fs, want := range map[uint32]bool{
		unix.EXT4_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true,
		unix.BTRFS_SUPER_MAGIC: true, 0x2fc12fc1 /* zfs */ : true,
		unix.NFS_SUPER_MAGIC: false, unix.CIFS_SUPER_MAGIC: false, unix.SMB2_SUPER_MAGIC: false, unix.FUSE_SUPER_MAGIC: false,
		unix.V9FS_MAGIC: false, unix.CEPH_SUPER_MAGIC: false, unix.AFS_SUPER_MAGIC: false,
	} {
		if err := local(fs); (err == nil) != want || err != nil && !errors.Is(err, ErrRemote) {
			t.Errorf("file system %x: %v", fs, err)
		}
	}
	root, err := beneath.OpenRoot(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Local(root); err != nil {
		t.Error(err)
	}
}

// TestEnough: the number that is advised has room for the tree and for what others watch.
func TestEnough(t *testing.T) {
	for _, c := range []struct{ limit, have, dirs int }{{8192, 8000, 100000}, {100, 100, 101}, {0, 0, 5}, {65536, 10, 2000000}} {
		if n := enough(c.limit, c.have, c.dirs); n < c.limit-c.have+c.dirs || n > 2*(c.limit-c.have+c.dirs)+8192 {
			t.Errorf("%+v: %d", c, n)
		}
	}
}

// TestWatchFails makes the n-th watch fail, in the walk or later: with ENOSPC the source says what would help and is of no
// more use; with anything else it tries again, and asks for a scan where it may have missed something.
func TestWatchFails(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO} {
		for n := range 11 {
			t.Run(fmt.Sprint(errno, n), func(t *testing.T) { testWatchFails(t, errno, n) })
		}
	}
}

func testWatchFails(t *testing.T, errno unix.Errno, n int) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b/c/d", 0o755); err != nil {
		t.Fatal(err)
	}
	s := openSource(t, dir)
	add, calls := s.kernel.add, 0
	s.kernel.add = func(d *beneath.Dir, mask uint32) (ID, error) {
		if calls++; calls == n+1 {
			return 0, errno
		}
		return add(d, mask)
	}
	err := s.Watch(t.Context())
	if err == nil {
		if err := os.MkdirAll(dir+"/e/f/g/h/i/j/k", 0o755); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if _, err = s.Read(func(Event) {}); err == nil {
				_, err = s.Adopt(func(Event) {})
			}
			if err != nil {
				break
			}
		}
	}
	s.kernel.add = add
	switch {
	case errno == unix.EIO && err != nil:
		t.Errorf("one failure is not survived: %v", err)
	case errno == unix.EIO:
		settle(t, s)
		checkTree(t, s, dir)
	case !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "sysctl fs.inotify.max_user_watches="):
		t.Errorf("the limit is told as %v", err)
	}
}

// TestReadFails: an error of the queue is never taken for its end.
func TestReadFails(t *testing.T) {
	for n := range 5 {
		s := openSource(t, t.TempDir())
		read, calls := s.kernel.read, 0
		s.kernel.read = func(b []byte) (int, error) {
			if calls++; calls == n+1 {
				return 0, unix.EIO
			}
			return read(b)
		}
		err := s.Watch(t.Context())
		for range n {
			if err == nil {
				_, err = s.Read(func(Event) {})
			}
		}
		if !errors.Is(err, unix.EIO) {
			t.Errorf("read %d fails: %v", n, err)
		}
	}
}

// TestMalformed: what cannot be understood counts as lost.
func TestMalformed(t *testing.T) {
	s := newSource(t, t.TempDir())
	drain(t, s)
	read, bad := s.kernel.read, true
	s.kernel.read = func(b []byte) (int, error) {
		if bad {
			bad = false
			return copy(b, "nonsense"), nil
		}
		return read(b)
	}
	if got := drain(t, s); got["?"] == 0 {
		t.Errorf("no scan is asked for: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00name\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names := 0
		err := parse(b, func(e *raw) {
			if strings.ContainsRune(e.name, 0) {
				t.Fatalf("name %q", e.name)
			}
			names += headerSize + len(e.name)
		})
		if names > len(b) || err == nil && len(b) > 0 && names == 0 {
			t.Fatalf("%d bytes of events in %d, %v", names, len(b), err)
		}
	})
}

// BenchmarkMemory is what watching 100,000 directories costs this process and, about, the kernel, for each.
func BenchmarkMemory(b *testing.B) {
	const dirs = 100_000
	dir := fstest.Mount(b, fstest.Tmpfs, fstest.Options{Size: 1 << 30})
	for i := range dirs / 100 {
		for j := range 99 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%06d/%06d", i, j)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		heap, slab := memory(b)
		s := newSource(b, dir)
		heapNow, slabNow := memory(b)
		if s.Watched() < dirs {
			b.Fatal(s.Watched())
		}
		b.ReportMetric(float64(heapNow-heap)/dirs, "heapB/dir")
		b.ReportMetric(float64(slabNow-slab)/dirs, "slabB/dir")
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(b.N*dirs)/b.Elapsed().Seconds(), "dirs/s")
}

func memory(b *testing.B) (heap, slab int64) {
	b.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Slab: %d kB", &slab); err == nil {
			break
		}
	}
	return int64(m.HeapAlloc), slab << 10
}
