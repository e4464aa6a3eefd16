package crawler

import (
	"context"
	"errors"
	"sync"
	"time"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// This file keeps what is large from holding up what is small. A crawl ends only when all that it began has ended, and the next
// one waits for that. So a large file is compared, or sent ahead, beside the crawls: its name is deferred meanwhile (deferrals.go), which
// stamps its directory, and those above, up to what they hold, and the crawls go on. Once it is ready its name is due, and the
// next crawl does what is left, in its own order: it finds the content on the slave, or knows that both ends have the same.
//
// What a crawl finds may be newer than what was sent. Then the slave gets what it has all the same, without a record, and the
// name is still deferred: so a large file that changes all the time is never far behind. A comparison counts only for the very state
// that was compared; where there never is time for that, the crawl compares it itself.
//
// All of this is for a session that follows, and for directories that the slave has a stamp of: a deferral is kept beside that.

const (
	bulkBytes   = 32 << 20
	bulkSending = uploadsAtOnce
	bulkHashing = 1   // of the two that a slave hashes at a time
	bulkOpen    = 128 // beyond which a name waits without being worked on
	bulkTries   = 3   // comparisons that came too late, before a crawl makes one itself
	// bulkKept is how long what was sent stays on the slave though no crawl asks for it.
	bulkKept = time.Minute
)

// bulk are the files that are worked on beside the crawls. It is safe for concurrent use.
type bulk struct {
	c       *Crawler
	sending chan struct{}
	hashing chan struct{}

	mu     sync.Mutex
	ctx    context.Context // nil: crawls do everything themselves
	beside *crawl          // what uploads need of one
	tasks  sync.WaitGroup
	jobs   map[place]*chore
	fatal  error // ended the session
}

// chore is one file.
type chore struct {
	gfid  xtime.GFID
	xtime xtime.Time
	tries int

	// What follows is written before ended is set, under bulk.mu.
	ended    time.Time
	compared bool
	same     bool // both ends had the same content
	there    slave.EntryState
	version  slave.Version // of what was sent
	torn     bool
	err      error
}

// begin has large files worked on beside the crawls until end is called.
func (b *bulk) begin(ctx context.Context, c *Crawler) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c, b.ctx, b.jobs = c, ctx, map[place]*chore{}
	b.sending, b.hashing = make(chan struct{}, bulkSending), make(chan struct{}, bulkHashing)
	b.beside = &crawl{c: c, ctx: ctx, session: ctx}
	b.beside.uploads.init()
	return func() {
		cancel()
		b.mu.Lock()
		b.ctx = nil
		b.mu.Unlock()
		b.tasks.Wait()
	}
}

// on tells whether the session follows: what a crawl leaves undone is for the next.
func (b *bulk) on() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ctx != nil
}

// failed is what ended the session, if anything did.
func (b *bulk) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fatal
}

// busy tells whether anything is on its way to the slave, or, as long as anything is deferred, waits there for its crawl.
func (b *bulk) busy(owed bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.ended.IsZero() || owed && time.Since(j.ended) < bulkKept {
			return true
		}
	}
	return false
}

// full tells whether more jobs would keep too many files open.
func (b *bulk) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	running := 0
	for _, j := range b.jobs {
		if j.ended.IsZero() {
			running++
		}
	}
	return running >= bulkOpen
}

// running tells whether a name has to wait for a job.
func (b *bulk) running(j *chore) bool {
	if j == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return j.ended.IsZero()
}

