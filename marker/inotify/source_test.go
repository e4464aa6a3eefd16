package inotify

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
)

// attr is what these tests mark with.
const attr = "user.georep.test"

// newSource watches all of dir.
func newSource(t testing.TB, dir string) *Source {
	t.Helper()
	s := openSource(t, dir)
	if err := s.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func openSource(t testing.TB, dir string) *Source {
	t.Helper()
	root, err := beneath.OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	s, err := Open(root, attr, func(err error) { t.Logf("warned: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// places on each file system where inotify is used without fanotify beside it.
func each(t *testing.T, test func(t *testing.T, dir string)) {
	for _, kind := range []string{fstest.Tmpfs, fstest.Ext4, fstest.Overlay} {
		t.Run(kind, func(t *testing.T) { test(t, fstest.Mount(t, kind, fstest.Options{})) })
	}
}

// drain does all that can be done at once, and returns what was reported, by path; "?" are scans asked for.
func drain(t testing.TB, s *Source) map[string]int {
	t.Helper()
	got := map[string]int{}
	take := func(e Event) {
		if e.Kind != Changed {
			got["?"]++
			return
		}
		got[s.pathOf(e)]++
	}
	for {
		n, err := s.Read(take)
		if err != nil {
			t.Fatal(err)
		}
		left, err := s.Adopt(take)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && !left {
			return got
		}
	}
}

// pathOf is where an event's directory lies now; "!" where that is not known.
func (s *Source) pathOf(e Event) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree.byID[e.Dir]
	if n == nil {
		return "!"
	}
	path, ok := s.tree.path(n)
	if !ok {
		return "!"
	}
	if e.Name != "" {
		path = beneath.Join(path, e.Name)
	}
	return path
}

// settle drains until the source waits for nothing any more.
func settle(t testing.TB, s *Source) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		drain(t, s)
		s.mu.Lock()
		lost := len(s.tree.lost)
		s.mu.Unlock()
		if lost == 0 && !s.Busy() {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it never settled")
		}
	}
}

// checkTree fails unless exactly the directories of dir are watched, each in its place.
func checkTree(t testing.TB, s *Source, dir string) {
	t.Helper()
	want := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		want[strings.TrimPrefix(rel, ".")] = true
		d, err := beneath.OpenRoot(path, true)
		if err != nil {
			return err
		}
		defer d.Close()
		id, err := s.Key(d)
		if err != nil {
			t.Errorf("%q is not watched: %v", rel, err)
		} else if at := s.pathOf(Event{Dir: id}); at != strings.TrimPrefix(rel, ".") {
			t.Errorf("%q is taken to be at %q", rel, at)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Watched(); n != len(want) {
		t.Errorf("%d directories are watched, %d are there", n, len(want))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tree.at) != len(want)-1 || len(s.tree.lost) != 0 {
		t.Errorf("%d places, %d without one, of %d directories", len(s.tree.at), len(s.tree.lost), len(want))
	}
}

// TestDirectoriesAreFollowed does at random what can be done to directories, while the source reads now and then.
func TestDirectoriesAreFollowed(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		for seed := range uint64(4) {
			sub := filepath.Join(dir, "root"+strconv.FormatUint(seed, 10))
			outside := filepath.Join(dir, "outside")
			if err := errors.Join(os.Mkdir(sub, 0o755), os.MkdirAll(outside, 0o755)); err != nil {
				t.Fatal(err)
			}
			s := newSource(t, sub)
			var wg sync.WaitGroup
			ended := make(chan struct{})
			wg.Go(func() { defer close(ended); shuffle(rand.New(rand.NewPCG(seed, 1)), sub, outside, 6000) })
			r := rand.New(rand.NewPCG(seed, 2))
			for running := true; running; {
				select {
				case <-ended:
					running = false
				default:
				}
				if seed%2 == 0 {
					drain(t, s)
				} else {
					inTurns(t, r, s)
				}
			}
			wg.Wait()
			settle(t, s)
			checkTree(t, s, sub)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	})
}

// inTurns does one of what drain does, or begins a walk, as a directory that cannot be found does, and an overflow.
func inTurns(t testing.TB, r *rand.Rand, s *Source) {
	t.Helper()
	var err error
	switch n := r.IntN(40); {
	case n == 0:
		s.mu.Lock()
		s.walkAll()
		s.mu.Unlock()
	case n < 8:
		_, err = s.Read(func(Event) {})
	default:
		_, err = s.Adopt(func(Event) {})
	}
	if err != nil {
		t.Error(err)
	}
}

// shuffle ignores errors: what is not there is part of it.
func shuffle(r *rand.Rand, dir, outside string, ops int) {
	any := func() string {
		p := dir
		if r.IntN(12) == 0 {
			p = outside
		}
		for range 1 + r.IntN(4) {
			p = filepath.Join(p, strconv.Itoa(r.IntN(3)))
		}
		return p
	}
	for range ops {
		switch r.IntN(9) {
		case 0, 1, 2:
			_ = os.MkdirAll(any(), 0o755)
		case 3, 4:
			_ = os.Rename(any(), any())
		case 5:
			_ = unix.Renameat2(unix.AT_FDCWD, any(), unix.AT_FDCWD, any(), unix.RENAME_EXCHANGE)
		case 6:
			_ = os.RemoveAll(any())
		case 7:
			_ = os.Remove(any())
		case 8:
			_ = os.WriteFile(any(), nil, 0o644)
		}
		if r.IntN(50) == 0 {
			for range r.IntN(20000) {
				_ = unix.Getppid()
			}
		}
	}
}

// TestQuietly marks while somebody else changes the same inode, at every distance in time: what a reader did not see who
// read right after the mark is reported, and what nobody else did is not.
func TestQuietly(t *testing.T) {
	const rounds = 2000
	each(t, func(t *testing.T, dir string) {
		if err := errors.Join(os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/f", nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		s := newSource(t, dir)
		for _, path := range []string{"d/f", "d", ""} {
			full := filepath.Join(dir, path)
			r := rand.New(rand.NewPCG(1, 2))
			turn, done := make(chan func()), make(chan struct{})
			go func() {
				for f := range turn {
					f()
					done <- struct{}{}
				}
			}()
			seen, late := "", 0
			for n := range rounds {
				spinA, spinB := r.IntN(60), r.IntN(60)
				turn <- func() { spin(spinA); change(full, n) }
				spin(spinB)
				s.mark(t, path, n, func() { seen = look(full) })
				<-done
				got := drain(t, s)
				if now := look(full); now != seen {
					if late++; got[path] == 0 {
						t.Fatalf("%q, round %d: %s changed to %s, but there is no event: %v", path, n, seen, now, got)
					}
				}
				s.mark(t, path, -n, func() {})
				if got := drain(t, s); len(got) > 0 {
					t.Fatalf("%q, round %d: a mark is reported: %v", path, n, got)
				}
			}
			close(turn)
			if late == 0 || late == rounds {
				t.Errorf("%q: %d of 6000 changes came after the mark: the test tests little", path, late)
			}
		}
	})
}

func spin(n int) {
	for range n {
		_ = unix.Getppid()
	}
}

// change makes the n-th change of attributes.
func change(path string, n int) {
	var err error
	if n%2 == 0 {
		err = unix.Setxattr(path, "user.other", []byte(strconv.Itoa(n)), 0)
	} else {
		err = os.Chmod(path, 0o700|os.FileMode(n/2%64))
	}
	if err != nil {
		panic(err)
	}
}

func look(path string) string {
	var st unix.Stat_t
	value := make([]byte, 16)
	_ = unix.Stat(path, &st)
	n, _ := unix.Getxattr(path, "user.other", value)
	return fmt.Sprint(st.Mode, string(value[:max(n, 0)]))
}

// mark marks a path, and calls after in the moment after that.
func (s *Source) mark(t testing.TB, path string, n int, after func()) {
	t.Helper()
	dir, name := beneath.Split(path)
	d := s.tree.dir
	if path == "d" {
		dir, name = "d", ""
	}
	if dir != "" {
		var err error
		if d, err = s.tree.dir.OpenPath(dir); err != nil {
			t.Fatal(err)
		}
		defer d.Close()
	}
	err := s.Quietly(d, name, func(d *beneath.Dir, name string) error {
		err := d.Setxattr(name, attr, []byte(strconv.Itoa(n)))
		after()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadableLater: a directory that may not be read when it is to be listed, and may be later. It is watched all the time, so
// nothing but a change of it, or of one above it, tells.
func TestReadableLater(t *testing.T) {
	const nobody = 65534
	tests := map[string]struct{ hide, show func(dir string) error }{
		"itself": {
			func(dir string) error { return os.Chmod(dir+"/up/d", 0) },
			func(dir string) error { return os.Chmod(dir+"/up/d", 0o700) },
		},
		"one above it": {
			func(dir string) error { return os.Chmod(dir+"/up", 0) },
			func(dir string) error { return os.Chmod(dir+"/up", 0o700) },
		},
		"elsewhere": {
			func(dir string) error { return os.Chmod(dir+"/up", 0) },
			func(dir string) error { return os.Rename(dir+"/up/d", dir+"/d") },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, dir string) {
				runtime.LockOSThread() // and never unlocked: the thread ends with the test, and its rights with it
				must(t, errors.Join(os.Mkdir(dir+"/up", 0o755), os.Chown(dir+"/up", nobody, nobody)))
				s := newSource(t, dir)
				must(t, errors.Join(os.MkdirAll(dir+"/up/d/sub/below", 0o755), os.Chown(dir+"/up/d", nobody, nobody)))
				readAll(t, s) // watches d
				s.drop(s.tree.at[place{s.tree.root.id, "up"}])
				must(t, test.hide(dir))
				asUser(t, nobody, func() { settle(t, s) })
				if s.Watched() != 3 {
					t.Fatalf("%d directories are watched, not the root, up and d: the test tests nothing", s.Watched())
				}
				must(t, test.show(dir))
				asUser(t, nobody, func() { settle(t, s) })
				checkTree(t, s, dir)
			})
		})
	}
}

// TestSearchableLater: a walk comes by a directory that may be listed but not searched. What is in it is not watched any more,
// and has to be as soon as the directory may be searched.
func TestSearchableLater(t *testing.T) {
	const nobody = 65534
	each(t, func(t *testing.T, dir string) {
		runtime.LockOSThread() // as above
		must(t, errors.Join(os.MkdirAll(dir+"/d/sub/below", 0o755), os.Chown(dir+"/d", nobody, nobody)))
		s := newSource(t, dir)
		must(t, os.Chmod(dir+"/d", 0o444))
		s.walkAll()
		asUser(t, nobody, func() { settle(t, s) })
		must(t, os.Chmod(dir+"/d", 0o755))
		asUser(t, nobody, func() { settle(t, s) })
		checkTree(t, s, dir)
	})
}

// asUser calls fn without root's rights on files.
func asUser(t testing.TB, uid int, fn func()) {
	t.Helper()
	must(t, unix.Setfsuid(uid))
	fn()
	must(t, unix.Setfsuid(0))
}

// readAll takes in what the queue has, and adopts nothing.
func readAll(t testing.TB, s *Source) {
	t.Helper()
	for n := 1; n > 0; {
		var err error
		if n, err = s.Read(func(Event) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// drop closes a directory that is held open, as many others would have it closed.
func (s *Source) drop(n *node) {
	if d := s.tree.open[n.id]; d != nil {
		delete(s.tree.open, n.id)
		delete(s.tree.ids, d)
		d.Close()
	}
}

// TestAnotherOfTheSameNumber: a directory in the place of one that was watched, with the same inode number, is not taken for
// that while the events that tell are yet to be read. What an event of the old one says of names would be looked for in the
// new one, and these directories would lose their watches with the old one.
func TestAnotherOfTheSameNumber(t *testing.T) {
	dir := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	s := newSource(t, dir)
	b := filepath.Join(dir, "b")
	ino := func() uint64 {
		st, err := s.tree.dir.Stat("b")
		if err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	for try := 0; ; try++ {
		if err := os.Mkdir(b, 0o755); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		old, was := s.tree.at[place{s.tree.root.id, "b"}], ino()
		s.drop(old)
		if err := errors.Join(os.Remove(b), os.Mkdir(b, 0o755)); err != nil {
			t.Fatal(err)
		}
		if same := ino() == was; same || try == 50 {
			if !same {
				t.Fatal("ext4 uses no inode number again")
			}
			if d, err := s.Dir(old.id); err == nil {
				st, err := d.Stat("")
				t.Errorf("a directory that is gone is open: %+v, %v", st, err)
			}
			break
		}
		settle(t, s)
		if err := os.Remove(b); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
	}
	settle(t, s)
	checkTree(t, s, dir)
}
