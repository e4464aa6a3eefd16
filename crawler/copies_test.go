package crawler_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// TestDeferralOfAnotherCopy: a directory that moves while a crawl passes is made anew on the slave beside its old copy. What is
// deferred in the new copy must not be believed of the old one, which is brought back from the park: what changed before was lost
// in step.
func TestDeferralOfAnotherCopy(t *testing.T) {
	w, f := failingWorld(t)
	now := time.Now()
	w.now = xtime.FromTime(now) // what is made from now on is younger than what the slave has
	w.volume = w.now
	w.settle, w.delay, w.clock = time.Hour, 2*time.Hour, func() time.Time { return now }
	w.maxDelete = 100
	w.connect()
	w.write("p/q/x", "x")
	w.write("p/r/s/x", "x")
	w.mark("")
	w.inStep()
	tell := func(paths ...string) { w.now = max(w.now, xtime.FromTime(time.Now())); w.tell(paths...) }
	f.fail = func(op *slave.Op) error {
		if strings.HasSuffix(op.Path, "D/bad") {
			return errors.New("refused")
		}
		return nil
	}
	// D comes, with an entry that fails: D and all above it get no stamp.
	large := strings.Repeat("x", 1<<20)
	w.youngerThan(w.now)
	w.write("p/q/D/hot", large)
	w.write("p/q/D/old", "old")
	w.write("p/q/D/bad", "bad")
	tell("p/q/D", "p/q/D/hot", "p/q/D/old", "p/q/D/bad")
	if out := w.pass(); out.Stime != 0 {
		t.Fatal("stamped over a failure")
	}
	// What failed goes, the large file changes again soon, "old" goes, "new" comes, and D moves up.
	w.ok(os.Remove(w.at("p/q/D/bad")))
	w.write("p/q/D/hot", large+"1")
	w.ok(os.Remove(w.at("p/q/D/old")))
	w.write("p/q/D/new", "new")
	w.rename("p/q/D", "p/D")
	tell("p/q/D", "p/D", "p/D/hot", "p/D/old", "p/D/new", "p/D/bad")
	if out := w.pass(); !out.Waiting {
		t.Fatalf("nothing waits: %+v", out)
	}
	// D moves once more, and something small changes in it.
	w.rename("p/D", "p/r/s/D")
	w.write("p/r/s/D/other", "1")
	tell("p/D", "p/r/s/D", "p/r/s/D/other")
	w.pass()
	w.checkStamps()
	now = now.Add(3 * time.Hour)
	w.pass()
	w.inStep()
}

// youngerThan waits until what is made now is born after x.
func (w *world) youngerThan(x xtime.Time) {
	for xtime.FromTime(time.Now().Add(-10*time.Millisecond)) <= x { // births are taken from a clock that ticks
		time.Sleep(time.Millisecond)
	}
}
