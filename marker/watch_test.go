package marker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/inotify"
	"georep/marker/xtime"
)

// newWatched is a volume that inotify is to watch.
func newWatched(t *testing.T, dir string) *vol {
	v := newVol(t, dir)
	v.o.Source = SourceInotify
	return v
}

// attrsMain changes attributes, and nothing else, of what the working directory has, in all ways and as fast as it can.
func attrsMain() {
	seed, ops := uint64(0), 0
	fmt.Sscan(os.Getenv(paramsVar), &seed, &ops)
	r := rand.New(rand.NewPCG(seed, 3))
	for n := range ops {
		path := attrPaths()[r.IntN(len(attrPaths()))]
		var err error
		switch r.IntN(5) {
		case 0:
			err = os.Chmod(path, 0o700|os.FileMode(r.IntN(64)))
		case 1:
			err = os.Chown(path, r.IntN(9), r.IntN(9))
		case 2:
			ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: int64(n), Nsec: int64(r.IntN(9))}}
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, 0)
		default:
			err = unix.Setxattr(path, "user.n", []byte(strconv.Itoa(n)), 0)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// Bursts, and pauses in which marks are made.
		for range r.IntN(4) * r.IntN(2000) {
			_ = unix.Getppid()
		}
	}
}

// attrPaths is what attrsMain works on: the root is ".".
func attrPaths() []string { return []string{".", "d", "d/e", "f", "d/f", "d/g", "d/e/f"} }

// TestNoChangeIsTakenForAMark (the echo of marks): a crawler that reads an xtime, then the attributes, and comes back
// only where the xtime is another, has the attributes in the end.
func TestNoChangeIsTakenForAMark(t *testing.T) {
	for _, kind := range []string{fstest.Ext4, fstest.Tmpfs, fstest.Overlay} {
		t.Run(kind, func(t *testing.T) {
			v := newWatched(t, fstest.Mount(t, kind, fstest.Options{}))
			v.sh("mkdir -p d/e; touch f d/f d/g d/e/f; ln d/g d/h")
			v.start().quiet()
			seen := map[string]map[xtime.Time]string{}
			for _, path := range attrPaths() {
				seen[path] = map[xtime.Time]string{}
			}
			for seed := range 1 {
				ended := make(chan struct{})
				_, end := startSelf(t, "attrs", v.o.Root, fmt.Sprint(seed, " ", 2000))
				go func() { end(); close(ended) }()
				for running := true; running; {
					select {
					case <-ended:
						running = false
					default:
					}
					v.crawl(seen)
				}
				v.quiet()
				v.checkCrawl(seen)
			}
		})
	}
}

// crawl reads everything, the xtime first.
func (v *vol) crawl(seen map[string]map[xtime.Time]string) {
	v.t.Helper()
	for path, states := range seen {
		x := v.xtime(strings.TrimPrefix(path, "."))
		states[x] = v.attrs(path)
	}
}

func (v *vol) attrs(path string) string {
	v.t.Helper()
	path = filepath.Join(v.o.Root, path)
	var st unix.Stat_t
	value := make([]byte, 32)
	if err := unix.Lstat(path, &st); err != nil {
		v.t.Fatal(err)
	}
	n, _ := unix.Getxattr(path, "user.n", value)
	return fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Mtim, string(value[:max(n, 0)]))
}

func (v *vol) checkCrawl(seen map[string]map[xtime.Time]string) {
	v.t.Helper()
	for path, states := range seen {
		x := v.xtime(strings.TrimPrefix(path, "."))
		if had, ok := states[x]; ok && had != v.attrs(path) {
			v.t.Errorf("%q changed from %s to %s, but its xtime is still %v", path, had, v.attrs(path), x)
		}
		if len(states) < 3 {
			v.t.Errorf("%q was marked %d times: the test tests nothing", path, len(states))
		}
	}
}

// TestStorm makes nested directories full of files while whole trees of them are removed.
func TestStorm(t *testing.T) {
	for _, kind := range []string{fstest.Ext4, fstest.Tmpfs, fstest.Overlay} {
		t.Run(kind, func(t *testing.T) {
			v := newWatched(t, fstest.Mount(t, kind, fstest.Options{}))
			v.start().quiet()
			v.sh(`for i in 0 1 2 3 4 5 6 7 8 9; do
				(mkdir $i; cd $i; for j in 0 1 2 3 4 5 6 7 8 9; do
					mkdir -p $j/a/b/c; (cd $j; seq 1 25 | xargs touch; cd a; seq 1 25 | xargs touch
					cd b; seq 1 25 | xargs touch; cd c; seq 1 25 | xargs touch)
					[ $((j % 3)) != 0 ] || rm -rf $j &
				done; wait) &
			done; wait`)
			v.quiet()
			v.checkAllMarked()
		})
	}
}

// checkAllMarked fails unless every entry carries a mark that the directories above it carry too, and every directory,
// and nothing else, is watched.
func (v *vol) checkAllMarked() {
	v.t.Helper()
	dirs := 0
	all := v.all()
	for path, x := range all {
		if dir, _ := beneath.Split(path); x == 0 || x > all[dir] {
			v.t.Fatalf("%q has %v, the directory above %v", path, x, all[dir])
		}
		if st, err := os.Lstat(filepath.Join(v.o.Root, path)); err == nil && st.IsDir() {
			dirs++
		}
	}
	if len(all) < 1000 {
		v.t.Errorf("only %d entries: the test tests nothing", len(all))
	}
	src := v.m.live.src.(*inotify.Source)
	v.until(fmt.Sprintf("%d directories are watched", dirs), func() bool { return src.Watched() == dirs })
}

// TestReadFails makes the n-th read of the queue fail: the marker ends with the error, and the next one finds everything.
func TestReadFails(t *testing.T) {
	for n := range 8 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			v := newWatched(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			v.sh("mkdir -p a/b; touch a/b/f")
			v.start().quiet()
			v.halt()
			before := v.states()
			m, err := open(t.Context(), v.o)
			if err != nil {
				t.Fatal(err)
			}
			read, reads := m.live.read, 0
			m.live.read = func() (int, error) {
				if reads++; reads == n+1 {
					return 0, unix.EIO
				}
				return read()
			}
			ended := make(chan error, 1)
			go func() { ended <- m.run(t.Context()) }()
			v.sh("echo x > a/b/f; mkdir -p a/c/d; touch a/c/d/g a/b/h; mv a/b a/e")
			if err := <-ended; !errors.Is(err, unix.EIO) {
				t.Errorf("the marker ended with %v", err)
			}
			if err := m.close(); err != nil {
				t.Error(err)
			}
			v.start().quiet()
			v.checkChanges(before)
		})
	}
}

// TestEndOfAMount uncovers a directory that no event told of: the slow scan finds it, and from then on it is watched.
func TestEndOfAMount(t *testing.T) {
	v := newWatched(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	v.o.ScanInterval = time.Second
	v.sh("mkdir -p a/b; echo x > a/b/f; mount -t tmpfs tmpfs a")
	v.start().quiet()
	v.sh("umount a")
	v.until("both directories are watched", func() bool { return v.m.live.src.(*inotify.Source).Watched() == 3 })
	v.quiet()
	before := v.all()
	v.sh("echo y > a/b/f")
	v.quiet()
	v.checkMarked(before, "", "a", "a/b", "a/b/f")
}
