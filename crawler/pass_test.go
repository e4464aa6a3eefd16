package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/crawler/source"
	"georep/integration/harness/compare"
	"georep/integration/harness/tree"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
)

// world is a master, marked by hand, and a slave on this host.
type world struct {
	t             *testing.T
	master, slave string
	root          *beneath.Dir
	names         xtime.Names
	uuid, session xtime.UUID
	now, volume   xtime.Time
	tree          slave.Tree
	wrap          func(slave.Tree) slave.Tree
	counters      crawler.Counters
	sentBefore    int64 // by crawlers before this one
	crawler       *crawler.Crawler
	maxDelete     int
	strict        bool  // no entry may be removed without counting
	free          int64 // so many may; 0: as many as ever
	hints         *crawler.Hints
	seq           uint64
	settle, delay time.Duration
	clock         func() time.Time // by which files wait; nil: the real one
	mounts        func() map[string]map[string]bool
	approvals     limit.Approvals
	spec          *filter.Spec  // nil: nothing is left out
	source        source.Opener // nil: a tree of this host
	filter        *filter.Filter
}

func newWorld(t *testing.T) *world {
	w := newMaster(t, t.TempDir(), t.TempDir())
	w.connect()
	return w
}

// newMaster is a world without a slave yet.
func newMaster(t *testing.T, master, slave string) *world {
	w := &world{t: t, master: master, slave: slave, uuid: xtime.NewUUID(), session: xtime.NewUUID(), maxDelete: 50}
	w.now = xtime.FromTime(time.Now().Add(time.Hour)) // later than every ctime of this test
	w.volume = w.now
	w.names = xtime.NamesFor(xtime.Trusted, w.uuid)
	root, err := beneath.OpenRoot(w.master, true)
	w.ok(err)
	w.root = root
	t.Cleanup(func() { root.Close() })
	w.mark("")
	return w
}

// connect opens the slave anew, with a new crawler, as a new worker would.
func (w *world) connect() {
	if w.tree != nil {
		w.ok(w.tree.Close())
	}
	d, err := disk.Open(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Force: true, Version: "test"})
	w.ok(err)
	w.t.Cleanup(func() { d.Close() })
	w.over(d)
}

// over begins with a new crawler over a slave that is open.
func (w *world) over(t slave.Tree) {
	w.tree = t
	if w.wrap != nil {
		w.tree = w.wrap(t)
	}
	id, err := w.root.Identity()
	w.ok(err)
	w.sentBefore += w.counters.Bytes.Load()
	w.counters = crawler.Counters{}
	since := w.takeUpFilter()
	w.crawler = crawler.New(crawler.Options{Filter: w.filter, FilterSince: since, Root: w.root, Path: w.master, Names: w.names,
		VolumeMark: func() xtime.Time { return w.volume }, Identity: id, Tree: w.tree, Logger: zerolog.Nop(),
		Counters: &w.counters, Hints: w.hints, MaxDelete: w.maxDelete, FreeDeletes: 1000, Approvals: w.approvals, RetryMax: 2 * time.Millisecond,
		QuietPeriod: w.settle, MaxDelay: w.delay, Source: crawler.SourceOptions{Open: w.source, Mounts: w.mounts}})
	if w.clock != nil {
		w.crawler.Clock(w.clock)
	}
	if w.strict || w.free > 0 {
		w.crawler.Free(w.free)
	}
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) at(parts ...string) string {
	return filepath.Join(append([]string{w.master}, parts...)...)
}

func (w *world) there(parts ...string) string {
	return filepath.Join(append([]string{w.slave}, parts...)...)
}

// mark does what the marker does after changes to the named entries: one xtime, entries first, the root last.
func (w *world) mark(paths ...string) {
	w.t.Helper()
	w.now = w.now.Next()
	for _, p := range paths {
		for {
			dir, name := beneath.Split(p)
			if p == "" {
				break
			}
			d, err := w.root.OpenPath(dir)
			if err == nil {
				if err := d.SetXtime(name, &w.names, w.now); err != nil && !errors.Is(err, os.ErrNotExist) {
					w.t.Fatal(err)
				}
				d.Close()
			}
			p = dir
		}
	}
	w.ok(w.root.SetXtime("", &w.names, w.now))
}

func (w *world) pass() crawler.Outcome {
	w.t.Helper()
	out, err := w.crawler.Pass(w.t.Context())
	w.ok(err)
	return out
}

