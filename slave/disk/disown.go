package disk

import (
	"slices"

	"georep/slave"
)

// disown takes the stamps off the directories that the group gives other GFIDs, and returns the operations that do so. The sync of the
// group follows, before any of it is carried out. Otherwise a power cut could leave what came into such a directory, or the lack of
// what was taken out of it, beside its old GFID and its old stamp, which vouch for something else (a file system may write an
// inode's xattrs later than names in it). What is not found yet, since an operation of the group moves it there, is for change.disown.
func (c *committer) disown(group []*ticket) (disowned []*item) {
	for _, tk := range group {
		for i := range tk.items {
			if it := &tk.items[i]; !it.done && c.disownAhead(it.op) {
				disowned = append(disowned, it)
			}
		}
	}
	return disowned
}

// disownAhead tells whether the directory had a stamp, which is gone. Trouble is for whoever comes
// to it in its turn. True is for a stamp that was taken off, which must be durable before the
// operation runs. An error here is met again, and told, when the operation runs.
func (c *committer) disownAhead(op *slave.Op) bool {
	if op.Kind != slave.OpMkdir || op.Path == "" || op.Expect.IsZero() || op.Expect == op.Record.GFID {
		return false
	}
	d, err := c.openDir(op.Path)
	if err != nil {
		return false
	}
	defer d.Close()
	p := place{d, ""}
	rec, beside, err := c.readRecord(p)
	if err != nil || rec.GFID != op.Expect || rec.Xtime == 0 {
		return false
	}
	if beside {
		had, err := c.unstampBeside(p)
		return err == nil && had
	}
	return c.removeXtime(d.At("")) == nil
}

// disown is committer.disown for one directory, which has a stamp still. It is rare, and costs a
// sync in the middle of a group: the directory came to its place by an operation of the same group.
func (c *change) disown() error {
	if c.had.Xtime == 0 || c.had.GFID.IsZero() || c.record.GFID.IsZero() || c.had.GFID == c.record.GFID {
		return nil
	}
	var err error
	if c.beside {
		err = c.r.putBeside(c.here(), slave.Record{GFID: c.had.GFID})
	} else {
		err = c.r.removeXtime(c.inode)
	}
	if err != nil {
		return err
	}
	c.had.Xtime = 0
	return c.r.sys.syncfs(c.r.dir)
}

// syncGroup makes durable what the group staged and disowned, lets the stamps that waited follow, and ends the operations that rely on a
// sync which failed.
func (c *committer) syncGroup(group []*ticket) {
	staged, disowned := stagedIn(group), c.disown(group)
	err := c.syncStaged(staged, len(disowned) > 0)
	stamped := err == nil && len(c.stamps) > 0
	c.writeStamps(err)
	if stamped { // maybe one that was disowned, for which such a stamp had been sent just before
		if again := c.disown(group); len(again) > 0 {
			disowned = append(disowned, again...)
			err = c.syncAll()
			c.writeStamps(err)
		}
	}
	if err == nil {
		return
	}
	for _, it := range slices.Concat(staged, disowned) {
		if !it.done {
			c.stager.fail(it, err)
		}
	}
}
