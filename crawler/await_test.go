package crawler

import (
	"testing"
	"time"
)

// TestLateHintIsWaitedFor: on a busy machine a hint comes long after its mark, and is worth more than a listing. Nobody waits
// for a marker that is gone.
func TestLateHintIsWaitedFor(t *testing.T) {
	h := &Hints{}
	f := &follower{c: &Crawler{opts: Options{Hints: h}}}
	h.Up()
	h.settled()
	if !f.awaits(5) {
		t.Fatal("the hint of a new mark is not waited for")
	}
	f.since = time.Now().Add(-time.Second)
	if !f.awaits(5) {
		t.Error("nor is one that is a second late")
	}
	f.since = time.Now().Add(-time.Minute)
	if f.awaits(5) {
		t.Error("one that is a minute late is still waited for")
	}
	f.since = time.Now()
	h.Down()
	if f.awaits(5) {
		t.Error("one of a marker that is gone is waited for")
	}
}
