package crawler

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/slave"
)

// Which contents are sent ahead of their operations, and how much of them is on its way.
const (
	uploadBytes   = 1 << 20   // of any file
	deltaBytes    = 128 << 10 // of a file of which the slave has an older content
	uploadsAtOnce = 4
	uploadsQueued = 64 // beyond which the crawl waits
	segmentBytes  = 256 << 10
	segmentSpan   = 64 << 20 // of a content with holes
	// What is on its way without an answer, of all uploads together: what a link of this rate holds, within bounds. It is
	// what has to be sent again when the link is cut.
	segmentsAway = 64
	leastAway    = 16
	linkRate     = 150 << 20 // bytes a second
)

// distance is the shortest time that the slave took to answer. It is safe for concurrent use.
type distance struct{ shortest atomic.Int64 }

// share is how much of segmentsAway each segment has to take, so that no more is on its way than a link of linkRate holds,
// after an answer that took so long.
func (d *distance) share(took time.Duration) int64 {
	for {
		was := d.shortest.Load()
		if was != 0 && was <= int64(took) {
			took = time.Duration(was)
			break
		}
		if d.shortest.CompareAndSwap(was, int64(took)) {
			break
		}
	}
	away := int64(took.Seconds() * linkRate / segmentBytes)
	return segmentsAway / min(max(away, leastAway), segmentsAway)
}

// uploads bounds what is sent ahead.
type uploads struct {
	queued   chan struct{}
	active   chan struct{}
	segments *semaphore.Weighted
	buffers  sync.Pool
}

func (u *uploads) init() {
	u.queued = make(chan struct{}, uploadsQueued)
	u.active = make(chan struct{}, uploadsAtOnce)
	u.segments = semaphore.NewWeighted(segmentsAway)
	u.buffers.New = func() any { b := make([]byte, segmentBytes); return &b }
}

// upload is the content of a task that is to be sent ahead of it.
type upload struct {
	dir    *directory
	listed plan.Entry
	basis  string
	over   func()      // frees its place in the queue; may be called more than once
	src    source.File // nil: it is opened when it has its turn
}

// sendAhead tells whether an item's content is to be uploaded first, and waits for a place in the queue if so. The basis
// is what stands under its name, whatever inode that is: after an atomic save it is the old content.
func (w *crawl) sendAhead(d *directory, it *plan.Item, op *slave.Op) *upload {
	if op.Kind != slave.OpPut {
		return nil
	}
	basis := ""
	if s := it.State; s != nil && s.Kind == slave.File && s.Size >= deltaBytes {
		basis = op.Path
	}
	if size := it.Entry.Stat.Size; size < deltaBytes || size < uploadBytes && basis == "" {
		return nil
	}
	a := &upload{dir: d, listed: it.Entry, basis: basis}
	select {
	case w.uploads.queued <- struct{}{}:
	case <-w.ctx.Done():
		return nil
	}
	a.over = sync.OnceFunc(func() { <-w.uploads.queued })
	return a
}

// uploadThen uploads the content of the last of the tasks, and then sends them all. Where it cannot, that task has failed.
func (w *crawl) uploadThen(n *node, tasks []task) {
	last := tasks[len(tasks)-1]
	w.started(n, 1)
	w.tasks.Go(func() error {
		defer w.opsDone(n, 1)
		defer last.ahead.over()
		op := last.op
		w.pending.add(ofContent(&op))
		counted := sync.OnceFunc(func() { w.pending.done(ofContent(&last.op)) })
		defer counted()
		select {
		case w.uploads.active <- struct{}{}:
			defer func() { <-w.uploads.active }()
		case <-w.ctx.Done():
			return nil
		}
		err := w.upload(last.ahead, &op)
		counted()
		var fatal *sessionError
		switch {
		case w.ctx.Err() != nil:
		case errors.As(err, &fatal):
			w.cancel(fatal.error)
		case err != nil:
			w.outcome(n, &last, slave.Result{Err: &slave.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}})
		default:
			w.sendUploaded(n, tasks[:len(tasks)-1], last, op)
		}
		return nil
	})
}

// sendUploaded sends the tasks, of which the last has its content at the slave already. Where the slave says that it has
// not, the content goes with the operation.
func (w *crawl) sendUploaded(n *node, before []task, last task, op slave.Op) {
	plain := last
	plain.ahead = nil
	all := append(append([]task(nil), before...), task{op: op, then: func(r slave.Result) {
		if errors.Is(r.Err, slave.ErrNeedContent) {
			w.send(n, plain)
			return
		}
		w.outcome(n, &last, r)
	}})
	w.send(n, all...)
}

// outcome treats the result of a task.
func (w *crawl) outcome(n *node, t *task, r slave.Result) {
	if t.then != nil {
		t.then(r)
		return
	}
	w.result(n, &t.op, r)
}

// sessionError marks an error that ends the session.
type sessionError struct{ error }

func (e *sessionError) Unwrap() error { return e.error }

// sending is one content on its way.
type sending struct {
	w     *crawl
	src   source.File
	spec  slave.Upload
	state slave.UploadState
	share int64 // of segmentsAway that one segment takes
	group *errgroup.Group
	ctx   context.Context
}

