package crawler

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// TestFullIsToldOnce: a slave that takes nothing more is trouble of the session, whatever the number of files it refused.
func TestFullIsToldOnce(t *testing.T) {
	f := newFailures(time.Second)
	f.add("denied", slave.OpPut, 1, unix.EACCES, 1)
	if f.full() != nil {
		t.Fatal("full")
	}
	for _, path := range []string{"a", "b", "c"} {
		f.add(path, slave.OpPut, 1, &slave.PathError{Op: "write", Path: path, Err: unix.EDQUOT}, 1)
	}
	list, n := f.list(5)
	if n != 4 || len(list) != 2 {
		t.Errorf("%d, listed %v", n, list)
	}
	if err := f.full(); err != unix.EDQUOT {
		t.Errorf("full: %v", err)
	}
}

func TestBackOffGrowsWithRetriesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(8 * time.Second)
		bad := errors.New("bad")
		f.add("p", slave.OpPut, 1, bad, 1)
		if !f.heldBack("p", 1, 2) {
			t.Fatal("tried again at once")
		}
		for pass := range uint32(20) {
			f.add("p", slave.OpPut, 1, bad, pass) // met by other crawls before it is due
		}
		if d := time.Until(f.nextRetry()); d != time.Second {
			t.Fatalf("the first retry is due in %v, want 1s", d)
		}
		if f.heldBack("p", 2, 3) {
			t.Error("a newer xtime is held back")
		}
		for _, want := range []time.Duration{2, 4, 8, 8} {
			time.Sleep(time.Until(f.nextRetry()))
			if f.heldBack("p", 1, 4) {
				t.Fatal("held back although it is due")
			}
			f.add("p", slave.OpPut, 1, bad, 4)
			if d := time.Until(f.nextRetry()); d != want*time.Second {
				t.Fatalf("next in %v, want %ds", d, want)
			}
		}
		f.endPass(4)
		if list, n := f.list(5); n != 1 || !errors.Is(list[0].Err, bad) {
			t.Errorf("%d %v", n, list)
		}
		f.endPass(5) // a crawl that no longer met it
		if _, n := f.list(5); n != 0 || !f.nextRetry().IsZero() {
			t.Errorf("%d failures are left", n)
		}
	})
}
