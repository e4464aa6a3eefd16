package crawler_test

import (
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"georep/slave"
)

// TestChangeByHintsTakesTwoRoundTrips: one to look at what the slave has, and one for all that follows, stamps included.
func TestChangeByHintsTakesTwoRoundTrips(t *testing.T) {
	w, f := failingWorld(t)
	for _, name := range []string{"top", "a/b/c/f", "a/b/c/g"} {
		w.write(name, "x")
	}
	w.mark("")
	w.inStep()
	var mu sync.Mutex
	var calls []string
	f.call = func(call string) error {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, call)
		return nil
	}
	for name, change := range map[string]func() []string{
		"of the root's": func() []string { w.write("top", "changed"); return []string{"top"} },
		"deep":          func() []string { w.write("a/b/c/f", "changed"); return []string{"a/b/c/f"} },
		"two beside each other": func() []string {
			w.write("a/b/c/f", "again")
			w.write("a/b/c/g", "again")
			return []string{"a/b/c/f", "a/b/c/g"}
		},
	} {
		calls = nil
		w.tell(change()...)
		w.inStepAfterPass()
		if want := []string{"survey", "apply"}; !slices.Equal(calls, want) {
			t.Errorf("%s: %v, want %v", name, calls, want)
		}
		w.inStep()
	}
}

// TestStampsOfACrawlTravelTogether: what finishes the last directory brings what finishes those above it, the root among them,
// and does not stamp them where it fails.
func TestStampsOfACrawlTravelTogether(t *testing.T) {
	for _, fails := range []string{"", "a/b", "a", "root"} {
		t.Run(fails, func(t *testing.T) {
			w, f := failingWorld(t)
			w.write("a/b/f", "x")
			w.mark("")
			var mu sync.Mutex
			batches := 0
			f.call = func(call string) error {
				mu.Lock()
				defer mu.Unlock()
				if call == "apply" {
					batches++
				}
				return nil
			}
			f.fail = func(op *slave.Op) error {
				if op.Kind == slave.OpFinish && op.Path == strings.TrimPrefix(fails, "root") && fails != "" {
					return syscall.EIO
				}
				return nil
			}
			out := w.pass()
			if fails == "" {
				if out.Stime == 0 || !out.Met || batches != 4 {
					t.Errorf("%+v after %d batches, want 4: two directories, a file, all that finishes them", out, batches)
				}
				w.inStep()
				return
			}
			if out.Stime != 0 || out.Met || w.stamp("") != 0 {
				t.Errorf("%+v, the root stamped %v, although %s failed", out, w.stamp(""), fails)
			}
			w.checkStamps()
			f.fail = nil
			for end := time.Now().Add(time.Minute); w.pass().Stime == 0; {
				if time.Now().After(end) {
					t.Fatal("never tried again")
				}
			}
			w.inStep()
		})
	}
}

// TestResultsBeforeTheVisitEnds: however early the results come, nothing above is finished before all below it is.
func TestResultsBeforeTheVisitEnds(t *testing.T) {
	w, f := failingWorld(t)
	for _, name := range []string{"a/f", "b/f", "c/f"} {
		w.write(name, "x")
	}
	w.mark("")
	w.inStep()
	before := w.stamp("")
	f.fail = func(op *slave.Op) error {
		if op.Kind == slave.OpPut && op.Path == "c/f" {
			return syscall.EIO
		}
		return nil
	}
	w.crawler.OnLeave(func(dir string) {
		if dir == "c" {
			// The others, and what may wrongly follow from them, are through before this one's result is there.
			<-time.After(200 * time.Millisecond)
			return
		}
		for end := time.Now().Add(time.Minute); w.stamp(dir) <= before && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		<-time.After(20 * time.Millisecond)
	})
	for _, name := range []string{"a/f", "b/f", "c/f"} {
		w.write(name, "changed")
	}
	w.tell("a/f", "b/f", "c/f")
	if out := w.pass(); out.Stime != 0 || w.stamp("") != before {
		t.Errorf("the root was stamped %v, although c failed", w.stamp(""))
	}
	w.checkStamps()
}

// TestStampsBehindAFailure: what travels behind an operation that fails is refused, and only that.
func TestStampsBehindAFailure(t *testing.T) {
	w, f := failingWorld(t)
	w.write("a/b/f", "x")
	w.mark("")
	w.inStep()
	before := w.stamp("")
	f.fail = func(op *slave.Op) error {
		if op.Kind == slave.OpPut {
			return syscall.EIO
		}
		return nil
	}
	w.write("a/b/f", "changed")
	w.tell("a/b/f")
	if out := w.pass(); out.Stime != 0 || w.stamp("") != before {
		t.Errorf("stamped %v over a failure", w.stamp(""))
	}
	w.checkStamps()
	f.fail = nil
	for end := time.Now().Add(time.Minute); w.pass().Stime == 0; { // not before it is due again
		if time.Now().After(end) {
			t.Fatal("never tried again")
		}
	}
	w.inStep()
}
