package crawler_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/internal/filter"
)

// TestRandomFilters: random changes under random filters, which change as well. Whenever the slave says that it is in step, what is
// included is equal; and what was planted on the slave where the filter leaves it out is there after every crawl.
//
// GEOREP_SEEDS says how many seeds are tried, for each kind of slave by hints and by crawls.
func TestRandomFilters(t *testing.T) {
	for seed := range seeds(t, 1) {
		for _, sftp := range []bool{false, true} {
			for _, hints := range []bool{true, false} {
				t.Run(fmt.Sprintf("seed %d, sftp %t, hints %t", seed, sftp, hints), func(t *testing.T) { runFilters(t, seed, sftp, hints) })
			}
		}
	}
}

func runFilters(t *testing.T, seed uint64, sftp, hints bool) {
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	master, there := filepath.Join(top, "master"), filepath.Join(top, "slave")
	for _, dir := range []string{master, there} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := &filterRun{filtered: &filtered{newMaster(t, master, there), sftp, hints}, rnd: rand.New(rand.NewPCG(seed, 31)), planted: map[uint64]bool{}}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(r.log, "\n"))
		}
	}()
	r.maxDelete = 100
	if hints {
		r.world.hints = &crawler.Hints{}
		r.world.hints.Up()
	}
	r.say("filter", r.newFilter())
	for range 60 {
		for range 1 + r.rnd.IntN(4) {
			if paths := r.change(); len(paths) > 0 {
				r.changed(paths...)
			}
		}
		switch r.rnd.IntN(12) {
		case 0:
			r.say("filter", r.newFilter())
		case 1:
			r.setFilter(r.spec)
		case 2, 3:
			r.plantOne()
		}
		r.crawlOnce()
		if t.Failed() {
			break
		}
	}
	for range 4 {
		r.crawlOnce()
	}
	if !t.Failed() {
		r.agree()
	}
}

// filterRun is one run.
type filterRun struct {
	*filtered
	rnd     *rand.Rand
	planted map[uint64]bool // inodes of the slave
	log     []string
}

func (r *filterRun) say(what ...any) { r.log = append(r.log, fmt.Sprint(what...)) }

// crawlOnce crawls, and checks what that says and what it must not touch.
func (r *filterRun) crawlOnce() {
	before := r.leftAlone()
	if _, err := r.crawler.Pass(r.t.Context()); err != nil {
		r.t.Errorf("pass: %v", err)
		return
	}
	s, err := r.crawler.Look(r.t.Context())
	r.ok(err)
	r.say("crawled, in step ", s.InStep())
	if s.InStep() {
		r.equal()
		if r.rnd.IntN(3) == 0 {
			r.ok(r.crawler.Clean(r.t.Context(), 0))
		}
	}
	after := r.inodes()
	for ino, path := range before {
		if _, is := after[ino]; !is {
			r.t.Errorf("%s was left out on the slave, and is not there any more", path)
		}
	}
}

// inodes are the planted ones that the slave has, and where.
func (r *filterRun) inodes() map[uint64]string {
	out := map[uint64]string{}
	r.ok(filepath.WalkDir(r.slave, func(path string, d fs.DirEntry, err error) error {
		if d.Name() == ".georep" {
			return fs.SkipDir
		}
		if st, serr := os.Lstat(path); serr == nil && r.planted[st.Sys().(*syscall.Stat_t).Ino] {
			out[st.Sys().(*syscall.Stat_t).Ino], _ = filepath.Rel(r.slave, path)
		}
		return err
	}))
	return out
}

// leftAlone are those of them that the filter leaves out where they are now.
func (r *filterRun) leftAlone() map[uint64]string {
	all := r.inodes()
	for ino, path := range all {
		if r.filter.Deletes() || !r.under(path) {
			delete(all, ino)
		}
	}
	return all
}

// under tells whether an entry, or a directory above it, is left out.
func (r *filterRun) under(path string) bool {
	for ; path != ""; path, _ = beneath.Split(path) {
		if r.isLeftOut(path) {
			return true
		}
	}
	return false
}

func (r *filterRun) newFilter() string {
	pool := []string{"*.tmp", "cache/", "/d0/f1", "d1/*", "/d0/**/f2", "!keep.tmp", "d2", "d?.tmp", "**/cache/f0", "/*/d1/", "/d0", "d0/d1/", "!/d0/d1/f0", "f3", "**/d3"}
	spec := &filter.Spec{Deletes: r.rnd.IntN(6) == 0, Caches: r.rnd.IntN(3) == 0, Larger: []int64{0, 0, 40}[r.rnd.IntN(3)]}
	var lines []string
	for range r.rnd.IntN(5) {
		lines = append(lines, pool[r.rnd.IntN(len(pool))])
	}
	spec.Exclude = strings.Join(lines, "\n")
	if r.rnd.IntN(8) == 0 {
		spec = nil
	}
	r.setFilter(spec)
	return fmt.Sprintf("%+v", spec)
}

