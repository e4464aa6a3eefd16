package marker

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/hint"
	"georep/marker/inotify"
	"georep/marker/xtime"
)

// listener collects hints.
type listener struct {
	mu    sync.Mutex
	up    bool
	gaps  int
	hints []*hint.Hint
}

func (l *listener) Up() { l.mu.Lock(); defer l.mu.Unlock(); l.up = true }
func (l *listener) Hint(h *hint.Hint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hints = append(l.hints, h)
}
func (l *listener) Gap()  { l.mu.Lock(); defer l.mu.Unlock(); l.gaps++ }
func (l *listener) Down() { l.mu.Lock(); defer l.mu.Unlock(); l.up = false }

// hear subscribes to the hints of v's marker, from now on.
func hear(t *testing.T, v *vol) *listener {
	t.Helper()
	l := &listener{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { hint.Follow(ctx, v.o.Dir, l) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, "a subscription", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.up && l.gaps > 0 })
	l.forget()
	return l
}

func (l *listener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps, l.hints = 0, nil
}

// heard is what came up to now.
func (l *listener) heard() *listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &listener{up: l.up, gaps: l.gaps, hints: slices.Clone(l.hints)}
}

// reached waits until a hint tells of the root's present xtime, or a gap came.
func (l *listener) reached(v *vol) {
	v.t.Helper()
	v.until("the hint of the last mark", func() bool {
		x, err := v.m.Root.Xtime("", &v.m.Names)
		if err != nil {
			v.t.Fatal(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.gaps > 0 || len(l.hints) > 0 && l.hints[len(l.hints)-1].Xtime == x
	})
}

// thing is what an entry is, as far as only a change of it can alter.
type thing struct {
	gfid  xtime.GFID
	mode  uint32
	uid   uint32
	size  int64
	mtime beneath.Time
}

// dirs are all directories of a tree: GFID -> name -> entry.
func dirs(t *testing.T, root string) map[xtime.GFID]map[string]thing {
	t.Helper()
	all := map[xtime.GFID]map[string]thing{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		d, err := beneath.OpenRoot(path, true)
		if err != nil {
			return err
		}
		defer d.Close()
		g, err := d.GFID("")
		if err != nil {
			return err
		}
		all[g] = map[string]thing{}
		return d.List(func(e beneath.Entry) error {
			st, err := d.Stat(e.Name)
			if err != nil {
				return err
			}
			one := thing{mode: st.Mode, uid: st.UID, size: st.Size, mtime: st.Mtime}
			if st.IsDir() { // its own hint tells of its metadata
				one = thing{}
			}
			one.gfid, err = d.GFID(e.Name)
			all[g][e.Name] = one
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// untold lists what changed from before to after without a hint that names it.
func untold(l *listener, before, after map[xtime.GFID]map[string]thing) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gaps > 0 {
		return nil
	}
	names, whole := map[string]bool{}, map[xtime.GFID]bool{}
	for _, h := range l.hints {
		for _, d := range h.Dirs {
			whole[d.GFID] = whole[d.GFID] || d.Whole
			for _, n := range d.Names {
				names[d.GFID.String()+"/"+n.Name] = true
			}
		}
	}
	for g, now := range after {
		was, known := before[g]
		if !known || whole[g] {
			continue // who does not know it lists it
		}
		for name := range both(was, now) {
			if now[name] != was[name] && !names[g.String()+"/"+name] {
				out = append(out, fmt.Sprintf("%q: %+v, was %+v", name, now[name], was[name]))
			}
		}
	}
	return out
}

func both(a, b map[string]thing) map[string]bool {
	out := map[string]bool{}
	for _, m := range []map[string]thing{a, b} {
		for name := range m {
			out[name] = true
		}
	}
	return out
}

// checkChain proves that the hints join: each directory had before what the hint before gave it, each marked directory is
// named in one that was marked with it, and the root is the last.
func checkChain(t *testing.T, l *listener, root xtime.GFID) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[xtime.GFID]xtime.Time{}
	for _, h := range l.hints {
		named, listed := map[xtime.GFID]bool{root: true}, false
		for _, d := range h.Dirs {
			if had, ok := last[d.GFID]; ok && d.Before != had {
				t.Errorf("%v had %v before, and was marked %v", d.GFID, d.Before, had)
			}
			last[d.GFID] = h.Xtime
			listed = listed || d.Whole // and so all names in it are met
			for _, n := range d.Names {
				named[n.Dir] = true
			}
		}
		for _, d := range h.Dirs {
			if !named[d.GFID] && !listed {
				t.Errorf("%v is named nowhere in %+v", d.GFID, h)
			}
		}
		if h.Dirs[len(h.Dirs)-1].GFID != root {
			t.Errorf("the root is not the last of %+v", h)
		}
	}
}

// TestHintsTellAll: whatever is done, each change is named.
func TestHintsTellAll(t *testing.T) {
	more := []script{
		{name: "rename over a directory", before: "mkdir a b; touch a/f", do: "mv -T a b"},
		{name: "many at once", before: "mkdir -p a/b c/d", do: "for i in $(seq 50); do echo $i > a/b/$i; ln a/b/$i c/d/$i; done; rm a/b/1?"},
		{name: "a tree", before: "mkdir a", do: "mkdir -p a/b/c/d; echo x > a/b/c/d/f; mv a/b a/e; rmdir a/e/c/d || true; rm -r a/e/c"},
		{name: "a save", before: "echo old > f", do: "echo new > .f; mv .f f"},
		{name: "a save in two marks", before: "echo old > f", do: "echo new > .f; sleep 0.004; mv .f f; sleep 0.002; mv f g"},
		{name: "the root's own", before: "touch f", do: "chmod 700 .; touch g; rm f"},
	}
	eachEvents(t, func(t *testing.T, source, dir string) {
		for _, s := range append(scripts(), more...) {
			t.Run(s.name, func(t *testing.T) {
				v := newVolIn(t, dir)
				v.o.Source = source
				v.sh(s.before)
				v.start()
				v.settle()
				l := hear(t, v)
				before := dirs(t, v.o.Root)
				v.sh(s.do)
				v.settle()
				if len(untold(&listener{}, before, dirs(t, v.o.Root))) > 0 {
					l.reached(v)
				}
				l = l.heard() // one more may come late
				for _, line := range untold(l, before, dirs(t, v.o.Root)) {
					if !strings.Contains(s.name, "through a name") { // no mark leads there; see the slave's books of links
						t.Errorf("not told: %s", line)
					}
				}
				checkChain(t, l, v.m.o.Identity.GFID)
				byInotify := source == SourceInotify
				if l.gaps > 0 && v.m.live != nil && !(byInotify && strings.Contains(s.name, "through a name")) {
					t.Error("a gap where all could be told")
				}
				for _, h := range l.hints {
					for _, d := range h.Dirs {
						if byInotify && before[d.GFID] == nil {
							continue // a new directory is watched after it came, and listed
						}
						if d.Whole && !strings.Contains(s.name, "through a name") && !strings.Contains(s.name, "again one") {
							t.Errorf("a directory whose names are not told: %+v", d)
						}
					}
				}
			})
		}
	})
}

// TestHintsTellAllUnderLoad: the same of many changes at once, wherever there is no gap, and gaps are few.
func TestHintsTellAllUnderLoad(t *testing.T) {
	eachEvents(t, func(t *testing.T, source, dir string) {
		v := newVolIn(t, dir)
		v.o.Source = source
		v.start()
		v.settle()
		l := hear(t, v)
		const rounds = 8
		told := 0
		for seed := range rounds {
			l.forget()
			before := dirs(t, v.o.Root)
			_, end := startSelf(t, "load", v.o.Root, fmt.Sprint(seed, " ", 20<<(seed%6)))
			end()
			v.settle()
			after := dirs(t, v.o.Root)
			if len(untold(&listener{}, before, after)) > 0 {
				l.reached(v)
			}
			heard := l.heard()
			for _, line := range untold(heard, before, after) {
				t.Errorf("seed %d: not told: %s", seed, line)
			}
			if heard.gaps == 0 {
				told++
			}
		}
		t.Logf("%d of %d rounds without a gap", told, rounds)
		if told < rounds/4 {
			t.Errorf("all was told in %d of %d rounds", told, rounds)
		}
	})
}

// TestHintsSayWhatTheyCannotTell: a directory that comes from outside, an inode that may be under another name of its
// directory, marks that failed, and what a scan finds.
func TestHintsSayWhatTheyCannotTell(t *testing.T) {
	whole := func(l *listener, g xtime.GFID) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, h := range l.hints {
			for _, d := range h.Dirs {
				if d.GFID == g && d.Whole {
					return true
				}
			}
		}
		return false
	}
	gfid := func(v *vol, path string) xtime.GFID {
		d, err := beneath.OpenRoot(filepath.Join(v.o.Root, path), true)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		g, err := d.GFID("")
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	begin := func(t *testing.T, before string) (*vol, *listener) {
		v := newVolIn(t, top)
		v.sh(before)
		v.start()
		v.settle()
		return v, hear(t, v)
	}
	t.Run("from outside", func(t *testing.T) {
		v, l := begin(t, "mkdir a; echo x > a/f")
		out := v.o.Root + ".out"
		shIn(t, top, "mkdir "+out+"; mv "+v.o.Root+"/a "+out+"/a; echo y > "+out+"/a/f; mv "+out+"/a "+v.o.Root+"/b")
		v.settle()
		l.reached(v)
		if !whole(l, gfid(v, "b")) {
			t.Errorf("%+v", l.hints)
		}
	})
	t.Run("from outside, where it was not watched", func(t *testing.T) {
		v := newVolIn(t, top)
		v.o.Source = SourceInotify
		v.sh("mkdir a a/d; echo x > a/f")
		v.start()
		v.settle()
		l, a, watched := hear(t, v), gfid(v, "a"), v.m.live.src.(*inotify.Source).Watched
		before, had := dirs(t, v.o.Root), watched()
		out := v.o.Root + ".out"
		shIn(t, top, "mkdir "+out+"; mv "+v.o.Root+"/a "+out+"/a")
		v.until("the end of its watch", func() bool { return watched() == had-2 })
		shIn(t, top, "echo y > "+out+"/a/f; echo z > "+out+"/a/d/g; mv "+out+"/a "+v.o.Root+"/b")
		v.settle()
		l.reached(v)
		for _, line := range untold(l, before, dirs(t, v.o.Root)) {
			t.Errorf("not told: %s", line)
		}
		if !whole(l, a) || l.gaps > 0 {
			t.Errorf("%d gaps, %+v", l.gaps, l.hints)
		}
	})
	t.Run("changed through a name that is gone", func(t *testing.T) {
		v, l := begin(t, "mkdir a; echo x > a/f")
		v.sh("ln a/f a/g; echo y > a/g; rm a/g")
		v.settle()
		l.reached(v)
		named := false
		for _, h := range l.hints {
			for _, d := range h.Dirs {
				named = named || d.GFID == gfid(v, "a") && tells(d, "f")
			}
		}
		if !named && !whole(l, gfid(v, "a")) {
			t.Errorf("%+v", l.hints)
		}
	})
	t.Run("marks that failed", func(t *testing.T) {
		v, l := begin(t, "mkdir a b; echo x > a/f")
		a := gfid(v, "a")
		v.m.core.mu.Lock()
		set := v.m.set
		failed := 0
		v.m.set = func(d *beneath.Dir, name string, x xtime.Time) error {
			if g, err := d.GFID(""); err == nil && g == a && name == "" && failed < 2 {
				failed++
				return &os.PathError{Op: "setxattr", Err: unix.EIO}
			}
			return set(d, name, x)
		}
		v.m.core.mu.Unlock()
		v.sh("echo y > a/f")
		v.until("a mark that failed", func() bool { v.m.core.mu.Lock(); defer v.m.core.mu.Unlock(); return failed > 0 })
		v.sh("echo y > a/g")
		v.settle()
		v.until("a gap", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.gaps > 0 })
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, h := range l.hints {
			for _, d := range h.Dirs {
				if d.GFID == a && !d.Whole && failed > 0 && h.Xtime < v.m.clock.Last() && !tells(d, "f") {
					t.Errorf("told as if all was known: %+v", d)
				}
			}
		}
	})
	t.Run("found by a scan", func(t *testing.T) {
		v, l := begin(t, "mkdir a")
		v.m.beats.lose()
		v.sh("touch a/f")
		v.until("a mark", func() bool { x, err := v.m.Root.Xtime("", &v.m.Names); return err == nil && x > v.o.VolumeMark })
		v.until("a gap", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.gaps > 0 && len(l.hints) == 0 })
		v.m.scanner.wakeUp()
		v.settle()
		l.forget()
		v.sh("touch a/g")
		v.settle()
		l.reached(v)
		if l.gaps > 0 || len(l.hints) == 0 {
			t.Errorf("after the scan: %d gaps, %d hints", l.gaps, len(l.hints))
		}
	})
}

func tells(d hint.Dir, name string) bool {
	for _, n := range d.Names {
		if n.Name == name {
			return true
		}
	}
	return false
}

// TestMarkerWithoutASocket marks all the same.
func TestMarkerWithoutASocket(t *testing.T) {
	v := newVolIn(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	if err := os.MkdirAll(filepath.Join(v.o.Dir, hint.File, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	v.start()
	v.sh("touch f")
	v.settle()
	if v.m.telling.hints != nil {
		t.Fatal("the socket is there")
	}
	if x, err := v.m.Root.Xtime("f", &v.m.Names); err != nil || x == 0 {
		t.Fatalf("f has %v, %v", x, err)
	}
}