// inStep does a pass that must succeed, and compares.
func (w *world) inStep() {
	w.t.Helper()
	if out := w.pass(); out.Stime == 0 {
		list, total := w.crawler.Failures(10)
		w.t.Fatalf("not stamped; %d failures: %v", total, list)
	}
	compare.MustEqual(w.t, w.master, w.slave, compare.Replica())
	s, err := w.crawler.Look(w.t.Context())
	w.ok(err)
	if !s.InStep() {
		w.t.Fatalf("not in step after a complete pass: %+v", s)
	}
}

func (w *world) write(path, content string) {
	w.t.Helper()
	w.ok(os.MkdirAll(filepath.Dir(w.at(path)), 0o755))
	w.ok(os.WriteFile(w.at(path), []byte(content), 0o644))
}

func TestOneOfEverythingThenNothing(t *testing.T) {
	w := newWorld(t)
	_, err := tree.OneOfEverything(w.master)
	w.ok(err)
	w.mark("")
	w.inStep()
	w.connect()
	s, err := w.crawler.Look(t.Context())
	w.ok(err)
	if !s.InStep() || w.counters.Surveyed.Load() != 1 {
		t.Fatalf("a restart with nothing changed surveyed %d directories, in step: %v", w.counters.Surveyed.Load(), s.InStep())
	}
}

func TestOnlyMarkedDirectoriesAreVisited(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		for j := range 5 {
			w.write(fmt.Sprintf("d%d/e%d/f", i, j), "x")
		}
	}
	w.mark("")
	w.inStep()
	w.write("d3/e2/f", "changed")
	w.mark("d3/e2/f")
	w.counters.Visited.Store(0)
	w.counters.Surveyed.Store(0)
	w.inStep()
	if n := w.counters.Visited.Load(); n != 3 {
		t.Errorf("visited %d directories, want root, d3 and e2", n)
	}
	if n := w.counters.Surveyed.Load(); n != 3+1 { // and the root once more, by Look
		t.Errorf("surveyed %d directories", n)
	}
	if n := w.counters.Files.Load(); n != 101 {
		t.Errorf("shipped %d files, want 101", n)
	}
}

// failing makes chosen operations fail.
type failing struct {
	slave.Tree
	fail func(op *slave.Op) error
	call func(name string) error
}

func (f *failing) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	if err := f.called("apply"); err != nil {
		return nil, err
	}
	var pass slave.Batch
	results := make([]slave.Result, len(b.Ops))
	var index []int
	var failed []string
	for i := range b.Ops {
		if b.Ops[i].Kind == slave.OpFinish && slices.ContainsFunc(failed, func(path string) bool { return within(path, b.Ops[i].Path) }) {
			results[i].Err = &slave.PathError{Op: "finish", Path: b.Ops[i].Path, Err: slave.ErrHeldBack}
			continue
		}
		if f.fail != nil {
			if err := f.fail(&b.Ops[i]); err != nil {
				results[i].Err = &slave.PathError{Op: b.Ops[i].Kind.String(), Path: b.Ops[i].Path, Err: err}
				failed = append(failed, b.Ops[i].Path)
				continue
			}
		}
		pass.Ops, index = append(pass.Ops, b.Ops[i]), append(index, i)
	}
	got, err := f.Tree.Apply(ctx, &pass)
	for i, r := range got {
		results[index[i]] = r
	}
	return results, err
}

// failingWorld is a world whose slave can be made to fail, or met by changes of the master, and whose crawler takes hints.
func failingWorld(t *testing.T) (*world, *failing) {
	f := &failing{}
	return hintedOver(t, func(t slave.Tree) slave.Tree { f.Tree = t; return f }), f
}

// hintedOver is a world whose slave is wrapped, and whose crawler takes hints.
func hintedOver(t *testing.T, wrap func(slave.Tree) slave.Tree) *world {
	w := newWorld(t)
	w.wrap = wrap
	w.hints = &crawler.Hints{}
	w.hints.Up()
	w.connect()
	return w
}

// within tells whether path is dir or lies below it.
func within(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}

func (f *failing) Survey(ctx context.Context, q []slave.Query) ([]slave.DirState, error) {
	if err := f.called("survey"); err != nil {
		return nil, err
	}
	return f.Tree.Survey(ctx, q)
}

func (f *failing) Find(ctx context.Context, g []xtime.GFID) ([]slave.Found, error) {
	if err := f.called("find"); err != nil {
		return nil, err
	}
	return f.Tree.Find(ctx, g)
}

func (f *failing) Hash(ctx context.Context, p []string) ([]slave.HashResult, error) {
	if err := f.called("hash"); err != nil {
		return nil, err
	}
	return f.Tree.Hash(ctx, p)
}

