package crawler_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/hint"
	"georep/slave"
)

// unread is a slave that cannot tell what is in a directory.
type unread struct {
	slave.Tree
	path string
}

func (u *unread) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	states, err := u.Tree.Survey(ctx, queries)
	for i := range states {
		if u.path != "" && queries[i].Path == u.path {
			states[i] = slave.DirState{Err: unix.EIO}
		}
	}
	return states, err
}

// TestLeftNamesOutOfReach: a directory in which names are left is removed, or cannot be reached, while something fails. Then
// nothing waits any more, crawls do not follow each other without end, and names of inodes are checked again.
func TestLeftNamesOutOfReach(t *testing.T) {
	for _, how := range []string{"removed", "removed, and another fails", "out of reach"} {
		t.Run(how, func(t *testing.T) {
			eachSource(t, func(t *testing.T, w *world, connect func(), changed func(...string)) {
				o, f, u := &order{}, &failing{}, &unread{}
				w.wrap = func(inner slave.Tree) slave.Tree { f.Tree, u.Tree, o.Tree = inner, f, u; return o }
				connect()
				w.crawler.InSteps(10, 16)
				defer w.crawler.Beside(t.Context())()
				w.write("a/0", "content")
				w.write("p/x/f", "")
				w.write("other/bad", "")
				w.mark("")
				w.comes(3)
				var all []string
				for i := 1; i < 2000; i++ {
					all = append(all, fmt.Sprint("p/x/", i))
					w.ok(os.Link(w.at("a/0"), w.at(all[i-1])))
				}
				changed(all...)
				o.before = sync.OnceFunc(func() { w.write("news", ""); changed("news") })
				w.pass()
				o.before = nil
				if _, total, _ := w.crawler.Waiting(1); total == 0 {
					t.Fatalf("no names were left")
				}
				if how == "out of reach" {
					u.path = "p"
				} else {
					w.ok(os.RemoveAll(w.at("p/x")))
					changed("p/x")
				}
				if how == "removed, and another fails" {
					w.write("other/bad", "changed")
					changed("other/bad")
					f.fail = func(op *slave.Op) error {
						if op.Path == "other/bad" {
							return unix.EIO
						}
						return nil
					}
				}
				for range 4 {
					w.pass()
				}
				if _, total, _ := w.crawler.Waiting(1); total != 0 {
					t.Errorf("%d names wait", total)
				}
				u.path, f.fail = "", nil
				if next := w.crawler.NextRetry(); !next.IsZero() {
					waitFor(t, next)
				}
				w.comes(200)
			})
		})
	}
}

// following is a slave that waits with a directory's survey until another one is finished, if it is, and has something happen before.
type following struct {
	slave.Tree
	mu            sync.Mutex
	first, second string
	between       func()
	begun         chan struct{} // closed when that has happened
}

func (f *following) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	results, err := f.Tree.Apply(ctx, b)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range b.Ops {
		if f.between != nil && b.Ops[i].Kind == slave.OpFinish && b.Ops[i].Path == f.first {
			f.between()
			f.between = nil
			close(f.begun)
		}
	}
	return results, err
}

