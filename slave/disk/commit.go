package disk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/places"
)

// fewFiles is how many staged files are cheaper to sync one by one than with their whole file system.
const fewFiles = 4

// committer is the state of the goroutine that changes the tree.
type committer struct {
	stamps []stamp // published, and waiting for the next sync
	holds  holds
	behind behind
}

// stamp is the xtime of a finished directory.
type stamp struct {
	it *item
	tk *ticket
}

// runCommitter takes group after group until the Tree is closed. Stamps that wait when nothing else does get a sync of
// their own.
func (t *Tree) runCommitter() {
	t.work.behind = behind{}
	t.park.twice.all = !t.info.Settled && t.info.Parked > 0
	defer t.parents.forget()
	for {
		if t.live(context.Background()) != nil {
			return
		}
		group := t.queue.take()
		if (len(group) > 0 || len(t.work.stamps) > 0) && t.own.lostRoot() {
			return // nothing of it reaches the path
		}
		switch {
		case len(group) > 0:
			t.runGroup(group)
		case len(t.work.stamps) > 0:
			t.settle(t.syncAll())
		default:
			select {
			case <-t.queue.wake:
			case <-t.done:
			case <-t.closing:
			}
		}
	}
}

// runGroup makes durable what the group staged, lets the stamps of the group before follow, and publishes.
func (t *Tree) runGroup(group []*ticket) {
	t.foresee(group)
	t.syncGroup(group)
	for _, tk := range group {
		tk.left = len(tk.items)
		if tk.left == 0 {
			close(tk.done)
		}
		for i := range tk.items {
			t.run(tk, &tk.items[i])
		}
	}
	t.links.flush()
	t.parents.forget()
	t.marks.forget()
	t.finder.commit()
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

// syncStaged makes the staged files durable, and everything done before if stamps wait for that, or whole.
func (t *Tree) syncStaged(staged []*item, whole bool) error {
	few := len(staged) <= fewFiles
	for _, it := range staged {
		few = few && it.file
	}
	switch {
	case whole || len(t.work.stamps) > 0 || !few || t.marks.manyDone():
		return t.syncAll()
	}
	if err := t.marks.sync(); err != nil {
		return err
	}
	for _, it := range staged {
		if err := t.syncOne(it); err != nil {
			return err
		}
	}
	return nil
}

// syncOne makes one staged file durable. Its name in staging need not be: after a crash staging is cleared anyway.
func (t *Tree) syncOne(it *item) error {
	f, err := t.staging.OpenInode(it.staged)
	if errors.Is(err, unix.EACCES) {
		// An ordinary user's file that its owner may not read.
		return t.sys.syncfs(t.dir)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return t.sys.fsync(f)
}

// settle writes the stamps that waited for a sync, whose outcome is err. After a failed sync nobody knows what of the
// pass is durable, so none of its stamps follows.
func (t *Tree) settle(err error) {
	stamps := t.work.stamps
	t.work.stamps = nil
	if err != nil {
		t.log.Error().Err(err).Str("slave", t.info.Path).Msg("sync")
		t.work.holds.unsynced(stamps)
	}
	for _, s := range stamps {
		op := s.it.op
		switch {
		case err != nil:
			t.stager.fail(s.it, err)
		case t.work.holds.held(op.Pass, op.Path):
			t.stager.fail(s.it, slave.ErrHeldBack)
		default:
			if err := t.cleaner.evicting(s.it, func() error { return t.writeStamp(s.it) }); err != nil {
				t.stager.fail(s.it, err)
				t.work.holds.failed(op.Pass, op.Path)
			}
		}
		s.it.done = true
		s.tk.finish()
	}
	t.parents.forget()
}

// finish counts a final result; the last one ends the wait for the batch.
func (tk *ticket) finish() {
	if tk.left--; tk.left == 0 {
		close(tk.done)
	}
}

// writeStamp puts the xtime on a directory, if it still is the one that was finished.
func (t *Tree) writeStamp(it *item) error {
	d, err := t.openDir(it.op.Path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = t.stampDir(d, it)
	if t.root || !errors.Is(err, unix.EACCES) {
		return err
	}
	return t.lifted(d.At(""), func() error { return t.stampDir(d, it) })
}

// stampDir is writeStamp for the directory itself. Which it is is checked at the last moment: another part of the crawl, or
// whoever has access to the slave, may have put another directory, or another copy of the same, there since its finish.
func (t *Tree) stampDir(d *beneath.Dir, it *item) error {
	op, p := it.op, place{d, ""}
	had, beside, err := t.readRecord(p)
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
		return t.putBeside(p, rec)
	}
	b := op.Record.Xtime.Bytes()
	err = t.sys.setxattr(d.At(""), t.names.Xtime, b[:])
	if !t.noRoom(err) || !t.identifies || had.GFID.IsZero() {
		return t.roomError(err)
	}
	if err := t.putBeside(p, rec); err != nil {
		return err
	}
	for _, attr := range []string{t.names.Xtime, t.names.GFID} {
		if err := t.sys.removexattr(d.At(""), attr); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	return nil
}

// run publishes one operation and books its result.
func (t *Tree) run(tk *ticket, it *item) {
	op := it.op
	if len(t.parents.dirs) >= maxDirs {
		t.parents.forget()
	}
	if op.Kind == slave.OpFinish && !it.done && tk.failedBelow(op.Path) {
		t.stager.fail(it, slave.ErrHeldBack)
	}
	if !it.done {
		if err := t.cleaner.evicting(it, func() error { return t.publish(it) }); err != nil {
			t.stager.fail(it, err)
		}
	}
	if it.res.Err != nil && op.Kind != slave.OpFinish {
		tk.failed = append(tk.failed, op.Path)
	}
	t.stager.drop(it) // where publishing did without it
	if op.Kind == slave.OpFinish && t.wantsStamp(it) {
		t.work.stamps = append(t.work.stamps, stamp{it, tk})
		return
	}
	it.done = true
	tk.finish()
}

// failedBelow tells whether an operation of the batch failed at or below dir.
func (tk *ticket) failedBelow(dir string) bool {
	return slices.ContainsFunc(tk.failed, func(path string) bool {
		return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// wantsStamp tells whether a finished directory waits for its stamp, and remembers it if its finish failed.
func (t *Tree) wantsStamp(it *item) bool {
	op := it.op
	if it.res.Err != nil {
		if !errors.Is(it.res.Err, slave.ErrHeldBack) {
			t.work.holds.failed(op.Pass, op.Path)
		}
		return false
	}
	if !op.Stamp || op.Record.Xtime == 0 {
		return false
	}
	if t.work.holds.held(op.Pass, op.Path) {
		t.stager.fail(it, slave.ErrHeldBack)
		return false
	}
	return true
}

// publish does one operation that is still to be done, and remembers where its inode is from then on.
func (t *Tree) publish(it *item) error {
	// Clean must not delete a parked name that the operation relies on.
	t.park.mu.Lock()
	defer t.park.mu.Unlock()
	if k := it.op.Kind; k == slave.OpPark || k == slave.OpUnpark {
		t.park.moving.Add(1)
		defer t.park.moving.Add(1)
	}
	if err := t.inPlace(it.op); err != nil {
		return err
	}
	if it.without {
		return t.doWithout(it)
	}
	err := t.carryOut(it)
	if err == nil {
		t.notePlace(it.op)
	}
	return err
}

// inPlace tells with ErrMoved that an operation's path does not lie in the directory any more that it is meant for: on their way
// from the master another crawl, or another part of this one, may have moved that. One without a record is new.
func (t *Tree) inPlace(op *slave.Op) error {
	dir, _ := beneath.Split(op.Path)
	if op.In.IsZero() || dir == "" {
		return nil
	}
	if key, known := t.parents.key(op.Path, dir); known && key != places.KeyOf(op.In) {
		return slave.ErrMoved
	}
	return nil
}

// carryOut is publish, with park.mu held.
func (t *Tree) carryOut(it *item) error {
	switch it.op.Kind {
	case slave.OpMkdir:
		return t.mkdirOp(it)
	case slave.OpPut, slave.OpSymlink, slave.OpNode:
		return t.putOp(it)
	case slave.OpLink:
		return t.linkOp(it)
	case slave.OpUnpark:
		return t.unparkOp(it)
	case slave.OpMeta:
		return t.metaOp(it)
	case slave.OpPark:
		return t.parkOp(it)
	case slave.OpFinish:
		return t.finishOp(it)
	case slave.OpFilter:
		return t.own.putFilter(it.op)
	}
	return slave.ErrInvalid
}

// holds knows which directories may not be stamped in a pass.
type holds struct {
	pass  uint32
	above map[string]struct{} // all directories above a failed one
	every bool                // none may: a sync failed
	next  bool                // every is for the next pass that is seen too
}

// enter begins a pass: what failed in the one before says nothing of this one.
func (h *holds) enter(pass uint32) {
	if h.pass != pass || h.above == nil {
		*h = holds{pass: pass, above: map[string]struct{}{}, every: h.next}
	}
}

// failed notes that the finish of path failed.
func (h *holds) failed(pass uint32, path string) {
	h.enter(pass)
	for path != "" {
		path, _ = beneath.Split(path)
		if _, known := h.above[path]; known {
			return
		}
		h.above[path] = struct{}{}
	}
}

// unsynced holds back every stamp of the pass that the waiting stamps are of. Where none waits it cannot be known
// which pass it struck, so the next one seen is held back as well.
func (h *holds) unsynced(waiting []stamp) {
	if len(waiting) > 0 {
		h.enter(waiting[len(waiting)-1].it.op.Pass)
	}
	h.every, h.next = true, len(waiting) == 0
}

// held tells whether a failure lies below path.
func (h *holds) held(pass uint32, path string) bool {
	h.enter(pass)
	_, above := h.above[path]
	return above || h.every
}
