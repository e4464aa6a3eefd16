package disk

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// item is one operation on its way. It belongs to the caller's goroutine while it is staged, and to
// the committer's from ready on.
type item struct {
	op     *slave.Op
	staged string // name in staging; "" where nothing is staged (any more)
	file   bool   // what is staged is a regular file, which can be synced by itself
	bytes  int64
	done   bool       // res is final
	copy   slave.Copy // of the directory that was finished
	// without is set where the slave does without the entry, and what has its name makes way.
	without bool
	res     slave.Result
	rest    *replacing // an inode with many names whose content is replaced in steps; nil: not begun
}

// stager makes complete in staging what operations publish, on the goroutines of their callers. It
// has no lock: an item is its caller's until it is committed. It may run for many batches at once.
type stager struct {
	*records
	finder  *finder
	uploads *uploads
	cleaner *cleaner
	fresh   shape // what a new file in staging has, created with mode 0777
}

// Apply is Stage and commit. A result that says nothing of an error means: published, and durable
// with the next sync. A stamp's result means: durable.
func (t *Tree) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	commit, err := t.Stage(b)
	if err != nil {
		return nil, err
	}
	return commit(ctx)
}

// Stage reads the batch's contents, in order, into the staging area and returns what commits it. It may run while
// other batches are staged or committed, and makes none of them wait. Results of single operations, failed contents
// among them, come with the commit; an error is the end of the session.
//
// commit queues the batch and waits for its results. It must be called, once. When its ctx ends, the batch is committed
// all the same, only the wait is over. What is never committed is dropped by Close. The batch is the Tree's until commit
// returned.
func (t *Tree) Stage(b *slave.Batch) (commit func(context.Context) ([]slave.Result, error), err error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	tk := t.queue.begin(b)
	for i := range b.Ops {
		it := &tk.items[i]
		t.stager.stage(it)
		tk.bytes += it.bytes
		if err := t.live(context.Background()); err != nil {
			t.queue.remove(tk)
			t.stager.dropAll(tk)
			return nil, err
		}
	}
	if !t.queue.staged(tk) {
		t.stager.dropAll(tk)
		return nil, ErrClosed
	}
	return func(ctx context.Context) ([]slave.Result, error) { return t.await(ctx, tk) }, nil
}