func (f *failing) Groups(ctx context.Context, max int) ([]slave.Group, error) {
	if err := f.called("groups"); err != nil {
		return nil, err
	}
	return f.Tree.Groups(ctx, max)
}

func (f *failing) called(name string) error {
	if f.call == nil {
		return nil
	}
	return f.call(name)
}

func TestOneFailureHoldsBackOnlyItsAncestors(t *testing.T) {
	w := newWorld(t)
	f := &failing{}
	w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
	w.connect()
	for _, p := range []string{"a/b/bad", "a/b/good", "a/c/good", "d/good"} {
		w.write(p, p)
	}
	w.mark("")
	f.fail = func(op *slave.Op) error {
		if op.Path == "a/b/bad" {
			return unix.EIO
		}
		return nil
	}
	if out := w.pass(); out.Stime != 0 {
		t.Fatal("the root was stamped over a failure")
	}
	for _, p := range []string{"a/b/good", "a/c/good", "d/good"} {
		if _, err := os.Stat(w.there(p)); err != nil {
			t.Errorf("a sibling was held back: %v", err)
		}
	}
	for path, stamped := range map[string]bool{"": false, "a": false, "a/b": false, "a/c": true, "d": true} {
		if got := w.stamp(path) != 0; got != stamped {
			t.Errorf("%q stamped: %v, want %v", path, got, stamped)
		}
	}
	list, total := w.crawler.Failures(10)
	if total != 1 || list[0].Path != "a/b/bad" || !errors.Is(list[0].Err, unix.EIO) || list[0].Op != "put" {
		t.Fatalf("failures: %d %+v", total, list)
	}
	files := w.counters.Files.Load()
	f.fail = nil
	waitFor(t, w.crawler.NextRetry())
	w.inStep()
	if n := w.counters.Files.Load() - files; n != 1 {
		t.Errorf("%d files were shipped to mend one", n)
	}
	if _, total := w.crawler.Failures(10); total != 0 {
		t.Errorf("%d failures are left after success", total)
	}
}

func waitFor(t *testing.T, at time.Time) {
	select {
	case <-time.After(time.Until(at)):
	case <-t.Context().Done():
	}
}

func (w *world) stamp(path string) xtime.Time {
	w.t.Helper()
	d, err := beneath.OpenRoot(w.there(path), false)
	w.ok(err)
	defer d.Close()
	t, err := d.Xtime("", &w.names)
	w.ok(err)
	return t
}

// TestCallsFail ends the session at the first, second, third ... call of the slave, each time with a new worker that has
// to carry on.
func TestCallsFail(t *testing.T) {
	for n := 0; ; n++ {
		w := newWorld(t)
		f := &failing{}
		w.wrap = func(t slave.Tree) slave.Tree { f.Tree = t; return f }
		w.connect()
		w.hardScenario()
		var count atomic.Int64
		f.call = func(string) error {
			if count.Add(1) > int64(n) {
				return errCut
			}
			return nil
		}
		_, err := w.crawler.Pass(t.Context())
		if err != nil && !errors.Is(err, errCut) {
			t.Fatalf("call %d: %v", n, err)
		}
		f.call = nil
		w.connect()
		w.inStep()
		if err == nil {
			if n < 3 {
				t.Fatalf("only %d calls", n)
			}
			return
		}
	}
}

var errCut = errors.New("the connection is cut")

// hardScenario brings the slave in step with one tree, and then changes it in every way that needs a special answer.
func (w *world) hardScenario() {
	w.write("keep/f", "kept")
	w.write("gone/f", "will go")
	w.write("moved/f", "moves")
	w.write("one", "one name")
	w.write("big", strings.Repeat("0123456789abcdef", 8192))
	w.mark("")
	w.pass()
	w.ok(os.RemoveAll(w.at("gone")))
	w.ok(os.Rename(w.at("moved"), w.at("keep/moved")))
	w.ok(os.Link(w.at("one"), w.at("keep/two")))
	w.ok(os.Chmod(w.at("big"), 0o600))
	w.ok(os.Symlink("nowhere", w.at("moved")))
	w.write("new/f", "new")
	w.mark("gone", "moved", "keep/moved", "keep/two", "big", "new/f")
}

func TestHardScenario(t *testing.T) {
	w := newWorld(t)
	w.hardScenario()
	w.inStep()
}

