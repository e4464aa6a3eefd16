package crawler_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

// order notes in which order names are linked and files put on the slave, and lets something happen before each batch of links.
type order struct {
	slave.Tree
	before func()
	one    sync.Mutex // holds before

	mu       sync.Mutex
	links    int
	puts     map[string][]int // how many links there were before each
	searched int              // links to a name that the slave has to find
}

func (o *order) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	links := 0
	o.mu.Lock()
	for i := range b.Ops {
		switch op := &b.Ops[i]; op.Kind {
		case slave.OpLink:
			links++
			if op.From == "" {
				o.searched++
			}
		case slave.OpPut:
			if o.puts == nil {
				o.puts = map[string][]int{}
			}
			o.puts[op.Path] = append(o.puts[op.Path], o.links)
		}
	}
	o.links += links
	o.mu.Unlock()
	if links > 0 && o.before != nil {
		o.one.Lock()
		o.before()
		o.one.Unlock()
	}
	return o.Tree.Apply(ctx, b)
}

// linked is how many links there were, and puts how often a file was put.
func (o *order) linked() int { o.mu.Lock(); defer o.mu.Unlock(); return o.links }

func (o *order) put(path string) []int { o.mu.Lock(); defer o.mu.Unlock(); return o.puts[path] }

// eachSource runs a test for either kind of slave, by hints and without.
func eachSource(t *testing.T, test func(t *testing.T, w *world, connect func(), changed func(paths ...string))) {
	for _, overSFTP := range []bool{false, true} {
		for _, hints := range []bool{false, true} {
			t.Run(fmt.Sprint("sftp ", overSFTP, " hints ", hints), func(t *testing.T) {
				w := inMemory(t, hints)
				connect, changed := w.connect, w.mark
				if overSFTP {
					connect = w.connectSFTP
				}
				if hints {
					changed = w.tell
				}
				test(t, w, connect, changed)
			})
		}
	}
}

// comes crawls until the slave has everything, in no more crawls than most, and holds the stamps against what is there after each.
func (w *world) comes(most int) (crawls int) {
	w.t.Helper()
	for crawls = 1; ; crawls++ {
		out := w.pass()
		w.checkStamps()
		if out.Stime != 0 && !out.Waiting {
			return crawls
		}
		if w.saysInStep("") {
			w.t.Fatal("the root is stamped before all is there")
		}
		if crawls == most {
			list, total := w.crawler.Failures(3)
			w.t.Fatalf("%d crawls come to no end; %d failures: %v", crawls, total, list)
		}
	}
}

// areOne fails unless all the names lead to one inode on the slave.
func (w *world) areOne(names []string) {
	w.t.Helper()
	first, err := os.Stat(w.there(names[0]))
	w.ok(err)
	for _, name := range names {
		st, err := os.Stat(w.there(name))
		w.ok(err)
		if !os.SameFile(first, st) {
			w.t.Fatalf("%s is another inode than %s", name, names[0])
		}
	}
	if n := first.Sys().(*syscall.Stat_t).Nlink; int(n) != len(names) {
		w.t.Errorf("%d names, link count %d", len(names), n)
	}
}

