package disk

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/disk/dirty"
)

// fewFiles is how many staged files are cheaper to sync one by one than with their whole file system.
const fewFiles = 4

// committer is the goroutine that changes the tree: it takes all batches that wait as one group,
// makes durable what they have staged, has the publisher carry them out, and lets the stamps follow
// after the next sync (invariants 5 and 7). What it has it shares with nobody, so it has no lock.
// Every change of the tree is made by its goroutine, so operations see each other's results without
// locks. Contents are written by others, into files that have no name in the tree yet.
type committer struct {
	*records
	own     *ownership
	finder  *finder
	parents *parents
	marks   *dirty.Journal
	links   *links
	stager  *stager
	cleaner *cleaner
	// publisher, stager and the others are wired in newCommitter, and live as long as the
	// committer.
	publisher *publisher
	queue     *queue
	stamps    []stamp // published, and waiting for the next sync
	// unfinished operations gave way to what waited. A finish of the same batch waits for them here: their names may lie anywhere.
	unfinished []unfinished
}

// unfinished is an operation that goes on after the next group.
type unfinished struct {
	tk *ticket
	it *item
}

// stamp is the xtime of a finished directory.
type stamp struct {
	it *item
	tk *ticket
}

// loop takes group after group until the Tree is closed. Stamps that wait when nothing else does
// get a sync of their own. The switch is the order of work: what waits comes first, then stamps,
// then what gave way. So a stamp waits for at most one group, and a large operation for as long as
// others keep coming.
func (c *committer) loop() {
	c.links.park.twice.all = !c.info.LinksClean && c.info.Parked > 0
	defer c.parents.forget()
	for {
		if c.live(context.Background()) != nil {
			return
		}
		group, before := c.queue.take(), len(c.unfinished)
		if (len(group) > 0 || len(c.stamps) > 0 || len(c.unfinished) > 0) && c.own.lostRoot() {
			return // nothing of it reaches the path
		}
		switch {
		case len(group) > 0:
			c.runGroup(group)
		case len(c.stamps) > 0:
			c.writeStamps(c.syncAll())
		case len(c.unfinished) > 0:
		default:
			select {
			case <-c.queue.wake:
			case <-c.done:
			case <-c.closing:
			}
		}
		c.resume(before)
	}
}

// resume has the first n of those that gave way go on, each for one more step: those that began before the last group.
func (c *committer) resume(n int) {
	if n == 0 {
		return
	}
	now := c.unfinished[:n]
	c.unfinished = slices.Clone(c.unfinished[n:])
	for _, u := range now {
		c.run(u.tk, u.it)
	}
	c.endGroup()
}

// runGroup makes durable what the group staged, lets the stamps of the group before follow, and
// publishes. Syncing comes before publishing: what gets a name in the tree is durable by then.
// Results are given one by one, and a batch is done with its last.
func (c *committer) runGroup(group []*ticket) {
	c.publisher.prefetch(group)
	c.syncGroup(group)
	for _, tk := range group {
		tk.left = len(tk.items)
		if tk.left == 0 {
			close(tk.done)
		}
		for i := range tk.items {
			c.run(tk, &tk.items[i])
		}
	}
	c.endGroup()
}

// endGroup writes down, and lets go, what was learnt and kept for the operations before. Rows of
// the link table, open directories and the GFID index are kept over a group, since operations of
// one group often concern the same directories and inodes.
func (c *committer) endGroup() {
	c.links.flush()
	c.parents.forget()
	c.marks.Forget()
	c.finder.commit()
}

// stagedIn collects what the group has in staging: the operations that failed there already, and those that stage
// nothing, need no sync.
func stagedIn(group []*ticket) []*item {
	var all []*item
	for _, tk := range group {
		for i := range tk.items {
			if tk.items[i].staged != "" {
				all = append(all, &tk.items[i])
			}
		}
	}
	return all
}