func TestMovedWhileTheCrawlPassedIsNotSentAgain(t *testing.T) {
	w := newWorld(t)
	w.write("z/f", strings.Repeat("x", 1<<20))
	w.write("z/d/g", "inside")
	w.write("a/h", "stays")
	w.mark("")
	w.inStep()
	// What a crawl sees that lists a before the move and z after it.
	w.ok(os.Rename(w.at("z/f"), w.at("a/f")))
	w.ok(os.Rename(w.at("z/d"), w.at("a/d")))
	w.mark("z")
	w.pass()
	if _, err := os.Stat(w.there("z/f")); err == nil {
		t.Fatal("what the listing lacked is still there")
	}
	bytes := w.counters.Bytes.Load()
	w.mark("a/f", "a/d")
	w.inStep()
	if n := w.counters.Bytes.Load() - bytes; n != 0 {
		t.Errorf("%d bytes were sent for a move", n)
	}
	w.ok(w.crawler.Clean(t.Context(), 0))
}

// TestMovedBeforeAllBelowItWasRead: a directory moves away while what is below it is still to be read. On the slave the
// ones in between must not be stamped as complete: they move as they are, and no new mark leads into them.
func TestMovedBeforeAllBelowItWasRead(t *testing.T) {
	w := newWorld(t)
	w.maxDelete = 100
	w.ok(os.Mkdir(w.at("a"), 0o755))
	w.mark("")
	w.inStep()
	outside := t.TempDir()
	moved := false
	w.wrap = func(inner slave.Tree) slave.Tree {
		return &failing{Tree: inner, fail: func(op *slave.Op) error {
			if op.Kind == slave.OpMkdir && op.Path == "a/b/c" && !moved {
				moved = true
				return os.Rename(w.at("a"), filepath.Join(outside, "a"))
			}
			return nil
		}}
	}
	w.connect()
	w.write("a/b/c/f", "content")
	w.mark("a/b/c/f")
	w.pass()
	if !moved {
		t.Fatal("nothing was moved")
	}
	w.mark("a")
	w.pass()
	w.ok(os.Rename(filepath.Join(outside, "a"), w.at("z")))
	w.mark("z")
	w.inStep()
}

func TestReplacedDirectoryIsComparedFromScratch(t *testing.T) {
	w := newWorld(t)
	w.write("d/sub/f", "old")
	w.write("outside/sub/f", "new")
	w.ok(os.RemoveAll(w.at("outside")))
	other := t.TempDir()
	w.ok(os.MkdirAll(filepath.Join(other, "sub"), 0o755))
	w.ok(os.WriteFile(filepath.Join(other, "sub/f"), []byte("other"), 0o644))
	w.mark("")
	w.inStep()
	w.ok(os.Rename(w.at("d"), filepath.Join(other, "was")))
	w.ok(os.Rename(filepath.Join(other, "sub"), w.at("d")))
	w.ok(os.Mkdir(w.at("d/sub"), 0o755))
	w.mark("d") // but nothing below it: it was never written here
	w.inStep()
}

// forgetPlaces has a new worker find a slave that does not know where its inodes are, as after a crash.
func (w *world) forgetPlaces() {
	w.t.Helper()
	w.ok(w.tree.Close())
	w.ok(os.RemoveAll(w.there(slave.Reserved, "places")))
	w.connect()
}

func TestFurtherNamesBecomeLinks(t *testing.T) {
	for name, known := range map[string]bool{"known": true, "not known": false} {
		t.Run(name, func(t *testing.T) { furtherNames(t, known) })
	}
}

func furtherNames(t *testing.T, known bool) {
	w := newWorld(t)
	w.write("a/f", strings.Repeat("content ", 40<<10))
	w.mark("")
	w.inStep()
	if !known {
		w.forgetPlaces()
	}
	bytes := w.counters.Bytes.Load()
	w.ok(os.Link(w.at("a/f"), w.at("g")))
	w.mark("g")
	w.inStep() // compares link groups too
	w.ok(os.Link(w.at("g"), w.at("h")))
	w.mark("h")
	w.inStep()
	if n := w.counters.Bytes.Load() - bytes; n > 320<<10 || known && n > 0 {
		t.Errorf("%d bytes sent for two links", n)
	}
	if n := w.counters.Searches.Load(); n > 1 || known && n > 0 {
		t.Errorf("%d searches for two links", n)
	}
	// Written through one name, marked under that name alone.
	w.write("g", "other content, through one name")
	w.mark("g")
	w.inStep()
	// One name breaks away, as an atomic save does.
	w.write("tmp", "saved")
	w.ok(os.Rename(w.at("tmp"), w.at("h")))
	w.mark("h")
	w.inStep()
}