// TestManyNamesGiveWay: while an inode with very many names is linked, a change elsewhere arrives before many more of them, however
// often that is. No stamp lies meanwhile, each crawl comes further, and in the end all is there, at a cost that is linear in the
// names: by hints nothing is listed for it, but the root where a search for names gave way.
func TestManyNamesGiveWay(t *testing.T) {
	eachSource(t, func(t *testing.T, w *world, connect func(), changed func(...string)) {
		// What is told in the midst of a crawl comes with the next one: a step of this crawl, a share of that, and a step of a search.
		const step, further = 64, 3 * 256
		cost := map[int]int64{}
		for _, names := range []int{500, 1000} {
			o := &order{}
			w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
			connect()
			w.crawler.InSteps(100, step)
			end := w.crawler.Beside(t.Context())
			at := fmt.Sprint("t", names, "/")
			w.write(at+"a/0", "content")
			w.write("other/f", "")
			w.ok(os.MkdirAll(w.at(at+"b"), 0o755))
			changed(at+"a/0", at+"b", "other/f")
			w.comes(4)
			w.forget()
			all := []string{at + "a/0"}
			for i := 1; i < names; i++ {
				all = append(all, fmt.Sprintf("%s%c/%d", at, "ab"[i%2], i))
				w.ok(os.Link(w.at(all[0]), w.at(all[i])))
			}
			changed(all[1:]...)
			before := len(o.put("other/f"))
			var told []int // how many links there were when each was told
			o.before = func() {
				if len(o.put("other/f"))-before < len(told) {
					return // one at a time
				}
				w.write("other/f", fmt.Sprint("news ", len(told), names))
				changed("other/f")
				told = append(told, o.linked())
			}
			begun := o.linked()
			crawls := w.comes(3 * names / step)
			o.before = nil
			listed := w.counters.Visited.Load()
			w.comes(2)
			puts := o.put("other/f")[before:]
			if len(puts) != len(told) || len(told) < names/512 {
				t.Errorf("%d changes of %d elsewhere arrived", len(puts), len(told))
			}
			for i := range puts {
				if n := puts[i] - told[i]; n > further {
					t.Errorf("%d of %d names were linked before change %d arrived", n, names, i)
				}
			}
			if n := o.linked() - begun; n > 3*names {
				t.Errorf("%d links of %d names in %d crawls", n, names, crawls)
			}
			w.areOne(all)
			if w.hints != nil && listed > 0 && !w.tree.Info().ReadsBack {
				t.Errorf("%d directories were listed", listed)
			}
			cost[names] = w.counters.Entries.Load()
			end()
		}
		if most := int64(3); w.hints != nil && (cost[500] > most*500 || cost[1000] > most*1000) {
			t.Errorf("%d entries were looked at of 500 names, %d of 1000", cost[500], cost[1000])
		}
	})
}

// TestNewDirectoryDefersNames: also a directory that the slave has no stamp of is listed a few times only while names in it are linked.
func TestNewDirectoryDefersNames(t *testing.T) {
	eachSource(t, func(t *testing.T, w *world, connect func(), changed func(...string)) {
		const names = 1000
		o := &order{}
		w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
		connect()
		w.crawler.InSteps(100, 64)
		defer w.crawler.Beside(t.Context())()
		w.write("a/0", "content")
		w.write("other/f", "")
		w.mark("")
		w.comes(2)
		w.forget()
		all := []string{"a/0"}
		w.ok(os.MkdirAll(w.at("new/one"), 0o755))
		for i := 1; i < names; i++ {
			all = append(all, fmt.Sprint("new/one/", i))
			w.ok(os.Link(w.at("a/0"), w.at(all[i])))
		}
		changed(all[1:]...)
		news := 0
		o.before = func() {
			news++
			w.write("other/f", fmt.Sprint("news ", news))
			changed("other/f")
		}
		w.comes(names)
		o.before = nil
		w.comes(2)
		w.areOne(all)
		if n := w.counters.Entries.Load(); n > 12*names {
			t.Errorf("%d entries of %d were looked at", n, names)
		}
	})
}

// TestNamesThatAreLeftAreShown: the status has them, and since when the slave lacks them.
func TestNamesThatAreLeftAreShown(t *testing.T) {
	const names = 1500
	w := inMemory(t, true)
	o := &order{}
	w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
	w.connect()
	w.crawler.InSteps(100, 64)
	defer w.crawler.Beside(t.Context())()
	w.write("a/0", "content")
	w.mark("")
	w.inStep()
	var all []string
	for i := 1; i < names; i++ {
		all = append(all, fmt.Sprint("a/", i))
		w.ok(os.Link(w.at("a/0"), w.at(all[i-1])))
	}
	w.tell(all...)
	first := w.now.Time()
	o.before = func() { o.before = nil; w.write("f", ""); w.tell("f") }
	for range 3 {
		w.pass()
		list, total, _ := w.crawler.Waiting(5)
		if len(list) != 1 || !list[0].Large || list[0].Since.After(first) || total < names/3 || total > names || w.crawler.NextRetry().IsZero() {
			t.Fatalf("%d wait: %+v, next %v", total, list, w.crawler.NextRetry())
		}
		o.before = func() { o.before = nil; w.write("f", fmt.Sprint(total)); w.tell("f") }
	}
	o.before = nil
	w.comes(20)
	if _, total, _ := w.crawler.Waiting(5); total != 0 {
		t.Errorf("%d wait", total)
	}
	w.inStep()
}

