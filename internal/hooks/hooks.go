package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"georep/internal/events"
	"georep/internal/filter"
	"georep/volume"
)

// The pauses between two tries to tell one event double from the first to the last; up to half of each is left to chance.
const (
	pauseFirst = time.Second
	pauseLast  = 5 * time.Minute
)

// leave is how long an end waits for what was cancelled. A command that hangs in the kernel, on a dead NFS server say, cannot even be
// killed. It is left behind, and counts as not told. While nothing ends it, it is named as failing, and no other is run beside it.
const leave = 5 * time.Second

// Config says of which session to tell. Trouble with a hook is the hook's alone, and is told by
// Failed; replication never waits for it.
type Config struct {
	Dir           string // of the journal
	Master, Slave string
	Hook          volume.Hook
	// Last is the newest event. A hook that is new is told of what comes after it.
	Last uint64
	// Failed is called when a hook fails, once until it works again. It may be called from several goroutines.
	Failed func(hook string, err error)
	// Alone, if set, is called before paths are told, and waits until nobody else tells this hook; what is to be told is taken in
	// meanwhile. Its error is that of the context, which has ended.
	Alone func(context.Context) error

	pauseFirst, timeout, leave time.Duration // zero but in tests
}

// Runner tells until it is stopped.
type Runner struct {
	cancel context.CancelFunc
	leave  time.Duration
	done   sync.WaitGroup
	told   []*record
	// paths are what is to be told of paths, one queue a hook, and pattern which paths; nil: all.
	paths   []*pathQueue
	pattern *filter.Filter
}

// Start begins to tell. The caller ends it with Stop.
func Start(c Config) *Runner {
	r, ctx := newRunner(&c)
	for _, one := range c.hooks() {
		r.told = append(r.told, one.record)
		r.done.Go(func() { one.run(ctx) })
		if c.Hook.Changed {
			r.changed(ctx, one)
		}
	}
	return r
}

// StartChanged begins to tell of paths alone. There need be no journal. It is for the slave's host,
// where there is no session and no journal.
func StartChanged(c Config) *Runner {
	r, ctx := newRunner(&c)
	for _, one := range c.hooks() {
		r.changed(ctx, one)
	}
	return r
}

// changed starts the goroutine that tells one hook of paths.
func (r *Runner) changed(ctx context.Context, one *hook) {
	r.paths = append(r.paths, one.paths)
	r.done.Go(func() {
		if one.Alone == nil || one.Alone(ctx) == nil {
			one.runChanged(ctx)
		}
	})
}

