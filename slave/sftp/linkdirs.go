package sftp

import (
	"strings"

	"georep/marker/xtime"
	"georep/slave/sftp/index"
)

// This file has what becomes of the names of inodes with several when their directory leaves the tree, and comes back.

// forgetBelow does what forgetName does for all names in a directory that has left the tree, which
// lay at path and is parked as name. The caller has park.mu, so that the directory does not come
// back meanwhile.
func (ln *links) forgetBelow(id index.ID, path, parked string) error {
	// Without a single book there is nothing to forget, and no shard to be read: the usual case.
	if any, err := ln.anyIn(index.Links); err != nil || !any {
		return err
	}
	return ln.linkedBelow(id, path, func(at string, e index.Entry) {
		others := ln.forgetName(e, at, true)
		ln.park.twice.add(e.Record.GFID, parked+strings.TrimPrefix(at, path), others)
	})
}

// backBelow takes the names in a directory that came back to path into the link table again. They
// are to be checked: the inode may have changed through a name that is gone, while this one was
// none. What cannot be remembered is logged.
func (ln *links) backBelow(id index.ID, path string) error {
	if any, err := ln.anyIn(index.Links, index.Pending); err != nil || !any && ln.park.twice.none() {
		return err
	}
	return ln.linkedBelow(id, path, func(at string, e index.Entry) {
		if err := ln.backName(at, e); err != nil {
			ln.log.Warn().Stringer("gfid", e.Record.GFID).Err(err).Msg("remember a name of an inode")
		}
	})
}

// backName is backBelow for one name. An inode of which neither a row nor a mark is left has this
// name only.
func (ln *links) backName(path string, e index.Entry) error {
	g := e.Record.GFID
	ln.park.twice.learn(g, path)
	ln.mu.Lock()
	defer ln.mu.Unlock()
	row, err := ln.row(g)
	if err != nil {
		return err
	}
	_, marked, err := ln.idx.Get(index.Pending, g.String())
	if err != nil || len(row.names) == 0 && !marked {
		return err
	}
	if len(row.names) == 0 { // how many there should be went with the last of them
		row.Ino, row.Want, row.At = e.Ino, e.Links, e.Record.Xtime
	}
	row.add(path)
	if err := ln.writeRow(g, row); err != nil {
		return err
	}
	return ln.toBeChecked(g, row.Ino)
}

// unclaimed takes the marks off inodes of whose names none is to be checked. One of those of which
// names were removed may lie in a parked directory, come back with that, and have changed through a
// name that is gone. So the directories there lose their stamps first: then a crawl comes to it.
// Where it is not known what lies in parked directories, all of them do. park.mu is held over the
// whole of it, so that none comes back with a stamp that is about to be taken off.
func (ln *links) unclaimed(gfids []xtime.GFID, removed map[xtime.GFID]bool) error {
	var paths []string
	unknown := false
	for _, g := range gfids {
		if !removed[g] {
			continue
		}
		at, full, err := ln.park.indexed(g)
		if err != nil {
			return err
		}
		paths, unknown = append(paths, at...), unknown || full
	}
	ln.park.mu.Lock()
	defer ln.park.mu.Unlock()
	if unknown {
		all, err := ln.park.allIndexed()
		if err != nil {
			return err
		}
		paths = append(paths, all...)
	}
	if err := ln.park.unstampAbove(paths...); err != nil {
		return err
	}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	for _, g := range gfids {
		// A large file may have got a name since, from beside the crawl.
		_, keep, err := ln.groupLocked(g, removed[g])
		if err == nil && !keep {
			err = ln.idx.Delete(index.Pending, g.String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nameParked remembers that a name of an inode has left the tree, at path, for a place of its own
// in the park.
func (ln *links) nameParked(old index.Entry, path, parked string) {
	if others := ln.forgetName(old, path, false); len(others) > 0 || old.Links > 1 {
		ln.park.twice.add(old.Record.GFID, parked, others)
	}
}