// syncStaged makes the staged files durable, and everything done before if stamps wait for that, or
// whole. Below fewFiles files it syncs each of them, which spares others' data on the same file
// system, and where another program serves that it always does, since nothing else reaches the disk there. The journal of dirty inodes goes first: its marks must be durable before the names that
// they are about.
func (c *committer) syncStaged(staged []*item, whole bool) error {
	few := len(staged) <= fewFiles
	for _, it := range staged {
		few = few && it.file
	}
	all := whole || len(c.stamps) > 0 || !few || c.marks.Many()
	if all && !beneath.Opaque(c.dir) {
		return c.syncAll()
	}
	if err := c.marks.Sync(); err != nil {
		return err
	}
	for _, it := range staged {
		if !it.file {
			continue // a name alone, which syncAll sees to
		}
		if err := c.syncOne(it); err != nil {
			return err
		}
	}
	if all {
		return c.syncAll()
	}
	return nil
}

// syncOne makes one staged file durable. Its name in staging need not be: after a crash staging is cleared anyway.
func (c *committer) syncOne(it *item) error {
	f, err := c.staging.OpenInode(it.staged)
	if errors.Is(err, unix.EACCES) {
		// An ordinary user's file that its owner may not read.
		return c.sys.syncfs(c.dir)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return c.sys.fsync(f)
}

// writeStamps writes the stamps that waited for a sync, whose outcome is err. After a failed sync
// nobody knows what of the pass is durable, so none of its stamps follows. A stamp that fails like
// this is no loss: the next crawl compares the directory and sends the stamp again. Held is asked
// at the last moment, since a failure below may have come after the finish.
func (c *committer) writeStamps(err error) {
	stamps := c.stamps
	c.stamps = nil
	if err != nil {
		c.log.Error().Err(err).Str("slave", c.info.Path).Msg("sync")
		if n := len(stamps); n > 0 {
			c.publisher.holds.Unsynced(stamps[n-1].it.op.Pass)
		} else {
			c.publisher.holds.UnsyncedAny()
		}
	}
	for _, s := range stamps {
		op := s.it.op
		switch {
		case err != nil:
			c.stager.fail(s.it, err)
		case c.publisher.holds.Held(op.Pass, op.Path):
			c.stager.fail(s.it, slave.ErrHeldBack)
		default:
			if err := c.cleaner.evicting(s.it, func() error { return c.writeStamp(s.it) }); err != nil {
				c.stager.fail(s.it, err)
				c.publisher.holds.Failed(op.Pass, op.Path)
			}
		}
		s.it.done = true
		s.tk.finish()
	}
	c.parents.forget()
}

// finish counts a final result; the last one ends the wait for the batch. It may be called only by
// the committer, and once for each item.
func (tk *ticket) finish() {
	if tk.left--; tk.left == 0 {
		close(tk.done)
	}
}

// writeStamp puts the xtime on a directory, if it still is the one that was finished.
func (c *committer) writeStamp(it *item) error {
	d, err := c.openDir(it.op.Path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = c.stampDir(d, it)
	if c.root || !errors.Is(err, unix.EACCES) {
		return err
	}
	return c.lifted(d.At(""), func() error { return c.stampDir(d, it) })
}

// stampDir is writeStamp for the directory itself. Which it is is checked at the last moment:
// another part of the crawl, or whoever has access to the slave, may have put another directory, or
// another copy of the same, there since its finish. Where the record does not fit on the directory
// any more it goes beside, and only then leaves the entry: at no moment is there none, and at no
// moment do two say different things.
func (c *committer) stampDir(d *beneath.Dir, it *item) error {
	op, p := it.op, place{d, ""}
	had, beside, err := c.readRecord(p)
	if err != nil {
		return err
	}
	if !op.Record.GFID.IsZero() && had.GFID != op.Record.GFID {
		return slave.ErrConflict
	}
	if st, err := d.Stat(""); err != nil || copyOf(st) != it.copy {
		return errors.Join(err, slave.ErrMoved)
	}
	rec := slave.Record{GFID: had.GFID, Xtime: op.Record.Xtime}
	if beside {
		return c.putBeside(p, rec)
	}
	b := op.Record.Xtime.Bytes()
	err = c.sys.setxattr(d.At(""), c.names.Xtime, b[:])
	if !c.noRoom(err) || !c.identifies || had.GFID.IsZero() {
		return c.roomError(err)
	}
	if err := c.putBeside(p, rec); err != nil {
		return err
	}
	for _, attr := range []string{c.names.Xtime, c.names.GFID} {
		if err := c.sys.removexattr(d.At(""), attr); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	return nil
}

// run publishes one operation and books its result. It may be called again for an operation that
// gave way, which then goes on. A finish waits for those of its batch that did.
func (c *committer) run(tk *ticket, it *item) {
	op := it.op
	if len(c.parents.dirs) >= maxDirs {
		c.parents.forget()
	}
	if op.Kind == slave.OpFinish && !it.done && c.goesOn(tk) {
		c.unfinished = append(c.unfinished, unfinished{tk, it})
		return
	}
	if op.Kind == slave.OpFinish && !it.done && tk.holdsBack(op) {
		c.stager.fail(it, slave.ErrHeldBack)
	}
	if !it.done {
		err := c.cleaner.evicting(it, func() error { return c.publisher.publish(it) })
		if errors.Is(err, errUnfinished) {
			c.unfinished = append(c.unfinished, unfinished{tk, it})
			return
		}
		if err != nil {
			c.stager.fail(it, err)
		}
	}
	if it.res.Err != nil && op.Kind != slave.OpFinish {
		tk.failed = append(tk.failed, op)
	}
	c.stager.drop(it) // where publishing did without it
	if op.Kind == slave.OpFinish && c.wantsStamp(it) {
		c.stamps = append(c.stamps, stamp{it, tk})
		return
	}
	it.done = true
	tk.finish()
}

// holdsBack tells whether an operation is not to be done, since another of the batch has failed.
func (tk *ticket) holdsBack(op *slave.Op) bool {
	return slices.ContainsFunc(tk.failed, func(failed *slave.Op) bool { return apply.HoldsBack(failed, op) })
}

// goesOn tells whether an operation of the batch is not finished.
func (c *committer) goesOn(tk *ticket) bool {
	return slices.ContainsFunc(c.unfinished, func(u unfinished) bool { return u.tk == tk })
}

// wantsStamp tells whether a finished directory waits for its stamp, and remembers it if its finish failed.
func (c *committer) wantsStamp(it *item) bool {
	op := it.op
	if it.res.Err != nil {
		if !errors.Is(it.res.Err, slave.ErrHeldBack) {
			c.publisher.holds.Failed(op.Pass, op.Path)
		}
		return false
	}
	if !op.Stamp || op.Record.Xtime == 0 {
		return false
	}
	if c.publisher.holds.Held(op.Pass, op.Path) {
		c.stager.fail(it, slave.ErrHeldBack)
		return false
	}
	return true
}

// syncAll makes durable all that was written to the slave. On success the marks of dirty inodes
// that waited for a sync are let go, and replaced files of the GFID index removed. An error says
// that nothing written since the last sync is certain.
func (c *committer) syncAll() error {
	written := c.finder.index.Written()
	c.marks.BeginSync()
	if err := c.sys.syncfs(c.dir); err != nil {
		return err
	}
	c.marks.EndSync(func(g xtime.GFID, err error) {
		c.log.Warn().Stringer("gfid", g).Err(err).Msg("forget an inode with missing names")
	})
	if err := c.finder.index.Synced(written); err != nil {
		c.log.Warn().Err(err).Msg("remove an old part of the index of GFIDs")
	}
	return nil
}