// TestChangeThroughANameThatIsGone: the directory of the name that stays carries no mark.
func TestChangeThroughANameThatIsGone(t *testing.T) {
	for name, remove := range map[string]func(w *world){
		"unlinked": func(w *world) { w.ok(os.Remove(w.at("b/g"))); w.mark("b/g") },
		"replaced": func(w *world) {
			w.write("b/new", "other")
			w.ok(os.Rename(w.at("b/new"), w.at("b/g")))
			w.mark("b/g")
		},
		"with its directory": func(w *world) { w.ok(os.RemoveAll(w.at("b"))); w.mark("b") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write("a/deep/f", "content")
			w.ok(os.Mkdir(w.at("b"), 0o755))
			w.ok(os.Link(w.at("a/deep/f"), w.at("b/g")))
			w.mark("")
			w.inStep()
			w.write("b/g", "changed")
			w.mark("b/g")
			remove(w)
			w.inStep()
			w.connect()
			w.inStep()
		})
	}
}

// TestDirectoryMovesBeforeItsNameIsLookedAt: a name of an inode is gone, through which it was changed, and the directory of
// the other is to be looked at for that. It moves just before, which does not say what lies in it: no stamp may, either.
func TestDirectoryMovesBeforeItsNameIsLookedAt(t *testing.T) {
	w := newWorld(t)
	w.write("a/deep/in/f", "content")
	w.write("x/y", "")
	w.ok(os.Mkdir(w.at("b"), 0o755))
	w.ok(os.Link(w.at("a/deep/in/f"), w.at("b/g")))
	w.mark("")
	w.inStep()
	asked, moved := false, false
	w.wrap = func(inner slave.Tree) slave.Tree {
		return &failing{Tree: inner, call: func(name string) error {
			switch {
			case name == "groups":
				asked = true
			case name == "survey" && asked && !moved: // the visit that follows
				moved = true
				w.ok(os.Rename(w.at("a/deep"), w.at("x/deep")))
			}
			return nil
		}}
	}
	w.connect()
	w.write("b/g", "changed")
	w.mark("b/g")
	w.ok(os.Remove(w.at("b/g")))
	w.mark("b/g")
	out := w.pass()
	if !moved {
		t.Fatal("nothing was looked at")
	}
	if out.Stime != 0 {
		t.Error("the root was stamped, and what was changed has not been looked at")
	}
	w.mark("a/deep", "x/deep")
	w.inStep()
}

