package disk

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// keep leaves a uid or gid as it is.
const keep = 1<<32 - 1

// Names of the xattrs that need a place of their own in the order of things.
const (
	attrACL        = slave.AttrACL
	attrDefaultACL = slave.AttrDefaultACL
	attrCapability = slave.AttrCapability
)

// shape is what is known of an entry before it is changed.
type shape struct {
	mode   uint32 // 07777
	uid    uint32
	gid    uint32
	xattrs []string
}

// change sets everything but the content of one entry. One is made for each entry that is changed,
// and used once. An error in the middle leaves the entry with an old xtime or none, so the next
// crawl does it again.
type change struct {
	r      *records
	inode  *beneath.Inode
	kind   slave.Kind
	meta   *slave.Meta
	now    shape
	own    uint32       // the mode before anything was changed
	record slave.Record // what to put on record
	// had follows what this change does to the entry's own record; it says what is on it at this
	// moment.
	had    slave.Record // what is on record
	stamps bool         // the xtime is written too; never for a directory
	lost   slave.Lost
	isRoot bool // of the volume

	inPlace bool // others may look at the entry
	fitting
	acl []byte // the ACL that the slave cannot keep
}

// fitting is how record and xattrs of an entry come to fit where the file system has little room for them.
type fitting struct {
	beside  bool // the record lies beside, or is to
	evicted bool // this change took it off the entry
	packed  bool // the xattrs have been repacked
	short   bool // one did not fit even so
}

// apply runs the steps in the one order that works for root and an ordinary user alike: the records first of the
// xattrs, so that they find room; the mode after owner and ACL, which change it, and after all xattrs, because an
// ordinary user's read-only file takes none; the time last. The xtime of an entry that is in place comes after all, so
// that a crash in between leaves it old. An ordinary user must write it before the mode.
func (c *change) apply() (slave.Lost, error) {
	steps := []func() error{c.open, c.owner, c.gfid, c.keep, c.xattrs, c.mode, c.mtime, c.xtime, c.aside}
	if !c.r.root {
		steps = []func() error{c.open, c.owner, c.gfid, c.keep, c.xattrs, c.xtime, c.mode, c.mtime, c.aside}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return c.lost, err
		}
	}
	return c.lost, nil
}

// open lets an ordinary user write xattrs on what is his. The mode that it gives is taken back by
// the step mode, at the end.
func (c *change) open() error {
	c.own = c.now.mode
	need := uint32(0o600)
	if c.kind == slave.Dir {
		need = 0o700
	}
	if c.r.root || c.kind == slave.Symlink || c.now.mode&need == need {
		return nil
	}
	c.now.mode |= need
	return c.r.sys.chmod(c.inode, c.now.mode)
}

// owner sets uid and gid where they differ. A user who may not give files away keeps them, and at
// least tries the group, which may be one of his own. What an ordinary user may not give is told as
// lost, and the rest goes on: a copy with another owner is better than none.
func (c *change) owner() error {
	uid, gid := c.wantedOwner()
	if c.keepsRoot() {
		uid, gid = c.now.uid, c.now.gid
	}
	if (uid != c.meta.UID || gid != c.meta.GID) && !c.r.policy.FakeOwner {
		c.lost |= slave.LostOwner
	}
	if uid == c.now.uid && gid == c.now.gid {
		return nil
	}
	err := c.r.sys.chown(c.inode, uid, gid)
	if err == nil {
		// The kernel drops the set-id bits here, so the mode must be set again.
		c.now.mode = keep
		return nil
	}
	// EINVAL is an owner that the user namespace does not have, EOVERFLOW one that the mount does not.
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOVERFLOW) {
		return err
	}
	if !c.r.policy.FakeOwner {
		c.lost |= slave.LostOwner
	}
	if gid != c.now.gid && uid != c.now.uid && c.r.sys.chown(c.inode, keep, gid) == nil {
		c.now.mode = keep
	}
	return nil
}

// gfid puts the GFID on record where another or none is.
func (c *change) gfid() error {
	if !c.kind.CarriesRecord(c.r.names.Namespace) || c.record.GFID.IsZero() || c.beside || c.had.GFID == c.record.GFID {
		return nil
	}
	// An old xtime beside a new GFID would vouch for a content that is not there.
	if c.had.Xtime != 0 {
		if err := c.r.removeXtime(c.inode); err != nil {
			return err
		}
		c.had.Xtime = 0
	}
	return c.unfit(c.r.sys.setxattr(c.inode, c.r.names.GFID, c.record.GFID[:]))
}

// xtime puts the xtime on record, or takes an old one away where the content has none (it is torn).
func (c *change) xtime() error {
	if !c.stamps || !c.kind.CarriesRecord(c.r.names.Namespace) || c.beside || c.had.Xtime == c.record.Xtime {
		return nil
	}
	if c.record.Xtime == 0 {
		return c.r.removeXtime(c.inode)
	}
	b := c.record.Xtime.Bytes()
	return c.unfit(c.r.sys.setxattr(c.inode, c.r.names.Xtime, b[:]))
}

