package marker

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// This file is about detached inodes: those that changed through a name that is gone, while they live on under others. Those who
// crawl come to an inode through the directories that are marked, and to these leads no event. The slave remembers names
// that it removes; but of a name that was made, changed the inode and was removed before it ever had it, nobody would know
// (invariants 1 and 14). So the marker looks for a name that the inode still has: where the kernel knew it last. Where that
// leads nowhere, a scan is asked for, which meets all names, and the heartbeat stands still until then.
//
// It does so where a name is gone by the time of the mark of a change through it, and where a young name goes: one that a
// link made while this marker runs. Of names that are older, or were made before the last maxYoung of them, it is taken
// for granted that the slave had them in time.

// detachedInode is an inode with the directory in which an event met it.
type detachedInode struct {
	dir, inode beneath.HandleKey
	// unmarked inodes are stamped through the name that is found, before their directory is.
	unmarked bool // it has no mark of its change yet
	unsure   bool // it may never have been below the root
}

// detachedInodes are what is known of such inodes from one mark to the next.
type detachedInodes struct {
	// astray are the xtimes of inodes that changed through a name that is gone, and of which no other is known. It is used with
	// the core's mu held.
	astray []xtime.Time
	young  young
}

// batchDetached are those of one batch. They are used with the core's mu held.
type batchDetached struct {
	*core
	all  []detachedInode
	met  map[beneath.HandleKey]struct{} // inodes that lie under a name of the batch
	made map[fanotify.Place]struct{}    // names that came about
}

// newDetached begins with the inodes of which a young name has gone. mu is held, as it is during
// the whole mark.
func (c *core) newDetached(b *batch) *batchDetached {
	return &batchDetached{core: c, all: slices.Clone(b.left), met: map[beneath.HandleKey]struct{}{}, made: b.made}
}

// maxYoung is how many young names are remembered at least; twice so many at most.
const maxYoung = 1 << 15

// young are names that links made, in two generations, with their inodes. It is the live goroutine's.
type young struct {
	now, before map[fanotify.Place]beneath.HandleKey
}

// add notes a young name. When one generation is full it becomes the older one, and what was the
// older is forgotten: from then on those names count as known to the slave.
func (y *young) add(p fanotify.Place, k beneath.HandleKey) {
	if len(y.now) >= maxYoung || y.now == nil {
		y.before, y.now = y.now, map[fanotify.Place]beneath.HandleKey{}
	}
	y.now[p] = k
}

// take forgets a name, and gives the inode that it was young for; "" if it was not.
func (y *young) take(p fanotify.Place) beneath.HandleKey {
	k, is := y.now[p]
	if !is {
		k = y.before[p]
	}
	delete(y.now, p)
	delete(y.before, p)
	return k
}

// meet tells whether an inode lies under a name of the batch, which is young where a link made it. The name may go at any
// moment. So the links are counted before the inode is met: it is young, or was not met.
func (s *batchDetached) meet(d *beneath.Dir, p fanotify.Place, k beneath.HandleKey) bool {
	_, made := s.made[p]
	linked := false
	if made {
		st, err := d.Stat(p.Name)
		linked = err != nil || st.Nlink > 1
	}
	if now, err := d.Key(p.Name); err != nil || now != k {
		return false
	}
	s.met[k] = struct{}{}
	if linked {
		s.detached.young.add(p, k)
	}
	return true
}

// lead has the directories marked that lead to the detached inodes of a batch. It is called before
// they are. It adds to depth the directories to be marked, and to n the names that workers are
// told. What it cannot lead to is astray: its xtime is kept until a scan that began later is
// complete, and the heartbeat waits.
func (s *batchDetached) lead(depth map[beneath.HandleKey]int, t xtime.Time, n *note) {
	for k := range s.met {
		n.met(k)
	}
	for _, one := range s.all {
		if _, met := s.met[one.inode]; met {
			continue
		}
		if s.leadTo(&one, depth, t, n) {
			continue
		}
		n.loose(one.dir, one.inode)
		if !one.unsure {
			s.detached.astray = append(s.detached.astray, t)
			s.wantScan()
		}
	}
}

// orphans are inodes that events met in a directory that is gone.
func (s *batchDetached) orphans(dir beneath.HandleKey, in names, unsure bool) {
	for _, inodes := range in {
		for _, k := range inodes {
			s.all = append(s.all, detachedInode{dir: dir, inode: k, unmarked: true, unsure: unsure})
		}
	}
}

// leadTo finds a name of an inode, and has its directory marked. It tells whether nothing is left
// to do for it. Nothing is left to do also for one that is gone with its last name, and for one
// whose only name lies outside of the volume. The kernel's last name is advice: it counts only if
// the inode is found under it now.
func (s *batchDetached) leadTo(one *detachedInode, depth map[beneath.HandleKey]int, t xtime.Time, n *note) bool {
	k := one.inode
	inode, err := s.Root.PinKey(k)
	if err != nil {
		return errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT)
	}
	defer inode.Close()
	st, err := inode.Stat("")
	if err == nil && (st.Nlink == 0 || st.IsDir()) {
		return true // gone; or what moved it is an event of its own
	}
	dir, name := beneath.Split(s.Root.LastPathOf(inode))
	if name == "" {
		return err == nil && st.Nlink == 1 && inode.LastPathHolds() // outside
	}
	d, err := s.Root.OpenPath(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	if now, err := d.Key(name); err != nil || now != k {
		return false
	}
	key, err := s.tree.key(d)
	if err != nil {
		return false
	}
	chain, err := s.tree.chain(key)
	if err != nil || len(chain) == 0 {
		return false
	}
	if one.unmarked && s.stamp(d, name, t) == tree.Again {
		return false
	}
	include(depth, chain)
	n.found(k, key, name)
	return true
}

// retries is how much is known to be unmarked. It is called with mu held.
func (c *core) retries() int64 { return int64(c.retry.size() + len(c.detached.astray)) }

// seekDetached tells whether any inodes are astray, and the xtime of the last mark: those that went astray up to then are met
// by a scan that begins now.
func (c *core) seekDetached() (upto xtime.Time, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock.Last(), len(c.detached.astray) > 0
}

// metDetached says that a scan is complete that began at upto.
func (c *core) metDetached(upto xtime.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detached.astray = slices.DeleteFunc(c.detached.astray, func(t xtime.Time) bool { return t <= upto })
	c.counts.retrying.Store(c.retries())
}