// await queues a staged batch and waits for the committer. When the session ends in the middle,
// nobody can say which operations were applied. The next crawl finds out.
func (t *Tree) await(ctx context.Context, tk *ticket) ([]slave.Result, error) {
	t.queue.ready(tk)
	select {
	case <-tk.done:
		return tk.results(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.finished:
	}
	select {
	case <-tk.done:
		return tk.results(), nil
	default:
		return nil, t.over()
	}
}

// dropAll removes what is staged for a batch. dropAll is for a batch that is given up.
func (s *stager) dropAll(tk *ticket) {
	for i := range tk.items {
		s.drop(&tk.items[i])
	}
}

// drop removes what is staged for an operation. A file that stays is cleared at the next Open.
func (s *stager) drop(it *item) {
	if it.staged == "" {
		return
	}
	s.forgetBeside(place{s.staging, it.staged})
	if err := s.sys.unlink(place{s.staging, it.staged}); err != nil && !errors.Is(err, unix.ENOENT) {
		s.log.Warn().Str("name", it.staged).Err(err).Msg("left in staging")
	}
	it.staged = ""
}

// fail ends an operation. Its result is final from then on. What is staged for it goes at once, to
// make room for others.
func (s *stager) fail(it *item, err error) {
	s.drop(it)
	it.res.Err = trouble(it.op.Kind.String(), it.op.Path, err)
	it.done = true
}

// stage checks an operation and stages what it needs. What is wrong with an operation is its own
// result. Kinds that need nothing in staging cost nothing here.
func (s *stager) stage(it *item) {
	var err error
	if !it.op.Valid() {
		err = slave.ErrInvalid
	}
	switch {
	case it.op.Kind == slave.OpPut && it.op.Uploaded:
		if err == nil {
			err = s.cleaner.evicting(it, func() error { return s.stageUploaded(it) })
		}
	case it.op.Kind == slave.OpPut:
		err = s.stagePut(it, err)
	case err != nil:
	case it.op.Kind == slave.OpSymlink:
		err = s.cleaner.evicting(it, func() error {
			s.drop(it) // what an earlier try left
			return s.stageOther(it, func(p place) error { return s.sys.symlink(it.op.Meta.Target, p) })
		})
	case it.op.Kind == slave.OpNode:
		err = s.cleaner.evicting(it, func() error {
			s.drop(it)
			return s.stageNode(it)
		})
	}
	if err != nil {
		s.fail(it, err)
	}
}

// stagePut stages a file. The content is opened and closed even when bad is set, since the source
// counts on it. Content is closed in any case, and its errors are the source's: the crawler tells
// them from the slave's by that.
func (s *stager) stagePut(it *item, bad error) error {
	if it.op.Open == nil {
		return slave.ErrInvalid
	}
	content, err := it.op.Open()
	if err != nil {
		return slave.SourceError(err)
	}
	if bad == nil {
		bad = s.stageFile(it, content)
	}
	if err := content.Close(); err != nil && bad == nil {
		bad = slave.SourceError(err)
	}
	return bad
}

// stageFile makes the file complete in staging: content, meta and records. Nothing but its name
// changes later. The file gets its meta and record while nobody can see it, so publishing it is one
// rename. A torn content, which changed on the master while it was read, gets no xtime: it is
// shown, and compared again.
func (s *stager) stageFile(it *item, content slave.Content) error {
	name := s.stagingName()
	mode := s.createMode(&it.op.Meta)
	var f *beneath.Inode
	err := s.cleaner.evicting(it, func() (err error) {
		f, err = s.sys.create(place{s.staging, name}, mode)
		return err
	})
	if err != nil {
		return err
	}
	defer f.Close()
	it.staged, it.file = name, true
	held := hold{used: s.sys.used}
	defer held.measure(f)
	end, err := s.copyContent(it, f, content, &held)
	if err != nil {
		return err
	}
	c := &change{
		r: s.records, inode: f, kind: slave.File, meta: &it.op.Meta, now: s.fresh, record: it.op.Record, stamps: true,
	}
	c.now.mode = mode &^ s.umask()
	if end.Torn {
		c.record.Xtime, it.res.Torn = 0, true
	}
	return s.cleaner.evicting(it, func() (err error) {
		it.res.Lost, err = c.apply()
		return err
	})
}

// umask is what this process's mask takes from the modes of new files.
func (s *stager) umask() uint32 { return 0o777 &^ s.fresh.mode }

// createMode is the mode to create a file with, so that root need not set it afterwards. Nobody
// else can look into staging meanwhile. An ordinary user's file gets its mode at the end, since a
// read-only one takes no attributes.
func (s *stager) createMode(m *slave.Meta) uint32 {
	if s.root && !s.policy.FakeOwner {
		return m.Mode & 0o777
	}
	return 0o600
}

// flushStep is how much of a large file is staged before its writing to the device is begun, so that the group's sync
// finds little left to do.
const flushStep = 8 << 20

// copyContent writes the pieces; what lies between them stays a hole. It writes as the pieces come
// and holds one of them in memory. Pieces that go back, or lie beyond the end that the source says,
// are ErrInvalid.
func (s *stager) copyContent(it *item, f *beneath.Inode, content slave.Content, held *hold) (slave.End, error) {
	size, flushed := int64(0), int64(0)
	for {
		piece, err := content.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return slave.End{}, slave.SourceError(err)
		}
		if piece.Off < size {
			return slave.End{}, slave.ErrInvalid
		}
		err = s.cleaner.evicting(it, func() error { return held.more(int64(len(piece.Data))) })
		if err == nil {
			err = s.cleaner.evicting(it, func() error { return s.sys.write(f, piece.Data, piece.Off) })
		}
		if err != nil {
			return slave.End{}, err
		}
		size = piece.Off + int64(len(piece.Data))
		it.bytes += int64(len(piece.Data))
		if size-flushed >= flushStep {
			f.StartFlush(flushed, size-flushed)
			flushed = size
		}
		if err := s.live(context.Background()); err != nil {
			return slave.End{}, err
		}
	}
	end := content.End()
	if end.Size < size {
		return slave.End{}, slave.ErrInvalid
	}
	if end.Size > size {
		return end, s.cleaner.evicting(it, func() error { return s.sys.truncate(f, end.Size) })
	}
	return end, nil
}