// TestDeferralBelowANewerStamp: a directory defers something that is older than the stamps above it, which other changes have raised since.
// Those claim no less for that, and what the directories defer is believed: further changes cost no listing.
func TestDeferralBelowANewerStamp(t *testing.T) {
	now := time.Now()
	w := inMemory(t, true)
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	w.connect()
	w.write("a/b/f", "")
	w.write("other/g", "")
	w.mark("")
	w.inStep()
	for i := range 3 { // the last waits
		w.write("a/b/f", fmt.Sprint("change ", i))
		w.tell("a/b/f")
		w.pass()
		if i == 1 {
			w.write("other/g", "changed")
			w.tell("other/g")
			w.pass()
		}
	}
	if _, total, _ := w.crawler.Waiting(1); total != 1 {
		t.Fatalf("%d files wait", total)
	}
	w.forget()
	for i := range 3 {
		w.write("other/g", fmt.Sprint("again ", i))
		w.tell("other/g")
		w.pass()
		w.checkStamps()
	}
	if n := w.counters.Visited.Load(); n != 0 {
		t.Errorf("%d directories were listed", n)
	}
	now = now.Add(3 * time.Hour)
	w.comes(3)
	w.inStep()
}

// TestRootIsNotStampedUnchecked: while names are left nobody has looked whether inodes lack names, and no directory defers that. So the
// root keeps its stamp, though all that is deferred is newer.
func TestRootIsNotStampedUnchecked(t *testing.T) {
	w := inMemory(t, true)
	o, f := &order{}, &failing{}
	w.wrap = func(inner slave.Tree) slave.Tree { f.Tree, o.Tree = inner, f; return o }
	w.connect()
	w.crawler.InSteps(10, 16)
	defer w.crawler.Beside(t.Context())()
	w.write("a/0", "content")
	w.write("other/bad", "")
	w.mark("")
	w.inStep()
	stamp := func() xtime.Time {
		t.Helper()
		look, err := w.crawler.Look(t.Context())
		w.ok(err)
		return look.Stime
	}
	before := stamp()
	f.fail = func(op *slave.Op) error {
		if op.Path == "other/bad" {
			return unix.EIO
		}
		return nil
	}
	w.write("a/f", "")
	w.write("other/bad", "changed")
	w.tell("a/f", "other/bad")
	if w.pass(); !w.saysInStep("a") || stamp() != before {
		t.Fatal("the failure does not hold back the root alone")
	}
	f.fail = nil
	waitFor(t, w.crawler.NextRetry())
	var all []string
	for i := 1; i < 1000; i++ {
		all = append(all, fmt.Sprint("a/", i))
		w.ok(os.Link(w.at("a/0"), w.at(all[i-1])))
	}
	w.tell(all...)
	o.before = func() { o.before = nil; w.write("news", ""); w.tell("news") }
	if out := w.pass(); !out.Waiting || stamp() != before {
		t.Errorf("%+v, the root's stamp is %v, before %v", out, stamp(), before)
	}
	w.comes(200)
	w.inStep()
}

// TestLeftNameWaits: a name that was left is found to be a file that waits. What is deferred under it is as old as what was left: the stamp
// does not rise over it.
func TestLeftNameWaits(t *testing.T) {
	const names, parts = 2500, 2
	now := time.Now()
	w := inMemory(t, true)
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	o := &order{}
	w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
	w.connect()
	w.crawler.InSteps(100, 64)
	defer w.crawler.Beside(t.Context())()
	hot := "a/hot"
	for i := 0; slave.PartOf(hot[2:], parts) != parts-1; i++ { // with the names that are left without a look
		hot = fmt.Sprint("a/hot", i)
	}
	w.write("a/0", "content")
	w.write(hot, "")
	w.mark("")
	w.inStep()
	for i := range 2 {
		w.write(hot, fmt.Sprint("change ", i))
		w.tell(hot)
		w.inStep()
	}
	all := []string{hot}
	for i := 1; i < names; i++ {
		all = append(all, fmt.Sprint("a/", i))
		w.ok(os.Link(w.at("a/0"), w.at(all[i])))
	}
	w.write(hot, "the last change")
	w.tell(all...)
	told := false
	o.before = func() {
		if !told {
			told = true
			w.write("news", "")
			w.tell("news")
		}
	}
	for crawls, waits := 0, names; waits > 1 || crawls < 3; crawls++ {
		w.pass()
		w.checkStamps()
		if b, err := os.ReadFile(w.there(hot)); err != nil || string(b) != "change 1" || w.saysInStep("a") || w.saysInStep("") {
			t.Fatalf("crawl %d: the slave has %q, %v, and says that it is in step: %v", crawls, b, err, w.saysInStep("a"))
		}
		if _, waits, _ = w.crawler.Waiting(1); crawls == 100 {
			t.Fatalf("%d names wait", waits)
		}
	}
	now = now.Add(3 * time.Hour)
	w.comes(3)
	w.inStep()
}