// newRunner fills in the usual times, and makes the context that all of them end with.
func newRunner(c *Config) (*Runner, context.Context) {
	if c.pauseFirst == 0 {
		c.pauseFirst = pauseFirst
	}
	if c.timeout == 0 {
		c.timeout = timeout
	}
	if c.leave == 0 {
		c.leave = leave
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runner{cancel: cancel, leave: c.leave}
	if c.Hook.Pattern != "" {
		spec := filter.Spec{Exclude: c.Hook.Pattern}
		r.pattern, _ = spec.Load() // checked when it was set
	}
	return r, ctx
}

// Drain ends all, once there is nothing left to be told of paths, or ctx ends. It tells whether all was told.
func (r *Runner) Drain(ctx context.Context) bool {
	all := func() bool { return !slices.ContainsFunc(r.paths, func(q *pathQueue) bool { return !q.told() }) }
	r.end(ctx, all)
	return all()
}

// Stop ends all, a command that runs as well. Where the hooks work, they come up to the event last before, if that takes no
// longer than patience.
func (r *Runner) Stop(last uint64, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.end(ctx, func() bool {
		return !slices.ContainsFunc(r.told, func(t *record) bool { return t.well() && t.get() < last })
	})
}

// end ends all once that is so, or ctx ends.
func (r *Runner) end(ctx context.Context, so func() bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := false; !late && !so(); {
		select {
		case <-ctx.Done():
			late = true
		case <-tick.C:
		}
	}
	r.cancel()
	ended := make(chan struct{})
	go func() { r.done.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(r.leave):
	}
}

// Floor is the newest event of which any hook of the journal in dir was told.
func Floor(dir string) (seq uint64) {
	for _, name := range []string{"command", "url"} {
		if r, err := readRecord(recordFile(dir, name)); err == nil {
			seq = max(seq, r.Seq)
		}
	}
	return seq
}

// hook is one receiver. Its goroutines are run and runChanged; each tells one thing at a time.
type hook struct {
	Config
	name   string
	record *record
	tell   func(ctx context.Context, body []byte, e *events.Event) error
	paths  *pathQueue
	// What was told of as failing, of events and of paths: a receiver may take the one and not the other.
	events, changes trouble
}

// trouble is whether it was told of.
type trouble struct {
	mu   sync.Mutex
	told bool
}

// hooks are those that are set.
func (c *Config) hooks() (list []*hook) {
	add := func(name, target string, tell func(context.Context, []byte, *events.Event) error) {
		list = append(list, &hook{Config: *c, name: name, tell: tell, paths: newPathQueue(), record: &record{path: recordFile(c.Dir, name), target: target}})
	}
	if len(c.Hook.Command) > 0 {
		add("command", strings.Join(c.Hook.Command, "\x00"), c.run)
	}
	if c.Hook.URL != "" {
		add("url", c.Hook.URL, c.post)
	}
	return list
}

// run tells one event after the other.
func (h *hook) run(ctx context.Context) {
	for h.record.begin(h.Last) != nil {
		if !pause(ctx, pauseFirst) { // the disk is full, say
			return
		}
	}
	since := h.record.get()
	first := true
	var missed uint64 // of events that were passed over since the last that was told
	events.Follow(ctx, h.Dir, since, func(e events.Event, lost uint64) error {
		if first && since == 0 {
			lost = e.Seq - 1
		}
		first, missed = false, missed+lost
		if h.Hook.Kinds != nil && !slices.Contains(h.Hook.Kinds, e.Kind) && missed == 0 {
			h.record.pass(e.Seq)
			return nil
		}
		if err := h.tellOne(ctx, &e, missed); err != nil {
			return err
		}
		missed = 0
		return nil
	})
}

// message is what a hook is given.
type message struct {
	event events.Event
	lost  uint64
}

// MarshalJSON is the event's with one key more.
func (m message) MarshalJSON() ([]byte, error) {
	body, err := json.Marshal(m.event)
	if err == nil && m.lost > 0 {
		body = fmt.Appendf(body[:len(body)-1], `,"lost":%d}`, m.lost)
	}
	return body, err
}

// tellOne tries until the event is told. The error is ctx's, or says that it cannot be told at all.
func (h *hook) tellOne(ctx context.Context, e *events.Event, lost uint64) error {
	body, err := json.Marshal(message{*e, lost})
	if err != nil {
		return err
	}
	body = append(body, '\n')
	came := func(err error) {
		h.record.works(err == nil)
		// That it cannot be told of its own failure is no news, and would have to be told in turn.
		if err == nil || e.Kind != events.HookFailed || e.Name != h.name {
			h.failing(&h.events, err)
		}
	}
	for wait := h.pauseFirst; ; wait = min(2*wait, pauseLast) {
		err := h.once(ctx, body, e, came)
		if err == nil {
			err = h.record.tell(e.Seq)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		came(err)
		if err == nil {
			return nil
		}
		if !pause(ctx, wait-rand.N(wait/2)) {
			return ctx.Err()
		}
	}
}

// once tells once. Where that does not end even when it is cancelled, hangs is called meanwhile. A
// try that hangs in the kernel is waited for, so that two of one hook never run at once.
func (h *hook) once(ctx context.Context, body []byte, e *events.Event, hangs func(error)) error {
	once, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	limit := h.timeout + h.leave
	late := time.AfterFunc(limit, func() {
		if ctx.Err() == nil {
			hangs(fmt.Errorf("it has hung for %v, and cannot be ended: see whether the file systems that it lies on and uses answer", limit))
		}
	})
	defer late.Stop()
	return h.tell(once, body, e)
}

// failing tells of trouble once, until nil says that the hook works again. Events and paths are
// told apart by of.
func (h *hook) failing(of *trouble, err error) {
	of.mu.Lock()
	told := of.told
	of.told = err != nil
	of.mu.Unlock()
	if err != nil && !told {
		h.Failed(h.name, err)
	}
}

// pause returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// record is how far a hook was told, in a file beside the journal.
type record struct {
	path, target string

	mu     sync.Mutex
	seq    uint64 // of the last event that was told, or passed over
	broken bool   // the last try failed
}

// recordJSON is the file. Another target begins anew.
type recordJSON struct {
	Seq    uint64 `json:"seq"`
	Target []byte `json:"target"`
}

// recordFile is where the record of a hook lies, by the hook's kind.
func recordFile(dir, name string) string { return filepath.Join(dir, "hook."+name) }

// readRecord gives an error for a record that is not there, or damaged.
func readRecord(path string) (r recordJSON, err error) {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// begin goes on where the record stands. A hook that was never told anything begins after last. Of a record that cannot be
// read nobody knows how far it was: all is told again.
func (r *record) begin(last uint64) error {
	have, err := readRecord(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && string(have.Target) != r.target:
		return r.tell(last)
	case err != nil:
		return r.tell(0)
	}
	r.pass(have.Seq)
	return nil
}

// tell makes durable that seq was told. An error has the event told once more, rather than never.
func (r *record) tell(seq uint64) error {
	data, err := json.Marshal(recordJSON{seq, []byte(r.target)})
	if err == nil {
		err = volume.WriteOwn(r.path, data)
	}
	if err == nil {
		r.pass(seq)
	}
	return err
}

// pass notes an event of which nobody is to be told. After a kill it is passed over again.
func (r *record) pass(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = seq
}

// get is the last event that needs nothing more.
func (r *record) get() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// works notes whether the last try succeeded; well tells that again.
func (r *record) works(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = !yes
}

func (r *record) well() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.broken
}
