package crawler_test

import (
	"context"
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

	"georep/crawler"
	"georep/integration/harness/compare"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// takeUpFilter does what a worker does when it has connected.
func (w *world) takeUpFilter() xtime.Time {
	w.t.Helper()
	w.filter = nil
	if w.spec != nil {
		f, err := w.spec.Load()
		w.ok(err)
		w.filter = f
	}
	have, sum := w.tree.Info().Filter, xtime.GFID(w.filter.Sum())
	if have.GFID == sum {
		return have.Xtime
	}
	w.now = w.now.Next()
	results, err := w.tree.Apply(w.t.Context(), &slave.Batch{Ops: []slave.Op{{Kind: slave.OpFilter, Record: slave.Record{GFID: sum, Xtime: w.now}}}})
	w.ok(err)
	w.ok(results[0].Err)
	return w.now
}

// filtered is a world with a filter.
type filtered struct {
	*world
	sftp, hints bool
}

// setFilter begins a new session, with another filter.
func (w *filtered) setFilter(spec *filter.Spec) {
	w.t.Helper()
	w.spec = spec
	if w.sftp {
		w.connectSFTP()
	} else {
		w.connect()
	}
}

// changed marks what has changed, and tells of it where there are hints.
func (w *filtered) changed(paths ...string) {
	w.t.Helper()
	if w.hints {
		w.tell(paths...)
	} else {
		w.mark(paths...)
	}
}

// bothKinds runs a case on both kinds of slaves, by hints and by crawls.
func bothKinds(t *testing.T, spec *filter.Spec, fill []string, do func(w *filtered)) {
	t.Helper()
	for _, sftp := range []bool{false, true} {
		for _, hints := range []bool{true, false} {
			t.Run(fmt.Sprintf("sftp %t, hints %t", sftp, hints), func(t *testing.T) {
				w := &filtered{newMaster(t, t.TempDir(), t.TempDir()), sftp, hints}
				w.maxDelete = 100
				if hints {
					w.world.hints = &crawler.Hints{}
					w.world.hints.Up()
				}
				for _, path := range fill {
					w.put(path)
				}
				w.mark("")
				w.setFilter(spec)
				w.agree()
				do(w)
			})
		}
	}
}

// put makes a directory, if the path ends in a slash, or a file.
func (w *filtered) put(path string) {
	w.t.Helper()
	if strings.HasSuffix(path, "/") {
		w.ok(os.MkdirAll(w.at(path), 0o755))
		return
	}
	w.write(path, "content of "+path)
}

// agree crawls until the slave is in step, and holds what is not left out against the master.
func (w *filtered) agree() {
	w.t.Helper()
	for range 4 {
		if out := w.pass(); out.Stime != 0 && !out.Waiting {
			break
		}
	}
	s, err := w.crawler.Look(w.t.Context())
	w.ok(err)
	if !s.InStep() {
		list, total := w.crawler.Failures(10)
		w.t.Fatalf("not in step: %+v; %d failures: %v", s, total, list)
	}
	w.equal()
}

func (w *filtered) equal() {
	w.t.Helper()
	o := compare.Replica()
	o.Skip = func(path string) bool {
		out := w.isLeftOut(path)
		if _, err := os.Lstat(w.there(path)); out && err == nil && w.filter.Deletes() {
			w.t.Errorf("%s is left out and still on the slave", path)
		}
		return out || !w.filter.Deletes() && w.onlyHolds(path)
	}
	o.IgnoreNlink, o.IgnoreDirMtime, o.IgnoreMtime = true, true, w.sftp
	compare.MustEqual(w.t, w.master, w.slave, o)
}

// isLeftOut tells, by what is there on either side, whether an entry of an included directory is left out.
func (w *filtered) isLeftOut(path string) bool {
	st, err := os.Lstat(w.at(path))
	mine := err == nil
	if err != nil {
		if st, err = os.Lstat(w.there(path)); err != nil || w.filter.Deletes() {
			return false
		}
	}
	dir, name := beneath.Split(path)
	size := int64(-1)
	if mine && st.Mode().IsRegular() {
		size = st.Size()
	}
	rules := w.filter.Root().Walk(dir)
	if text, err := os.ReadFile(w.at(dir, filter.Tag)); w.filter.Caches() && err == nil && strings.HasPrefix(string(text), filter.Signature) {
		rules = rules.Tagged()
	}
	return rules.Excludes(name, st.IsDir(), size)
}

// onlyHolds tells of a directory that the master lacks whether it holds what is left out, and else nothing.
func (w *filtered) onlyHolds(path string) bool {
	if _, err := os.Lstat(w.at(path)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	entries, err := os.ReadDir(w.there(path))
	if err != nil || len(entries) == 0 {
		return false
	}
	for _, e := range entries {
		if p := beneath.Join(path, e.Name()); !w.isLeftOut(p) && !w.onlyHolds(p) {
			return false
		}
	}
	return true
}

// has checks what the slave has under a name: "" stands for nothing.
func (w *filtered) has(path, want string) {
	w.t.Helper()
	got, err := os.ReadFile(w.there(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EISDIR) {
		w.t.Fatal(err)
	}
	if string(got) != want {
		w.t.Errorf("the slave has %q under %s, want %q", got, path, want)
	}
}

// plant puts something on the slave that is not the master's.
func (w *filtered) plant(path string) {
	w.t.Helper()
	w.ok(os.MkdirAll(filepath.Dir(w.there(path)), 0o755))
	w.ok(os.WriteFile(w.there(path), []byte("planted"), 0o644))
}

func (w *filtered) rename(from, to string) {
	w.t.Helper()
	w.ok(os.MkdirAll(filepath.Dir(w.at(to)), 0o755))
	w.ok(os.Rename(w.at(from), w.at(to)))
	w.changed(from, to)
}

var patterns = &filter.Spec{Exclude: "*.tmp\ncache/\n/top/only\n/a/**/deep", Include: "keep.tmp"}

func TestFilterLeavesOut(t *testing.T) {
	bothKinds(t, patterns, []string{"d/x", "d/x.tmp", "d/keep.tmp", "d/cache/y", "top/only/z", "top/other", "a/b/c/deep", "a/deep", "f"}, func(w *filtered) {
		w.has("d/keep.tmp", "content of d/keep.tmp")
		w.has("a/deep", "")
		w.plant("d/x.tmp")
		w.plant("d/mine.tmp")
		w.plant("cache/z")
		w.put("d/x.tmp")
		w.put("d/new")
		w.put("d/cache/more")
		w.changed("d/x.tmp", "d/new", "d/cache/more")
		w.agree()
		for _, path := range []string{"d/x.tmp", "d/mine.tmp", "cache/z"} {
			w.has(path, "planted")
		}
		// Gone on the master, it is left alone as before.
		w.ok(os.Remove(w.at("d/x.tmp")))
		w.changed("d/x.tmp")
		w.agree()
		w.has("d/x.tmp", "planted")
		w.setFilter(&filter.Spec{Exclude: patterns.Exclude, Include: patterns.Include, Deletes: true})
		w.agree()
		for _, path := range []string{"d/x.tmp", "d/mine.tmp", "cache/z"} {
			w.has(path, "")
		}
	})
}

// TestFilterOfRenamedDirectory: a directory goes out of sight and comes back, and nothing in it is marked for that.
func TestFilterOfRenamedDirectory(t *testing.T) {
	bothKinds(t, patterns, []string{"d/e/x", "d/e/f/y", "out.tmp/e/x", "out.tmp/z"}, func(w *filtered) {
		w.has("out.tmp/z", "")
		w.rename("d", "d.tmp")
		w.agree()
		w.has("d/e/x", "")
		w.put("d.tmp/e/while")
		w.put("d.tmp/e/f/y2")
		w.changed("d.tmp/e/while", "d.tmp/e/f/y2")
		w.agree()
		w.rename("d.tmp", "back")
		w.agree()
		w.has("back/e/f/y2", "content of d.tmp/e/f/y2")
		w.rename("out.tmp", "out")
		w.agree()
		w.has("out/z", "content of out.tmp/z")
		w.rename("out", "out.tmp")
		w.rename("out.tmp", "again")
		w.agree()
		w.ok(w.crawler.Clean(w.t.Context(), 0))
		w.rename("again", "cache")
		w.rename("back", "again")
		w.agree()
		w.rename("cache", "back")
		w.agree()
	})
}

// TestFilterByPath: patterns with a slash leave out other things where a directory is now, and its stamps would not tell.
func TestFilterByPath(t *testing.T) {
	bothKinds(t, patterns, []string{"top/only/z", "top/other", "top/sub/f", "a/b/c/deep", "a/b/c/d/deep", "a/b/g", "u/v/deep", "free/x"}, func(w *filtered) {
		w.has("u/v/deep", "content of u/v/deep")
		w.rename("top", "low")
		w.agree()
		w.has("low/only/z", "content of top/only/z")
		w.rename("low", "top")
		w.agree()
		w.rename("a", "b")
		w.agree()
		w.has("b/b/c/d/deep", "content of a/b/c/d/deep")
		w.rename("b/b", "a/b")
		w.rename("u/v", "a/v")
		w.agree()
		before := w.counters.Bytes.Load()
		w.rename("free", "freer")
		w.agree()
		if w.counters.Bytes.Load() != before {
			t.Error("a directory was sent again in which no pattern can match")
		}
	})
}

// TestFilterChanges: a new filter costs one look at everything, reads nothing of what is there, and nothing is in step before.
func TestFilterChanges(t *testing.T) {
	bothKinds(t, nil, []string{"d/x", "d/x.tmp", "d/e/f/y.tmp", "d/e/f/z"}, func(w *filtered) {
		look := func() bool {
			w.t.Helper()
			s, err := w.crawler.Look(w.t.Context())
			w.ok(err)
			if s.InStep() != (s.Stime != 0) {
				w.t.Errorf("in step %t with a stime of %v", s.InStep(), s.Stime)
			}
			return s.InStep()
		}
		change := func(spec *filter.Spec) {
			w.t.Helper()
			w.setFilter(spec)
			if look() {
				w.t.Fatal("in step under a filter that was never crawled")
			}
			w.setFilter(spec) // again: the end of the worker changes nothing
			if look() {
				w.t.Fatal("in step after a new start")
			}
			hashed := 0
			w.wrap = func(t slave.Tree) slave.Tree { return &hashCounter{t, &hashed} }
			w.setFilter(spec)
			w.agree()
			if hashed != 0 {
				w.t.Errorf("%d files were read", hashed)
			}
			w.setFilter(spec)
			if !look() {
				w.t.Fatal("not in step after a crawl")
			}
		}
		change(patterns)
		w.has("d/e/f/y.tmp", "content of d/e/f/y.tmp") // from before
		w.write("d/e/f/y.tmp", "newer")
		w.changed("d/e/f/y.tmp")
		w.agree()
		w.has("d/e/f/y.tmp", "content of d/e/f/y.tmp")
		w.setFilter(nil)
		w.agree()
		w.has("d/e/f/y.tmp", "newer")
		change(&filter.Spec{Exclude: "z"})
		w.setFilter(&filter.Spec{Exclude: "*.tmp", Deletes: true})
		w.agree()
		w.has("d/x.tmp", "")
		change(nil)
	})
}

// hashCounter counts the files that are hashed on the slave.
type hashCounter struct {
	slave.Tree
	hashed *int
}

func (c *hashCounter) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	*c.hashed += len(paths)
	return c.Tree.Hash(ctx, paths)
}

// TestFilterWhereADirectoryGoes: what is left out stays when its directory is removed, replaced, or makes way.
func TestFilterWhereADirectoryGoes(t *testing.T) {
	bothKinds(t, patterns, []string{"d/x", "d/e/f/y", "d/e/g/z", "r/x", "s/t/x", "q/x", "cache/c"}, func(w *filtered) {
		for _, p := range []string{"d/e/f/mine.tmp", "r/mine.tmp", "s/t/mine.tmp", "q/mine.tmp", "cache/mine"} {
			w.plant(p)
		}
		w.ok(os.RemoveAll(w.at("d")))
		w.changed("d")
		w.agree()
		w.has("d/e/f/mine.tmp", "planted")
		w.has("d/x", "")
		// Another directory in its place, and one that is moved there.
		w.ok(os.RemoveAll(w.at("r")))
		w.put("r/new")
		w.ok(os.RemoveAll(w.at("s")))
		w.ok(os.Rename(w.at("q"), w.at("s")))
		w.put("d/e/back")
		w.changed("r/new", "r", "q", "s", "d/e/back", "d", "d/e")
		w.agree()
		w.has("r/mine.tmp", "planted")
		w.has("s/t/mine.tmp", "planted")
		w.has("d/e/f/mine.tmp", "planted")
		// A file takes the name of a directory that was left out.
		w.ok(os.RemoveAll(w.at("cache")))
		w.put("cache")
		w.changed("cache")
		w.agree()
		w.has("cache", "content of cache")
	})
}

// TestFilterAndHardLinks: names of one inode, of which some are left out.
func TestFilterAndHardLinks(t *testing.T) {
	bothKinds(t, patterns, []string{"d/x", "e/"}, func(w *filtered) {
		w.ok(os.Link(w.at("d/x"), w.at("d/x.tmp")))
		w.ok(os.Link(w.at("d/x"), w.at("e/y")))
		w.changed("d/x.tmp", "e/y", "d/x")
		w.agree()
		w.has("d/x.tmp", "")
		w.write("d/x.tmp", "through the other name")
		w.changed("d/x.tmp", "d/x", "e/y")
		w.agree()
		w.has("e/y", "through the other name")
		// By the marks of that name alone.
		w.ok(os.Link(w.at("d/x"), w.at("e/later.tmp")))
		w.put("cache/")
		w.ok(os.Link(w.at("d/x"), w.at("cache/l")))
		w.changed("e/later.tmp", "cache/l")
		w.agree()
		for _, path := range []string{"e/later.tmp", "cache/l", "d/x.tmp"} {
			w.write(path, "through "+path)
			w.changed(path)
			w.agree()
			w.has("d/x", "through "+path)
			w.has("e/y", "through "+path)
		}
		w.ok(os.Remove(w.at("e/later.tmp")))
		w.ok(os.RemoveAll(w.at("cache")))
		w.changed("e/later.tmp", "cache")
		w.agree()
		w.rename("d/x", "d/z.tmp")
		w.agree()
		w.rename("d/z.tmp", "e/z")
		w.agree()
		w.ok(os.Remove(w.at("e/y")))
		w.changed("e/y")
		w.agree()
		w.ok(os.Remove(w.at("e/z")))
		w.changed("e/z")
		w.agree()
		w.rename("d/x.tmp", "d/x")
		w.agree()
		w.counters.Searches.Store(0)
		w.put("f")
		w.changed("f")
		w.agree()
		if n := w.counters.Searches.Load(); n != 0 {
			t.Errorf("the master was searched %d times for names, for a change that has nothing to do with them", n)
		}
	})
}

func TestFilterBySize(t *testing.T) {
	bothKinds(t, &filter.Spec{Larger: 100}, []string{"d/x", "d/y"}, func(w *filtered) {
		w.write("d/x", strings.Repeat("grown", 30))
		w.write("d/new", strings.Repeat("large", 30))
		w.changed("d/x", "d/new")
		w.agree()
		w.has("d/x", "content of d/x")
		w.has("d/new", "")
		w.write("d/x", "small")
		w.write("d/new", "small")
		w.changed("d/x", "d/new")
		w.agree()
		w.has("d/new", "small")
	})
}

func TestFilterOfCaches(t *testing.T) {
	bothKinds(t, &filter.Spec{Caches: true}, []string{"d/c/x", "d/c/e/y", "d/no/x"}, func(w *filtered) {
		w.write("d/no/"+filter.Tag, "no signature")
		w.write("d/c/"+filter.Tag, filter.Signature+"\n# made by a test")
		w.write("d/c/x", "changed")
		w.changed("d/no/"+filter.Tag, "d/c/"+filter.Tag, "d/c/x")
		w.agree()
		w.has("d/c/x", "content of d/c/x")
		w.has("d/c/"+filter.Tag, filter.Signature+"\n# made by a test")
		w.write("d/c/e/new", "unseen")
		w.changed("d/c/e/new")
		w.agree()
		w.has("d/c/e/new", "")
		w.ok(os.Remove(w.at("d/c", filter.Tag)))
		w.changed("d/c/" + filter.Tag)
		w.agree()
		w.has("d/c/x", "changed")
		w.has("d/c/e/new", "unseen")
		w.write("d/c/e/"+filter.Tag, filter.Signature)
		w.changed("d/c/e/" + filter.Tag)
		w.setFilter(&filter.Spec{Caches: true, Deletes: true})
		w.agree()
		w.has("d/c/e/new", "")
	})
}

// TestFilterInADryRun: what is left out is no change, and a directory that stays for what it holds is not told as removed.
func TestFilterInADryRun(t *testing.T) {
	w := &filtered{world: newMaster(t, t.TempDir(), t.TempDir())}
	w.maxDelete = 100
	for _, path := range []string{"d/x", "d/e/y", "d/x.tmp", "g/z"} {
		w.put(path)
	}
	w.mark("")
	w.setFilter(patterns)
	w.agree()
	w.plant("d/e/mine.tmp")
	w.ok(os.RemoveAll(w.at("d")))
	w.put("new")
	w.put("new.tmp")
	w.put("cache/c")
	w.changed("d", "new", "new.tmp", "cache")
	var got []string
	for _, c := range w.dry(w.aside(), time.Time{}, true) {
		if c.Path != "" { // the root's time
			got = append(got, string(c.Do)+" "+c.Path)
		}
	}
	slices.Sort(got)
	if want := []string{"make new", "remove d/e/y", "remove d/x"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
