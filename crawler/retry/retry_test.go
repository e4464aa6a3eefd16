package retry

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
	f := New(time.Second)
	f.Add("denied", slave.OpPut, 1, unix.EACCES, 1)
	if f.Full() != nil {
		t.Fatal("full")
	}
	for _, path := range []string{"a", "b", "c"} {
		f.Add(path, slave.OpPut, 1, &slave.PathError{Op: "write", Path: path, Err: unix.EDQUOT}, 1)
	}
	list, n := f.List(5)
	if n != 4 || len(list) != 2 {
		t.Errorf("%d, listed %v", n, list)
	}
	if err := f.Full(); err != unix.EDQUOT {
		t.Errorf("full: %v", err)
	}
}

func TestBackOffGrowsWithRetriesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(8 * time.Second)
		bad := errors.New("bad")
		f.Add("p", slave.OpPut, 1, bad, 1)
		if !f.HeldBack("p", 1, 2) {
			t.Fatal("tried again at once")
		}
		for pass := range uint32(20) {
			f.Add("p", slave.OpPut, 1, bad, pass) // met by other crawls before it is due
		}
		if d := time.Until(f.NextRetry()); d != time.Second {
			t.Fatalf("the first retry is due in %v, want 1s", d)
		}
		if f.HeldBack("p", 2, 3) {
			t.Error("a newer xtime is held back")
		}
		for _, want := range []time.Duration{2, 4, 8, 8} {
			time.Sleep(time.Until(f.NextRetry()))
			if f.HeldBack("p", 1, 4) {
				t.Fatal("held back although it is due")
			}
			f.Add("p", slave.OpPut, 1, bad, 4)
			if d := time.Until(f.NextRetry()); d != want*time.Second {
				t.Fatalf("next in %v, want %ds", d, want)
			}
		}
		f.EndPass(4)
		if list, n := f.List(5); n != 1 || !errors.Is(list[0].Err, bad) {
			t.Errorf("%d %v", n, list)
		}
		f.EndPass(5) // a crawl that no longer met it
		if _, n := f.List(5); n != 0 || !f.NextRetry().IsZero() {
			t.Errorf("%d failures are left", n)
		}
	})
}