// stageNode stages a FIFO, socket or device. One that this user cannot make is left out. Policy and
// rights may both forbid devices. The operation succeeds even so, with what was lost told in the
// result.
func (s *stager) stageNode(it *item) error {
	if s.policy.FakeOwner {
		return s.stageMark(it)
	}
	rdev := uint64(0)
	if it.op.Entry.Device() {
		rdev = it.op.Meta.Rdev
	}
	if it.op.Entry.Device() && s.policy.NoDevices {
		return it.withoutDevice()
	}
	mode := s.createMode(&it.op.Meta)
	err := s.stageOther(it, func(p place) error {
		return s.sys.mknod(p, it.op.Entry.TypeBits()|mode, rdev)
	})
	if errors.Is(err, unix.EPERM) && it.op.Entry.Device() && it.staged == "" {
		return it.withoutDevice()
	}
	return err
}

// stageOther stages what has no content, made by create. Symbolic links and nodes are synced with
// their file system, as they have no descriptor to sync.
func (s *stager) stageOther(it *item, create func(place) error) error {
	name := s.stagingName()
	if err := create(place{s.staging, name}); err != nil {
		return err
	}
	it.staged = name
	kind := it.op.Entry
	if it.op.Kind == slave.OpSymlink {
		kind = slave.Symlink
	}
	c := &change{
		r: s.records, inode: s.staging.At(name), kind: kind, meta: &it.op.Meta, now: s.fresh, record: it.op.Record, stamps: true,
	}
	c.now.mode = s.createMode(&it.op.Meta) &^ s.umask()
	done, err := s.sys.used.grows(c.inode, c.meta, &beneath.Stat{Mode: kind.TypeBits()})
	if err != nil {
		return err
	}
	defer done()
	it.res.Lost, err = c.apply()
	return err
}

// published tells whether an operation that comes again has been applied before.
func (s *stager) published(op *slave.Op) bool {
	n, ok := s.finder.verify(op.Record.GFID, op.Path)
	return ok && op.Record.Xtime != 0 && n.rec == op.Record
}

// stageUploaded makes what was sent ahead complete, with meta and records. An answer that was lost
// makes the operation come again when its content has been published and is not in partial/ any
// more: that is a success. Otherwise a content that is missing is ErrNeedContent.
func (s *stager) stageUploaded(it *item) error {
	err := s.uploads.take(it)
	if errors.Is(err, slave.ErrNeedContent) && s.published(it.op) {
		it.done = true
		return nil
	}
	if err != nil {
		return err
	}
	f, err := s.staging.OpenWrite(it.staged)
	if err == nil {
		defer f.Close()
		c := &change{r: s.records, inode: f, kind: slave.File, meta: &it.op.Meta, record: it.op.Record, stamps: true}
		var st beneath.Stat
		if st, err = f.Stat(); err == nil {
			c.now, err = shapeOf(f, st)
		}
		var done func()
		if err == nil {
			done, err = s.sys.used.grows(f, c.meta, &st)
		}
		if err == nil {
			it.res.Lost, err = c.apply()
			done()
		}
	}
	if err != nil {
		s.uploads.giveBack(it)
		return err
	}
	// The journal goes last: without its content it means nothing.
	for _, suffix := range []string{journalSuffix, basisSuffix} {
		if err := ignoreAbsent(s.sys.unlink(place{s.partial, it.op.Record.GFID.String() + suffix})); err != nil {
			s.log.Warn().Str("gfid", it.op.Record.GFID.String()).Err(err).Msg("left of an upload")
		}
	}
	return nil
}

// stageMark stages an empty file in the place of what is no file. What it stands for is in its
// attributes (fake.go).
func (s *stager) stageMark(it *item) error {
	name := s.stagingName()
	f, err := s.sys.create(place{s.staging, name}, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	it.staged, it.file = name, true
	held := hold{used: s.sys.used}
	defer held.measure(f)
	c := &change{r: s.records, inode: f, kind: it.op.Entry, meta: &it.op.Meta, now: s.fresh, record: it.op.Record, stamps: true}
	c.now.mode = 0o600 &^ s.umask()
	it.res.Lost, err = c.apply()
	return err
}
