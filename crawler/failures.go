package crawler

import (
	"errors"
	"slices"
	"sort"
	"sync"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// Failure is one entry that could not be brought over, as the status shows it.
type Failure struct {
	Path  string
	Op    string
	Err   error
	Since time.Time
}

// maxFailures bounds what is remembered by path; more than that are counted, and tried at every crawl.
const maxFailures = 10_000

// firstRetry is the first pause before a failed entry is tried again; it doubles up to Options.RetryMax.
const firstRetry = time.Second

// failures remembers what failed, so that it is named, and not tried at every crawl (invariant 6). It is safe for
// concurrent use.
type failures struct {
	mu     sync.Mutex
	byPath map[string]*failed
	excess int
	max    time.Duration
	now    func() time.Time
}

type failed struct {
	Failure
	xtime xtime.Time // of the entry when it failed; a newer one is tried at once
	pause time.Duration
	next  time.Time
	pass  uint32 // in which it was last seen to be still in need
}

func newFailures(max time.Duration) *failures {
	if max <= 0 {
		max = time.Minute
	}
	return &failures{byPath: map[string]*failed{}, max: max, now: time.Now}
}

// add notes that op failed with err.
func (f *failures) add(path string, op slave.OpKind, at xtime.Time, err error, pass uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	e := f.byPath[path]
	if e == nil {
		if len(f.byPath) >= maxFailures {
			f.excess++
			return
		}
		e = &failed{Failure: Failure{Path: path, Since: now}, pause: firstRetry / 2}
		f.byPath[path] = e
	}
	e.Op, e.Err, e.xtime, e.pass = op.String(), err, at, pass
	if now.Before(e.next) {
		return // another crawl met it before it was due: that is no retry
	}
	e.pause = min(2*e.pause, f.max)
	e.next = now.Add(e.pause)
}

// heldBack tells whether the entry failed and is not to be tried yet.
func (f *failures) heldBack(path string, at xtime.Time, pass uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byPath[path]
	if e == nil || e.xtime != at {
		return false
	}
	e.pass = pass
	return f.now().Before(e.next)
}

// clear forgets an entry that succeeded.
func (f *failures) clear(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byPath, path)
}

// endPass forgets what a complete crawl no longer met: it succeeded or vanished.
func (f *failures) endPass(pass uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, e := range f.byPath {
		if e.pass != pass {
			delete(f.byPath, path)
		}
	}
}

// beginPass forgets what was only counted; it is counted anew.
func (f *failures) beginPass() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.excess = 0
}

// list returns up to max failures, oldest first, and how many there are. Of what a full slave refused it has one: the rest
// tells nothing that full does not.
func (f *failures) list(max int) (out []Failure, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.byPath {
		out = append(out, e.Failure)
	}
	sort.Slice(out, func(i, j int) bool {
		if !out[i].Since.Equal(out[j].Since) {
			return out[i].Since.Before(out[j].Since)
		}
		return out[i].Path < out[j].Path
	})
	total = len(out) + f.excess
	refused := false
	out = slices.DeleteFunc(out, func(e Failure) bool {
		again := refused && slave.Full(e.Err)
		refused = refused || slave.Full(e.Err)
		return again
	})
	return out[:min(max, len(out))], total
}

// nextRetry is the earliest moment at which something that failed is to be tried again; zero if nothing failed.
func (f *failures) nextRetry() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first time.Time
	for _, e := range f.byPath {
		if first.IsZero() || e.next.Before(first) {
			first = e.next
		}
	}
	return first
}

// full returns what says that the slave as a whole takes no more, without the path that it struck, or nil.
func (f *failures) full() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.byPath {
		if slave.Full(e.Err) {
			err := e.Err
			for pe := (*slave.PathError)(nil); errors.As(err, &pe) && slave.Full(pe.Err); {
				err = pe.Err
			}
			return err
		}
	}
	return nil
}
