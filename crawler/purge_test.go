package crawler_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"georep/crawler/limit"
	"georep/crawler/source"
	"georep/integration/harness/compare"
)

// word is the operator's: what he approved, until a crawl came through.
type word struct {
	purge *limit.Purge
	done  int
}

func (w *word) Approved() *limit.Purge { return w.purge }
func (w *word) Done()                  { w.purge, w.done = nil, w.done+1 }

// refused does a pass that must be refused something, and tells what.
func (w *world) refused() *limit.Purge {
	w.t.Helper()
	_, err := w.crawler.Pass(w.t.Context())
	p := limit.Refused(err)
	if p == nil {
		w.t.Fatalf("refused: nothing, %v", err)
	}
	return p
}

// follows is inStep for a slave that may know no times below a second.
func (w *world) follows() {
	w.t.Helper()
	if out := w.pass(); out.Stime == 0 {
		list, total := w.crawler.Failures(10)
		w.t.Fatalf("not stamped; %d failures: %v", total, list)
	}
	o := compare.Replica()
	o.IgnoreMtime, o.IgnoreNlink = true, true // a name may be in the park
	compare.MustEqual(w.t, w.master, w.slave, o)
}

// kinds runs a test for each kind of slave.
func kinds(t *testing.T, test func(t *testing.T, w *world, connect func())) {
	for _, kind := range []string{"disk", "sftp"} {
		t.Run(kind, func(t *testing.T) {
			w := inMemory(t, false)
			connect := w.connect
			if kind == "sftp" {
				w.ok(w.tree.Close())
				w.tree = nil
				w.ok(os.RemoveAll(w.slave))
				w.ok(os.Mkdir(w.slave, 0o755))
				connect = w.connectSFTP
			}
			connect()
			test(t, w, connect)
		})
	}
}

// TestMaxDeleteOfNothing: 0 lets not even one entry go, whatever else may always be removed; but what was saved anew may take
// the place of the old, and what came a moment ago may go.
func TestMaxDeleteOfNothing(t *testing.T) {
	kinds(t, func(t *testing.T, w *world, connect func()) {
		w.maxDelete = 0
		connect()
		for i := range 20 {
			w.write(fmt.Sprint("d/f", i), "x")
		}
		w.mark("d")
		w.follows()
		w.write("d/f1.tmp", "saved anew")
		w.mark("d/f1.tmp")
		w.follows()
		w.rename("d/f1.tmp", "d/f1")
		w.mark("d", "d/f1")
		w.follows()
		w.write("d/short", "lived")
		w.mark("d/short")
		w.follows()
		w.ok(os.Remove(w.at("d/short")))
		w.mark("d")
		w.follows()
		w.ok(os.Remove(w.at("d/f1")))
		w.mark("d")
		if p := w.refused(); p.Entries != 1 || p.Items[0].Path != "d/f1" {
			t.Errorf("%+v", p)
		}
		if _, err := os.Stat(w.there("d/f1")); err != nil {
			t.Error(err)
		}
	})
}

// TestApprovedPurge: what the operator has seen and approved goes, over a restart too, and nothing else with it.
func TestApprovedPurge(t *testing.T) {
	kinds(t, func(t *testing.T, w *world, connect func()) {
		word := &word{}
		w.approvals, w.free = word, 3
		connect()
		for dir, n := range map[string]int{"d": 40, "k": 20, "stays": 2} {
			for i := range n {
				w.write(fmt.Sprint(dir, "/f", i), "x")
			}
		}
		w.mark("d", "k", "stays")
		w.follows()
		came := word.done
		w.ok(os.RemoveAll(w.at("d")))
		w.mark("d")
		seen := w.refused()
		if seen.Entries != 41 || len(seen.Items) != 1 || seen.Items[0] != (limit.PurgeItem{Path: "d", Entries: 41, Dir: true}) {
			t.Fatalf("41 entries in d: %+v", seen)
		}
		if word.done != came {
			t.Error("a refusal ended the approval")
		}
		// More than was shown does not go with it, and what was shown does.
		w.ok(os.RemoveAll(w.at("k")))
		w.mark("k")
		word.purge = w.refused()
		word.purge.Keys = seen.Keys
		connect()
		more := w.refused()
		if _, err := os.Stat(w.there("d")); more.Entries != 62 || err != nil {
			t.Fatalf("d was approved, and k was not: %+v, %v", more, err)
		}
		word.purge = more
		connect()
		w.follows()
		if word.purge != nil {
			t.Error("the approval is not used up")
		}
		w.ok(os.Remove(w.at("stays/f0")))
		w.mark("stays")
		w.follows() // as one may always go, and what was approved does not count
	})
}

// TestApprovedPurgeOfTheSize: a directory that holds more by now than what was shown stays.
func TestApprovedPurgeOfTheSize(t *testing.T) {
	w := inMemory(t, false)
	word := &word{}
	w.approvals = word
	w.goFreely(3)
	for i := range 20 {
		w.write(fmt.Sprint("d/e/f", i), "x")
	}
	w.write("stays", "x")
	w.mark("d/e")
	w.follows()
	w.rename("d", "../away")
	w.mark("d")
	seen := w.refused()
	w.rename("../away", "d")
	w.write("d/e/more", "than was shown")
	w.mark("d/e/more")
	w.follows()
	w.rename("d", "../away")
	w.mark("d")
	word.purge = seen
	if p := w.refused(); p.Entries != 23 {
		t.Fatalf("%+v", p)
	}
	if _, err := os.Stat(w.there("d/e/more")); err != nil {
		t.Fatal(err)
	}
}

// TestApprovedEmptying: that the master was emptied needs a word of its own, which is not to be had in advance.
func TestApprovedEmptying(t *testing.T) {
	kinds(t, func(t *testing.T, w *world, connect func()) {
		word := &word{}
		w.approvals = word
		connect()
		for i := range 5 {
			w.write(fmt.Sprint("d/f", i), "x")
		}
		w.write("f", "x")
		w.mark("d", "f")
		w.follows()
		w.ok(os.RemoveAll(w.at("d")))
		w.ok(os.Remove(w.at("f")))
		w.mark("")
		_, err := w.crawler.Pass(t.Context())
		p := limit.Refused(err)
		if !errors.Is(err, source.ErrNotMaster) || p == nil || !p.Emptied || len(p.Items) != 2 || p.Items[0].Entries != 6 {
			t.Fatalf("%v: %+v", err, p)
		}
		word.purge = p
		connect()
		w.follows()
	})
}
