package crawler_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
)

// mount mounts something on an entry of the master until unmount.
func (w *world) mount(what, path, kind string, flags uintptr) {
	w.t.Helper()
	w.ok(unix.Mount(what, w.at(path), kind, flags, ""))
	w.t.Cleanup(func() { _ = unix.Unmount(w.at(path), unix.MNT_DETACH) })
}

func (w *world) unmount(path string) {
	w.t.Helper()
	w.ok(unix.Unmount(w.at(path), 0))
}

// coveredWorld is in step, with d/b and its content, x beside it, and a file.
func coveredWorld(t *testing.T, hints bool) *world {
	t.Helper()
	w := newMaster(t, t.TempDir(), t.TempDir())
	if hints {
		w.hints = &crawler.Hints{}
	}
	w.connect()
	w.write("d/b/f", "one")
	w.write("d/b/c/f", "one")
	w.write("d/x/f", "x")
	w.write("d/f", "one")
	w.ok(os.Chmod(w.at("d/b"), 0o750))
	w.mark("d/b/f", "d/b/c/f", "d/x/f", "d/f")
	w.inStep()
	return w
}

// same fails where the slave's directory does not stay the one that it is, with its files.
func (w *world) same(path string, change func()) {
	w.t.Helper()
	before, err := os.Stat(w.there(path))
	w.ok(err)
	change()
	after, err := os.Stat(w.there(path))
	w.ok(err)
	if before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || !os.SameFile(before, after) {
		w.t.Errorf("%s was %v %v, and is %v %v", path, before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
	}
	for _, file := range []string{"f", "c/f"} {
		if got, err := os.ReadFile(w.there(path, file)); string(got) != "one" {
			w.t.Errorf("%s in it is %q, %v", file, got, err)
		}
	}
}

// TestCoveredIsKept: while something is mounted on an entry, the slave keeps what it has there, whatever is mounted, and the
// directories above are stamped.
func TestCoveredIsKept(t *testing.T) {
	for _, hints := range []bool{false, true} {
		for name, cover := range map[string]func(w *world){
			"another file system": func(w *world) { w.mount("tmpfs", "d/b", "tmpfs", 0) },
			"twice": func(w *world) {
				w.mount("tmpfs", "d/b", "tmpfs", 0)
				w.mount("tmpfs", "d/b", "tmpfs", 0)
			},
			"its neighbour": func(w *world) { w.mount(w.at("d/x"), "d/b", "", unix.MS_BIND) },
		} {
			t.Run(name, func(t *testing.T) {
				w := coveredWorld(t, hints)
				w.write("d/b/f", "two")
				w.write("d/f", "two")
				w.write("d/x/g", "new")
				h := w.hint("d/b/f", "d/f", "d/x/g")
				cover(w)
				w.mount(w.at("d/x/f"), "d/f", "", unix.MS_BIND)
				if hints {
					w.hints.Hint(h)
				}
				w.same("d/b", func() {
					if out := w.pass(); out.Stime == 0 {
						t.Error("not stamped")
					}
				})
				if got, err := os.ReadFile(w.there("d/f")); string(got) != "one" {
					t.Errorf("the covered file is %q, %v", got, err)
				}
				if got, err := os.ReadFile(w.there("d/x/g")); string(got) != "new" {
					t.Errorf("a file beside it is %q, %v", got, err)
				}
				for w.stillCovered("d/b") {
					w.unmount("d/b")
				}
				w.unmount("d/f")
				w.mark("d/f", "d/b/f", "d/b/c/f", "d/b/c")
				w.inStep()
			})
		}
	}
}

func (w *world) stillCovered(path string) bool {
	d, err := w.root.OpenPath("d")
	w.ok(err)
	defer d.Close()
	return d.Covered(path[len("d/"):])
}

// TestCoveredFromTheStart: of what was covered when the slave was made it gets a directory to mount on, and all of it once it
// can be seen.
func TestCoveredFromTheStart(t *testing.T) {
	w := newWorld(t)
	w.write("d/b/f", "one")
	w.write("d/f", "one")
	w.mark("d/b/f", "d/f")
	w.mount("tmpfs", "d/b", "tmpfs", 0)
	w.write("d/b/mounted", "not ours")
	w.write("f", "not ours")
	w.mount(w.at("f"), "d/f", "", unix.MS_BIND)
	for range 2 {
		if out := w.pass(); out.Stime == 0 {
			t.Fatal("not stamped")
		}
		st, err := os.Stat(w.there("d/b"))
		w.ok(err)
		if st.Mode().Perm() != 0o700 {
			t.Errorf("the directory has the mode %v", st.Mode())
		}
		if list, err := os.ReadDir(w.there("d/b")); len(list) > 0 || err != nil {
			t.Errorf("in it are %v, %v", list, err)
		}
		if _, err := os.Stat(w.there("d/f")); !os.IsNotExist(err) {
			t.Errorf("a covered file: %v", err)
		}
		w.mark("d")
	}
	w.unmount("d/b")
	w.unmount("d/f")
	w.mark("d/b/f", "d/f")
	w.inStep()
}

// TestUnknownMountHoldsTheStamp: where the marker has not written down that an entry is covered, it may not mark what is there
// once that can be seen again, so the directories above must not claim it.
func TestUnknownMountHoldsTheStamp(t *testing.T) {
	for name, known := range map[string]map[string]map[string]bool{
		"unknown": nil, "over, and not marked yet": {"d": {"b": false}}, "elsewhere": {"": {"b": true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := coveredWorld(t, false)
			w.mounts = func() map[string]map[string]bool { return known }
			w.connect()
			stamp := w.stamp("d")
			w.write("d/b/f", "two")
			w.write("d/x/g", "new")
			w.mark("d/b/f", "d/x/g")
			w.mount("tmpfs", "d/b", "tmpfs", 0)
			if out := w.pass(); out.Stime != 0 || w.stamp("d") != stamp {
				t.Errorf("stamped: %+v, %v", out, w.stamp("d"))
			}
			if got, err := os.ReadFile(w.there("d/x/g")); string(got) != "new" {
				t.Errorf("a file beside it is %q, %v", got, err)
			}
			known = map[string]map[string]bool{"d": {"b": true}}
			if out := w.pass(); out.Stime == 0 || w.stamp("d") == stamp {
				t.Errorf("not stamped: %+v", out)
			}
		})
	}
}

// TestVerifyPassesOverMounts: what is covered cannot be compared, and is no difference.
func TestVerifyPassesOverMounts(t *testing.T) {
	w := coveredWorld(t, false)
	w.mounts = func() map[string]map[string]bool { return nil }
	w.mount("tmpfs", "d/b", "tmpfs", 0)
	w.mount(w.at("d/x/f"), "d/f", "", unix.MS_BIND)
	for range 2 {
		found, v, err := w.verify(nil)
		if err != nil || len(found) > 0 || v.Pending > 0 || v.Entries == 0 {
			t.Errorf("%q, %+v, %v", found, v, err)
		}
		w.mounts = func() map[string]map[string]bool { return map[string]map[string]bool{"d": {"b": true, "f": true}} }
	}
}
