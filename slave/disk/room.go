package disk

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// tmpfsLeast is how many free inodes a tmpfs has room for xattrs with: it counts those as inodes of a KiB each.
const tmpfsLeast = 128

// hasRoom tells whether the file system has blocks and inodes left. A statfs that fails says no:
// then an error counts as a full disk, which is tried again.
func (s *store) hasRoom() bool {
	fs, err := s.dir.Statfs()
	if err != nil || fs.Bavail*uint64(fs.Bsize) <= 1<<20 {
		return false
	}
	least := uint64(1)
	if fs.Type == unix.TMPFS_MAGIC {
		least = tmpfsLeast
	}
	return fs.Files == 0 || fs.Ffree >= least
}

// noRoom tells whether err says that this entry can have no further xattr, while the file system itself has room. ext4 says
// ENOSPC where an inode's xattrs outgrow its one block; so does btrfs for one that is larger than a leaf.
func (s *store) noRoom(err error) bool {
	if errors.Is(err, slave.ErrLimit) {
		return false
	}
	switch slave.Errno(err) {
	case unix.ENOSPC, unix.EDQUOT, unix.E2BIG, unix.ERANGE:
		return s.hasRoom()
	}
	return false
}

// roomError marks trouble as that of one entry: without the mark the errno would say that the slave
// is full. ErrXattrRoom is a trouble of one entry. The crawler goes on with the others, and names
// this one.
func (s *store) roomError(err error) error {
	if err == nil || !s.noRoom(err) {
		return err
	}
	var pe *slave.PathError
	if errors.As(err, &pe) {
		return err
	}
	return fmt.Errorf("%w: %w", slave.ErrXattrRoom, err)
}

// here is the place of the entry that is changed.
func (c *change) here() place {
	d, name := c.inode.Place()
	return place{d, name}
}

// evict takes the record off the entry, which has no room for it: it is written beside when all
// else is done. From here until aside the entry has no record at all. A crash in between costs a
// comparison.
func (c *change) evict() error {
	if c.beside {
		return nil
	}
	for _, attr := range []string{c.r.names.Xtime, c.r.names.GFID} {
		if err := c.r.sys.removexattr(c.inode, attr); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	c.beside, c.evicted = true, true
	return nil
}

// unfit handles that the entry has no room for a part of its record.
func (c *change) unfit(err error) error {
	if err == nil || !c.r.noRoom(err) {
		return err
	}
	if !c.r.identifies {
		return c.r.roomError(err)
	}
	return c.evict()
}

// repack makes room for the master's xattrs: the record goes, and they are set anew in the order in
// which the master's file system lists them. An ext4 lists what is in the inode first, then what is
// in the block: set in this order they fit wherever they fitted before. What does not fit even then
// is lost. It removes before it sets, so for a moment an entry has fewer attributes than before; an
// ACL of an entry that others see is left in place for that reason.
func (c *change) repack() error {
	if c.r.identifies {
		if err := c.evict(); err != nil {
			return err
		}
	}
	for i := range c.meta.Xattrs {
		name, ok := c.r.attrName(c.meta.Xattrs[i].Name)
		if !ok {
			continue
		}
		if c.inPlace && strings.HasPrefix(name, "system.") {
			continue // without its ACL the file would be open to its group for a moment
		}
		if err := c.r.sys.removexattr(c.inode, name); err != nil && !errors.Is(err, unix.ENODATA) && !c.forgive(name, err) {
			return err
		}
	}
	c.packed = true
	for i := range c.meta.Xattrs {
		if err := c.xattr(&c.meta.Xattrs[i]); err != nil {
			return c.r.roomError(err)
		}
	}
	if !c.short || !c.evicted {
		return nil
	}
	// The record was not what kept it from fitting.
	c.beside, c.evicted, c.had = false, false, slave.Record{}
	return c.gfid()
}

// final is the record that the entry is to have at the end. A directory keeps its stamp as long as
// it keeps its GFID. It is computed at the end, when it is known what became of the old record.
func (c *change) final() slave.Record {
	rec := c.had
	if !c.record.GFID.IsZero() && rec.GFID != c.record.GFID {
		rec = slave.Record{GFID: c.record.GFID}
	}
	if c.stamps {
		rec.Xtime = c.record.Xtime
	}
	return rec
}

// aside writes the record that has no room on the entry beside it.
func (c *change) aside() error {
	if !c.beside || !c.kind.CarriesRecord(c.r.names.Namespace) {
		return nil
	}
	rec := c.final()
	if rec.GFID.IsZero() || !c.evicted && rec == c.had {
		return nil
	}
	return c.r.putBeside(c.here(), rec)
}