// start begins a job, and forgets those that no crawl has asked for. work returns an error of the session, or nil.
func (b *bulk) start(p place, j *chore, slot chan struct{}, work func(ctx context.Context, j *chore) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for q, old := range b.jobs {
		if !old.ended.IsZero() && time.Since(old.ended) > bulkKept {
			delete(b.jobs, q)
		}
	}
	ctx := b.ctx
	b.jobs[p] = j
	b.tasks.Go(func() {
		err, done := error(nil), *j
		select {
		case slot <- struct{}{}:
			err = work(ctx, &done)
			<-slot
		case <-ctx.Done():
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		done.ended = time.Now()
		*j = done
		if err != nil && ctx.Err() == nil {
			b.fatal = err
		}
	})
}

// take gives the job of a place, which is forgotten if it has ended.
func (b *bulk) take(p place) (j *chore, ended, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil {
		return nil, false, false
	}
	if j = b.jobs[p]; j == nil {
		return nil, false, true
	}
	if !j.ended.IsZero() {
		delete(b.jobs, p)
		return j, true, true
	}
	return j, false, true
}

// isBeside tells whether an item is worked on beside the crawls, and deferred. What a job has found out about it is put into it
// otherwise. It counts what is pending.
func (w *crawl) isBeside(n *node, d *directory, it *plan.Item) bool {
	e := &it.Entry
	if e.Kind != slave.File || e.Stat.Size < w.c.heavy || e.Stat.Nlink > 1 || it.How == plan.Adopt || n.again || d.Refuses ||
		n.entry.Always || n.reach == 0 {
		return false
	}
	was := ofItem(it)
	beside := w.beside(n, d, it)
	w.pending.done(was)
	if !beside {
		w.pending.add(ofItem(it))
	}
	return beside
}

func (w *crawl) beside(n *node, d *directory, it *plan.Item) bool {
	e, b := &it.Entry, &w.c.bulk
	p := place{n.entry.Record.GFID, e.Name}
	j, ended, on := b.take(p)
	switch {
	case !on:
		return false
	case j != nil && !ended:
		w.deferJob(n, e, j)
		return true
	case j == nil || j.gfid != e.Record.GFID:
		return w.beginJob(n, d, it, nil)
	case j.err != nil:
		op := slave.Op{Kind: slave.OpPut, Path: join(n.path, e.Name), Record: e.Record}
		w.result(n, &op, slave.Result{Err: &slave.PathError{Op: op.Kind.String(), Path: op.Path, Err: j.err}})
		return true
	case j.compared:
		return w.afterCompare(n, d, it, j)
	}
	return w.afterSending(n, d, it, j)
}

// afterCompare goes on with what a comparison has shown, if it was of this state.
func (w *crawl) afterCompare(n *node, d *directory, it *plan.Item, j *chore) bool {
	if it.How != plan.Compare {
		return w.beginJob(n, d, it, nil)
	}
	if j.xtime != it.Entry.Record.Xtime || it.State == nil || !sameState(it.State, &j.there) {
		return j.tries < bulkTries && w.beginJob(n, d, it, j)
	}
	if j.same {
		it.How = plan.Adopt
		return false
	}
	it.How = plan.Replace
	return w.beginJob(n, d, it, nil)
}

func sameState(a, b *slave.EntryState) bool {
	return a.Kind == b.Kind && a.Record == b.Record && a.Size == b.Size && a.Mtime == b.Mtime && a.Nlink == b.Nlink
}

// afterSending has the content that was sent put in its place. Where it is not the newest, it goes there without a record, and
// the newer one is sent.
func (w *crawl) afterSending(n *node, d *directory, it *plan.Item, j *chore) bool {
	e := &it.Entry
	if !j.torn && j.xtime == e.Record.Xtime && w.m.Version(e) == j.version {
		it.How = plan.Replace // also where it only looks as if the slave had it
		return false          // an upload like any other finds all of it there
	}
	if it.How == plan.Compare {
		return w.beginJob(n, d, it, nil) // what was sent became needless
	}
	op, err := w.shipOp(n, d, it)
	if err != nil {
		w.failEntry(n, e.Name, opFor(e.Kind), e.Record.Xtime, err)
		return true
	}
	op.Record.Xtime, op.Uploaded, op.Version, op.Open = 0, true, j.version, nil
	w.comes(n, it)
	var tasks []task
	if it.ParkFirst {
		tasks = append(tasks, w.park(n, *it.State))
	}
	w.send(n, append(tasks, task{op: op, parks: it.State != nil && foreign(it.State, e), then: func(r slave.Result) {
		if !errors.Is(r.Err, slave.ErrNeedContent) { // what comes next does without it
			w.result(n, &op, r)
		}
	}})...)
	return w.beginJob(n, d, it, nil)
}

// deferJob notes that a name is deferred until its job has ended.
func (w *crawl) deferJob(n *node, e *plan.Entry, j *chore) {
	due := w.c.debounce.now() // as soon as it has ended
	if j == nil {
		due = due.Add(missedPause) // there were too many
	}
	before, since := w.deferredBefore(n, e.Name), earlier(w.c.debounce.now(), e.Record.Xtime.Time())
	if was := before.wait.since; !was.IsZero() {
		since = earlier(since, was)
	}
	w.deferName(n, e.Name, deferredName{safeXtime: before.safeXtime, path: join(n.path, e.Name), size: e.Stat.Size, job: j, wait: wait{due, since}})
}

// beginJob begins to work on an item beside the crawls. before is a comparison that came too late.
func (w *crawl) beginJob(n *node, d *directory, it *plan.Item, before *chore) bool {
	e, b := it.Entry, &w.c.bulk
	if b.full() {
		w.deferJob(n, &e, nil)
		return true
	}
	j := &chore{gfid: e.Record.GFID, xtime: e.Record.Xtime}
	if before != nil {
		j.tries = before.tries + 1
	}
	p, path := place{n.entry.Record.GFID, e.Name}, join(n.path, e.Name)
	if it.How == plan.Compare {
		f, err := w.m.OpenFile(d.Dir, &e)
		if err != nil {
			return false // as any crawl finds it
		}
		j.compared, j.there = true, *it.State
		b.start(p, j, b.hashing, func(ctx context.Context, j *chore) error {
			defer f.Close()
			return w.c.compareAside(ctx, f, p, path, j)
		})
		w.deferJob(n, &e, j)
		return true
	}
	src, err := w.m.OpenFile(d.Dir, &e)
	if err != nil {
		return false
	}
	a := &upload{src: src}
	slot := b.sending
	if s := it.State; s != nil && s.Kind == slave.File && s.Size >= deltaBytes {
		a.basis, slot = path, b.hashing // the slave reads that too
	}
	b.start(p, j, slot, func(_ context.Context, j *chore) error { return b.send(a, e.Record, path, j) })
	w.deferJob(n, &e, j)
	return true
}

// send sends a content ahead.
func (b *bulk) send(a *upload, r slave.Record, path string, j *chore) error {
	op := slave.Op{Kind: slave.OpPut, Entry: slave.File, Path: path, Record: r}
	err := b.beside.upload(a, &op)
	var fatal *sessionError
	if errors.As(err, &fatal) {
		return fatal.error
	}
	j.version, j.torn, j.err = op.Version, op.Record.Xtime == 0, err
	return nil
}

// compareAside compares the contents of a file, and looks whether the slave's still is what was compared.
func (c *Crawler) compareAside(ctx context.Context, f source.File, p place, path string, j *chore) error {
	type answer struct {
		sums []slave.HashResult
		err  error
	}
	theirs := make(chan answer, 1)
	go func() {
		sums, err := c.opts.Tree.Hash(ctx, []string{path})
		theirs <- answer{sums, err}
	}()
	ours := f.Digest(ctx.Err)
	got := <-theirs
	if got.err != nil {
		return got.err
	}
	dir, _ := beneath.Split(path)
	states, err := c.opts.Tree.Survey(ctx, []slave.Query{{Path: dir, ByName: true, Names: []string{p.name}}})
	if err != nil {
		return err
	}
	sum := got.sums[0]
	j.same = ours.Err == nil && sum.Err == nil && ours.Size == sum.Size && ours.Sum == sum.Sum &&
		states[0].Err == nil && states[0].Record.GFID == p.dir && len(states[0].Entries) == 1 && sameState(&states[0].Entries[0], &j.there)
	return nil
}