// xattrs makes the set of xattrs that of the master: what is too much goes first, a capability comes last.
func (c *change) xattrs() error {
	done, err := c.r.sys.used.xattrs(c.inode, c.meta)
	if err != nil {
		return err
	}
	defer done()
	return c.setXattrs()
}

// setXattrs is xattrs without counting. ENOSPC leads to repack, which frees room by taking the
// record off the entry.
func (c *change) setXattrs() error {
	for _, name := range c.now.xattrs {
		if c.r.ours(name) || c.wants(name) || c.keepsRoot() && c.refuses(name) {
			continue
		}
		err := c.r.sys.removexattr(c.inode, name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !c.forgive(name, err) {
			return err
		}
	}
	for _, last := range []bool{false, true} {
		for i := range c.meta.Xattrs {
			if x := &c.meta.Xattrs[i]; (x.Name == attrCapability) == last {
				err := c.xattr(x)
				if c.r.noRoom(err) {
					return c.repack()
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// wants tells whether the master's entry has this xattr.
func (c *change) wants(name string) bool {
	for i := range c.meta.Xattrs {
		if here, ok := c.r.attrName(c.meta.Xattrs[i].Name); ok && here == name && !c.refuses(c.meta.Xattrs[i].Name) {
			return true
		}
	}
	return false
}

// xattr sets one xattr, whatever value was there.
func (c *change) xattr(x *slave.Xattr) error {
	if c.refuses(x.Name) || x.Name == attrCapability && c.lost&slave.LostOwner != 0 {
		// Privileges of the wrong owner's file are worse than none.
		c.lost |= slave.LostXattr
		return nil
	}
	here, _ := c.r.attrName(x.Name) // refuses knows where there is none
	if x.Name == attrACL && here != attrACL {
		c.acl = x.Value // it is kept, and not in force
	}
	err := c.r.sys.setxattr(c.inode, here, x.Value)
	if here == attrACL {
		c.now.mode = keep
	}
	if err == nil {
		return nil
	}
	if !c.forgive(here, err) {
		return err
	}
	if here == attrACL {
		c.acl = x.Value
	}
	// An older value would say what the master does not: an ACL, or a capability, would give rights.
	if slices.Contains(c.now.xattrs, here) {
		if err := c.r.sys.removexattr(c.inode, here); err != nil && !errors.Is(err, unix.ENODATA) && !c.forgive(here, err) {
			return err
		}
	}
	return nil
}

// forgive tells whether the slave does without this xattr: its file system, or its user, cannot
// have it. What it forgives is told as lost. An error that may pass, or that would leave out what
// the master's users rely on although the slave could have it, is not forgiven.
func (c *change) forgive(name string, err error) bool {
	switch no := slave.Errno(err); {
	case no == unix.EOPNOTSUPP || no == unix.EOVERFLOW: // names that btrfs cannot tell apart
	case no == unix.EINVAL && !strings.HasPrefix(name, "user."):
		// An ACL, or a capability, of an id that the user namespace does not have; a label that is not known here.
	case no == unix.E2BIG || no == unix.ERANGE || no == unix.ENOSPC:
		if !c.packed || !c.r.hasRoom() {
			return false
		}
		c.short = true
	case no == unix.EPERM || no == unix.EACCES:
		if c.r.root && strings.HasPrefix(name, "user.") && c.kind == slave.File {
			return false
		}
	default:
		return false
	}
	c.lost |= slave.LostXattr
	return true
}

// mode sets the permission bits where they differ, or where a step before may have changed them.
// Set-id bits are for the right owner's file only. A set-id bit on the file of a wrong owner would
// let that owner's programs run with rights nobody gave.
func (c *change) mode() error {
	want := c.meta.Mode & 0o7777
	switch {
	case c.kind == slave.Symlink:
		return nil
	case c.keepsRoot():
		if want != c.own {
			c.lost |= slave.LostMode
		}
		want = c.own
	case c.r.policy.FakeOwner:
		want = c.ownMode()
	case c.mayRun(want) != want:
		want = c.mayRun(want)
		c.lost |= slave.LostMode
	}
	if c.acl != nil {
		want = slave.WithoutACL(want, c.acl)
	}
	if want == c.now.mode {
		return nil
	}
	if err := c.r.sys.chmod(c.inode, want); err != nil || c.r.info.Root || want&0o2000 == 0 {
		return err
	}
	// Of the file of a group that is not its own the kernel drops the bit of an ordinary user, and says nothing.
	st, err := c.inode.Stat()
	if err == nil && st.Mode&0o7777 != want {
		c.lost |= slave.LostMode
	}
	return err
}

// mtime comes after all that might touch it. The records do not: xattrs change the ctime alone. What the file system does
// not keep of the time it drops without a word.
func (c *change) mtime() error {
	if c.r.info.Limits.Times.Keep(c.meta.Mtime) != c.meta.Mtime {
		c.lost |= slave.LostTime
	}
	return c.r.sys.setMtime(c.inode, c.meta.Mtime)
}

// shapeOf reads what an entry in place looks like.
func shapeOf(i *beneath.Inode, st beneath.Stat) (shape, error) {
	names, err := i.Listxattr()
	return shape{mode: st.Mode & 0o7777, uid: st.UID, gid: st.GID, xattrs: names}, err
}
