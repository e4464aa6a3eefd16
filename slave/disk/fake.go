package disk

import (
	"georep/internal/beneath"
	"georep/slave"
)

// This file is the policy fake-owner: what the login cannot give to an entry, or is not to, is kept in its xattrs, in the form of
// slave/kept.go. What is there is the login's own: files of mode 0600 and more, directories of 0700 and more, and empty files in
// the place of devices, FIFOs and sockets.

// attrName is the name that an xattr of the master has here; ok is false where it can have none.
func (s *store) attrName(name string) (here string, ok bool) {
	if !s.policy.FakeOwner {
		return name, true
	}
	return slave.KeptName(name)
}

// masterName is the name on the master of an xattr that is here; ok is false for what is none of the master's.
func (s *store) masterName(here string) (name string, ok bool) {
	if !s.policy.FakeOwner {
		return here, true
	}
	return slave.MasterName(here)
}

// keptOf reads what is kept of the entry at p; nil where there is nothing.
func (s *store) keptOf(p place, st *beneath.Stat) (*slave.Kept, error) {
	if !s.policy.FakeOwner {
		return nil, nil
	}
	return slave.KeptAt(p.dir, p.name, st)
}

// keep writes what the entry is on the master. A symbolic link has no room for that. Where the
// xattr does not fit, the record leaves the entry to make room. What is lost even so is told, and
// is no error.
func (c *change) keep() error {
	if !c.r.policy.FakeOwner || c.keepsRoot() {
		return nil
	}
	if c.kind == slave.Symlink {
		if c.meta.UID != c.now.uid || c.meta.GID != c.now.gid {
			c.lost |= slave.LostOwner
		}
		return nil
	}
	k := slave.Kept{Mode: c.kind.TypeBits() | c.meta.Mode&0o7777, UID: c.meta.UID, GID: c.meta.GID}
	if c.kind.Device() {
		k.Rdev = c.meta.Rdev
	}
	err := c.r.sys.setxattr(c.inode, slave.AttrStat, k.Text())
	if c.r.noRoom(err) && c.r.identifies && c.kind.CarriesRecord(c.r.names.Namespace) {
		if err = c.evict(); err == nil {
			err = c.r.sys.setxattr(c.inode, slave.AttrStat, k.Text())
		}
	}
	if c.r.noRoom(err) {
		c.lost |= slave.LostOwner | slave.LostMode
		return nil
	}
	return err
}

// ownMode is the mode that an entry has here: none that would run with anybody's rights, none that
// shuts the login out, and nothing for the group, where that is not the master's. The master's own
// mode is in the xattr. What these bits say is only what the login and its group may do here.
func (c *change) ownMode() uint32 {
	mode := c.meta.Mode & 0o777
	_, gid := c.wantedOwner()
	if gid != c.meta.GID {
		mode &^= 0o070
	}
	switch c.kind {
	case slave.Dir:
		return mode | 0o700
	case slave.File:
		return mode | 0o600
	}
	return 0o600
}