// TestSplitGroupIsJoined: whatever made two copies of an inode on the slave, a visit to one of their directories sees it.
func TestSplitGroupIsJoined(t *testing.T) {
	w := newWorld(t)
	w.write("a/f", "content")
	w.ok(os.Mkdir(w.at("b"), 0o755))
	w.ok(os.Link(w.at("a/f"), w.at("b/g")))
	w.mark("")
	w.inStep()
	for _, command := range []string{"cp -a b/g b/copy", "mv -f b/copy b/g"} {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = w.slave
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	w.connect()
	w.write("b/other", "")
	w.mark("b/other")
	w.inStep()
}

// TestRevisitOfADirectoryThatMoved: a directory that is to be visited again was moved since its parent was listed. The
// slave does not have it yet, which is no failure.
func TestRevisitOfADirectoryThatMoved(t *testing.T) {
	w := newWorld(t)
	w.write("a/one/f", "content")
	w.ok(os.Mkdir(w.at("a/two"), 0o755))
	w.mark("")
	w.inStep()
	moved := false
	w.wrap = func(inner slave.Tree) slave.Tree {
		return &failing{Tree: inner, call: func(name string) error {
			if name == "groups" && !moved {
				moved = true
				w.ok(os.Rename(w.at("a"), w.at("c")))
				w.write("c/one/f", "changed")
				w.mark("c/one/f")
			}
			return nil
		}}
	}
	w.connect()
	w.ok(os.Link(w.at("a/one/f"), w.at("a/two/g")))
	w.mark("a/two/g")
	w.pass()
	if list, n := w.crawler.Failures(10); n != 0 {
		t.Fatalf("failures: %v", list)
	}
	w.inStep()
}

// TestReplacedWhileItIsRead: a name that led to one inode when it was listed leads to another when the rest is read. The
// first has another name, which must not get what belongs to the second.
func TestReplacedWhileItIsRead(t *testing.T) {
	w := newWorld(t)
	w.ok(os.Mkdir(w.at("a"), 0o755))
	w.ok(os.Symlink("old", w.at("a/n")))
	w.ok(os.Link(w.at("a/n"), w.at("a/z")))
	w.ok(os.Symlink("new", w.at("tmp")))
	w.wrap = func(inner slave.Tree) slave.Tree {
		return &failing{Tree: inner, call: func(name string) error {
			if name == "find" {
				_ = os.Rename(w.at("tmp"), w.at("a/n"))
			}
			return nil
		}}
	}
	w.connect()
	w.mark("a/n")
	w.pass()
	w.mark("a/n")
	w.pass() // for what was missed
	w.inStep()
}

// TestDirectoryMovesPastTheSearchForNames: of an inode that got a further name the names are searched, and the directory
// of one moves from where the search has yet to come to where it has been.
func TestDirectoryMovesPastTheSearchForNames(t *testing.T) {
	w := newWorld(t)
	w.write("p/f", "x")
	w.write("q/f", "x")
	order := unsorted(t, w.master)
	w.write(order[1]+"/k/deep/one", "content")
	w.ok(os.Mkdir(w.at("other"), 0o755))
	w.mark("")
	w.inStep()
	w.forgetPlaces()
	moved := false
	w.crawler.OnScan(func(dir string) {
		if dir == order[0] && !moved {
			moved = true
			w.ok(os.Rename(w.at(order[1], "k"), w.at(order[0], "k")))
		}
	})
	w.ok(os.Link(w.at(order[1], "k/deep/one"), w.at("other/two")))
	w.mark("other/two")
	w.pass()
	if !moved {
		t.Fatal("nothing was searched")
	}
	w.mark(order[1]+"/k", order[0]+"/k")
	w.inStep()
}

// TestDirectoryGoesInTheSearchForNames: of an inode that got a further name the names are searched, and a directory is removed
// when it has been opened for that and not been read. That is no end of the session.
func TestDirectoryGoesInTheSearchForNames(t *testing.T) {
	w := newWorld(t)
	w.write("one", "content")
	w.write("a/f", "x")
	w.write("b/f", "x")
	w.mark("")
	w.inStep()
	w.forgetPlaces()
	searching, gone := false, false
	w.crawler.OnScan(func(string) { searching = true })
	w.root.Hook(func(op, _ string) error {
		if op == "list" && searching && !gone {
			gone = true
			w.ok(os.RemoveAll(w.at("a")))
			w.ok(os.RemoveAll(w.at("b")))
		}
		return nil
	})
	w.ok(os.Link(w.at("one"), w.at("two")))
	w.ok(os.Link(w.at("one"), w.at("a/three")))
	w.mark("two")
	w.pass()
	w.root.Hook(nil)
	if !gone {
		t.Fatal("nothing was searched")
	}
	w.mark("a", "b")
	w.inStep()
}

// unsorted lists a directory in the file system's order.
func unsorted(t *testing.T, dir string) []string {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil || len(names) != 2 {
		t.Fatalf("%q, %v", names, err)
	}
	return names
}

func TestAdoption(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.write(fmt.Sprintf("d%d/f%d", i%3, i), strings.Repeat(fmt.Sprint(i), 1000))
	}
	w.ok(os.Link(w.at("d0/f0"), w.at("d1/link")))
	w.mark("")
	rsync(t, w.master+"/", w.slave+"/")
	// One file differs although size and time agree.
	wrong := w.there("d1/f1")
	st, err := os.Stat(wrong)
	w.ok(err)
	w.ok(os.WriteFile(wrong, []byte(strings.Repeat("2", 1000)), 0o644))
	w.ok(os.Chtimes(wrong, time.Time{}, st.ModTime()))
	w.inStep()
	if n := w.counters.Files.Load(); n != 1 {
		t.Errorf("%d files were sent to a slave that lacked one", n)
	}
}

func TestVolumeMarkRaisedComparesEverything(t *testing.T) {
	w := newWorld(t)
	w.write("d/f", "abc")
	w.mark("")
	w.inStep()
	// Somebody changed the slave behind our back.
	w.ok(os.WriteFile(w.there("d/f"), []byte("xyz"), 0o644))
	w.now = w.now.Next()
	w.volume = w.now
	w.inStep()
}

func TestMasterThatWentBackInTime(t *testing.T) {
	w := newWorld(t)
	w.write("d/f", "old")
	w.mark("d/f")
	old := w.now
	w.mark("d")
	w.write("d/f", "newer")
	w.mark("d/f")
	w.inStep()
	w.write("d/f", "old")
	w.volume, w.now = 1, old-1
	w.mark("d/f")
	w.inStep()
}

