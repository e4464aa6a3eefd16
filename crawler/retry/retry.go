// Package retry remembers what failed by path: with the reason, for people, and with a time before which it is not tried again
// (invariant 6). One entry that fails holds back itself, and the stamps above it, and nothing else.
package retry

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
	// Path is relative to the root, of any bytes.
	Path string
	// Op is what was tried, in the words of slave.OpKind.
	Op  string
	Err error
	// Since is when it failed first. What has failed for long is what an operator wants to see first, so lists begin with it.
	Since time.Time
}

// maxFailures bounds what is remembered by path; more than that are counted, and tried at every crawl.
const maxFailures = 10_000

// firstRetry is the first pause before a failed entry is tried again; it doubles up to the bound that New was given.
const firstRetry = time.Second

// Failures remembers what failed, so that it is named, and not tried at every crawl (invariant 6). It is safe for
// concurrent use.
type Failures struct {
	mu     sync.Mutex
	byPath map[string]*failed
	excess int
	max    time.Duration
	now    func() time.Time
}

// failed is a failure with what decides when it is tried again.
type failed struct {
	Failure
	xtime xtime.Time // of the entry when it failed; a newer one is tried at once
	pause time.Duration
	next  time.Time
	pass  uint32 // in which it was last seen to be still in need
}

// New has no failures. max bounds the pause before a retry; 0 stands for a minute.
func New(max time.Duration) *Failures {
	if max <= 0 {
		max = time.Minute
	}
	return &Failures{byPath: map[string]*failed{}, max: max, now: time.Now}
}

// Add notes that op failed with err, in a pass, at an entry of that xtime. A failure that is met again before it is due is no retry: its pause stays.
func (f *Failures) Add(path string, op slave.OpKind, at xtime.Time, err error, pass uint32) {
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

// HeldBack tells whether the entry failed and is not to be tried yet. Who asks has met it, so EndPass keeps it. An entry with another xtime
// than when it failed has changed since, and is not held back.
func (f *Failures) HeldBack(path string, at xtime.Time, pass uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.byPath[path]
	if e == nil || e.xtime != at {
		return false
	}
	e.pass = pass
	return f.now().Before(e.next)
}

// Clear forgets an entry that succeeded. Where nothing is known of it nothing happens: it is called for each success.
func (f *Failures) Clear(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byPath, path)
}

// EndPass forgets what a complete crawl no longer met: it succeeded or vanished. It must not be called for a crawl that was cut off, which
// may have met nothing of what still fails.
func (f *Failures) EndPass(pass uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, e := range f.byPath {
		if e.pass != pass {
			delete(f.byPath, path)
		}
	}
}

// BeginPass forgets what was only counted, beyond what is remembered by path; it is counted anew.
func (f *Failures) BeginPass() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.excess = 0
}

// List returns up to max failures, oldest first, and how many there are. Of what a full slave refused it has one: the rest
// tells nothing that full does not.
func (f *Failures) List(max int) (out []Failure, total int) {
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

// NextRetry is the earliest moment at which something that failed is to be tried again; zero if nothing failed.
// The pauses double from a second up to the bound, so an entry that cannot be read for a week costs one try a minute, and nothing else waits
// for it.
func (f *Failures) NextRetry() time.Time {
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

// Full returns what says that the slave as a whole takes no more, without the path that it struck, or nil.
func (f *Failures) Full() error {
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
