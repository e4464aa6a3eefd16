package crawler

import (
	"context"
	"sync"

	"georep/slave"
)

// Bounds of what is on its way to the slave. A file that is larger than batchBytes makes a batch of its own, so that
// nothing small waits for it.
const (
	batchOps        = 256
	batchBytes      = 4 << 20
	batchesInFlight = 8 // where Options.InFlight says nothing
)

// job is a run of operations that stay together in one batch, in order. done is called once, with a result each,
// unless the session ends.
type job struct {
	ops  []slave.Op
	done func([]slave.Result)
}

// shipper gathers jobs into batches and keeps several batches on their way. What is submitted while the link is busy
// travels together; what comes alone leaves at once.
//
// Batches are sent with the context of the session, not that of the crawl: one that was begun is seen to its end, so that
// nothing of a crawl is under way when that is over. The next crawl reads the slave, and its batches could overtake those
// of this one. A crawl that is given up only stops giving content (see stopping).
//
// What is sent follows from what the crawl has read. So the master is asked before each batch whether all of it could be seen until
// then (source.Source.Intact).
type shipper struct {
	tree     slave.Tree
	intact   func() error
	session  context.Context
	counters *Counters
	pending  *pending
	jobs     chan job
	slots    chan struct{}
	fail     func(error)
	ended    func(*slave.Op, slave.Result) // told of every result, also where the crawl is over
	wg       sync.WaitGroup
}

func newShipper(session context.Context, w *crawl) *shipper {
	o := &w.c.opts
	slots := o.InFlight
	if slots <= 0 {
		slots = batchesInFlight
	}
	return &shipper{tree: o.Tree, intact: w.m.Intact, session: session, counters: o.Counters, pending: &w.pending,
		jobs: make(chan job, batchOps), slots: make(chan struct{}, slots), fail: func(err error) { w.cancel(err) }}
}

// submit hands over a job, or drops it when ctx has ended.
func (s *shipper) submit(ctx context.Context, ops []slave.Op, done func([]slave.Result)) {
	s.pending.add(ofOps(ops))
	select {
	case s.jobs <- job{ops, done}:
	case <-ctx.Done():
	}
}

// run sends batches until ctx ends, and returns when all calls have.
func (s *shipper) run(ctx context.Context) {
	defer s.wg.Wait()
	var held *job // did not fit into the last batch
	for {
		var first job
		if held != nil {
			first = *held
		} else {
			select {
			case first = <-s.jobs:
			case <-ctx.Done():
				return
			}
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		var batch []job
		batch, held = s.gather(first)
		s.wg.Add(1)
		go s.apply(ctx, batch)
	}
}

// gather takes what is waiting, up to the bounds of a batch.
func (s *shipper) gather(first job) (batch []job, held *job) {
	batch = []job{first}
	ops, bytes := len(first.ops), jobBytes(first)
	for ops < batchOps && bytes < batchBytes {
		select {
		case j := <-s.jobs:
			ops, bytes = ops+len(j.ops), bytes+jobBytes(j)
			if ops > slave.MaxOps || bytes > batchBytes {
				next := j // a copy: &j would move every job to the heap
				return batch, &next
			}
			batch = append(batch, j)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

func jobBytes(j job) int64 {
	var n int64
	for i := range j.ops {
		if j.ops[i].Streams() {
			n += j.ops[i].Meta.Size
		}
	}
	return n
}

// apply brings one batch over and hands out its results, unless the crawl, which ctx bounds, has ended meanwhile.
func (s *shipper) apply(ctx context.Context, jobs []job) {
	defer s.wg.Done()
	ops := 0
	for _, j := range jobs {
		ops += len(j.ops)
	}
	b := slave.Batch{Ops: make([]slave.Op, 0, ops)}
	for _, j := range jobs {
		b.Ops = append(b.Ops, j.ops...)
	}
	var results []slave.Result
	err := s.intact()
	if err == nil {
		results, err = s.tree.Apply(s.session, &b)
	}
	// The place is free before the callbacks, which may submit more and would otherwise wait for themselves.
	<-s.slots
	s.pending.done(ofOps(b.Ops))
	for i := range b.Ops {
		r := slave.Result{Err: err}
		if err == nil {
			r = results[i]
		}
		s.counters.end(&b.Ops[i], r)
		s.ended(&b.Ops[i], r)
	}
	if err != nil {
		s.fail(err)
	}
	if err != nil || ctx.Err() != nil {
		return // the crawl is over, and asks no more
	}
	for _, j := range jobs {
		n := len(j.ops)
		j.done(results[:n:n])
		results = results[n:]
	}
}