func TestEmptiedOrReplacedMasterDeletesNothing(t *testing.T) {
	w := newWorld(t)
	w.write("d/f", "precious")
	w.mark("")
	w.inStep()
	w.ok(os.RemoveAll(w.at("d")))
	w.mark("")
	if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, source.ErrNotMaster) {
		t.Fatalf("an emptied master: %v", err)
	}
	w.ok(os.Rename(w.master, w.master+".away"))
	defer os.Rename(w.master+".away", w.master)
	if _, err := w.crawler.Look(t.Context()); !errors.Is(err, source.ErrNotMaster) {
		t.Fatalf("a master that is gone: %v", err)
	}
	w.ok(os.Mkdir(w.master, 0o755))
	defer os.Remove(w.master)
	if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, source.ErrNotMaster) {
		t.Fatalf("another directory in its place: %v", err)
	}
	if _, err := os.Stat(w.there("d/f")); err != nil {
		t.Fatal(err)
	}
}

func TestLostAndFoundOfTheSlaveStays(t *testing.T) {
	w := newWorld(t)
	w.ok(os.Mkdir(w.there("lost+found"), 0o700))
	if out := w.pass(); out.Stime == 0 { // with an empty master
		t.Fatal("not stamped")
	}
	w.write("f", "x")
	w.mark("f")
	if out := w.pass(); out.Stime == 0 {
		t.Fatal("not stamped")
	}
	if _, err := os.Stat(w.there("lost+found")); err != nil {
		t.Fatal(err)
	}
}

func TestMaxDelete(t *testing.T) {
	w := inMemory(t, false)
	w.write("keep", "x")
	w.ok(os.Mkdir(w.at("d"), 0o755))
	w.ok(tree.Many(w.at("d"), 1500, 100, 1))
	w.mark("")
	w.inStep()
	w.ok(os.RemoveAll(w.at("d")))
	w.mark("d")
	if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
		t.Fatalf("1,500 of 1,501 files: %v", err)
	}
	if _, err := os.Stat(w.there("d/d000000")); err != nil {
		t.Fatal(err)
	}
	w.maxDelete = 100
	w.connect()
	w.inStep()
}

// TestMaxDeleteOverManyCrawls: what is deleted while the slave follows closely counts together; what comes and goes does
// not, and neither does what moves.
func TestMaxDeleteOverManyCrawls(t *testing.T) {
	w := inMemory(t, false)
	w.goFreely(200)
	w.ok(os.Mkdir(w.at("d"), 0o755))
	w.ok(tree.Many(w.at("d"), 480, 80, 1))
	w.mark("")
	w.inStep()
	for range 8 {
		w.ok(os.Mkdir(w.at("come"), 0o755))
		w.ok(tree.Many(w.at("come"), 60, 60, 1))
		w.mark("come")
		w.inStep()
		w.ok(os.RemoveAll(w.at("come")))
		w.mark("come")
		w.inStep()
	}
	for range 6 {
		w.ok(os.Rename(w.at("d"), w.at("moved")))
		w.mark("d", "moved")
		w.inStep()
		w.ok(os.Rename(w.at("moved"), w.at("d")))
		w.mark("d", "moved")
		w.inStep()
	}
	w.deleteOneByOne("d")
}

// TestMaxDeleteAfterAFirstSync: that the slave has just got it all does not allow to remove it.
func TestMaxDeleteAfterAFirstSync(t *testing.T) {
	w := inMemory(t, false)
	w.goFreely(100)
	w.ok(os.Mkdir(w.at("d"), 0o755))
	w.ok(os.Mkdir(w.at("stays"), 0o755))
	w.ok(tree.Many(w.at("d"), 120, 10, 10))
	w.mark("")
	w.inStep()
	w.deleteOneByOne("d")
}

// deleteOneByOne removes each entry of dir and has the slave follow, until max-delete refuses.
func (w *world) deleteOneByOne(dir string) {
	w.t.Helper()
	list, err := os.ReadDir(w.at(dir))
	w.ok(err)
	for i, e := range list {
		w.ok(os.RemoveAll(w.at(dir, e.Name())))
		w.mark(dir+"/"+e.Name(), dir)
		if _, err := w.crawler.Pass(w.t.Context()); err != nil {
			if !errors.Is(err, limit.ErrMaxDelete) || i < 2 {
				w.t.Fatalf("after %d: %v", i, err)
			}
			return
		}
	}
	w.t.Fatalf("all of %d entries were deleted, one by one", len(list))
}