// upload sends the content that op needs and makes op say so. Its error is the path's, or a *sessionError.
func (w *crawl) upload(a *upload, op *slave.Op) error {
	src := a.src
	if src == nil {
		var err error
		if src, err = w.m.OpenFile(a.dir.Dir, &a.listed); err != nil {
			return sourceError(err)
		}
	}
	defer src.Close()
	var err error
	w.c.parked.Add(1) // whatever comes of it, there may be something to clean
	s := &sending{w: w, src: src, spec: slave.Upload{GFID: op.Record.GFID, Version: src.Version(), Size: src.Size(), Basis: a.basis}}
	begun := time.Now()
	if s.state, err = w.c.opts.Tree.Begin(w.ctx, &s.spec); err != nil {
		return &sessionError{err}
	}
	s.share = w.c.distance.share(time.Since(begun))
	if s.state.Err != nil {
		return s.state.Err
	}
	s.group, s.ctx = errgroup.WithContext(w.ctx)
	err = s.send()
	if waited := s.group.Wait(); waited != nil {
		err = waited // what stopped the reading
	}
	if err != nil {
		return err
	}
	torn, err := src.Changed()
	if err != nil {
		return sourceError(err)
	}
	if torn {
		op.Record.Xtime = 0 // it comes back
	}
	op.Uploaded, op.Version, op.Open = true, s.spec.Version, nil
	return nil
}

// sourceError marks trouble as the master's, with an errno that the rest of the crawl knows.
func sourceError(err error) error {
	if source.Gone(err) {
		err = unix.ENOENT
	}
	return errors.Join(slave.ErrSource, err)
}

// send sends what the slave does not have yet.
func (s *sending) send() error {
	ranges := missing(s.state.Have, s.spec.Size)
	if s.state.BlockSize != 0 && len(ranges) > 0 {
		return s.sendDeltas(ranges)
	}
	return s.sendAll(ranges)
}

// sendAll sends ranges as they are.
func (s *sending) sendAll(ranges []slave.Range) error {
	for _, r := range ranges {
		if err := s.sendPlain(r); err != nil {
			return err
		}
	}
	return nil
}

// missing is what of [0, size) is not in have, which is ascending.
func missing(have []slave.Range, size int64) (out []slave.Range) {
	at := int64(0)
	for _, h := range have {
		if h.Off > at {
			out = append(out, slave.Range{Off: at, End: h.Off})
		}
		at = max(at, h.End)
	}
	if at < size {
		out = append(out, slave.Range{Off: at, End: size})
	}
	return out
}

// sendPlain sends a range as it is, without its holes.
func (s *sending) sendPlain(r slave.Range) error {
	out := &segmenter{s: s, at: r.Off}
	for off := r.Off; off < r.End; {
		start, end, err := s.src.Data(off, r.End)
		if err != nil {
			return sourceError(err)
		}
		if start > off {
			if err := out.hole(start); err != nil {
				return err
			}
			off = start
			continue
		}
		n, err := out.fill(s.src, off, end)
		if err != nil {
			return err
		}
		off += n
	}
	return out.flush(r.End)
}

// segmenter gathers parts into segments.
type segmenter struct {
	s     *sending
	at    int64 // where the segment begins
	buf   *[]byte
	used  int
	parts []slave.Part
}

// hole goes on at off.
func (g *segmenter) hole(off int64) error {
	if off-g.at >= segmentSpan {
		return g.flush(off)
	}
	return nil
}

// fill reads data from off on, no more than fits and not beyond end, and tells how much. A file that has become shorter
// reads as zeros from there on: it is torn, and comes back.
func (g *segmenter) fill(src source.File, off, end int64) (int64, error) {
	b, err := g.room()
	if err != nil {
		return 0, err
	}
	b = b[:min(int64(len(b)), end-off)]
	n, err := src.ReadAt(b, off)
	if err != nil {
		return 0, sourceError(err)
	}
	clear(b[n:])
	return int64(len(b)), g.add(slave.Part{Off: off, Data: b})
}

// room gives the free part of the buffer, of which there is always some.
func (g *segmenter) room() ([]byte, error) {
	if g.buf == nil {
		if err := g.s.w.uploads.segments.Acquire(g.s.ctx, g.s.share); err != nil {
			return nil, err
		}
		g.buf = g.s.w.uploads.buffers.Get().(*[]byte)
	}
	return (*g.buf)[g.used:], nil
}

// add takes a part, whose data lie in room.
func (g *segmenter) add(p slave.Part) error {
	g.used += len(p.Data)
	end := p.Off + p.Size()
	if k := len(g.parts) - 1; k >= 0 && p.Data != nil && g.parts[k].Data != nil && g.parts[k].Off+g.parts[k].Size() == p.Off {
		g.parts[k].Data = (*g.buf)[g.used-len(p.Data)-len(g.parts[k].Data) : g.used]
	} else {
		g.parts = append(g.parts, p)
	}
	if g.used == segmentBytes || len(g.parts) == slave.MaxSegmentParts || end-g.at >= segmentSpan {
		return g.flush(end)
	}
	return nil
}

// flush sends what was gathered as the segment that ends at end.
func (g *segmenter) flush(end int64) error {
	if end == g.at {
		return nil
	}
	if _, err := g.room(); err != nil {
		return err
	}
	s, buf := g.s, g.buf
	seg := &slave.Segment{GFID: s.spec.GFID, Version: s.spec.Version, Range: slave.Range{Off: g.at, End: end}, Parts: g.parts}
	g.at, g.buf, g.used, g.parts = end, nil, 0, nil
	s.group.Go(func() error {
		defer func() { s.w.uploads.buffers.Put(buf); s.w.uploads.segments.Release(s.share) }()
		return s.write(seg)
	})
	return s.ctx.Err()
}

func (s *sending) write(seg *slave.Segment) error {
	r, err := s.w.c.opts.Tree.Write(s.ctx, seg)
	if err != nil {
		return &sessionError{err}
	}
	if r.Err == nil {
		s.w.c.opts.Counters.uploaded(seg)
	}
	return r.Err
}
