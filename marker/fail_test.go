package marker

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/leak"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// faults lets system calls of a marker fail: after it was armed the n-th, and those that follow it until there were
// times of them. It may be used from any goroutine.
type faults struct {
	mu     sync.Mutex
	on     bool
	n      int
	times  int
	err    error
	calls  []string // "op name", since it was armed
	failed []string
}

func (f *faults) hook(op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		return nil
	}
	f.calls = append(f.calls, op+" "+name)
	if i := len(f.calls) - 1; i < f.n || i >= f.n+f.times {
		return nil
	}
	f.failed = append(f.failed, op+" "+name)
	return f.err
}

func (f *faults) arm(n, times int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.n, f.times, f.err, f.calls, f.failed = true, n, times, err, nil, nil
}

// disarm ends it, and tells how many calls there were, and which of them failed.
func (f *faults) disarm() (calls int, failed []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
	return len(f.calls), f.failed
}

// kept is a volume whose marker is started again whenever it ends with an error, as the monitor does.
type kept struct {
	*vol
	faults

	state sync.Mutex
	now   *marker
	mark  xtime.Time
	ends  []error
}

// newKept has a volume on tmpfs, where a sync costs nothing.
func newKept(t *testing.T, source string) *kept {
	leak.Check(t)
	k := &kept{vol: newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))}
	k.o.Source, k.o.Dir, k.o.hook = source, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}), k.faults.hook
	k.o.ScanPoll, k.wanderers = 10*time.Millisecond, []string{"e/i"}
	k.o.SaveVolumeMark = func(x xtime.Time) error {
		k.state.Lock()
		defer k.state.Unlock()
		k.mark = x
		return nil
	}
	k.sh("mkdir -p a/b c/r.0/s e; touch a/b/f a/b/g c/h c/r.0/s/t e/i")
	return k
}

// keep runs a marker until the function that it returns is called.
func (k *kept) keep() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := k.once(ctx); err != nil {
				k.state.Lock()
				k.ends = append(k.ends, err)
				k.state.Unlock()
				_ = pause(ctx, 5*time.Millisecond)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (k *kept) once(ctx context.Context) error {
	k.state.Lock()
	o := k.o
	o.VolumeMark, k.now = k.mark, nil
	k.state.Unlock()
	m, err := open(ctx, o)
	if err != nil {
		return err
	}
	m.scanner.retryFirst, m.held.find = 20*time.Millisecond, nobody{}
	if m.live != nil {
		m.live.idle = 5 * time.Millisecond
	}
	k.state.Lock()
	k.now = m
	k.state.Unlock()
	return firstError(m.run(ctx), m.close())
}

// settled waits until all that happened is marked, by whichever marker.
func (k *kept) settled() {
	k.t.Helper()
	t0 := time.Now()
	k.until("everything is marked", func() bool {
		k.state.Lock()
		defer k.state.Unlock()
		return k.now != nil && k.now.beats.get().Time.After(t0)
	})
}

// before is what the changes are compared with.
func (k *kept) before() (map[string]entryState, xtime.Time) {
	k.state.Lock()
	defer k.state.Unlock()
	return k.states(), k.mark
}

// change makes changes of every kind; n differs from one time to the next.
func (k *kept) change(n int) {
	k.t.Helper()
	k.sh(fmt.Sprintf("n=%d; m=$((n %% 2 + 6)); ", n) + `
		echo $n > a/b/f; chmod ${m}44 a/b/g; chmod ${m}55 a/b; echo $n > a/b/new.$n
		ln -f c/h e/l; echo $n > e/l; rm -rf e/x.*; mkdir -p e/x.$n/y; echo $n > e/x.$n/y/z; mv c/r.* c/r.new; mv c/r.new c/r.$n; echo $n > c/r.$n/s/t
		rm -f a/b/new.$((n - 1)); touch -h -d @$n e/i; mv e/i c/i; mv c/i e/i`)
}

// check fails where a crawl would not find a change, unless the volume was marked anew.
func (k *kept) check(before map[string]entryState, mark xtime.Time) {
	k.t.Helper()
	k.state.Lock()
	raised := k.mark != mark
	k.state.Unlock()
	if !raised {
		k.checkChanges(before)
	}
}

// failStep is how many calls lie between one that is made to fail and the next; with 1 each fails with every errno.
func failStep(t *testing.T) int {
	step, err := strconv.Atoi(os.Getenv("GEOREP_FAIL_STEP"))
	if err != nil {
		return 13
	}
	return max(step, 1)
}

func failWith() []error {
	return []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EROFS, unix.EMFILE}
}

// TestFailTheNth makes the n-th system call that follows a change fail, on the tree or on the marker's own files, for
// every n: whatever fails, all that changed is marked up to the root in the end.
func TestFailTheNth(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			k := newKept(t, source)
			defer k.keep()()
			k.failEach(func(n int, arm func()) { arm(); k.change(n) })
		})
	}
}

// TestFailTheNthOfAStart does the same to a start after changes that no marker has seen.
func TestFailTheNthOfAStart(t *testing.T) {
	for _, source := range sources() {
		t.Run(source, func(t *testing.T) {
			k := newKept(t, source)
			end := k.keep()
			defer func() { end() }()
			k.failEach(func(n int, arm func()) {
				end()
				k.change(n)
				arm()
				end = k.keep()
			})
		})
	}
}

// maxCalls is more than a change, or a start, needs; where there are only scans, the calls never end.
const maxCalls = 200

// failEach calls round for every n, which has to arm and to change something.
func (k *kept) failEach(round func(n int, arm func())) {
	k.settled()
	step, hit, serial := failStep(k.t.(*testing.T)), 0, 0
	for n := 0; n < maxCalls; n += step {
		errs := failWith()
		if step > 1 {
			errs = errs[serial%len(errs):][:1]
		}
		past := true
		for _, err := range errs {
			serial++
			times := 1 + serial%2*4
			before, mark := k.before()
			round(serial, func() { k.arm(n, times, err) })
			k.settled()
			calls, failed := k.disarm()
			k.settled()
			k.check(before, mark)
			if k.t.Failed() {
				k.t.Fatalf("after call %d failed with %v, and %d after it: %q", n, err, times-1, failed)
			}
			hit += min(len(failed), 1)
			past = past && calls <= n
		}
		if past {
			break
		}
	}
	k.t.Logf("%d of %d rounds met their call; the marker ended %d times", hit, serial, k.checkEnds())
	if hit < 5 {
		k.t.Errorf("only %d calls failed", hit)
	}
}

// checkEnds sees that every end of a marker says why, and counts them.
func (k *kept) checkEnds() int {
	k.state.Lock()
	defer k.state.Unlock()
	for _, err := range k.ends {
		if !slices.ContainsFunc(failWith(), func(e error) bool { return tree.IsAny(err, e.(unix.Errno)) }) {
			k.t.Errorf("a marker ended with %v", err)
		}
	}
	return len(k.ends)
}