func (f *following) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	f.mu.Lock()
	begun := f.begun
	waits := f.between != nil && slices.ContainsFunc(queries, func(q slave.Query) bool { return q.Path == f.second })
	f.mu.Unlock()
	if waits {
		select {
		case <-begun:
		case <-time.After(200 * time.Millisecond): // this crawl has nothing to do in the first
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return f.Tree.Survey(ctx, queries)
}

// TestLeftNamesOfADirectoryThatMoves: a crawl comes to a directory, which then moves to where the same crawl comes to it again. The
// names that are left there are not taken twice from the front of the list.
func TestLeftNamesOfADirectoryThatMoves(t *testing.T) {
	w := inMemory(t, true)
	o, f := &order{}, &following{}
	w.wrap = func(inner slave.Tree) slave.Tree { f.Tree, o.Tree = inner, f; return o }
	w.connect()
	w.crawler.InSteps(10, 64)
	defer w.crawler.Beside(t.Context())()
	w.write("a/0", "content")
	var files, elsewhere []string
	for i := range 400 {
		files = append(files, fmt.Sprint("a/d/f", i))
		w.write(files[i], "")
	}
	for i := range 3000 { // so many that nobody looks there ahead
		elsewhere = append(elsewhere, fmt.Sprint("gone", i))
	}
	w.write("b/f", "")
	w.mark("")
	w.inStep()
	for _, file := range files {
		w.write(file, "changed")
	}
	for i := 1; i < 600; i++ {
		files = append(files, fmt.Sprint("a/", i))
		w.ok(os.Link(w.at("a/0"), w.at(files[len(files)-1])))
	}
	w.tell(files...)
	o.before = sync.OnceFunc(func() { w.write("news", ""); w.tell("news") })
	w.pass()
	o.before = nil
	at, to := "a", "b"
	for total := 1; total > 0; _, total, _ = w.crawler.Waiting(1) {
		from, there := at+"/d", to+"/d"
		names := []string{there}
		for _, name := range elsewhere {
			names = append(names, to+"/"+name)
		}
		w.tell(names...)
		f.first, f.second, f.begun, f.between = from, to, make(chan struct{}), func() { w.rename(from, there) }
		w.pass()
		if f.between != nil { // nothing is left there
			f.between = nil
			continue
		}
		w.tell(from, there)
		w.pass()
		w.checkStamps()
		at, to = to, at
	}
	w.comes(5)
	w.inStep()
}

// busyWorld has an inode that gets names again and again, and a directory below that of these names which crawls come to once they
// have given way.
func busyWorld(t *testing.T, files int) (w *world, o *order, again func(more ...string)) {
	w, o = inMemory(t, true), &order{}
	w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
	w.write("a/0", "content")
	for i := range files {
		w.write(fmt.Sprint("a/d/e/f", i), "")
	}
	round := 0
	return w, o, func(more ...string) {
		t.Helper()
		round++
		for i := 1; i < 600; i++ {
			name := fmt.Sprint("a/", i)
			_ = os.Remove(w.at(name)) // the first time there is none
			w.ok(os.Link(w.at("a/0"), w.at(name)))
			more = append(more, name)
		}
		w.tell(more...)
		o.before = sync.OnceFunc(func() { w.write("news", fmt.Sprint(round)); w.tell("news") })
		w.pass()
		w.checkStamps()
		o.before = nil
	}
}

// TestLeftNamesChangeAgain: names that change all the time are left again by each crawl. The list of them does not grow without end.
func TestLeftNamesChangeAgain(t *testing.T) {
	const files = 40
	w, _, again := busyWorld(t, files)
	w.connect()
	w.crawler.InSteps(10, 16)
	defer w.crawler.Beside(t.Context())()
	w.mark("")
	w.inStep()
	for round := range 20 {
		var told []string
		for i := range files {
			told = append(told, fmt.Sprint("a/d/e/f", i))
			w.write(told[i], fmt.Sprint("round ", round))
		}
		again(told...)
	}
	if _, total, _ := w.crawler.Waiting(1); total == 0 || total > 7000 {
		t.Errorf("%d of %d names are left", total, 600+files)
	}
	w.comes(1000)
	w.inStep()
}

// TestFilesAreDueThoughCrawlsGiveWay: a file that has waited is shipped, also where each crawl gives way before it comes there.
func TestFilesAreDueThoughCrawlsGiveWay(t *testing.T) {
	now := time.Now()
	w, o, again := busyWorld(t, 1)
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	w.connect()
	w.crawler.InSteps(10, 16)
	defer w.crawler.Beside(t.Context())()
	w.mark("")
	w.inStep()
	for i := range 3 { // then it waits
		w.write("a/d/e/f0", fmt.Sprint("change ", i))
		w.tell("a/d/e/f0")
		w.pass()
	}
	if list, _, _ := w.crawler.Waiting(1); len(list) != 1 {
		t.Fatal("nothing waits")
	}
	before := len(o.put("a/d/e/f0"))
	now = now.Add(3 * time.Hour)
	again()
	if _, total, _ := w.crawler.Waiting(1); total < 100 {
		t.Fatal("the crawl did not give way")
	}
	if len(o.put("a/d/e/f0")) == before {
		t.Error("the file is still not there")
	}
	w.comes(1000)
	w.inStep()
}

// TestLeftNameOfADirectoryThatDefers: hints tell of a directory as of a file, and a crawl that gives way leaves the name. What the
// directory defers is deferred all the same.
func TestLeftNameOfADirectoryThatDefers(t *testing.T) {
	now := time.Now()
	w, o, _ := busyWorld(t, 1)
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	w.connect()
	w.crawler.InSteps(10, 16)
	defer w.crawler.Beside(t.Context())()
	var files []string
	for i := range 40 {
		files = append(files, fmt.Sprint("a/d/g", i))
		w.write(files[i], "")
	}
	w.mark("")
	w.inStep()
	for i := range 3 { // then it waits
		w.write("a/d/e/f0", fmt.Sprint("change ", i))
		w.tell("a/d/e/f0")
		w.pass()
	}
	for i := 1; i < 600; i++ {
		files = append(files, fmt.Sprint("a/", i))
		w.ok(os.Link(w.at("a/0"), w.at(files[len(files)-1])))
	}
	h := w.hint(files...)
	for i := range h.Dirs {
		if slices.ContainsFunc(h.Dirs[i].Names, func(n hint.Name) bool { return n.Name == "g0" }) {
			h.Dirs[i].Names = append(h.Dirs[i].Names, hint.Name{Name: "e"})
		}
	}
	w.hints.Hint(h)
	o.before = sync.OnceFunc(func() { w.write("news", ""); w.tell("news") })
	w.pass()
	o.before = nil
	w.checkStamps()
	for total := 2; total > 1; _, total, _ = w.crawler.Waiting(1) {
		w.pass()
		w.checkStamps()
	}
	now = now.Add(3 * time.Hour)
	w.comes(5)
	w.inStep()
}

// TestLeftNamesInManyDirectories: a crawl visits the directories in which it looks at names, and not each in which some are left.
func TestLeftNamesInManyDirectories(t *testing.T) {
	const dirs, each = 100, 20
	w, o := inMemory(t, true), &order{}
	w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
	w.connect()
	w.crawler.InSteps(10, 64)
	defer w.crawler.Beside(t.Context())()
	w.write("a/0", "content")
	all := []string{"a/0"}
	for i := range dirs {
		w.write(fmt.Sprint("d", i, "/f"), "")
	}
	w.mark("")
	w.inStep()
	w.forget()
	for i := range dirs * each {
		all = append(all, fmt.Sprint("d", i/each, "/", i))
		w.ok(os.Link(w.at("a/0"), w.at(all[i+1])))
	}
	w.tell(all[1:]...)
	news := 0
	o.before = func() {
		news++
		w.write("other/f", fmt.Sprint("news ", news))
		w.tell("other/f")
	}
	for total := 1; total > 0; _, total, _ = w.crawler.Waiting(1) {
		w.pass()
		w.checkStamps()
	}
	o.before = nil
	w.comes(5)
	w.areOne(all)
	if n := w.counters.Hinted.Load(); n > 8*dirs {
		t.Errorf("%d visits to %d directories", n, dirs)
	}
}