func TestLargeDirectoryInParts(t *testing.T) {
	w := inMemory(t, false)
	w.ok(os.Mkdir(w.at("d"), 0o755))
	n := slave.MaxEntries + 500
	for i := range n {
		w.ok(syscall.Mknod(w.at("d", fmt.Sprint("fifo", i)), syscall.S_IFIFO|0o600, 0))
	}
	w.ok(os.Mkdir(w.at("d/sub"), 0o755))
	w.write("d/sub/f", "x")
	w.mark("")
	w.inStep()
	for i := range 300 {
		w.ok(os.Remove(w.at("d", fmt.Sprint("fifo", i*7))))
	}
	w.write("d/new", "y")
	w.mark("d/new")
	w.inStep()
}

func TestImmutableEntriesGoByTheirCtime(t *testing.T) {
	w := newWorld(t)
	w.now = xtime.FromTime(time.Now().Add(-time.Hour)) // so that ctimes are newer
	w.volume = w.now
	w.write("d/log", "one\n")
	w.mark("d/log")
	w.inStep()
	chattr(t, w.at("d/log"), appendOnly)
	f, err := os.OpenFile(w.at("d/log"), os.O_APPEND|os.O_WRONLY, 0)
	w.ok(err)
	defer f.Close()
	_, err = f.WriteString("two\n")
	w.ok(err)
	w.markAround("d/log")
	w.inStep()
	// The same below a directory that takes no marks either.
	chattr(t, w.at("d/log"), 0)
	chattr(t, w.at("d"), immutable)
	w.write("d/log", "three\n")
	w.now = w.now.Next()
	d, err := w.root.OpenPath("d")
	w.ok(err)
	w.ok(d.SetXtime("log", &w.names, w.now))
	d.Close()
	w.ok(w.root.SetXtime("", &w.names, w.now))
	w.inStep()
}

// markAround marks the directories above an entry that refuses its own mark.
func (w *world) markAround(path string) {
	dir, _ := beneath.Split(path)
	w.mark(dir)
}

// FS_APPEND_FL and FS_IMMUTABLE_FL of linux/fs.h.
const (
	appendOnly = 0x20
	immutable  = 0x10
)

func chattr(t *testing.T, path string, flags int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f, err := os.Open(path); err == nil {
			unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)
			f.Close()
		}
	})
}

// TestMasterWentBackInTime: the master lost its last changes in a power cut, marks and all, after the slave got them.
// Nothing on the master is newer than on the slave then; what differs must be found all the same.
func TestMasterWentBackInTime(t *testing.T) {
	for _, marked := range []bool{false, true} {
		t.Run(fmt.Sprintf("marked since %v", marked), func(t *testing.T) {
			w := newWorld(t)
			w.write("a/b/f", "old")
			w.write("a/b/removed", "r")
			w.write("a/c/moved", "m")
			w.write("z/untouched", "u")
			w.mark("a/b/f", "a/b/removed", "a/c/moved", "z/untouched")
			w.inStep()
			before := w.xtimes()
			at, err := os.Stat(w.at("a/b/f"))
			w.ok(err)
			outside := filepath.Join(t.TempDir(), "removed")

			w.write("a/b/f", "new")
			w.ok(os.Chtimes(w.at("a/b/f"), at.ModTime(), at.ModTime()))
			w.write("a/b/lost", "l")
			w.ok(os.Rename(w.at("a/b/removed"), outside))
			w.ok(os.Rename(w.at("a/c/moved"), w.at("a/b/moved")))
			w.mark("a/b/f", "a/b/lost", "a/b/moved", "a/c")
			w.inStep()

			w.write("a/b/f", "old")
			w.ok(os.Chtimes(w.at("a/b/f"), at.ModTime(), at.ModTime()))
			w.ok(os.Remove(w.at("a/b/lost")))
			w.ok(os.Rename(outside, w.at("a/b/removed")))
			w.ok(os.Rename(w.at("a/b/moved"), w.at("a/c/moved")))
			for path, x := range before {
				dir, name := beneath.Split(path)
				d, err := w.root.OpenPath(dir)
				w.ok(err)
				w.ok(d.SetXtime(name, &w.names, x))
				d.Close()
			}
			if marked {
				w.mark("z")
			}
			w.connect()
			w.inStep()
		})
	}
}

// xtimes reads all that the master carries.
func (w *world) xtimes() map[string]xtime.Time {
	w.t.Helper()
	all := map[string]xtime.Time{}
	w.ok(filepath.WalkDir(w.master, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(w.master, path)
		if rel == "." {
			rel = ""
		}
		dir, name := beneath.Split(rel)
		d, err := w.root.OpenPath(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		all[rel], err = d.Xtime(name, &w.names)
		return err
	}))
	return all
}