// plantOne puts a file on the slave where the filter leaves it out.
func (r *filterRun) plantOne() {
	if r.filter.Deletes() {
		return
	}
	dirs := r.list(r.slave, true)
	for range 10 {
		path := beneath.Join(dirs[r.rnd.IntN(len(dirs))], []string{"p.tmp", "cache/p", "d2/p", "d3/d/p"}[r.rnd.IntN(4)])
		if _, err := os.Lstat(r.there(path)); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(r.there(path)), 0o755); err != nil {
			continue
		}
		r.ok(os.WriteFile(r.there(path), []byte("planted"), 0o644))
		first := r.firstNew(path, dirs)
		if !r.byName(first) {
			r.ok(os.RemoveAll(r.there(first))) // it is the replica's: nothing would lead to it there
			continue
		}
		st, err := os.Lstat(r.there(path))
		r.ok(err)
		r.planted[st.Sys().(*syscall.Stat_t).Ino] = true
		r.say("planted ", path)
		return
	}
}

// byName tells whether a new entry of the slave is left out by its name: what somebody puts into a directory that is left out by a
// Tag alone no crawl finds once that is gone, as anywhere else on the slave.
func (r *filterRun) byName(path string) bool {
	st, err := os.Lstat(r.there(path))
	r.ok(err)
	dir, name := beneath.Split(path)
	return r.filter.Root().Walk(dir).Excludes(name, st.IsDir(), -1)
}

// firstNew is the first part of path that is none of dirs.
func (r *filterRun) firstNew(path string, dirs []string) string {
	for dir, _ := beneath.Split(path); !slices.Contains(dirs, dir); dir, _ = beneath.Split(dir) {
		path = dir
	}
	return path
}

// list gives all directories of a side, or all other entries.
func (r *filterRun) list(side string, dir bool) (all []string) {
	r.ok(filepath.WalkDir(side, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(side, path)
		switch {
		case err != nil:
			return err
		case rel == ".georep":
			return fs.SkipDir
		case d.IsDir() == dir && rel == ".":
			all = append(all, "")
		case d.IsDir() == dir:
			all = append(all, rel)
		}
		return nil
	}))
	return all
}

func (r *filterRun) pick(dir bool) string {
	all := r.list(r.master, dir)
	if len(all) == 0 {
		return ""
	}
	return all[r.rnd.IntN(len(all))]
}

// fresh is a name that may be there. Those of files and of directories differ: what stands in the way of another kind of entry is
// parked, whatever it holds.
func (r *filterRun) fresh(dir bool) string {
	names := []string{"f0", "f1", "f2", "f3", "x.tmp", "keep.tmp", "y.tmp", filter.Tag}
	if dir {
		names = []string{"d0", "d1", "d2", "d3", "cache", "d4", "dd.tmp"}
	}
	in := r.pick(true)
	for strings.Count(in, "/") > 2 {
		in, _ = beneath.Split(in)
	}
	return beneath.Join(in, names[r.rnd.IntN(len(names))])
}

func (r *filterRun) write(path string) error {
	text := strings.Repeat("text ", 1+r.rnd.IntN(15)) + fmt.Sprint(r.rnd.IntN(1000))
	if strings.HasSuffix(path, filter.Tag) && r.rnd.IntN(3) > 0 {
		text = filter.Signature
	}
	return os.WriteFile(r.at(path), []byte(text), 0o644)
}

// change does one thing, and gives the names that it concerns; none where it could not be done.
func (r *filterRun) change() (paths []string) {
	dir := r.rnd.IntN(2) == 0
	p, q := r.pick(dir), r.fresh(dir)
	what, err := "", error(nil)
	_, taken := os.Lstat(r.at(q))
	switch n := r.rnd.IntN(12); {
	case n < 3:
		q = r.fresh(false)
		if what, err = "write", r.write(q); err == nil {
			paths = r.told(q)
		}
	case n < 5:
		q = r.fresh(true)
		what, err, paths = "mkdir", os.Mkdir(r.at(q), 0o755), []string{q}
	case n < 8 && p != "" && (!dir || taken != nil):
		what, err, paths = "rename", os.Rename(r.at(p), r.at(q)), []string{p, q}
	case n == 8 && p != "":
		what, err, paths = "remove", os.RemoveAll(r.at(p)), []string{p}
	case n == 9:
		if p, q = r.pick(false), r.fresh(false); p != "" {
			what, err, paths = "link", os.Link(r.at(p), r.at(q)), []string{p, q}
		}
	case n == 10:
		if q = r.pick(dir); p != "" && q != "" {
			what, err, paths = "exchange", unix.Renameat2(unix.AT_FDCWD, r.at(p), unix.AT_FDCWD, r.at(q), unix.RENAME_EXCHANGE), []string{p, q}
		}
	case p != "" && !dir:
		what, err, paths = "write", r.write(p), r.told(p)
	}
	if what == "" || err != nil {
		return nil
	}
	r.say(what, " ", paths)
	return paths
}

// told are the names that are marked when an entry is written: its own, and those of a Tag, which only count as they are under
// these.
func (r *filterRun) told(path string) (names []string) {
	names = []string{path}
	st, err := os.Lstat(r.at(path))
	r.ok(err)
	for _, p := range r.list(r.master, false) {
		if _, name := beneath.Split(p); name != filter.Tag || p == path {
			continue
		}
		if other, err := os.Lstat(r.at(p)); err == nil && os.SameFile(st, other) {
			names = append(names, p)
		}
	}
	return names
}
