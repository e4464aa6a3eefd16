package crawler_test

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/integration/harness/leak"
	"georep/slave/disk"
)

// TestVerifyFailsTheNth fails the n-th system call that a verification makes on one side, for every n: it never says that
// all is well, and never names what is not different but as unreadable, or, where a read of the content failed, as of another
// content. GEOREP_FAIL_STEP=1 is for every n; CI has time for some.
func TestVerifyFailsTheNth(t *testing.T) {
	leak.Check(t)
	w := newWorld(t)
	for _, path := range []string{"a/f", "a/b/g", "c/h", "c/i"} {
		w.write(path, "content")
	}
	w.ok(os.Symlink("f", w.at("a/s")))
	w.markAll()
	w.inStep()
	before, err := os.Stat(w.there("a/b/g"))
	w.ok(err)
	w.ok(os.WriteFile(w.there("a/b/g"), []byte("CONTENT"), 0o644))
	w.ok(os.Chtimes(w.there("a/b/g"), before.ModTime(), before.ModTime()))
	if found, v, err := w.verify(nil); err != nil || !slices.Equal(found, []string{"a/b/g content"}) || v.Pending > 0 {
		t.Fatalf("found %q, %+v, %v", found, v, err)
	}
	t.Run("master", func(t *testing.T) {
		w.verifyFails(t, 17, 1, func(hook hook) ([]string, crawler.VerifySummary, error) {
			w.root.Hook(hook)
			defer w.root.Hook(nil)
			return w.verify(nil)
		})
	})
	t.Run("slave", func(t *testing.T) { w.verifyFails(t, 17, 1, w.verify) })
	t.Run("slave, for good", func(t *testing.T) { w.verifyFails(t, 40, math.MaxInt64, w.verify) })
}

type hook = func(op, name string) error

// verifyFails has verify make its n-th call, and so many from there on, fail; in CI every step-th call.
func (w *world) verifyFails(t *testing.T, step, times int64, verify func(hook) ([]string, crawler.VerifySummary, error)) {
	errnos := []error{unix.EIO, unix.EACCES, unix.EMFILE, unix.ENOMEM}
	ended, failures := 0, 0
	if asked, err := strconv.ParseInt(os.Getenv("GEOREP_FAIL_STEP"), 10, 64); err == nil {
		step = asked
	}
	for n := int64(0); ; n += step {
		var calls atomic.Int64
		errno := errnos[n%int64(len(errnos))]
		found, v, err := verify(func(string, string) error {
			if k := calls.Add(1) - 1; n <= k && k-n < times {
				return errno
			}
			return nil
		})
		if calls.Load() <= n {
			break
		}
		failures++
		if err != nil {
			ended++
			continue
		}
		if v.Differences+v.Pending == 0 {
			t.Errorf("call %d failed with %v, and all is well", n, errno)
		}
		for _, f := range found {
			if f != "a/b/g content" && !strings.HasSuffix(f, " unreadable") && (times == 1 || !strings.HasSuffix(f, " content")) {
				t.Errorf("call %d failed with %v: found %q", n, errno, found)
			}
		}
	}
	t.Logf("%d calls failed, %d of them ended the verification", failures, ended)
	if failures < 4 || ended == failures {
		t.Errorf("%d calls failed, %d ended it", failures, ended)
	}
}

// verify verifies over a slave of its own, whose system calls ask the hook, and lists what it found.
func (w *world) verify(hook hook) (found []string, v crawler.VerifySummary, err error) {
	w.t.Helper()
	there, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test"})
	w.ok(err)
	defer there.Close()
	there.Hook(hook)
	v, err = w.crawler.Verify(w.t.Context(), there, func(d crawler.Difference) {
		found = append(found, d.Path+" "+strings.Join(d.Kinds, ","))
	})
	slices.Sort(found)
	return found, v, err
}
