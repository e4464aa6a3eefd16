package agenthost

import (
	"context"
	"fmt"
	"sync"
	"time"

	"georep/slave"
	"georep/slave/disk"
	"georep/slave/policy"
)

// recorder writes the events of one session. It may be used from any goroutine.
type recorder struct {
	audit *audit
	event Event

	mu     sync.Mutex
	parked int64
	lost   slave.Lost
	said   time.Time // when the last removals were written down
	kept   bool      // that something is kept was written down
	once   sync.Once
}

// purgedEvery is how often removals are written down: one line for all between.
const purgedEvery = time.Minute

// note writes an event that needs no more than its kind.
func (r *recorder) note(kind string) {
	e := r.event
	e.Event = kind
	r.audit.write(e)
}

// results counts what a batch took out of the tree. Removals are summed up, so that a crawl that
// removes a million entries writes one line a minute.
func (r *recorder) results(list []slave.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list {
		r.lost |= list[i].Lost
		if list[i].Parked {
			r.parked++
		}
	}
	if r.parked == 0 || time.Since(r.said) < purgedEvery {
		return
	}
	r.said = time.Now()
	e := r.event
	e.Event, e.Parked = Purged, r.parked
	r.parked = 0
	r.audit.write(e)
}

// keeps writes down, once, that the policy keeps what a master wanted to be deleted.
func (r *recorder) keeps(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept {
		return
	}
	r.kept = true
	e := r.event
	e.Event, e.Reason = Kept, why
	r.audit.write(e)
}

// full writes down that a limit of the policy is reached.
func (r *recorder) full(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.event
	e.Event, e.Reason = Full, err.Error()
	r.audit.write(e)
}

// end writes the last line, with what no line has told yet.
func (r *recorder) end() {
	r.once.Do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		e := r.event
		e.Event, e.Parked, e.Lost = Ended, r.parked, r.lost.String()
		r.audit.write(e)
		r.audit.close()
	})
}

// guarded is a slave that its host's policy guards. What operations may do the tree itself holds to
// the policy. It adds to the tree what is the host's business: the record, the hook, and how long
// removed entries are kept.
type guarded struct {
	*disk.Tree
	policy policy.Policy
	record *recorder
	hook   *hook // nil where nobody is to hear what has become durable
}

// Stage is agent.Stager's.
func (g *guarded) Stage(b *slave.Batch) (func(context.Context) ([]slave.Result, error), error) {
	commit, err := g.Tree.Stage(b)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]slave.Result, error) {
		return g.applied(b, func() ([]slave.Result, error) { return commit(ctx) })
	}, nil
}

// Apply is slave.Tree's.
func (g *guarded) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	return g.applied(b, func() ([]slave.Result, error) { return g.Tree.Apply(ctx, b) })
}

// applied has a batch applied, and notes what came of it. An error ends the session; nobody knows
// then what was applied, and the hook is told "all".
func (g *guarded) applied(b *slave.Batch, apply func() ([]slave.Result, error)) ([]slave.Result, error) {
	if g.hook == nil {
		results, err := apply()
		g.record.results(results)
		return results, err
	}
	if err := g.hook.lives(); err != nil {
		return nil, err
	}
	before := g.hook.changes.Begin()
	results, err := apply()
	g.hook.changes.End(before, b, results, err)
	g.record.results(results)
	return results, err
}

// Clean deletes no sooner than the policy says, whatever the master asks.
func (g *guarded) Clean(ctx context.Context, olderThan int64) error {
	least := int64(g.policy.KeepDeleted / time.Second)
	switch {
	case g.policy.AppendOnly:
		g.record.keeps("append-only")
		return nil
	case olderThan < least:
		g.record.keeps(fmt.Sprintf("keep-deleted %v", g.policy.KeepDeleted))
		olderThan = least
	}
	return g.Tree.Clean(ctx, olderThan)
}

// Close is slave.Tree's.
func (g *guarded) Close() error {
	defer g.record.end()
	err := g.Tree.Close()
	if g.hook != nil {
		g.hook.close()
	}
	return err
}

// watched is a slave that is looked at. It records that somebody looked, and when that ended.
type watched struct {
	*disk.Inspector
	record *recorder
}

// Close is slave.Reader's.
func (w *watched) Close() error {
	defer w.record.end()
	return w.Inspector.Close()
}
