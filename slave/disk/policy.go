package disk

import (
	"georep/slave"
)

// This file holds what a master asks for to the policy of the slave's host (invariant 18). What the policy changes is told as lost, as
// what an ordinary user's slave cannot keep.

// policyLimits is what a master is told of the policy. It tells the crawler what to expect, so that
// a verification does not name as different what the policy changed.
func (s *store) policyLimits() slave.PolicyLimits {
	l := slave.PolicyLimits{NoSetuid: s.policy.NoSetuid, NoDevices: s.policy.NoDevices, KeepRoot: s.policy.KeepRootMode}
	if s.policy.FakeOwner {
		return slave.PolicyLimits{KeepRoot: l.KeepRoot, Fake: true} // the rest changes nothing of what is kept
	}
	if o := s.policy.Owner; o != nil {
		l.Owned, l.UID, l.GID = true, o.UID, o.GID
	}
	return l
}

// wantedOwner is the owner that an entry gets. Ids that the user namespace does not have are left as they are.
func (c *change) wantedOwner() (uid, gid uint32) {
	if o := c.r.policy.Owner; o != nil {
		return o.UID, o.GID
	}
	if c.r.policy.FakeOwner {
		return c.now.uid, c.now.gid
	}
	uid, gid = c.meta.UID, c.meta.GID
	if !c.r.info.Limits.HasUID(uid) {
		uid = c.now.uid
	}
	if !c.r.info.Limits.HasGID(gid) {
		gid = c.now.gid
	}
	return uid, gid
}

// keepsRoot tells whether owner, mode and ACLs are the slave's own.
func (c *change) keepsRoot() bool { return c.isRoot && c.r.policy.KeepRootMode }

// mayRun takes off a mode what the policy, or a wrong owner, does not let it have.
func (c *change) mayRun(mode uint32) uint32 {
	wrongOwner := c.lost&slave.LostOwner != 0
	if wrongOwner || c.r.policy.NoSetuid && c.kind != slave.Dir {
		return mode &^ slave.SetIDBits
	}
	return mode
}

// refuses tells whether an entry cannot have an xattr here, whatever the file system says. What it
// refuses is told as lost, and not tried.
func (c *change) refuses(name string) bool {
	if _, ok := c.r.attrName(name); !ok {
		return true
	}
	switch name {
	case attrCapability:
		return c.r.policy.NoSetuid && !c.r.policy.FakeOwner
	case attrACL, attrDefaultACL:
		return c.keepsRoot()
	}
	return c.r.names.Own(name)
}

// ours tells whether an xattr of an entry is bookkeeping of georep's: of this volume, or of one that has the slave for its master.
func (r *records) ours(name string) bool {
	return r.names.Own(name) || r.policy.FakeOwner && name == slave.AttrStat || len(r.masters) > 0 && r.masters[r.names.Foreign(name)]
}

// findVolumes looks whether the slave is the master of further volumes: the root of such a one carries its xtime. Only of those
// whose marks are in the user namespace, where anything else is the user's, that has to be known.
func (r *records) findVolumes() error {
	attrs, err := r.dir.Listxattr("")
	if err != nil {
		return err
	}
	r.masters = map[string]bool{}
	for _, name := range attrs {
		if volume := r.names.Foreign(name); volume != "" {
			r.masters[volume] = true
		}
	}
	return nil
}

// withoutDevice is for a device that this slave does not make: nothing is staged, and what has its name makes way.
func (it *item) withoutDevice() error {
	it.without, it.res.Lost = true, slave.LostDevice
	return nil
}

// doWithout parks what stands where the master has something that the slave does without.
func (pub *publisher) doWithout(it *item) error {
	p, err := pub.parents.open(it.op.Path)
	if err != nil {
		return err
	}
	old, err := pub.look(p)
	switch {
	case err != nil || !old.there:
		return err
	case old.kind == slave.Dir:
		return slave.ErrConflict
	case old.rec.GFID == it.op.Record.GFID, old.rec.GFID.IsZero() && old.kind == it.op.Entry:
		return nil // it was made before the policy was
	}
	return pub.makeWay(it, p, old, slave.Dir) // nothing is renamed over it
}
